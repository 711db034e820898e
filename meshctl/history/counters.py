"""Cumulative counters to increments, and histogram buckets to quantiles. Pure but for the tracker's own memory.

A counter is identified by who reports it; the time its count began (OTLP ``start_time_unix_nano``) tells a restart
from a slow day (https://opentelemetry.io/docs/specs/otel/metrics/data-model/#resets-and-gaps).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Point:
    start: float
    end: float
    value: float


class CounterTracker:
    """Remembers the last point of every counter; ``horizon`` seconds without a report make it a stranger again."""

    def __init__(self, horizon: float = 300.0) -> None:
        self._horizon = horizon
        self._last: dict[Hashable, _Point] = {}

    def delta(self, key: Hashable, start: float, end: float, value: float) -> float | None:
        """The increment since the counter's last report, or None where it cannot be known.

        ``start`` and ``end`` (seconds) bound the count of ``value``; ``start`` is 0 where the reporter does not say.
        A first point is only a reference: it may hold hours. After a restart (a later start, or a smaller value) all
        of ``value`` is new. A point that is not newer than the last one is ignored.
        """
        point, last = _Point(start, end, value), self._last.get(key)
        if last is not None and end <= last.end:
            return None
        self._last[key] = point
        if last is None or end - last.end > self._horizon:
            return None
        restarted = start > last.start or value < last.value
        return value if restarted else value - last.value

    def forget(self, before: float) -> None:
        """Drop the counters that were last reported before ``before``."""
        self._last = {key: point for key, point in self._last.items() if point.end >= before}

    def __len__(self) -> int:
        return len(self._last)


def quantile(bounds: Sequence[float], counts: Sequence[float], q: float) -> float | None:
    """The ``q`` quantile (0 to 1) of a histogram, linear within its bucket; None where it is empty.

    ``bounds`` are the n upper edges of explicit buckets and ``counts`` the n + 1 counts, the last one for what is
    beyond the last edge; as in Prometheus' ``histogram_quantile``, a quantile out there is reported as the last edge,
    and the first bucket starts at 0
    (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile). Raises ValueError where
    lengths or ``q`` make no sense.
    """
    if len(counts) != len(bounds) + 1:
        raise ValueError(f"expected {len(bounds) + 1} counts for {len(bounds)} bounds, got {len(counts)}")
    if not 0 <= q <= 1:
        raise ValueError(f"expected a quantile from 0 to 1, got {q}")
    total = sum(counts)
    if total <= 0:
        return None
    return _locate(bounds, counts, q * total)


def _locate(bounds: Sequence[float], counts: Sequence[float], rank: float) -> float | None:
    low, below = 0.0, 0.0
    for high, count in zip(bounds, counts, strict=False):
        if count > 0 and below + count >= rank:
            start = min(low, high)
            return start + (high - start) * (rank - below) / count
        low, below = high, below + count
    return bounds[-1] if bounds else None
