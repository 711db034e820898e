"""The mesh in processes: services, sidecars, an ingress, load, and the supervisor that owns every child.

The supervisor is a small kubelet: the control plane says how many replicas it desires, processes come out. The
services themselves (:mod:`.service`) and the load generator (:mod:`.load`) import little, because a dozen of them
run at once.
"""
