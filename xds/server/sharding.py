"""Several processes on one port: an :class:`~xds.server.serving.XdsServer` for machines with more cores.

The parent keeps what every node should have and serves nobody; each worker serves the streams that the kernel gives
it (SO_REUSEPORT) and has the whole of it. A worker is told one difference at a time and says when it has taken it:
what is published meanwhile is overtaken, so a slow worker costs one difference and no queue. A worker that ends is
started again and told everything; its sidecars reconnect, and nothing is sent twice, because versions are content.
When the parent ends, however it does, its workers end too, and leases run out as they do with one process.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from xds import feed
from xds.canary import GroupStatus, RolloutNotice
from xds.convergence import Converged
from xds.errors import PortInUse
from xds.loads import ClusterLoad, LoadReport
from xds.preflight import Preflight
from xds.protocol.leases import Leasable, Lease, leases_of
from xds.protocol.stream import Stream
from xds.server import shard_calls
from xds.server.identity import Policy
from xds.server.releases import Releases
from xds.server.settings import Settings
from xds.server.shard_calls import Handlers
from xds.server.shard_frames import Frame, Start, policy_frame
from xds.server.shard_link import Link
from xds.server.shard_status import ShardedStatus
from xds.server.tls import TlsFiles
from xds.snapshot import Snapshot
from xds.status import EVENT_KINDS, EventKind, XdsEvent

log = logging.getLogger(__name__)

#: Seconds until all workers must listen.
_START_SECONDS = 30.0
_CLOCK_SECONDS = 1.0


class ShardedServer:
    """Publishes, leases and reports like :class:`~xds.server.serving.XdsServer`; ``workers`` processes serve.

    Limits in ``settings`` are those of one worker. Handlers given to :meth:`start` run in this process; workers
    forward their calls if they have one request and one response.
    """

    def __init__(
        self,
        workers: int,
        *,
        on_event: Callable[[XdsEvent], None] | None = None,
        kinds: Collection[EventKind] = EVENT_KINDS,
        on_load: Callable[[LoadReport], object] | None = None,
        on_converged: Callable[[Converged], None] | None = None,
        clock: Callable[[], float] = time.time,
        settings: Settings | None = None,
        tls: TlsFiles | None = None,
        policy: Policy | None = None,
        preflight: Preflight | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"{workers} workers; expected at least 1")
        self.status = ShardedStatus(clock, workers)
        self._listeners = {"event": on_event, "load": on_load, "converged": on_converged}
        self._kinds = frozenset(kinds)
        self._clock = clock
        wanted = settings or Settings()
        self._settings, self._tls, self._policy = replace(wanted, debounce_seconds=0.0), tls, policy
        self._releases = Releases(self, replace(wanted, canary=None), preflight)
        self._handlers: Handlers = ()
        self._reserved: socket.socket | None = None
        self._address = ("", 0)
        self._count = workers
        self.links: list[Link] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.snapshots: feed.Held = feed.NOTHING
        self.leases: dict[str, Sequence[Leasable]] = {}
        self._differences: dict[tuple[int, int], tuple[feed.Held, feed.Held, feed.Feed]] = {}

    # Life

    async def start(self, host: str, port: int, handlers: Handlers = ()) -> int:
        """Listen with all workers, and return the port (a free one for port 0). PortInUse if the address is taken;
        TlsError if there is no certificate to serve; TimeoutError if a worker does not come up."""
        self._handlers = tuple(handlers)
        self._reserved = _reserve(host, port)
        self._address = (host, self._reserved.getsockname()[1])
        self.links = [Link(index, self) for index in range(self._count)]
        self._tasks = [asyncio.create_task(self._tell_time(), name="xds-clock")]
        self._tasks += [asyncio.create_task(one.live(), name=f"xds-worker-{one.index}") for one in self.links]
        try:
            async with asyncio.timeout(_START_SECONDS):
                await asyncio.gather(*(one.listening for one in self.links))
        except BaseException:
            await self.stop(0)
            raise
        return self._address[1]

    async def stop(self, grace: float) -> None:
        """End all streams, then the workers; calls of other handlers get ``grace`` seconds to end by themselves."""
        await self._releases.stop()
        await asyncio.gather(*(one.stop(grace) for one in self.links))
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    async def _tell_time(self) -> None:
        while True:
            await asyncio.sleep(_CLOCK_SECONDS)
            for one in self.links:
                one.tell({"op": "clock", "clock": self.time()})

    # Content

    def publish(self, snapshots: Mapping[str, Snapshot], groups: Mapping[str, str] | None = None) -> None:
        """Replace what every node should have; see :meth:`xds.server.serving.XdsServer.publish`.

        Publications are merged and validated here. Each worker has a canary of its own in each group.
        """
        self._releases.publish(snapshots, groups or {})

    def rollouts(self) -> list[GroupStatus]:
        """Groups whose newest content pre-flight holds back. What canaries do is told by events only."""
        return self._releases.status(self._clock())

    def lease(self, leases: Mapping[str, Sequence[Leasable]]) -> None:
        """Set what these nodes have on a lease; see :meth:`xds.server.serving.XdsServer.lease`.

        LeaseError if something must not be leased, and then nothing changes.
        """
        encoded: dict[int, Lease] = {}
        for node_id, ones in leases.items():
            leases_of(node_id, ones, self.snapshots.get(node_id), encoded)
        self.leases.update(leases)
        for one in self.links:
            one.owed.update(leases)
            one.update()

    def enforce(self, policy: Policy) -> None:
        """Let another policy decide from now on; see :meth:`xds.server.serving.XdsServer.enforce`."""
        self._policy = policy
        for one in self.links:
            one.tell(*policy_frame(policy))

    # What releases ask and tell (releases.Host)

    def now(self) -> float:
        return self._clock()

    def supply(self, snapshots: Mapping[str, Snapshot], expected: Collection[str]) -> None:
        for node_id in self.snapshots.keys() - expected:
            self.leases.pop(node_id, None)
        self.snapshots = dict(snapshots)
        self.status.expect(expected)
        for one in self.links:
            one.update()

    def resupply(self, changes: Mapping[str, Snapshot | None]) -> None:
        """Without streams nothing changes between publications."""

    def streams_of(self, node_id: str) -> list[Stream]:
        return []

    def announce(self, notice: RolloutNotice) -> None:
        if notice.kind in self._kinds:
            self.heard("event", [notice.kind, notice.group, "", "", notice.message, self._clock()])

    # What workers need

    def beginning(self, index: int) -> Start:
        """How a worker begins; the first one also speaks for what all of them see."""
        return Start(
            host=self._address[0],
            port=self._address[1],
            settings=self._settings,
            tls=self._tls,
            policy=self._policy,
            kinds=self._kinds,
            events=self._listeners["event"] is not None,
            loads=self._listeners["load"] is not None,
            converged=self._listeners["converged"] is not None,
            first=index == 0,
        )

    def time(self) -> tuple[float, float]:
        """Our clock, and the machine's at the same moment."""
        return self._clock(), time.monotonic()

    def difference(self, before: feed.Held) -> feed.Feed:
        """From ``before`` to what is published now; made once for all workers that have the same."""
        key = (id(before), id(self.snapshots))
        known = self._differences.get(key)
        if known is None or known[0] is not before or known[1] is not self.snapshots:
            known = before, self.snapshots, feed.feed(before, self.snapshots)
            self._differences = {key: known}
        return known[2]

    def heard(self, kind: str, values: Sequence[Any]) -> None:
        """News of a worker. A listener that fails must not cost the others theirs."""
        listener: Any = self._listeners.get(kind)
        if listener is None:
            return
        try:
            listener(_NEWS[kind](*values))
        except Exception:
            log.exception("a listener failed on %s", kind)

    async def answered(self, link: Link, frame: Frame) -> None:
        """A call that reached a worker and belongs to one of our handlers."""
        answer = await shard_calls.answer(self._handlers, frame.head, frame.body)
        said = {"op": "answer", "id": frame.head["id"], "code": answer.code, "details": answer.details}
        link.tell(said, [answer.body])

    async def status_elsewhere(self, link: Link, frame: Frame) -> None:
        """What the clients of all other workers have, as bytes of CSDS; a worker that does not answer is left out."""
        others = (one.status(frame.body) for one in self.links if one is not link)
        answers = await asyncio.gather(*others)
        error = next((error for _, error in answers if error), "")
        said = {"op": "answer", "id": frame.head["id"], "code": int(bool(error)), "details": error}
        link.tell(said, [body for body, _ in answers])


def _event(*values: Any) -> XdsEvent:
    return XdsEvent(*values)


def _load(node_id: str, group: str, at: float, clusters: Sequence[Mapping[str, Any]]) -> LoadReport:
    return LoadReport(node_id, group, at, tuple(ClusterLoad(**one) for one in clusters))


_NEWS: Mapping[str, Callable[..., Any]] = {"event": _event, "load": _load, "converged": Converged}


def _reserve(host: str, port: int) -> socket.socket:
    """A socket that holds the port for our workers and takes no connection. PortInUse if somebody else has it.

    Without the first try a port that other workers share (of another server, say) would be shared with them.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, port))
            port = alone.getsockname()[1]
        shared = socket.socket(family, socket.SOCK_STREAM)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind((host, port))
    except OSError as error:
        raise PortInUse(host, port) from error
    return shared
