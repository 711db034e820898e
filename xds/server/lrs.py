"""LRS: clients report how many requests they sent to each cluster, once per interval, over a stream of their own.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/load_stats/v3/lrs.proto
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from xds import status_codec
from xds.errors import RemoteError
from xds.loads import LoadReport
from xds.protocol.events import Node
from xds.server.calls import Calls, read
from xds.server.gate import Gate, Visit, too_late
from xds.server.services import Context
from xds.server.settings import Settings
from xds.status_codec import LoadMessage

SERVICE = "envoy.service.load_stats.v3.LoadReportingService"

log = logging.getLogger(__name__)


class LoadReporting:
    """Asks every client for reports, and hands them to ``on_load``."""

    def __init__(
        self,
        on_load: Callable[[LoadReport], object] | None,
        *,
        gate: Gate,
        now: Callable[[], float],
        settings: Settings,
    ) -> None:
        self._on_load = on_load
        self._calls = Calls(gate)
        self._now = now
        self._settings = status_codec.load_settings(settings.load_report_seconds)

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The one method; requests and responses stay bytes."""
        method = grpc.stream_stream_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(SERVICE, {"StreamLoadStats": method})

    def stop(self) -> None:
        """End all streams."""
        self._calls.stop()

    async def _serve(self, _requests: object, context: Context) -> None:
        await self._calls.serve(context, lambda visit: self._stream(context, visit))

    async def _stream(self, context: Context, visit: Visit) -> None:
        """From the first message, which is answered with what is asked for, to the last."""
        node = await self._introduced(context, visit)
        await context.write(self._settings)
        while (data := await read(context, visit)) is not None:
            message = status_codec.decode_load_message(data)
            _check_node(node, message.node)
            self._report(node, message)

    async def _introduced(self, context: Context, visit: Visit) -> Node:
        """As on ADS: the first message says who the client is."""
        try:
            async with asyncio.timeout(visit.ticket.limits.first_request_seconds):
                data = await read(context, visit)
        except TimeoutError:
            raise too_late() from None
        node = status_codec.decode_load_message(data or b"").node
        if node is None or not node.id:
            raise RemoteError("the first load report of a stream has no node.id; set node.id in the bootstrap")
        self._calls.gate.introduce(visit, node)
        return node

    def _report(self, node: Node, message: LoadMessage) -> None:
        """A listener that fails must not cost a client its stream."""
        if self._on_load is None or not message.clusters:
            return
        try:
            self._on_load(LoadReport(node.id, node.cluster, self._now(), message.clusters))
        except Exception:
            log.exception("a listener failed on a load report of %s", node.id)


def _check_node(known: Node, told: Node | None) -> None:
    """Who the client is never changes."""
    if told is not None and told.id and told.id != known.id:
        raise RemoteError(f"node.id changed from {known.id!r} to {told.id!r}; open another stream for it")
