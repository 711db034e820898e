"""Which gRPC method serves which type, in which variant.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#rpc-services-and-methods-for-each-variant
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from xds.types import (
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    ROUTE,
    RUNTIME,
    SCOPED_ROUTE,
    SECRET,
    VIRTUAL_HOST,
)

Context = grpc.aio.ServicerContext[bytes, bytes]
Behavior = Callable[[Any, Context], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Method:
    """One streaming method. ``type_url`` is empty for the aggregated service, which serves all types."""

    path: str
    delta: bool
    type_url: str = ""


#: Service, what its methods are named after, type. Virtual hosts have no state-of-the-world method.
_SERVICES = (
    ("discovery.v3.AggregatedDiscoveryService", "AggregatedResources", ""),
    ("cluster.v3.ClusterDiscoveryService", "Clusters", CLUSTER),
    ("endpoint.v3.EndpointDiscoveryService", "Endpoints", ENDPOINT),
    ("listener.v3.ListenerDiscoveryService", "Listeners", LISTENER),
    ("route.v3.RouteDiscoveryService", "Routes", ROUTE),
    ("route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes", SCOPED_ROUTE),
    ("route.v3.VirtualHostDiscoveryService", "VirtualHosts", VIRTUAL_HOST),
    ("secret.v3.SecretDiscoveryService", "Secrets", SECRET),
    ("extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs", EXTENSION_CONFIG),
    ("runtime.v3.RuntimeDiscoveryService", "Runtime", RUNTIME),
)

METHODS = tuple(
    Method(f"/envoy.service.{service}/{'Delta' if delta else 'Stream'}{noun}", delta, type_url)
    for service, noun, type_url in _SERVICES
    for delta in (False, True)
    if delta or type_url != VIRTUAL_HOST
)


class StreamHandler(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Streaming methods by path. Requests and responses stay bytes."""

    def __init__(self, behaviors: Mapping[str, Behavior]) -> None:
        self._handlers = {path: grpc.stream_stream_rpc_method_handler(behavior) for path, behavior in behaviors.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handlers.get(handler_call_details.method)
