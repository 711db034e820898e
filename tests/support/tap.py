"""A transparent relay between a client and an xDS server that writes down every message, byte for byte as it passes.

What it records is what the client was sent and what the client said, whatever the server believes. A message is
recorded before it is passed on: an answer stands in the trace before the server can act on it, and a response before
the client can answer it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from tests.support.envoys import HOST

_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True, slots=True)
class Record:
    """One message on the stream number ``stream``. ``sent`` tells a response of the server from a request."""

    stream: int
    delta: bool
    sent: bool
    data: bytes = field(repr=False)


class Tap(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Relays streams of any method to ``channel``; ``records`` holds their messages in the order they passed."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.records: list[Record] = []
        self.streams = 0
        self._channel: Any = channel
        self._open: set[Any] = set()

    def cut(self) -> None:
        """Break all streams, wherever they are; a client opens a new one."""
        for upstream in self._open:
            upstream.cancel()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        path = handler_call_details.method

        async def relay(_: object, context: Any) -> None:
            self.streams += 1
            number, delta = self.streams, "/Delta" in path
            upstream = self._channel.stream_stream(path)()
            passing = (
                _passing(context.read, upstream.write, lambda data: Record(number, delta, False, data), self.records),
                _passing(upstream.read, context.write, lambda data: Record(number, delta, True, data), self.records),
            )
            tasks = [asyncio.create_task(one) for one in passing]
            self._open.add(upstream)
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._open.discard(upstream)
                upstream.cancel()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        return grpc.stream_stream_rpc_method_handler(relay)


async def _passing(
    read: Callable[[], Any], write: Callable[[bytes], Any], record: Callable[[bytes], Record], records: list[Record]
) -> None:
    while isinstance(data := await read(), bytes):  # anything else is the end
        records.append(record(data))
        await write(data)


@asynccontextmanager
async def tapped(port: int) -> AsyncIterator[tuple[Tap, int]]:
    """A tap in front of the server on ``port``, and the port that clients should use instead."""
    async with grpc.aio.insecure_channel(f"{HOST}:{port}", options=_OPTIONS) as channel:
        tap, server = Tap(channel), grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((tap,))
        own = server.add_insecure_port(f"{HOST}:0")
        await server.start()
        try:
            yield tap, own
        finally:
            await server.stop(0)
