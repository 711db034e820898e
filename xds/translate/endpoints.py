"""EDS: the ready replicas of a service, as the addresses of their sidecars' inbound listeners."""

from __future__ import annotations

from collections.abc import Iterable

from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints

from xds.model import Address, Service
from xds.translate.messages import socket_address


def assignment(service: Service) -> ClusterLoadAssignment:
    """The assignment of cluster ``service.name``; without ready replicas it is there and empty.

    An assignment that is missing would keep Envoy waiting for it; an empty one answers 503 at once.
    """
    return ClusterLoadAssignment(cluster_name=service.name, endpoints=localities(service.endpoints))


def localities(addresses: Iterable[Address]) -> list[LocalityLbEndpoints]:
    """``addresses`` in one locality and in a fixed order, so that the same replicas give the same bytes."""
    ordered = sorted(set(addresses), key=lambda address: (address.host, address.port))
    if not ordered:
        return []
    endpoints = [LbEndpoint(endpoint=Endpoint(address=socket_address(address))) for address in ordered]
    return [LocalityLbEndpoints(lb_endpoints=endpoints)]
