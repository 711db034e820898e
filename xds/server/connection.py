"""One open stream: requests in, responses out, and a machine between them.

One task reads the stream's requests and one writes its responses; they share the machine and an event, so there is
no queue. What happens is told to a :class:`Host`, the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from xds.errors import CodecError, RemoteError
from xds.protocol.events import DeltaRequest, Notice, Response, SotwRequest
from xds.protocol.stream import Stream
from xds.server.services import Context

Decoder = Callable[[bytes], SotwRequest | DeltaRequest]


class Host(Protocol):
    """What a connection needs of its server."""

    def now(self) -> float:
        """Seconds on the clock of leases."""

    def introduced(self, connection: Connection, request: SotwRequest | DeltaRequest) -> None:
        """The first request arrived: provide what its node should have. RemoteError refuses the stream."""

    def opened(self, connection: Connection) -> None:
        """The machine knows who the client is."""

    def sent(self, connection: Connection, response: Response) -> None:
        """A response goes out."""

    def noted(self, connection: Connection, notices: list[Notice]) -> None:
        """Something happened that people want to know."""


@dataclass(eq=False, slots=True)
class Connection:
    """``wake`` is set whenever the machine may have something to send."""

    machine: Stream
    decode: Decoder
    host: Host
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    failure: RemoteError | CodecError | None = None
    ended: bool = False

    def end(self) -> None:
        self.ended = True
        self.wake.set()

    async def run(self, context: Context) -> None:
        """Serve until either side ends the stream."""
        reader = asyncio.create_task(self._read(context))
        try:
            await self._write(context)
        finally:
            reader.cancel()

    async def _read(self, context: Context) -> None:
        """Feed requests to the machine until the client ends the stream or breaks the protocol."""
        try:
            while isinstance(data := await context.read(), bytes):  # anything else is the end
                self._receive(data)
                self.wake.set()
        except (RemoteError, CodecError) as failure:
            self.failure = failure
        finally:
            self.end()

    async def _write(self, context: Context) -> None:
        """Send what is due, one response at a time; requests that have arrived meanwhile are handled first."""
        while not self.ended:
            self.wake.clear()
            response = self.machine.poll(self.host.now())
            self.host.noted(self, self.machine.take_notices())
            if response is None:
                await self.wake.wait()
                continue
            self.host.sent(self, response)
            await context.write(response.data)

    def _receive(self, data: bytes) -> None:
        machine, request = self.machine, self.decode(data)
        stranger = machine.node is None
        if stranger:
            self.host.introduced(self, request)
        notices = machine.receive(request, self.host.now())
        if stranger:
            self.host.opened(self)
        self.host.noted(self, notices)
