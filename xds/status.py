"""Who is connected, and how far each proxy is: what ``meshctl proxies`` shows and the metrics count.

The board reads the states of live streams when it is asked; of a stream that ended it keeps the last ones.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from xds.canary import NoticeKind
from xds.changes import ChangeTimes
from xds.convergence import Change, Converged, Convergence
from xds.histogram import Histogram
from xds.protocol.events import Node, Notice, Response
from xds.protocol.states import State, TypeState
from xds.protocol.stream import Stream
from xds.snapshot import Snapshot
from xds.types import short_name

EventKind = Literal[
    "connect", "disconnect", "push", "ack", "nack", "refused", "denied", "limited", "certificate", NoticeKind
]
EVENT_KINDS: frozenset[EventKind] = frozenset(get_args(EventKind))

#: When two streams of one node tell different stories about a type, the worse one counts.
_WORSE: tuple[State, ...] = ("SYNCED", "NOT-SENT", "STALE", "NACKED")

TypeStatus = TypeState
_NOTHING = Snapshot({})


@dataclass(frozen=True, slots=True)
class XdsEvent:
    """Something that happened on a stream. ``type`` is a short name (``cds``), empty where none applies.

    Heartbeats are no events. ``refused`` is a lease that the server would not give; ``message`` says why. ``denied`` is
    a peer whose certificate does not make it that node, ``limited`` one that wanted too much (``version`` is the reason
    in one word), ``certificate`` a change of the server's own (``version``: ``rotated`` or ``refused``). What a canary
    or pre-flight did names the canary, or the group where there is none, as ``node_id``.
    """

    kind: EventKind
    node_id: str
    type: str
    version: str
    message: str
    time: float


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node. ``since`` is when it connected or, if it is not connected, when it was last seen (None: never)."""

    node_id: str
    group: str
    connected: bool
    since: float | None
    user_agent_version: str
    types: Mapping[str, TypeStatus]


@dataclass(slots=True)
class _Seen:
    node: Node
    since: float
    streams: list[Stream] = field(default_factory=list)
    last: dict[str, TypeStatus] = field(default_factory=dict)


class StatusBoard:
    """States by node, and counters since the server's start.

    ``pushes`` counts by (short type, outcome): outcome ``sent`` when a response goes out, ``acked`` or ``nacked``
    when it is answered; heartbeats are counted apart. ``push_seconds`` and ``convergence_seconds`` are histograms by
    short type: of the time from a response to its answer, and from a change to the last ACK of it. At most
    ``max_strangers`` unconnected nodes that nobody expects are remembered.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        max_strangers: int = 1000,
        on_converged: Callable[[Converged], None] | None = None,
    ) -> None:
        self.push_seconds: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.convergence_seconds: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.convergence = Convergence(clock, self._converged)
        self.times = ChangeTimes()
        self._on_converged = on_converged
        self.pushes: Counter[tuple[str, str]] = Counter()
        self.acks: Counter[str] = Counter()
        self.nacks: Counter[str] = Counter()
        self.heartbeats = 0
        self.connects = 0
        self.refused: Counter[str] = Counter()
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._expected: frozenset[str] = frozenset()
        self._strangers: dict[str, None] = {}  # neither connected nor expected, the longest unseen first
        self._max_strangers = max_strangers

    def nodes(self) -> list[NodeStatus]:
        """All nodes that are connected, expected or were seen, by id."""
        return [self._node(node_id) for node_id in sorted(self._seen.keys() | self._expected)]

    def node(self, node_id: str) -> NodeStatus | None:
        """One node; None if nobody knows it."""
        return self._node(node_id) if self.knows(node_id) else None

    def knows(self, node_id: str) -> bool:
        """Whether the node is connected, expected or was seen."""
        return node_id in self._seen or node_id in self._expected

    def connected(self) -> int:
        """How many nodes have a stream."""
        return sum(1 for one in self._seen.values() if one.streams)

    def streams(self) -> list[tuple[Node, Sequence[Stream]]]:
        """The open streams of every connected node, by node id."""
        connected = (self._seen[node_id] for node_id in sorted(self._seen))
        return [(seen.node, tuple(seen.streams)) for seen in connected if seen.streams]

    def behind(self) -> dict[str, int]:
        """How many streams lack a change that was published, by short type."""
        return {short_name(url): count for url, count in self.convergence.behind().items()}

    # For the server

    def published(
        self, before: Mapping[str, Snapshot], after: Mapping[str, Snapshot], since: float | None = None
    ) -> Change:
        """Every node that is in ``after`` should have its snapshot from now on; equal sets are the same object. It was
        published at ``since`` (seconds), or now."""
        now = self._clock()
        for node_id, snapshot in after.items():
            self.times.published(snapshot, before.get(node_id), now)
        return self.convergence.begin(now if since is None else since)

    def owes(self, change: Change, stream: Stream, snapshot: Snapshot | None) -> None:
        """The stream is about to get this snapshot."""
        if snapshot is None:
            return
        for type_url in change.differing(stream.snapshot or _NOTHING, snapshot):
            if type_url in stream.subscriptions and type_url in snapshot.sets:
                self.convergence.owe(change, stream, type_url)

    def owes_leases(self, change: Change, stream: Stream) -> None:
        """The stream was told of new leases."""
        for type_url in stream.leased:
            if not stream.in_sync(type_url, self._clock()):
                self.convergence.owe(change, stream, type_url)

    def rested(self, stream: Stream) -> None:
        """The stream has nothing to send now."""
        self.convergence.idle(stream)

    def expect(self, node_ids: Iterable[str]) -> None:
        """These nodes should exist; others that are not connected are forgotten."""
        gone, self._expected = self._expected, frozenset(node_ids)
        for node_id in gone - self._expected:
            if node_id in self._seen and not self._seen[node_id].streams:
                del self._seen[node_id]
        absent = (node_id for node_id in self._strangers if node_id not in self._expected)
        self._strangers = dict.fromkeys(absent)

    def opened(self, stream: Stream, node: Node) -> None:
        """A stream said who it is."""
        seen = self._seen.setdefault(node.id, _Seen(node, self._clock()))
        if not seen.streams:
            seen.node, seen.since = node, self._clock()
        seen.streams.append(stream)
        self._strangers.pop(node.id, None)
        self.connects += 1

    def closed(self, stream: Stream, node: Node) -> None:
        """A stream ended."""
        seen = self._seen[node.id]
        now = self._clock()
        seen.last = self._merge(seen.streams, now)
        seen.streams.remove(stream)
        self.convergence.closed(stream)
        if not seen.streams:
            seen.since = now
            if node.id not in self._expected:
                self._strangers[node.id] = None
                self._forget_strangers()

    def count(self, response: Response) -> None:
        """A response went out."""
        if response.heartbeat:
            self.heartbeats += 1
        else:
            self.pushes[short_name(response.type_url), "sent"] += 1

    def note(self, notice: Notice, stream: Stream) -> None:
        """A response was answered, or a lease refused."""
        name = short_name(notice.type_url)
        if notice.kind == "ack":
            self.acks[name] += 1
            self.pushes[name, "acked"] += 1
            self.push_seconds[name].observe(notice.seconds)
            self.convergence.acked(stream, notice.type_url)
            if stream.idle:
                self.convergence.idle(stream)
        elif notice.kind == "nack":
            self.nacks[name] += 1
            self.pushes[name, "nacked"] += 1
        else:
            self.pushes[name, "refused"] += 1

    # Inside

    def _node(self, node_id: str) -> NodeStatus:
        seen = self._seen.get(node_id)
        if seen is None:
            return NodeStatus(node_id, "", False, None, "", {})
        connected = bool(seen.streams)
        types = self._merge(seen.streams, self._clock()) if connected else dict(seen.last)
        return NodeStatus(node_id, seen.node.cluster, connected, seen.since, seen.node.user_agent_version, types)

    def _merge(self, streams: Iterable[Stream], now: float) -> dict[str, TypeStatus]:
        merged: dict[str, TypeStatus] = {}
        for stream in streams:
            for type_url, found in stream.states(now).items():
                name, state = short_name(type_url), self._since(stream, type_url, found)
                merged[name] = worse(merged[name], state) if name in merged else state
        return merged

    def _since(self, stream: Stream, type_url: str, state: TypeStatus) -> TypeStatus:
        """A type that is behind dates from the first change that it lacks, whatever it was sent since."""
        since = self.convergence.behind_since(stream, type_url)
        return state if since is None or state.state == "SYNCED" else replace(state, since=since)

    def _converged(self, converged: Converged) -> None:
        self.convergence_seconds[short_name(converged.type_url)].observe(converged.seconds)
        if self._on_converged is not None:
            self._on_converged(converged)

    def _forget_strangers(self) -> None:
        """The longest unseen go first: ids come from clients, and memory is ours."""
        while len(self._strangers) > self._max_strangers:
            longest = next(iter(self._strangers))
            del self._strangers[longest], self._seen[longest]


def worse(one: TypeStatus, other: TypeStatus) -> TypeStatus:
    """Of two states of one type the worse, with the words of both."""
    first, second = sorted((one, other), key=lambda status: _WORSE.index(status.state))
    words = "; ".join(dict.fromkeys(word for word in (second.error, first.error) if word))
    return replace(second, error=words)
