"""grpc.health.v1 on the xDS port, from the same checks as /readyz."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

_INTERVAL = 0.5
_SERVICE = "grpc.health.v1.Health"
#: Who watches keeps a stream open for ever.
_MOST_WATCHERS = 1_000


class Health:
    """Answers ``Check`` and ``Watch`` for the whole server (the service name is empty)."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._servicer: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._watchers = 0

    def handlers(self) -> Sequence[grpc.GenericRpcHandler[Any, Any]]:
        """The handlers to register beside ADS."""
        answer = health_pb2.HealthCheckResponse.SerializeToString
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, response_serializer=answer),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, response_serializer=answer),
        }
        return [grpc.method_handlers_generic_handler(_SERVICE, methods)]

    async def run(self) -> None:
        """Follow the checks until cancelled."""
        states = health_pb2.HealthCheckResponse
        while True:
            await self._servicer.set("", states.SERVING if self._ready() else states.NOT_SERVING)
            await asyncio.sleep(_INTERVAL)

    async def _check(self, data: bytes, context: Any) -> Any:
        return await self._servicer.Check(await _request(data, context), context)

    async def _watch(self, data: bytes, context: Any) -> None:
        request = await _request(data, context)
        if self._watchers >= _MOST_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MOST_WATCHERS} others watch; ask by Check")
        self._watchers += 1
        try:
            await self._servicer.Watch(request, context)
        finally:
            self._watchers -= 1


async def _request(data: bytes, context: Any) -> Any:
    """Decoded here: what gRPC fails to decode it logs with a traceback, and anybody may send anything."""
    try:
        return health_pb2.HealthCheckRequest.FromString(data)
    except Exception as error:  # upb's own, which lives behind protobuf's door
        return await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no HealthCheckRequest: {error}")
