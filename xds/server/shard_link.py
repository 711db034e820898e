"""The parent's side of one worker: its process, and what it has been told.

One difference at a time: while a worker is busy with what it was told, what is published meanwhile replaces what it
will be told next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol

from xds import feed
from xds.errors import CodecError, PortInUse, TlsError, XdsError
from xds.model import RuntimeLayer
from xds.protocol.leases import Leasable
from xds.server import shard_frames
from xds.server.shard_frames import MAX_FROM_WORKER, Frame, Start
from xds.server.shard_status import ShardedStatus

log = logging.getLogger(__name__)

#: Seconds until a worker's end is forced, beyond the grace that it was given.
_KILL_SECONDS = 3.0
#: Seconds between two tries to start a worker that ends at once.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
#: A worker that lived for so long (seconds) did not end at once.
_LIVED = 10.0
_STATUS_SECONDS = 5.0


class Owner(Protocol):
    """What a link needs of the sharded server."""

    snapshots: feed.Held
    leases: dict[str, Sequence[Leasable]]
    status: ShardedStatus

    def beginning(self, index: int) -> Start:
        """How worker ``index`` begins."""

    def time(self) -> tuple[float, float]:
        """Our clock, and the machine's monotonic clock at the same moment."""

    def difference(self, before: feed.Held) -> feed.Feed:
        """From ``before`` to what is published now."""

    def heard(self, kind: str, values: Sequence[Any]) -> None:
        """News of a worker."""

    async def answered(self, link: Link, frame: Frame) -> None:
        """A call that reached a worker and belongs to one of our handlers."""

    async def status_elsewhere(self, link: Link, frame: Frame) -> None:
        """A worker wants to know what the clients of all other workers have."""


class Link:
    """One worker.

    ``state`` is what it has or is being told; ``owed`` names the nodes whose leases it was not told yet.
    """

    def __init__(self, index: int, server: Owner) -> None:
        self.index = index
        self.owed: set[str] = set()
        self.listening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._server = server
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._state: feed.Held = feed.NOTHING
        self._generation = 0
        self.busy = False
        self._told = False
        self._stopping = False
        self._calls: set[asyncio.Task[None]] = set()
        self._asked: dict[int, asyncio.Future[Frame]] = {}

    # Life

    async def live(self) -> None:
        """Start the process, follow it to its end, and start it again."""
        pause = _FIRST_PAUSE
        while True:
            started = time.monotonic()
            await self._once()
            if self._ended:
                return
            pause = _FIRST_PAUSE if time.monotonic() - started > _LIVED else min(2 * pause, _LONGEST_PAUSE)
            self._server.status.workers[self.index].restarts += 1
            await asyncio.sleep(pause)

    @property
    def _ended(self) -> bool:
        return self._stopping

    async def _once(self) -> None:
        mine, theirs = socket.socketpair()
        with theirs:
            self._process = await _spawn(theirs)
        self._server.status.workers[self.index].pid = self._process.pid
        reader, self._writer = await asyncio.open_connection(sock=mine, limit=2**20)
        try:
            self._begin()
            while (frame := await shard_frames.read(reader, MAX_FROM_WORKER)) is not None:
                self._take(frame)
        except (CodecError, KeyError, TypeError, ValueError):
            log.exception("worker %d says what no worker says; it is started again", self.index)
        finally:
            await self._end()

    def _begin(self) -> None:
        """Everything is new to it."""
        self._state, self.busy, self._told = feed.NOTHING, False, False
        self.owed = set(self._server.leases)
        self.tell(*shard_frames.start_message(self._server.beginning(self.index)))
        self.update()

    async def _end(self) -> None:
        assert self._writer is not None
        assert self._process is not None
        self._writer.close()
        self._writer = None
        for call in self._calls:
            call.cancel()
        for waiting in self._asked.values():
            waiting.cancel()
        with contextlib.suppress(ProcessLookupError):
            if not self._stopping:
                self._process.kill()
        code = await self._process.wait()
        lost = self._server.status.ended(self.index)
        if not self.listening.done():
            self.listening.set_exception(XdsError(f"a worker ended with code {code} before it listened; see stderr"))
        elif not self._stopping:
            log.warning("worker %d ended (%s) with %d nodes; another is started", self.index, code, len(lost))
        for node_id in lost:
            at = self._server.time()[0]
            self._server.heard("event", ("disconnect", node_id, "", "", "its worker ended", at))

    async def stop(self, grace: float) -> None:
        """Ask it to end, and see to it that it does."""
        self._stopping = True
        if self._writer is None or self._process is None:
            return
        process = self._process
        self.tell({"op": "stop", "grace": grace})
        try:
            await asyncio.wait_for(process.wait(), grace + _KILL_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    # Telling

    def tell(self, head: Mapping[str, Any], bodies: Sequence[bytes] = ()) -> None:
        """Send a message, unless nobody is there."""
        if self._writer is not None:
            self._writer.write(shard_frames.pack(head, bodies))

    def update(self) -> None:
        """Tell what is published and leased now, unless it is still busy with what it was told before."""
        new = self._state is not self._server.snapshots
        if self._writer is None or self.busy or not (new or self.owed or not self._told):
            return
        head, bodies = self._difference(new)
        self._generation += 1
        self.busy = self._told = True
        self._state, self.owed = self._server.snapshots, set()
        self.tell({**head, "op": "update", "generation": self._generation, "clock": self._server.time()}, bodies)

    def _difference(self, new: bool) -> tuple[dict[str, Any], list[bytes]]:
        made = self._server.difference(self._state) if new else None
        leases, extra = _leases_head({n: self._server.leases[n] for n in self.owed if n in self._server.leases})
        bodies = [*made.bodies, *extra] if made else extra
        size = sum(map(len, made.bodies)) if made else 0
        return {"feed": made.head if made else None, "feed_bytes": size, "leases": leases}, bodies

    async def status(self, query: bytes) -> tuple[bytes, str]:
        """What CSDS says of this worker's clients, or why it does not; nothing if it does not answer in time."""
        number = max(self._asked, default=0) + 1
        waiting: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._asked[number] = waiting
        self.tell({"op": "status", "id": number}, [query])
        try:
            async with asyncio.timeout(_STATUS_SECONDS):
                frame = await waiting
        except (TimeoutError, asyncio.CancelledError):
            return b"", ""
        finally:
            self._asked.pop(number, None)
        return frame.body, frame.head["error"]

    # Hearing

    def _take(self, frame: Frame) -> None:
        head = frame.head
        match head["op"]:
            case "applied":
                self._applied()
            case "failed":
                self._failed(head)
            case "report":
                self._server.status.reported(self.index, head)
            case "news":
                for kind, *values in head["news"]:
                    self._server.heard(kind, values)
            case "problem":
                log.warning("worker %d: %s", self.index, head["message"])
            case _:
                self._take_question(frame)

    def _take_question(self, frame: Frame) -> None:
        match frame.head["op"]:
            case "call":
                self._spawn(self._server.answered(self, frame))
            case "status-elsewhere":
                self._spawn(self._server.status_elsewhere(self, frame))
            case "status":
                waiting = self._asked.get(frame.head["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(frame)
            case other:
                raise CodecError(f"unknown message {other!r}")

    def _applied(self) -> None:
        self.busy = False
        if not self.listening.done():
            self.listening.set_result(None)
        self.update()

    def _failed(self, head: Mapping[str, Any]) -> None:
        """It cannot listen. At the start everybody hears of it; later it is tried again."""
        error: XdsError = TlsError(head["message"])
        if head["kind"] == "PortInUse":
            start = self._server.beginning(self.index)
            error = PortInUse(start.host, start.port)
        if self.listening.done():
            log.warning("worker %d cannot listen: %s", self.index, error)
            if self._process is not None:
                self._process.kill()
        else:
            self.listening.set_exception(error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)


def _leases_head(leases: Mapping[str, Sequence[Leasable]]) -> tuple[dict[str, Any], list[bytes]]:
    """What nodes lease; what many of them lease is written once."""
    rows: list[dict[str, Any]] = []
    bodies: list[bytes] = []
    known: dict[int, int] = {}
    for ones in leases.values():
        for one in ones:
            if id(one) not in known:
                known[id(one)] = len(rows)
                rows.append(_lease_row(one, bodies))
    return {
        "ones": rows,
        "nodes": {node_id: [known[id(one)] for one in ones] for node_id, ones in leases.items()},
    }, bodies


def _lease_row(one: Leasable, bodies: list[bytes]) -> dict[str, Any]:
    if isinstance(one, RuntimeLayer):
        return {"name": one.name, "values": dict(one.values), "ttl": one.ttl, "expires_at": one.expires_at}
    leased = one.resource
    bodies.append(leased.body)
    return {
        "type_url": leased.type_url,
        "name": leased.name,
        "version": leased.version,
        "length": len(leased.body),
        "ttl": one.ttl,
        "expires_at": one.expires_at,
    }


async def _spawn(theirs: socket.socket) -> asyncio.subprocess.Process:
    """A worker process that has one end of the pair and nothing else of ours."""
    command = (sys.executable, "-m", "xds.server.shard_worker", str(theirs.fileno()))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return await asyncio.create_subprocess_exec(
        *command, pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL, env=environment
    )
