"""Who is connected, and how far each proxy is: what ``meshctl proxies`` shows and the metrics count.

The board reads the states of live streams when it is asked; of a stream that ended it keeps the last ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from xds.protocol.events import Node, Notice, Response
from xds.protocol.stream import State, Stream, TypeState
from xds.types import short_name

EventKind = Literal["connect", "disconnect", "push", "ack", "nack", "refused"]
EVENT_KINDS: frozenset[EventKind] = frozenset(get_args(EventKind))

#: When two streams of one node tell different stories about a type, the worse one counts.
_WORSE: tuple[State, ...] = ("SYNCED", "NOT-SENT", "STALE", "NACKED")

TypeStatus = TypeState


@dataclass(frozen=True, slots=True)
class XdsEvent:
    """Something that happened on a stream. ``type`` is a short name (``cds``), empty where none applies.

    Heartbeats are no events. ``refused`` is a lease that the server would not give; ``message`` says why.
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
    when it is answered; heartbeats are counted apart. At most ``max_strangers`` unconnected nodes that
    nobody expects are remembered.
    """

    def __init__(self, clock: Callable[[], float], max_strangers: int = 1000) -> None:
        self.pushes: Counter[tuple[str, str]] = Counter()
        self.acks: Counter[str] = Counter()
        self.nacks: Counter[str] = Counter()
        self.heartbeats = 0
        self.connects = 0
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._expected: frozenset[str] = frozenset()
        self._max_strangers = max_strangers

    def nodes(self) -> list[NodeStatus]:
        """All nodes that are connected, expected or were seen, by id."""
        return [self._node(node_id) for node_id in sorted(self._seen.keys() | self._expected)]

    def node(self, node_id: str) -> NodeStatus | None:
        """One node; None if nobody knows it."""
        return self._node(node_id) if node_id in self._seen or node_id in self._expected else None

    def connected(self) -> int:
        """How many nodes have a stream."""
        return sum(1 for one in self._seen.values() if one.streams)

    # For the server

    def expect(self, node_ids: Iterable[str]) -> None:
        """These nodes should exist; others that are not connected are forgotten."""
        gone, self._expected = self._expected, frozenset(node_ids)
        for node_id in gone - self._expected:
            if node_id in self._seen and not self._seen[node_id].streams:
                del self._seen[node_id]

    def opened(self, stream: Stream, node: Node) -> None:
        """A stream said who it is."""
        seen = self._seen.setdefault(node.id, _Seen(node, self._clock()))
        if not seen.streams:
            seen.node, seen.since = node, self._clock()
        seen.streams.append(stream)
        self.connects += 1

    def closed(self, stream: Stream, node: Node) -> None:
        """A stream ended."""
        seen = self._seen[node.id]
        now = self._clock()
        seen.last = self._merge(seen.streams, now)
        seen.streams.remove(stream)
        if not seen.streams:
            seen.since = now
            self._forget_strangers()

    def count(self, response: Response) -> None:
        """A response went out."""
        if response.heartbeat:
            self.heartbeats += 1
        else:
            self.pushes[short_name(response.type_url), "sent"] += 1

    def note(self, notice: Notice) -> None:
        """A response was answered, or a lease refused."""
        name = short_name(notice.type_url)
        if notice.kind == "ack":
            self.acks[name] += 1
            self.pushes[name, "acked"] += 1
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
            for type_url, state in stream.states(now).items():
                name = short_name(type_url)
                merged[name] = worse(merged[name], state) if name in merged else state
        return merged

    def _forget_strangers(self) -> None:
        """The longest unseen go first: ids come from clients, and memory is ours."""
        strangers = [i for i, one in self._seen.items() if not one.streams and i not in self._expected]
        strangers.sort(key=lambda node_id: self._seen[node_id].since)
        for node_id in strangers[: max(0, len(strangers) - self._max_strangers)]:
            del self._seen[node_id]


def worse(one: TypeStatus, other: TypeStatus) -> TypeStatus:
    """Of two states of one type the worse, with the words of both."""
    first, second = sorted((one, other), key=lambda status: _WORSE.index(status.state))
    words = "; ".join(dict.fromkeys(word for word in (second.error, first.error) if word))
    return replace(second, error=words)
