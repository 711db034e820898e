"""How many calls a request causes, measured per edge of the call graph while it drifts.

A child's own history knows nothing of a rise that its parents' forecasts already show. A parent's forecast times this
ratio is one more expert about the child (``NAME``), which a mixture weighs against the child's own. T steps of history.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from forecasting.errors import ForecastingError
from forecasting.series import FloatArray, clean

NAME: Final = "graph"
"""The model name of what is carried through the graph."""

HALF_LIFE = 720.0
"""Steps after which a measurement counts half: an hour of 5 s ticks, so a new release shows within the hour."""

Edge = tuple[str, str]
"""Parent and child."""


class GraphError(ForecastingError):
    """Calls that cannot be measured against their parent's requests: none are given, or of other steps."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Calls of a child per request of a parent.

    ``error`` is the standard error of ``value``; ``scatter`` the standard deviation of a single step around it (what a
    forecast of one step has to reckon with besides). All NaN while no request of the parent was seen.
    """

    value: float
    error: float = 0.0
    scatter: float = 0.0


@dataclass(frozen=True, slots=True)
class Sums:
    """What is remembered of an edge: exponentially forgotten sums of calls c and parent's totals p. O(1) memory.

    Weights ``w`` fall by half every half-life; ``squared`` is the sum of ``(w p)**2``, which tells the standard error.
    """

    calls: float = 0.0
    totals: float = 0.0
    calls_calls: float = 0.0
    calls_totals: float = 0.0
    totals_totals: float = 0.0
    squared: float = 0.0

    def after(self, calls: FloatArray, totals: FloatArray, half_life: float = HALF_LIFE) -> Sums:
        """The sums after further steps, both ``(T,)`` and oldest first. Fed piece by piece or at once, they are the
        same. A step where either is NaN only lets time pass. Raises GraphError for unequal lengths.
        """
        if calls.shape != totals.shape:
            raise GraphError(f"{calls.size} measurements of calls for {totals.size} of the parent; cut both alike")
        decay = 0.5 ** (np.arange(len(calls), 0, -1) / half_life)  # the newest has aged one step when the next comes
        aged = 0.5 ** (len(calls) / half_life)
        c, p = clean(calls), clean(totals)
        known = np.isfinite(c) & np.isfinite(p)
        c, p, w = c[known], p[known], decay[known]
        return Sums(
            aged * self.calls + float(w @ c),
            aged * self.totals + float(w @ p),
            aged * self.calls_calls + float(w @ (c * c)),
            aged * self.calls_totals + float(w @ (c * p)),
            aged * self.totals_totals + float(w @ (p * p)),
            aged**2 * self.squared + float((w * p) @ (w * p)),
        )

    def ratio(self) -> Ratio:
        """The ratio of sums, its standard error and scatter (the ratio estimator: Cochran, Sampling Techniques, 1977,
        chapter 6).
        """
        if self.totals <= 0.0:
            return Ratio(math.nan, math.nan, math.nan)
        value = self.calls / self.totals
        residual = self.calls_calls - 2.0 * value * self.calls_totals + value * value * self.totals_totals
        scatter = math.sqrt(max(residual, 0.0) / self.totals_totals)
        return Ratio(value, scatter * math.sqrt(self.squared) / self.totals, scatter)


def sums(
    calls: Mapping[Edge, FloatArray],
    totals: Mapping[str, FloatArray],
    before: Mapping[Edge, Sums] | None = None,
    half_life: float = HALF_LIFE,
) -> dict[Edge, Sums]:
    """``before``, continued by newer measurements: calls ``(T,)`` over each edge, totals ``(T,)`` of its parent.

    Edges that ``before`` alone has are kept as they are. Raises GraphError where a parent has no totals.
    """
    old = dict(before or {})
    for edge in calls:
        if edge[0] not in totals:
            raise GraphError(f"edge {edge[0]} -> {edge[1]}: no totals of {edge[0]}; measure its requests too")
    return old | {edge: old.get(edge, Sums()).after(now, totals[edge[0]], half_life) for edge, now in calls.items()}
