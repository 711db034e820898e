"""grpc.health.v1 on the xDS port, from the same checks as /readyz."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

_INTERVAL = 0.5


class _Servicer(Protocol):
    async def set(self, service: str, status: Any) -> None: ...


class Health:
    """Answers ``Check`` and ``Watch`` for the whole server (the service name is empty)."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._servicer: _Servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]

    def handlers(self) -> Sequence[grpc.GenericRpcHandler[Any, Any]]:
        """The handlers to register beside ADS."""
        registrar = _Registrar()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, registrar)
        return registrar.handlers

    async def run(self) -> None:
        """Follow the checks until cancelled."""
        states = health_pb2.HealthCheckResponse
        while True:
            await self._servicer.set("", states.SERVING if self._ready() else states.NOT_SERVING)
            await asyncio.sleep(_INTERVAL)


class _Registrar:
    """Takes what the generated code wants to register on a server; the server itself is in :mod:`xds.server`."""

    def __init__(self) -> None:
        self.handlers: list[grpc.GenericRpcHandler[Any, Any]] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]) -> None:
        self.handlers.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """The generic handlers serve the same methods."""
