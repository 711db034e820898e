"""The composition root and the HTTP API of the running control plane."""
