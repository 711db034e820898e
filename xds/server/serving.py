"""The server as its owner sees it: what to publish, what to lease, what is going on.

It serves the methods of :mod:`xds.server.services` and whatever other handlers its owner adds to the port. Everything
runs on one event loop; call the methods from that loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from xds import codec
from xds.canary import GroupStatus, RolloutNotice
from xds.convergence import Change, Converged
from xds.errors import AccessDenied, LimitExceeded
from xds.loads import LoadReport
from xds.preflight import Preflight
from xds.protocol.delta import DeltaStream
from xds.protocol.events import DeltaRequest, Notice, Response, SotwRequest
from xds.protocol.holding import HEARTBEATS
from xds.protocol.leases import Leasable, Lease, Leases, leases_of
from xds.protocol.quarantine import Quarantine
from xds.protocol.responses import ResponseCache
from xds.protocol.sotw import SotwStream
from xds.protocol.stream import Stream
from xds.server.connection import Connection, Decoder, Failure
from xds.server.csds import ClientStatus
from xds.server.gate import Gate, Refusal, quiet, status_of
from xds.server.herald import Herald
from xds.server.identity import Peer, Policy, peer_of
from xds.server.lrs import LoadReporting
from xds.server.port import bind, options
from xds.server.releases import Releases
from xds.server.services import METHODS, Behavior, Context, Method, StreamHandler
from xds.server.settings import Settings
from xds.server.slots import Slots, Unread
from xds.server.tls import Rotation, TlsChange, TlsFiles
from xds.snapshot import Snapshot
from xds.status import EVENT_KINDS, EventKind, StatusBoard, XdsEvent

#: Calls of all kinds that are under way, for each stream that may be open.
_CALLS_PER_STREAM = 2
#: The longest and the shortest pause (seconds) between two looks at which heartbeats are due.
_SLOWEST_LOOK, _FASTEST_LOOK = 0.25, 0.02


class XdsServer:
    """Streams snapshots, and leased runtime layers and extension configs, to nodes.

    ``on_event`` hears of everything but heartbeats, or only of ``kinds``: pushes and ACKs are many, and counted by
    :attr:`status` anyway. ``on_load`` hears of clients' load reports, and ``on_converged`` of each change that reached
    everybody. ``clock`` (seconds) is the one on which leases' ``expires_at`` is measured.
    """

    def __init__(
        self,
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
        self.status = StatusBoard(clock, on_converged=on_converged)
        self._herald = Herald(on_event, kinds, clock)
        self._clock = clock
        self._settings = settings or Settings()
        self._tls = tls
        self.gate = Gate(self._settings.limits, policy or Policy(open_secrets=True), self._refused, clock)
        self.status.refused = self.gate.admission.refused
        self._loads = LoadReporting(on_load, gate=self.gate, now=clock, settings=self._settings)
        self.client_status = ClientStatus(self.status, gate=self.gate, now=clock, settings=self._settings)
        self._slots = Slots(
            self._settings.concurrent_pushes, self._settings.slow_write_seconds, self._settings.write_deadline_seconds
        )
        self._cache = ResponseCache()
        self._connections: set[Connection] = set()
        self._snapshots: dict[str, Snapshot] = {}
        self._leases: dict[str, Leases] = {}
        self._quarantines: dict[str, Quarantine] = {}
        self._look_every = _SLOWEST_LOOK
        self._server: grpc.aio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._releases = Releases(self, self._settings, preflight)

    # Life

    async def start(
        self,
        host: str,
        port: int,
        handlers: Sequence[grpc.GenericRpcHandler[Any, Any]] = (),
        *,
        reuse_port: bool = False,
    ) -> int:
        """Listen, and return the port (a free one for port 0). PortInUse if the address is taken; TlsError if there is
        no certificate to serve. With ``reuse_port`` other processes of the same user may share the port."""
        rotation = Rotation(self._tls, self._clock, self._certificate_reporter()) if self._tls else None
        server = grpc.aio.server(
            options=options(self._settings, secure=rotation is not None, reuse=reuse_port),
            maximum_concurrent_rpcs=_CALLS_PER_STREAM * self._settings.limits.streams,
        )
        own = StreamHandler({method.path: self._behavior(method) for method in METHODS})
        server.add_generic_rpc_handlers((own, *self._reporting(), *handlers))
        bound = bind(server, host, port, rotation)
        self._stopping = False
        quiet()
        await server.start()
        self._server = server
        self._tasks = [asyncio.create_task(self._beat(), name="xds-heartbeats")]
        if rotation is not None:
            self._tasks.append(asyncio.create_task(rotation.watch(), name="xds-certificate"))
        return bound

    async def stop(self, grace: float) -> None:
        """End all streams, then the server; calls of other handlers get ``grace`` seconds to end by themselves."""
        self._stopping = True
        await self._releases.stop()
        for connection in self._connections:
            connection.end()
        self.client_status.stop()
        self._loads.stop()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace)
        for connection in list(self._connections):  # they were in the middle of a write
            self._closed(connection)

    # Content

    def publish(self, snapshots: Mapping[str, Snapshot], groups: Mapping[str, str] | None = None) -> None:
        """Replace what every node should have. A node that is not in ``snapshots`` is unknown: silence.

        What follows soon after another publication waits a moment (``Settings.debounce_seconds``). ``groups``, by node
        id, say who has a canary or a pre-flight in common; a node that is not in it belongs to its ``node.cluster``.
        """
        self._releases.publish(snapshots, groups or {})

    def rollouts(self) -> list[GroupStatus]:
        """Groups in which not everybody has what was published last, and why."""
        return self._releases.status(self._clock())

    def lease(self, leases: Mapping[str, Sequence[Leasable]]) -> None:
        """Set what these nodes have on a lease: runtime layers and extension configs. Other nodes keep theirs.

        A layer that is left out lapses with its TTL; one with empty values is emptied at once. A leased extension
        config wins over the snapshot's while its lease is alive. When it is left out or its deadline comes, the
        snapshot's is sent again; where there is none, Envoy falls back to the filter's default with the TTL.

        LeaseError if something must not be leased (a value that is none, a type that does not survive expiry, an
        extension that a listener of the node's snapshot discovers without a default), and then nothing changes.
        """
        encoded: dict[int, Lease] = {}
        checked = {
            node_id: leases_of(node_id, ones, self._snapshots.get(node_id), encoded) for node_id, ones in leases.items()
        }
        self._leases.update(checked)
        self._look_more_often(encoded.values())
        change = self.status.convergence.begin()
        for connection in self._connections:
            node = connection.machine.node
            if node is not None and node.id in checked:
                connection.machine.lease(checked[node.id])
                self.status.owes_leases(change, connection.machine)
                connection.bell.ring()

    def enforce(self, policy: Policy) -> None:
        """Let another policy decide from now on, about the streams that are open, too."""
        self.gate.policy = policy
        change = self.status.convergence.begin()
        for connection in self._connections:
            node = connection.machine.node
            if node is not None:
                try:
                    self.gate.introduce(connection.visit, node)
                    self._supply(connection, change)
                except (AccessDenied, LimitExceeded) as refusal:
                    connection.fail(refusal)

    def _supply(self, connection: Connection, change: Change) -> None:
        node, grant = connection.machine.node, connection.visit.grant
        snapshot = grant.restrict(self._snapshots.get(node.id)) if node and grant else None
        before = connection.machine.snapshot
        if snapshot is before:
            return
        if snapshot is None or before is None or change.differing(before, snapshot):
            self.status.owes(change, connection.machine, snapshot)
            connection.machine.publish(snapshot)
            connection.bell.ring()

    def _look_more_often(self, leases: Any) -> None:
        """Several looks per heartbeat of the shortest lease."""
        shortest = min((lease.ttl for lease in leases if not lease.empty), default=self._look_every * 4 * HEARTBEATS)
        self._look_every = max(_FASTEST_LOOK, min(self._look_every, shortest / (4 * HEARTBEATS)))

    # Services beside xDS

    def _reporting(self) -> list[grpc.GenericRpcHandler[Any, Any]]:
        """Client status and load reports, where they are wanted."""
        status = [self.client_status.handler()] if self._settings.client_status else []
        return [*status, self._loads.handler()] if self._settings.load_reports else status

    # Streams

    def _behavior(self, method: Method) -> Behavior:
        machine: type[Stream] = DeltaStream if method.delta else SotwStream
        decode: Decoder = codec.decode_delta_request if method.delta else codec.decode_sotw_request

        async def serve(_: object, context: Context) -> None:
            stream = machine(secrets.token_hex(4), self._cache, method.type_url)
            await self._serve(context, stream, decode)

        return serve

    async def _serve(self, context: Context, stream: Stream, decode: Decoder) -> None:
        """One stream from its first request to its end, whoever ends it."""
        if self._stopping:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the control plane is stopping")
        peer, claimed = peer_of(context), ""
        try:
            async with self.gate.visit(peer) as visit:
                connection = Connection(stream, decode, self, visit, self._slots)
                failure = await self._run(context, connection)
                claimed = visit.claimed
        except LimitExceeded as refusal:
            failure = refusal
        if isinstance(failure, AccessDenied | LimitExceeded) and not isinstance(failure, Unread):
            self.gate.refuse(failure, peer, claimed)
        if failure is not None:
            await context.abort(*status_of(failure))

    async def _run(self, context: Context, connection: Connection) -> Failure | None:
        """Serve an admitted stream; why it failed, if it did."""
        if self._stopping:  # it may have waited for its turn
            connection.end()
        self._connections.add(connection)
        try:
            await connection.run(context)
        finally:
            self._closed(connection)
        return connection.failure

    async def _beat(self) -> None:
        """Wake the streams whose heartbeats are due."""
        while True:
            await asyncio.sleep(self._look_every)
            now = self._clock()
            for connection in self._connections:
                if connection.machine.wakes_at() <= now:
                    connection.bell.ring()
            self._end_unread()

    def _end_unread(self) -> None:
        """Whoever does not read counts as gone. If it reads again after all, it is told to open another stream."""
        for writer in self._slots.look(asyncio.get_running_loop().time()):
            if isinstance(writer, Connection) and writer in self._connections:
                failure = Unread(self._settings.write_deadline_seconds)
                writer.fail(failure)
                self.gate.refuse(failure, writer.visit.peer, writer.visit.claimed)
                self._closed(writer)

    # What releases ask and tell (releases.Host)

    def supply(self, snapshots: Mapping[str, Snapshot], expected: Collection[str]) -> None:
        for node_id in self._snapshots.keys() - expected:
            self._leases.pop(node_id, None)
            self._quarantines.pop(node_id, None)
        before, self._snapshots = self._snapshots, dict(snapshots)
        self.status.expect(expected)
        change = self.status.published(before, self._snapshots, self._releases.since)
        for connection in self._connections:
            self._supply(connection, change)

    def resupply(self, changes: Mapping[str, Snapshot | None]) -> None:
        before = {node_id: self._snapshots.pop(node_id) for node_id in changes.keys() & self._snapshots.keys()}
        after = {node_id: one for node_id, one in changes.items() if one is not None}
        self._snapshots.update(after)
        change = self.status.published(before, after, self._releases.since)
        for connection in self._connections:
            if (node := connection.machine.node) is not None and node.id in changes:
                self._supply(connection, change)

    def streams_of(self, node_id: str) -> list[Stream]:
        machines = (connection.machine for connection in self._connections)
        return [one for one in machines if one.node is not None and one.node.id == node_id]

    def announce(self, notice: RolloutNotice) -> None:
        self._herald.tell(
            notice.kind, notice.node_id or notice.group, message=f"group {notice.group}: {notice.message}"
        )

    # What connections tell (connection.Host)

    def now(self) -> float:
        return self._clock()

    def introduced(self, connection: Connection, request: SotwRequest | DeltaRequest) -> None:
        if request.node is not None:
            grant = self.gate.introduce(connection.visit, request.node)
            self._releases.joined(connection, request.node)
            connection.machine.publish(grant.restrict(self._snapshots.get(request.node.id)))
            connection.machine.lease(self._leases.get(request.node.id, {}))
            if request.node.id in self._snapshots:
                connection.machine.quarantine = self._quarantines.setdefault(request.node.id, Quarantine())

    def opened(self, connection: Connection) -> None:
        node = connection.machine.node
        if node is not None:
            self.status.opened(connection.machine, node)
            self._herald.tell("connect", node.id, message=f"Envoy {node.user_agent_version}".strip())

    def sent(self, connection: Connection, response: Response) -> None:
        self.status.count(response)
        node = connection.machine.node
        if node is not None:
            self._herald.pushed(node.id, response)

    def rested(self, connection: Connection) -> None:
        self.status.rested(connection.machine)

    def noted(self, connection: Connection, notices: Sequence[Notice]) -> None:
        node = connection.machine.node
        for notice in notices:
            self.status.note(notice, connection.machine)
            if node is not None:
                self._herald.tell(notice.kind, node.id, notice.type_url, notice.version, notice.message)
        if node is not None and node.id in self._releases.canaries:
            self._releases.noted(node.id, notices)

    def _closed(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._releases.left(connection)
        node = connection.machine.node
        if node is not None:
            self.status.closed(connection.machine, node)
            self._herald.tell("disconnect", node.id, message=str(connection.failure or ""))

    def _refused(self, refusal: Refusal, peer: Peer, node_id: str) -> None:
        kind: EventKind = "denied" if isinstance(refusal, AccessDenied) else "limited"
        self._herald.tell(kind, node_id, version=refusal.reason, message=f"{peer.key}: {refusal}")

    def _certificate_reporter(self) -> Callable[[TlsChange], None]:
        """gRPC looks for a new certificate on a thread of its own; what it found is told on ours."""
        loop = asyncio.get_running_loop()

        def report(change: TlsChange) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody who listens
                loop.call_soon_threadsafe(self._certificate_changed, change)

        return report

    def _certificate_changed(self, change: TlsChange) -> None:
        self._herald.tell("certificate", "", version=change.outcome, message=change.message)
