"""What sidecars report, folded into one window per tick.

Each sidecar flushes deltas about once a second. A flush that is lost shows only in the start and end times of its
neighbours, so every rate is divided by the time that its flushes *cover*, never by the length of the tick.
Statistics: https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshctl.history.counters import CounterTracker
from meshctl.sources.otlp import Export, Point
from xds.translate.clusters import INBOUND_APP
from xds.translate.listeners import RATE_LIMIT_BASE, RATE_LIMIT_PLAN

_MS = 1e-3
#: Time series that one service's applications may report: what goes beyond is refused, so that nobody fills the memory.
MAX_SOURCES = 1000

#: A business metric's name, the instance that reports it, and its attributes.
_Source = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class Totals:
    """Requests of one sidecar towards one cluster (or of one route) within a window: counts, not rates.

    ``requests`` were sent, retries included; ``errors`` are 5xx answers, overflowed requests included;
    ``overflow`` were refused by a circuit breaker and never sent. ``time_sum`` (seconds) and ``counts``
    (per bucket of ``bounds``, seconds, last one open) describe latency.
    """

    requests: float = 0.0
    completed: float = 0.0
    retries: float = 0.0
    errors: float = 0.0
    overflow: float = 0.0
    time_sum: float = 0.0
    time_count: int = 0
    bounds: tuple[float, ...] = ()
    counts: list[int] = field(default_factory=list)

    def add_times(
        self, total: float, count: int, bounds: tuple[float, ...], counts: tuple[int, ...] | list[int]
    ) -> None:
        """Merge a latency histogram (seconds); a change of buckets keeps the newest ones."""
        self.time_sum += total
        self.time_count += count
        if bounds != self.bounds or len(counts) != len(self.counts):
            self.bounds, self.counts = bounds, list(counts)
            return
        self.counts = [mine + other for mine, other in zip(self.counts, counts, strict=True)]

    def merge(self, other: Totals) -> None:
        """Add another sidecar's totals to these."""
        self.requests += other.requests
        self.completed += other.completed
        self.retries += other.retries
        self.errors += other.errors
        self.overflow += other.overflow
        if other.counts:
            self.add_times(other.time_sum, other.time_count, other.bounds, other.counts)

    @property
    def mean_latency(self) -> float | None:
        return self.time_sum / self.time_count if self.time_count else None


@dataclass(slots=True)
class NodeWindow:
    """What one sidecar reported within a window of ``covered`` seconds (the sum of its flushes' lengths)."""

    covered: float = 0.0
    clusters: dict[str, Totals] = field(default_factory=lambda: defaultdict(Totals))
    arms: dict[tuple[str, str], Totals] = field(default_factory=lambda: defaultdict(Totals))
    rate_limited: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    aborts: float = 0.0
    delays: float = 0.0
    last_end: float = 0.0

    @property
    def inbound(self) -> Totals:
        """Requests to the sidecar's own application."""
        return self.clusters.get(INBOUND_APP, Totals())


@dataclass(frozen=True, slots=True)
class Window:
    """One tick's telemetry: by node id, and applications' metrics as ``{service: {name: rate per second}}``."""

    nodes: Mapping[str, NodeWindow]
    business: Mapping[str, Mapping[str, float]]


class Traffic:
    """Collects exports between two calls of :meth:`take`.

    What unknown senders say is not counted, and nobody is known before :meth:`know`.
    """

    def __init__(self) -> None:
        self._groups: Mapping[str, str] = {}
        self._services: frozenset[str] = frozenset()
        self._nodes: dict[str, NodeWindow] = defaultdict(NodeWindow)
        self._business: dict[str, dict[_Source, list[float]]] = defaultdict(dict)
        self._counters = CounterTracker()
        self._ends: dict[tuple[Any, ...], float] = {}
        self.rejected = 0

    def know(self, groups: Mapping[str, str], services: frozenset[str]) -> None:
        """From now on ``groups`` (node id to group) are the platform's sidecars, and ``services`` the applications that
        may report business metrics."""
        self._groups, self._services = groups, services

    def accept(self, export: Export) -> bool:
        """Count one export; False if its sender is unknown."""
        if self._groups.get(export.instance) == export.service and _is_envoy(export):
            self._accept_sidecar(self._nodes[export.instance], export)
        elif export.service in self._services:
            self._accept_application(export)
        else:
            self.rejected += len(export.points)
            return False
        return True

    def take(self) -> Window:
        """The window so far; the next one starts now."""
        window = Window(dict(self._nodes), {service: _summed(found) for service, found in self._business.items()})
        self._nodes, self._business = defaultdict(NodeWindow), defaultdict(dict)
        return window

    def _accept_sidecar(self, node: NodeWindow, export: Export) -> None:
        for point in export.points:
            if point.kind != "delta":
                continue
            if point.end > node.last_end and point.start > 0.0:
                node.covered += point.end - max(point.start, node.last_end)
                node.last_end = point.end
            reader = _READERS.get(point.name)
            if reader is not None:
                reader(node, point)

    def _accept_application(self, export: Export) -> None:
        for point in export.points:
            rate = self._rate(export, point)
            if rate is None:
                continue
            found, source = self._business[export.service], (point.name, export.instance, _labels(point))
            if source not in found and len(found) >= MAX_SOURCES:
                self.rejected += 1
                continue
            found.setdefault(source, []).append(rate)

    def _rate(self, export: Export, point: Point) -> float | None:
        if point.kind == "gauge":
            return point.value
        if point.kind == "delta":
            return point.value / (point.end - point.start) if point.end > point.start > 0.0 else None
        key = (export.service, export.instance, point.name, _labels(point))
        if key not in self._ends and len(self._ends) >= MAX_SOURCES * len(self._services):
            self._ends.clear()  # somebody makes up names: forget, rather than grow
            self._counters = CounterTracker()
        previous = self._ends.get(key)
        self._ends[key] = point.end
        delta = self._counters.delta(key, point.start, point.end, point.value)
        if delta is None or previous is None or point.end <= previous:
            return None
        return delta / (point.end - previous)


def _labels(point: Point) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(point.attributes.items()))


def _summed(found: Mapping[_Source, list[float]]) -> dict[str, float]:
    """By name: the mean over a source's exports, summed over sources (instances and attributes)."""
    result: dict[str, float] = defaultdict(float)
    for (name, _, _), rates in found.items():
        result[name] += sum(rates) / len(rates)
    return dict(result)


def _is_envoy(export: Export) -> bool:
    return any(point.name.startswith(_ENVOY_PREFIXES) for point in export.points)


_ENVOY_PREFIXES = (
    "cluster.",
    "cluster_manager.",
    "http.",
    "vhost.",
    "server.",
    "listener.",
    "runtime.",
    "control_plane.",
)


def _cluster(point: Point, node: NodeWindow) -> Totals | None:
    name = point.attributes.get("envoy.cluster_name")
    return node.clusters[name] if name else None


def _count(field_name: str) -> Callable[[NodeWindow, Point], None]:
    def read(node: NodeWindow, point: Point) -> None:
        totals = _cluster(point, node)
        if totals is not None:
            setattr(totals, field_name, getattr(totals, field_name) + point.value)

    return read


def _response_class(node: NodeWindow, point: Point) -> None:
    totals = _cluster(point, node)
    if totals is not None:
        _add_response(totals, point)


def _add_response(totals: Totals, point: Point) -> None:
    totals.completed += point.value
    if point.attributes.get("envoy.response_code_class") == "5":
        totals.errors += point.value


def _response_time(node: NodeWindow, point: Point) -> None:
    totals = _cluster(point, node)
    if totals is not None:
        _add_times(totals, point)


def _add_times(totals: Totals, point: Point) -> None:
    totals.add_times(point.value * _MS, point.count, tuple(bound * _MS for bound in point.bounds), point.counts)


def _arm(node: NodeWindow, point: Point) -> Totals | None:
    service, _, arm = point.attributes.get("envoy.route", "").rpartition("_")
    return node.arms[(service, arm)] if service else None


def _arm_class(node: NodeWindow, point: Point) -> None:
    totals = _arm(node, point)
    if totals is not None:
        _add_response(totals, point)


def _arm_time(node: NodeWindow, point: Point) -> None:
    totals = _arm(node, point)
    if totals is not None:
        _add_times(totals, point)


def _limited(node: NodeWindow, point: Point) -> None:
    prefix = point.attributes.get("envoy.local_http_ratelimit_prefix", "")
    for own in (f"{RATE_LIMIT_PLAN}_", f"{RATE_LIMIT_BASE}_"):
        if prefix.startswith(own):
            node.rate_limited[prefix.removeprefix(own)] += point.value


def _fault(field_name: str) -> Callable[[NodeWindow, Point], None]:
    def read(node: NodeWindow, point: Point) -> None:
        setattr(node, field_name, getattr(node, field_name) + point.value)

    return read


_READERS: Mapping[str, Callable[[NodeWindow, Point], None]] = {
    "cluster.upstream_rq_total": _count("requests"),
    "cluster.upstream_rq_retry": _count("retries"),
    # Envoy 1.40 counts what max_requests sheds as active overflow; older ones count all of it as pending overflow.
    "cluster.upstream_rq_pending_overflow": _count("overflow"),
    "cluster.upstream_rq_active_overflow": _count("overflow"),
    "cluster.upstream_rq_xx": _response_class,
    "cluster.upstream_rq_time": _response_time,
    "vhost.route.upstream_rq_xx": _arm_class,
    "vhost.route.upstream_rq_time": _arm_time,
    "http_local_rate_limit.enforced": _limited,
    "http.fault.aborts_injected": _fault("aborts"),
    "http.fault.delays_injected": _fault("delays"),
}
