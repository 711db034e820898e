"""What sidecars report, folded into one window per tick.

Each sidecar flushes deltas about once a second. A flush that is lost shows only in the start and end times of its
neighbours, so every rate is divided by the time that its flushes *cover*, never by the length of the tick. A sidecar
that sends no OTLP is known by its load reports (:mod:`meshctl.sources.lrs`), if it sends those.
Statistics: https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from meshctl.history.counters import CounterTracker
from meshctl.sources.lrs import Loads
from meshctl.sources.otlp import Export, Point
from meshctl.sources.windows import NodeWindow, Totals, Window
from xds.loads import LoadReport
from xds.translate.listeners import RATE_LIMIT_BASE, RATE_LIMIT_PLAN

_MS = 1e-3
#: Time series that one service's applications may report: what goes beyond is refused, so that nobody fills the memory.
MAX_SOURCES = 1000

#: A business metric's name, the instance that reports it, and its attributes.
_Source = tuple[str, str, tuple[tuple[str, str], ...]]


class Traffic:
    """Collects exports and load reports between two calls of :meth:`take`. ``clock`` tells seconds.

    What unknown senders say is not counted, and nobody is known before :meth:`know`. ``load_reports`` counts those
    that were used, and those that were ignored because OTLP told the same (``redundant``).
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._loads = Loads()
        self.load_reports: Counter[str] = Counter()
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
        self._loads.know(groups)

    def accept(self, export: Export) -> bool:
        """Count one export; False if its sender is unknown."""
        if self._groups.get(export.instance) == export.service and _is_envoy(export):
            self._loads.told(export.instance, self._clock(), _flush(export))
            self._accept_sidecar(self._nodes[export.instance], export)
        elif export.service in self._services:
            self._accept_application(export)
        else:
            self.rejected += len(export.points)
            return False
        return True

    def accept_load(self, report: LoadReport) -> bool:
        """Count one load report; False if its sender is unknown."""
        if self._groups.get(report.node_id) != report.group:
            self.rejected += len(report.clusters)
            return False
        self.load_reports["used" if self._loads.add(report) else "redundant"] += 1
        return True

    def take(self) -> Window:
        """The window so far; the next one starts now."""
        nodes = dict(self._nodes)
        window = Window(
            nodes | self._loads.take(nodes), {service: _summed(found) for service, found in self._business.items()}
        )
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


def _flush(export: Export) -> float:
    """Seconds between two exports, as far as this one tells."""
    return max((point.end - point.start for point in export.points if point.kind == "delta"), default=0.0)


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
    # Attempts that found no connection: not in the total, though their retries are in upstream_rq_retry.
    "cluster.upstream_rq_pending_failure_eject": _count("requests"),
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
