"""The status board of a sharded server: what its workers report, added up and merged.

A worker reports totals and the nodes whose state may have changed, a few times a second and only what changed. Totals
of a worker that ended are kept, so that counters never fall; its nodes count as disconnected until they are back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any

from xds.histogram import Histogram
from xds.status import NodeStatus, StatusBoard, TypeStatus, worse

_HISTOGRAMS = ("push_seconds", "convergence_seconds")
#: What a type's state says, in order; ``dataclasses.astuple`` copies deeply and costs ten times as much.
_FIELDS = attrgetter(*(field.name for field in fields(TypeStatus)))


@dataclass(slots=True)
class Totals:
    """What one worker, or several, counted since the start."""

    pushes: Counter[tuple[str, str]] = field(default_factory=Counter)
    acks: Counter[str] = field(default_factory=Counter)
    nacks: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    heartbeats: int = 0
    connects: int = 0
    push_seconds: dict[str, Histogram] = field(default_factory=dict)
    convergence_seconds: dict[str, Histogram] = field(default_factory=dict)

    def add(self, other: Totals) -> None:
        self.pushes += other.pushes
        self.acks += other.acks
        self.nacks += other.nacks
        self.refused += other.refused
        self.heartbeats += other.heartbeats
        self.connects += other.connects
        for name in _HISTOGRAMS:
            _add_histograms(getattr(self, name), getattr(other, name))


def _add_histograms(mine: dict[str, Histogram], theirs: Mapping[str, Histogram]) -> None:
    for name, one in theirs.items():
        total = mine.setdefault(name, Histogram(one.bounds))
        total.counts = [a + b for a, b in zip(total.counts, one.counts, strict=True)]
        total.total += one.total


# On the wire


def totals_head(board: StatusBoard, refused: Mapping[str, int]) -> dict[str, Any]:
    """The totals of a worker's board as JSON."""
    return {
        "pushes": [[name, outcome, count] for (name, outcome), count in board.pushes.items()],
        "acks": dict(board.acks),
        "nacks": dict(board.nacks),
        "refused": dict(refused),
        "heartbeats": board.heartbeats,
        "connects": board.connects,
        **{name: _histograms_head(getattr(board, name)) for name in _HISTOGRAMS},
    }


def totals_of(head: Mapping[str, Any]) -> Totals:
    """The inverse of :func:`totals_head`."""
    return Totals(
        pushes=Counter({(name, outcome): count for name, outcome, count in head["pushes"]}),
        acks=Counter(head["acks"]),
        nacks=Counter(head["nacks"]),
        refused=Counter(head["refused"]),
        heartbeats=head["heartbeats"],
        connects=head["connects"],
        **{name: _histograms_of(head[name]) for name in _HISTOGRAMS},
    )


def _histograms_head(histograms: Mapping[str, Histogram]) -> dict[str, list[Any]]:
    return {name: [list(one.bounds), one.counts, one.total] for name, one in histograms.items()}


def _histograms_of(head: Mapping[str, list[Any]]) -> dict[str, Histogram]:
    found = {}
    for name, (bounds, counts, total) in head.items():
        one = found[name] = Histogram(tuple(bounds))
        one.counts, one.total = list(counts), total
    return found


def node_head(node: NodeStatus) -> list[Any]:
    """One node as JSON."""
    types = {name: _FIELDS(state) for name, state in node.types.items()}
    return [node.node_id, node.group, node.connected, node.since, node.user_agent_version, types]


def node_of(head: Sequence[Any]) -> NodeStatus:
    """The inverse of :func:`node_head`."""
    node_id, group, connected, since, version, types = head
    states = {name: TypeStatus(*map(_frozen, state)) for name, state in types.items()}
    return NodeStatus(node_id, group, connected, since, version, states)


def _frozen(value: Any) -> Any:
    """JSON knows no tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


# Merged


@dataclass(slots=True)
class WorkerStatus:
    """What one worker last reported. ``restarts`` counts how often another took its place."""

    index: int
    pid: int = 0
    restarts: int = 0
    totals: Totals = field(default_factory=Totals)
    nodes: dict[str, NodeStatus] = field(default_factory=dict)
    behind: dict[str, int] = field(default_factory=dict)

    @property
    def connected(self) -> int:
        """How many nodes have a stream here."""
        return sum(node.connected for node in self.nodes.values())


class ShardedStatus:
    """Looks like :class:`~xds.status.StatusBoard` to who reads it; a quarter of a second behind.

    A change has converged in a worker when that worker's last stream accepted it: ``convergence_seconds`` holds one
    observation per worker and change.
    """

    def __init__(self, clock: Callable[[], float], workers: int) -> None:
        self.workers = [WorkerStatus(index) for index in range(workers)]
        self._clock = clock
        self._past = Totals()
        self._expected: frozenset[str] = frozenset()

    # Totals

    def _totals(self) -> Totals:
        total = Totals()
        for one in (self._past, *(worker.totals for worker in self.workers)):
            total.add(one)
        return total

    @property
    def pushes(self) -> Counter[tuple[str, str]]:
        return self._totals().pushes

    @property
    def acks(self) -> Counter[str]:
        return self._totals().acks

    @property
    def nacks(self) -> Counter[str]:
        return self._totals().nacks

    @property
    def refused(self) -> Counter[str]:
        """Refusals of the gate by reason."""
        return self._totals().refused

    @property
    def heartbeats(self) -> int:
        return self._totals().heartbeats

    @property
    def connects(self) -> int:
        return self._totals().connects

    @property
    def push_seconds(self) -> Mapping[str, Histogram]:
        return self._totals().push_seconds

    @property
    def convergence_seconds(self) -> Mapping[str, Histogram]:
        return self._totals().convergence_seconds

    def behind(self) -> dict[str, int]:
        """How many streams lack a change that was published, by short type."""
        return dict(sum((Counter(worker.behind) for worker in self.workers), Counter()))

    # Nodes

    def nodes(self) -> list[NodeStatus]:
        """All nodes that are connected, expected or were seen, by id."""
        seen = {node_id for worker in self.workers for node_id in worker.nodes}
        return [self._node(node_id) for node_id in sorted(seen | self._expected)]

    def node(self, node_id: str) -> NodeStatus | None:
        """One node; None if nobody knows it."""
        known = node_id in self._expected or any(node_id in worker.nodes for worker in self.workers)
        return self._node(node_id) if known else None

    def connected(self) -> int:
        """How many nodes have a stream."""
        return len({node.node_id for worker in self.workers for node in worker.nodes.values() if node.connected})

    def _node(self, node_id: str) -> NodeStatus:
        """Where it is connected, else where it was last; of two workers' words about a type the worse."""
        found = [worker.nodes[node_id] for worker in self.workers if node_id in worker.nodes]
        if not found:
            return NodeStatus(node_id, "", False, None, "", {})
        connected = [node for node in found if node.connected]
        if not connected:
            return max(found, key=lambda node: node.since or 0.0)
        first = min(connected, key=lambda node: node.since or 0.0)
        types: dict[str, TypeStatus] = {}
        for node in connected:
            for name, state in node.types.items():
                types[name] = worse(types[name], state) if name in types else state
        return replace(first, types=types)

    # For the server

    def expect(self, node_ids: Iterable[str]) -> None:
        """These nodes should exist; others that are not connected are forgotten."""
        gone, self._expected = self._expected, frozenset(node_ids)
        for worker in self.workers:
            for node_id in gone - self._expected:
                if node_id in worker.nodes and not worker.nodes[node_id].connected:
                    del worker.nodes[node_id]

    def reported(self, index: int, head: Mapping[str, Any]) -> None:
        """A worker's report."""
        worker = self.workers[index]
        worker.totals = totals_of(head["totals"])
        worker.behind = dict(head["behind"])
        for each in head["nodes"]:
            node = node_of(each)
            worker.nodes[node.node_id] = node
        for node_id in head["forgotten"]:
            worker.nodes.pop(node_id, None)

    def ended(self, index: int) -> list[str]:
        """A worker is gone; the nodes that were connected to it."""
        worker, now = self.workers[index], self._clock()
        self._past.add(worker.totals)
        worker.totals, worker.behind = Totals(), {}
        lost = [node_id for node_id, node in worker.nodes.items() if node.connected]
        for node_id in lost:
            worker.nodes[node_id] = replace(worker.nodes[node_id], connected=False, since=now)
        return lost
