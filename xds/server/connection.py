"""One open stream: requests in, responses out, and a machine between them.

One task reads the stream's requests and one writes its responses; they share the machine, so there is no queue. What
happens is told to a :class:`Host`, the server. Each step here is paid by every stream for every push.
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


class Bell:
    """Wakes the one task that waits for it; half the price of an ``asyncio.Event``, which serves many."""

    __slots__ = ("_rung", "_waiter")

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the waiter or, if there is none now, the next one at once."""
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            self._rung = True
        elif not waiter.done():
            waiter.set_result(None)

    async def wait(self) -> None:
        """Return when the bell rings, or has rung since the last wait."""
        if not self._rung:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._rung = False


@dataclass(eq=False, slots=True)
class Connection:
    """``bell`` rings whenever the machine may have something to send."""

    machine: Stream
    decode: Decoder
    host: Host
    bell: Bell = field(default_factory=Bell)
    failure: RemoteError | CodecError | None = None
    ended: bool = False

    def end(self) -> None:
        self.ended = True
        self.bell.ring()

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
                if not self.machine.idle:
                    self.bell.ring()
        except (RemoteError, CodecError) as failure:
            self.failure = failure
        finally:
            self.end()

    async def _write(self, context: Context) -> None:
        """Send what is due, one response at a time; requests that have arrived meanwhile are handled first."""
        machine, host = self.machine, self.host
        while not self.ended:
            response = machine.poll(host.now())
            if machine.notices:
                host.noted(self, machine.take_notices())
            if response is None:
                await self.bell.wait()
            else:
                host.sent(self, response)
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
