"""The two arms of an experiment and the SLO, counted per tick at the ingress. A bounded memory of windows."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshctl.history.counters import quantile
from meshctl.sources.windows import NodeWindow, Totals
from xds.model import CONTROL, TREATMENT

_KEPT = 5000
_CALLERS = "callers"


@dataclass(frozen=True, slots=True)
class ArmWindow:
    """One tick's answers to users, by (entry service, arm)."""

    time: float
    totals: Mapping[tuple[str, str], Totals]


class Arms:
    """What users got, tick by tick, in treatment and in control (everybody, while there is no experiment)."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._windows: deque[ArmWindow] = deque(maxlen=kept)

    def add(self, time: float, nodes: Mapping[str, NodeWindow]) -> None:
        """Fold one tick's telemetry of all ingresses."""
        totals: dict[tuple[str, str], Totals] = defaultdict(Totals)
        for node in nodes.values():
            for key, counted in node.arms.items():
                totals[key].merge(counted)
            for callee, counted in node.clusters.items():
                totals[(callee, _CALLERS)].merge(counted)
        self._windows.append(ArmWindow(time, dict(totals)))

    def since(self, service: str, start: float, until: float, latency: float) -> dict[str, Any]:
        """Both arms of ``service`` over windows that end in ``(start, until]``; ``latency`` (s) is the SLO's
        threshold.
        """
        kept = [window for window in self._windows if start < window.time <= until]
        return {
            "service": service,
            "since": start,
            "until": kept[-1].time if kept else start,
            "arms": {arm: _arm(_sum(kept, service, (arm,)), latency) for arm in (TREATMENT, CONTROL)},
            "windows": [
                {
                    "time": window.time,
                    **{
                        arm: _counts(window.totals.get((service, arm), Totals()), latency)
                        for arm in (TREATMENT, CONTROL)
                    },
                }
                for window in kept
            ],
        }

    def slo(self, service: str, start: float, latency: float) -> tuple[float, float]:
        """Answers and *good* answers (in time and no 5xx) since ``start``: what users got where the ingress routes to
        ``service``, else what its callers' sidecars saw."""
        windows = [window for window in self._windows if window.time > start]
        total = _sum(windows, service, (TREATMENT, CONTROL))
        if not total.completed:
            total = _sum(windows, service, (_CALLERS,))
        return total.completed, good(total, latency)


def good(totals: Totals, latency: float) -> float:
    """Answers within ``latency`` seconds that were no errors.

    Envoy's histogram does not tell errors from answers, so errors are taken as fast ones: a slow error is subtracted
    twice, which errs on the strict side.
    """
    return max(0.0, totals.completed - totals.errors - slow(totals, latency))


def slow(totals: Totals, latency: float) -> float:
    """Answers that took longer than ``latency`` seconds, interpolated within the bucket that holds it."""
    above, lower = 0.0, 0.0
    for upper, count in zip((*totals.bounds, float("inf")), totals.counts, strict=False):
        if lower >= latency:
            above += count
        elif upper > latency:
            share = 1.0 if upper == float("inf") else (upper - latency) / (upper - lower)
            above += count * share
        lower = upper
    return above


def _sum(windows: list[ArmWindow], service: str, arms: tuple[str, ...]) -> Totals:
    total = Totals()
    for window in windows:
        for arm in arms:
            if (service, arm) in window.totals:
                total.merge(window.totals[(service, arm)])
    return total


def _counts(totals: Totals, latency: float) -> dict[str, float]:
    return {"requests": totals.completed, "errors": totals.errors, "slow": round(slow(totals, latency), 3)}


def _arm(totals: Totals, latency: float) -> dict[str, float | None]:
    return {
        **_counts(totals, latency),
        "p50": quantile(totals.bounds, totals.counts, 0.5) if totals.time_count else None,
        "p99": quantile(totals.bounds, totals.counts, 0.99) if totals.time_count else None,
    }
