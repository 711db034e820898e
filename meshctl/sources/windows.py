"""One tick's telemetry, by sidecar: what every source fills and the observation is made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from xds.translate.clusters import INBOUND_APP


@dataclass(slots=True)
class Totals:
    """Requests of one sidecar towards one cluster (or of one route) within a window: counts, not rates.

    ``requests`` are attempts, retries and those that found no connection included; ``errors`` are 5xx answers,
    overflowed requests included; ``overflow`` were refused by a circuit breaker and never sent. ``time_sum`` (seconds)
    and ``counts`` (per bucket of ``bounds``, seconds, last one open) describe latency.
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
