"""One open stream: requests in, responses out, and a machine between them.

One task reads the stream's requests and one writes its responses; they share the machine, so there is no queue. What
happens is told to a :class:`Host`, the server. Each step here is paid by every stream for every push.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from xds.errors import CodecError, InternalError, RemoteError
from xds.protocol.events import DeltaRequest, Notice, Response, SotwRequest
from xds.protocol.stream import Stream
from xds.server.admission import check_request, check_stream, inflated
from xds.server.gate import Visit, expired, too_late
from xds.server.services import Context
from xds.server.slots import Slots

Decoder = Callable[[bytes], SotwRequest | DeltaRequest]
Failure = RemoteError | CodecError | InternalError

log = logging.getLogger(__name__)

#: Seconds in which a client that reconnects says all that it wants; Envoy says it in one breath.
_HEAR_OUT = 0.05


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

    def rested(self, connection: Connection) -> None:
        """Nothing is due."""

    def noted(self, connection: Connection, notices: list[Notice]) -> None:
        """Something happened that people want to know."""


class Bell:
    """Wakes the one task that waits for it; half the price of an ``asyncio.Event``, which serves many."""

    __slots__ = ("_loop", "_rung", "_waiter")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()  # asking for it every time is a call of the system in Python 3.11
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
            self._waiter = self._loop.create_future()
            await self._waiter
        self._rung = False


@dataclass(eq=False, slots=True)
class Connection:
    """``bell`` rings whenever the machine may have something to send. ``holds`` and ``slow`` are about its slot.
    ``checked``: how often the client had asked for something when its limits were last looked at."""

    machine: Stream
    decode: Decoder
    host: Host
    visit: Visit
    slots: Slots
    bell: Bell = field(default_factory=Bell)
    failure: Failure | None = None
    ended: bool = False
    holds: bool = False
    slow: bool = False
    returning: bool = False
    checked: int = 0

    def end(self) -> None:
        """gRPC has no way to end a stream while a response is on its way; it ends as soon as that is read or lost."""
        self.ended = True
        self.bell.ring()

    def fail(self, failure: RemoteError) -> None:
        """End the stream, and let the client know why."""
        self.failure = failure
        self.end()

    async def run(self, context: Context) -> None:
        """Serve until either side ends the stream."""
        timers = self._deadlines(asyncio.get_running_loop())
        reader = asyncio.create_task(self._read(context))
        try:
            await self._write(context)
        finally:
            self.slots.drop(self)
            reader.cancel()
            for timer in timers:
                timer.cancel()

    def _deadlines(self, loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
        """When the client must have said who it is, and when its certificate ends."""
        timers = [loop.call_later(self.visit.ticket.limits.first_request_seconds, self._late)]
        if math.isfinite(self.visit.peer.expires):
            timers.append(loop.call_later(self.visit.peer.expires - self.host.now(), lambda: self.fail(expired())))
        return timers

    def _late(self) -> None:
        if self.machine.node is None:
            self.fail(too_late())

    async def _read(self, context: Context) -> None:
        """Feed requests to the machine until the client ends the stream or breaks the protocol."""
        ticket, clock = self.visit.ticket, asyncio.get_running_loop().time
        try:
            while isinstance(data := await context.read(), bytes):  # anything else is the end
                if (delay := ticket.pace(clock())) > 0.0:
                    await asyncio.sleep(delay)
                self._receive(data)
                if not self.machine.idle:
                    self.bell.ring()
        except (RemoteError, CodecError) as failure:
            self.failure = failure
        except Exception:
            log.exception("a request failed; its stream ends")
            self.failure = InternalError("the server failed on this request; its log says why")
        finally:
            self.end()

    async def _write(self, context: Context) -> None:
        """Send what is due, one response at a time; requests that have arrived meanwhile are handled first."""
        machine, host, slots, clock = self.machine, self.host, self.slots, asyncio.get_running_loop().time
        while not self.ended:
            response = None
            if not machine.idle or machine.leased:  # only leases fall due by themselves
                if not self.slow:
                    if slots.free > 0:
                        slots.free -= 1
                    else:
                        await slots.wait()
                    self.holds = True
                response = machine.poll(host.now())
                if machine.notices:
                    host.noted(self, machine.take_notices())
            if response is None:
                slots.drop(self)
                host.rested(self)
                await self.bell.wait()
                if self.returning:
                    await self._hear_out()
            elif not self.ended:
                host.sent(self, response)
                slots.writing[self] = clock()
                try:
                    await context.write(response.data)
                finally:
                    slots.written(self, clock())

    async def _hear_out(self) -> None:
        """Who comes back asks for one type after the other, and nothing must be removed before it is known whether what
        refers to it is there: a cluster goes after the routes to it."""
        self.returning = False
        await asyncio.sleep(_HEAR_OUT)

    def _receive(self, data: bytes) -> None:
        limits, data = self.visit.ticket.limits, inflated(data, self.visit.ticket.limits.message_bytes)
        machine, request = self.machine, self.decode(data)
        check_request(limits, request, len(data))
        stranger = machine.node is None
        if stranger:
            self.returning = request.returns
            self.host.introduced(self, request)
        try:
            notices = machine.receive(request, self.host.now())
        finally:
            if stranger and machine.node is not None:  # known, even if the rest of the request is refused
                self.host.opened(self)
        if machine.asked != self.checked:
            self.checked = machine.asked
            check_stream(limits, machine)
        self.host.noted(self, notices)
