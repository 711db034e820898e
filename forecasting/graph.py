"""Forecasts carried along the measured call graph: what the entry services will do to those behind them.

A child's own history knows nothing of a rise that its parents' forecasts already show. ``ratios`` measures how many
calls a parent's request causes, ``propagated`` multiplies forecasts through. The result is one more expert about each
child (``NAME``), which a mixture weighs against the child's own.

Shapes: T steps of history, H steps ahead, Q quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from forecasting.base import QUANTILES, column
from forecasting.errors import ForecastingError
from forecasting.series import CEILING, FloatArray, clean

NAME: Final = "graph"
"""The model name of what is carried through the graph."""

HALF_LIFE = 720.0
"""Steps after which a measurement counts half: an hour of 5 s ticks, so a new release shows within the hour."""

SWEEPS = 500
"""Passes after which a loop that has not settled is called unstable. A loop that returns 95 % settles in 400."""

Edge = tuple[str, str]
"""Parent and child."""


class GraphError(ForecastingError):
    """A graph that cannot be gone through: services left out of the order, or a loop that calls itself without end."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Calls of a child per request of a parent.

    ``error`` is the standard error of ``value``; ``scatter`` the standard deviation of a single step around it (what a
    forecast of one step has to reckon with besides). All NaN while no request of the parent was seen.
    """

    value: float
    error: float = 0.0
    scatter: float = 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation of the ratio of one future step."""
        return math.hypot(self.error, self.scatter)


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


def ratios(
    calls: Mapping[Edge, FloatArray], totals: Mapping[str, FloatArray], half_life: float = HALF_LIFE
) -> dict[Edge, Ratio]:
    """How many calls over each edge a request of its parent causes, at the end of ``calls`` and ``totals`` ``(T,)``.

    ``sums`` is the same step by step. Raises GraphError where a parent has no totals.
    """
    return {edge: one.ratio() for edge, one in sums(calls, totals, half_life=half_life).items()}


def ordered(edges: Iterable[Edge]) -> tuple[str, ...]:
    """Every service after its parents; within a loop, after those it was reached from. Alphabetical where free."""
    children: dict[str, list[str]] = {}
    for parent, child in sorted(edges, reverse=True):
        children.setdefault(parent, []).append(child)
        children.setdefault(child, [])
    inner = {child for each in children.values() for child in each}
    roots = sorted(children.keys() - inner, reverse=True)
    return tuple(reversed(_finished([*sorted(inner, reverse=True), *roots][::-1], children)))


def _finished(starts: Sequence[str], children: Mapping[str, Sequence[str]]) -> list[str]:
    """Services in the order in which a depth-first search leaves them. No recursion: call chains may be long."""
    seen: set[str] = set()
    finished: list[str] = []
    stack = [(one, False) for one in reversed(starts)]
    while stack:
        name, left = stack.pop()
        if left:
            finished.append(name)
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))
            stack.extend((child, False) for child in children[name])
    return finished


def propagated(
    graph: Mapping[Edge, Ratio],
    forecasts: Mapping[str, FloatArray],
    order: Sequence[str] | None = None,
    correlation: float = 1.0,
    quantiles: tuple[float, ...] = QUANTILES,
) -> dict[str, FloatArray]:
    """Forecasts ``(H, Q)`` of every service behind those in ``forecasts``, which are taken as they are.

    A child's median is the sum of its parents' medians times the ratios. Around it, each edge brings the parent's
    spread and, in quadrature, the ratio's own (normal). Spreads of several edges into a child add by
    ``sqrt((1 - c) * sum of squares + c * square of sum)`` for a ``correlation`` c: in quadrature where calls are
    independent (0), linearly where they rise and fall together (1). Comonotone calls are the default because parents
    usually share their users, and because no dependence gives a larger spread (Dhaene et al., Insurance: Mathematics
    and Economics 31, 2002). A call is made in the step of the request that causes it: no delay.

    ``order`` lists parents before children (``ordered(graph)`` by default). Loops (retries, call-backs) are solved for
    their fixed point by sweeps in this order (Gauss-Seidel): from 0 they rise to the only solution when a round through
    the loop causes less than one further round. Otherwise, and where ``order`` lacks a service, GraphError is raised.

    A service of which some parent is not known (no forecast, or a ratio never seen), or that none of ``forecasts``
    leads to, is left out: half a sum would be a wrong forecast, not a careful one. Quantiles that are NaN stay NaN.
    """
    _check(graph, forecasts, order, correlation)
    places = _known(graph, forecasts)
    inner = [name for name in order or ordered(graph) if name in places]
    if not inner:
        return {}
    net = _Net.of(graph, inner, correlation, quantiles)
    return net.settled({name: np.asarray(one, dtype=np.float64) for name, one in forecasts.items()})


def expert(names: Sequence[str], told: Mapping[str, FloatArray], shape: tuple[int, int]) -> FloatArray:
    """What ``propagated`` told as the answer of a model: ``(N, *shape)`` in the order of ``names``; NaN: silent."""
    return np.stack([told.get(name, np.full(shape, np.nan)) for name in names]) if names else np.empty((0, *shape))


def _check(
    graph: Mapping[Edge, Ratio], forecasts: Mapping[str, FloatArray], order: Sequence[str] | None, correlation: float
) -> None:
    if not 0.0 <= correlation <= 1.0:
        raise GraphError(f"a correlation of {correlation} between calls; choose one from 0 to 1")
    shapes = {np.shape(one) for one in forecasts.values()}
    if len(shapes) > 1:
        raise GraphError(f"forecasts of different shapes {sorted(shapes)}; forecast all entries with the same horizon")
    missing = {name for edge in graph for name in edge}.difference(order) if order is not None else set[str]()
    if missing:
        raise GraphError(f"the order lacks {', '.join(sorted(missing))}; use ordered(graph)")


def _known(graph: Mapping[Edge, Ratio], given: Mapping[str, FloatArray]) -> set[str]:
    """Services that can be told: reached from ``given``, and with no parent that cannot be."""
    live = {edge for edge, ratio in graph.items() if math.isfinite(ratio.value)}
    reached = _closure(set(given), live) - given.keys()
    everyone = {name for edge in graph for name in edge}
    deaf = {child for parent, child in graph.keys() - live} | (everyone - reached)
    inner = {edge for edge in graph if edge[1] not in given}
    return reached - _closure(deaf - given.keys(), inner)


def _closure(names: set[str], edges: set[Edge]) -> set[str]:
    """``names`` and whatever they lead to."""
    children: dict[str, list[str]] = {}
    for parent, child in edges:
        children.setdefault(parent, []).append(child)
    found, ahead = set(names), list(names)
    while ahead:
        fresh = [child for child in children.get(ahead.pop(), ()) if child not in found]
        found.update(fresh)
        ahead.extend(fresh)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Net:
    """The edges into the services that are to be told, in order. ``normal (Q,)`` are the normal quantiles."""

    parents: dict[str, list[tuple[str, Ratio]]]
    correlation: float
    quantiles: tuple[float, ...]
    normal: FloatArray

    @classmethod
    def of(
        cls, graph: Mapping[Edge, Ratio], inner: Sequence[str], correlation: float, quantiles: tuple[float, ...]
    ) -> _Net:
        parents: dict[str, list[tuple[str, Ratio]]] = {name: [] for name in inner}
        for (parent, child), ratio in sorted(graph.items(), key=lambda item: item[0]):
            if child in parents:
                parents[child].append((parent, ratio))
        column(quantiles, 0.5)
        return cls(parents, correlation, quantiles, np.array([NormalDist().inv_cdf(q) for q in quantiles]))

    def settled(self, given: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Sweep until nothing moves any more. Without loops that is after the second sweep."""
        shape = next(iter(given.values())).shape
        told = {name: np.zeros(shape) for name in self.parents} | dict(given)
        for _ in range(SWEEPS):
            moving = [name for name in self.parents if self._moves(name, told)]
            if not moving:
                return {name: _tidy(told[name]) for name in self.parents}
            if max(float(np.nan_to_num(told[name]).max(initial=0.0)) for name in moving) > CEILING:
                break
        raise GraphError(
            f"calls between {', '.join(sorted(moving))} go round and every round causes another; measure their ratios "
            "again (a loop of retries must cause less than one further round) or leave an edge of the loop out"
        )

    def _moves(self, name: str, told: dict[str, FloatArray]) -> bool:
        """Work ``name`` out from its parents; whether that changed it."""
        before, told[name] = told[name], self._summed([(told[parent], ratio) for parent, ratio in self.parents[name]])
        return not np.allclose(before, told[name], rtol=1e-10, atol=1e-12, equal_nan=True)

    def _summed(self, parts: Sequence[tuple[FloatArray, Ratio]]) -> FloatArray:
        """One child ``(H, Q)`` from its parents' forecasts."""
        middle = column(self.quantiles, 0.5)
        median = np.sum([ratio.value * told[:, [middle]] for told, ratio in parts], axis=0)
        spreads = np.stack([self._spread(told, told[:, [middle]], ratio) for told, ratio in parts])  # (P, H, Q)
        apart, together = (spreads**2).sum(axis=0), spreads.sum(axis=0) ** 2
        spread = np.sqrt((1.0 - self.correlation) * apart + self.correlation * together)
        return np.asarray(median + np.sign(self.normal) * spread)

    def _spread(self, told: FloatArray, median: FloatArray, ratio: Ratio) -> FloatArray:
        """How far each quantile of one edge's calls lies from their median, ``(H, Q)``, not negative."""
        return np.hypot(ratio.value * (told - median), self.normal * ratio.deviation * median)


def _tidy(values: FloatArray) -> FloatArray:
    """Not negative and never decreasing along the last axis; NaN (a quantile that was not forecast) stays."""
    return np.asarray(np.where(np.isnan(values), np.nan, np.fmax.accumulate(np.maximum(values, 0.0), axis=-1)))
