"""One worker of a sharded server: an :class:`~xds.server.serving.XdsServer` that is told everything by its parent.

Started as ``python -m xds.server.shard_worker FD``, where FD is its end of a socket pair. It listens when it has been
fed for the first time, and ends when the parent does: its sidecars keep what they have and their leases run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import uvloop

from xds import feed
from xds.convergence import Converged
from xds.errors import LimitExceeded, PortInUse, TlsError, XdsError
from xds.loads import LoadReport
from xds.model import LeasedResource, RuntimeLayer
from xds.protocol.leases import Leasable
from xds.server import collector, heap, shard_frames
from xds.server.serving import XdsServer
from xds.server.shard_calls import Answer, Forwarder
from xds.server.shard_frames import Frame, Start, policy_of
from xds.server.shard_status import node_head, totals_head
from xds.snapshot import Resource
from xds.status import XdsEvent

log = logging.getLogger(__name__)

#: Seconds between two reports, and for which events are gathered.
REPORT_INTERVAL = 0.5
_GATHER = 0.02
#: Events that wait for a parent that does not listen; older ones are dropped.
_MAX_EVENTS = 20_000
#: Seconds that streams have to end when the parent is gone.
_LAST_GRACE = 0.5


class Clock:
    """The parent's clock, by what both processes can read: the machine's monotonic clock."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def set(self, theirs: float, monotonic: float) -> None:
        """The parent's clock said ``theirs`` at ``monotonic``."""
        self._ahead = theirs - monotonic

    def __call__(self) -> float:
        return time.monotonic() + self._ahead


class Worker:
    """What one worker process does."""

    def __init__(self, start: Start, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start = start
        self._reader, self._writer = reader, writer
        self._clock = Clock()
        self._held: feed.Held = feed.NOTHING
        self._listening = False
        self._events: list[tuple[Any, ...]] = []
        self._dirty: set[str] = set()
        self._reported: set[str] = set()
        self._last_totals: dict[str, Any] = {}
        self._news = asyncio.Event()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._describing: asyncio.Task[None] | None = None
        self.server = XdsServer(
            on_event=self._on_event,
            on_load=self._on_load if start.loads else None,
            on_converged=self._on_converged if start.converged else None,
            clock=self._clock,
            settings=start.settings,
            tls=start.tls,
            policy=start.policy,
        )
        self.server.client_status.elsewhere = self._status_elsewhere

    async def run(self) -> None:
        """Until the parent says so, or is gone."""
        tasks = [asyncio.create_task(self._report()), asyncio.create_task(self._tell_events())]
        grace = _LAST_GRACE
        try:
            while (frame := await shard_frames.read(self._reader)) is not None:
                if frame.head["op"] == "stop":
                    grace = frame.head["grace"]
                    break
                await self._take(frame)
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.server.stop(grace), grace + 1.0)

    async def _take(self, frame: Frame) -> None:
        head = frame.head
        match head["op"]:
            case "update":
                await self._update(head, frame.body)
            case "clock":
                self._clock.set(*head["clock"])
            case "answer":
                waiting = self._waiting.pop(head["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(Answer(head["code"], head["details"], frame.body))
            case "policy":
                self.server.enforce(policy_of(frame))
            case "status":
                self._describing = asyncio.create_task(self._describe(head["id"], frame.body))

    # What is served

    async def _update(self, head: Mapping[str, Any], body: bytes) -> None:
        self._clock.set(*head["clock"])
        try:
            self._apply(head, body)
            if not self._listening:
                collector.calm()
                heap.keep()
                await self._listen()
        except (PortInUse, TlsError) as error:
            self._say({"op": "failed", "kind": type(error).__name__, "message": str(error)})
            return
        self._say({"op": "applied", "generation": head["generation"]})

    def _apply(self, head: Mapping[str, Any], body: bytes) -> None:
        """All of it between two looks at any stream."""
        leases = head["leases"]
        at = head["feed_bytes"]
        if head["feed"] is not None:
            self._held = feed.take(self._held, head["feed"], body[:at])
            self.server.publish(self._held)
            self._dirty |= {node.id for node, _ in self.server.status.streams()}
        if leases["nodes"]:
            ones = _leasables(leases["ones"], body[at:])
            wanted = {node_id: [ones[index] for index in indices] for node_id, indices in leases["nodes"].items()}
            try:
                self.server.lease(wanted)
            except XdsError as error:  # it was checked against what the parent had published then
                self._say({"op": "problem", "message": f"a lease was not taken: {error}"})
            self._dirty |= wanted.keys() & self._reported

    async def _listen(self) -> None:
        forwarder = Forwarder(self._ask)
        await self.server.start(self._start.host, self._start.port, handlers=[forwarder], reuse_port=True)
        self._listening = True

    # What the parent hears

    def _say(self, head: Mapping[str, Any], body: bytes = b"") -> None:
        self._writer.write(shard_frames.pack(head, (body,)))

    def _on_event(self, event: XdsEvent) -> None:
        if event.node_id:
            self._dirty.add(event.node_id)
        if not self._start.events or event.kind not in self._start.kinds:
            return
        if event.kind == "certificate" and not self._start.first:
            return  # all workers read the same files
        self._gather(("event", event.kind, event.node_id, event.type, event.version, event.message, event.time))

    def _on_load(self, report: LoadReport) -> None:
        clusters = [{**asdict(one), "dropped_by": dict(one.dropped_by)} for one in report.clusters]
        self._gather(("load", report.node_id, report.group, report.time, clusters))

    def _on_converged(self, converged: Converged) -> None:
        self._gather(("converged", converged.type_url, converged.seconds, converged.acks))

    def _gather(self, news: tuple[Any, ...]) -> None:
        self._events.append(news)
        if len(self._events) > _MAX_EVENTS:
            del self._events[: _MAX_EVENTS // 10]
        self._news.set()

    async def _tell_events(self) -> None:
        """In batches; while the parent does not read, the next batch grows instead of the queue."""
        while True:
            await self._news.wait()
            await asyncio.sleep(_GATHER)
            self._news.clear()
            events, self._events = self._events, []
            self._say({"op": "news", "news": events})
            await self._writer.drain()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_INTERVAL)
            if (head := self._changed()) is not None:
                self._say(head)
                await self._writer.drain()

    def _changed(self) -> dict[str, Any] | None:
        """Totals, and the nodes that may have changed since the last report."""
        board, dirty = self.server.status, self._dirty
        totals = totals_head(board, self.server.gate.admission.refused)
        totals["behind"] = behind = board.behind()
        if not dirty and totals == self._last_totals:
            return None
        self._last_totals, self._dirty = totals, set()
        nodes = [node for node_id in sorted(dirty) if (node := board.node(node_id)) is not None]
        self._reported |= {node.node_id for node in nodes}
        forgotten = sorted(node_id for node_id in self._reported if not board.knows(node_id))
        self._reported.difference_update(forgotten)
        return {
            "op": "report",
            "totals": totals,
            "behind": behind,
            "nodes": list(map(node_head, nodes)),
            "forgotten": forgotten,
        }

    # What the parent is asked

    async def _ask(self, call: Mapping[str, Any], request: bytes) -> Answer:
        return await self._asked({"op": "call", **call}, request)

    async def _status_elsewhere(self, request: bytes) -> bytes:
        """What the other workers' clients have; their answers concatenate, as protobuf's repeated fields do."""
        answer = await self._asked({"op": "status-elsewhere"}, request)
        if answer.code:
            raise LimitExceeded("status_size", answer.details)
        return answer.body

    async def _describe(self, number: int, query: bytes) -> None:
        """What this worker's clients have, for a client of another one."""
        try:
            answer, error = await self.server.client_status.local(query), ""
        except XdsError as refusal:
            answer, error = b"", str(refusal)
        self._say({"op": "status", "id": number, "error": error}, answer)

    async def _asked(self, head: Mapping[str, Any], body: bytes) -> Answer:
        number = next(self._numbers)
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            self._say({**head, "id": number}, body)
            await self._writer.drain()
            return await waiting
        finally:
            self._waiting.pop(number, None)


def _leasables(rows: Sequence[Mapping[str, Any]], body: bytes) -> list[Leasable]:
    found: list[Leasable] = []
    at = 0
    for row in rows:
        if "values" in row:
            found.append(RuntimeLayer(row["name"], row["values"], row["ttl"], row["expires_at"]))
            continue
        one = Resource(row["type_url"], row["name"], row["version"], body[at : at + row["length"]])
        at += row["length"]
        found.append(LeasedResource(one, row["ttl"], row["expires_at"]))
    return found


async def _serve(fd: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=fd), limit=2**20)
    first = await shard_frames.read(reader)
    if first is None:
        return
    await Worker(shard_frames.start_of(first), reader, writer).run()


def main(arguments: Sequence[str], run: Callable[[Any], Any] = uvloop.run) -> None:
    """The process. Signals of a terminal go to the whole group: the parent decides when this ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(_serve(int(arguments[1])))


if __name__ == "__main__":
    main(sys.argv)
