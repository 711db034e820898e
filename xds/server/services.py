"""Which gRPC method serves which type, in which variant.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#rpc-services-and-methods-for-each-variant
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from xds.types import RUNTIME

Context = grpc.aio.ServicerContext[bytes, bytes]
Behavior = Callable[[Any, Context], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Method:
    """One streaming method. ``type_url`` is empty for the aggregated service, which serves all types."""

    path: str
    delta: bool
    type_url: str = ""


METHODS = (
    Method("/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources", delta=False),
    Method("/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", delta=True),
    Method("/envoy.service.runtime.v3.RuntimeDiscoveryService/StreamRuntime", delta=False, type_url=RUNTIME),
    Method("/envoy.service.runtime.v3.RuntimeDiscoveryService/DeltaRuntime", delta=True, type_url=RUNTIME),
)


class StreamHandler(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Streaming methods by path. Requests and responses stay bytes."""

    def __init__(self, behaviors: Mapping[str, Behavior]) -> None:
        self._handlers = {path: grpc.stream_stream_rpc_method_handler(behavior) for path, behavior in behaviors.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handlers.get(handler_call_details.method)
