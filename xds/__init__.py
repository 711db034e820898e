"""A library that turns a mesh model into xDS and streams it to Envoy.

It knows nothing about forecasts. Start at :mod:`xds.model` (what a user means),
:mod:`xds.translate` (model to resources), :mod:`xds.snapshot` (versioned sets of
encoded resources) and :mod:`xds.server` (the gRPC server).
"""

import pkgutil

# Another distribution (xds-protos) may install a top-level ``xds`` as well; both must stay importable.
__path__ = pkgutil.extend_path(__path__, __name__)
