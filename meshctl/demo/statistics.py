"""Counting answers and their latencies; no heavy library, because the load generator uses it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile of an ascending sequence (None if empty): the smallest value that ``share`` of all
    do not exceed.
    """
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(slots=True)
class Tally:
    """What happened to requests. ``latencies`` (seconds) are those of *answered* requests, good or not."""

    scheduled: int = 0
    sent: int = 0
    late: int = 0
    ok: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def add(self, status: str, latency: float | None) -> None:
        """Count an outcome: an HTTP status, or ``timeout``, ``connection``, ``dropped``."""
        if status == "200":
            self.ok += 1
        else:
            self.errors[status] += 1
        if latency is not None:
            self.latencies.append(latency)

    def summary(self) -> dict[str, object]:
        ordered = sorted(self.latencies)
        shares = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
        found = {name: quantile(ordered, share) for name, share in shares.items()}
        return {
            "scheduled": self.scheduled,
            "sent": self.sent,
            "late": self.late,
            "ok": self.ok,
            "errors": dict(self.errors),
            **{name: None if value is None else round(value, 4) for name, value in found.items()},
        }
