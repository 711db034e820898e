"""The measured call graph, and what it says about the demand to come: parents' forecasts times calls per request.

Sidecars count, per upstream cluster, what their application calls (:mod:`meshctl.sources.traffic`); an edge's *calls*
are first attempts per second, offered, as demand is. Per request that the caller *handled* (what it refused calls
nobody) that is the edge's ratio, a property of the software: it stays when load changes, so what parents are about to
do tells what their children will be asked.

The parents' forecasts are those served at the tick before, one step on: the mixture of a tick is made of what this
model says, so it cannot be asked for at the same tick without asking every model twice. On a recorded mesh the older
forecast did as well as a fresh one, and loops of calls need no order. Nothing here looks ahead: ratios end with the
newest tick, forecasts were made before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from forecasting.base import MEDIAN, Forecast, medians
from forecasting.batch import Batch
from forecasting.graph import HALF_LIFE, NAME, Edge, Ratio, Sums, sums
from forecasting.selected import Selected
from forecasting.series import FloatArray
from meshctl.model import Observation

BLOCK: Final = 12
"""Ticks that are measured before ratios are worked out again: far below the half-life, and no ratio is of one tick."""

FORGOTTEN: Final = round(HALF_LIFE)
"""Ticks without a call after which an edge is no more: a caller that is gone must not silence its children for good."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One tick: first attempts per second over each edge, and requests per second that each service handled (NaN:
    unknown).
    """

    calls: Mapping[Edge, float]
    totals: Mapping[str, float]

    @classmethod
    def of(cls, observation: Observation, masked: frozenset[str], known: Iterable[Edge]) -> Measured:
        """``known`` edges were called before. What is not called is not reported: no news of a caller that was heard
        are zero calls. A fault distorts what goes out of and into ``masked`` services.
        """
        services, seen = observation.services, {(one.caller, one.callee): one.demand for one in observation.edges}
        heard = {name for name, one in services.items() if one.service_time is not None} | {edge[0] for edge in seen}
        calls = {edge: 0.0 if edge[0] in heard else math.nan for edge in known} | seen
        clear = {edge: math.nan if masked.intersection(edge) else rate for edge, rate in calls.items()}
        return cls(clear, {name: one.rate for name, one in services.items()})


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What the graph says at ``origin`` (seconds since the epoch): medians ``(H,)`` by service."""

    origin: float = -math.inf
    medians: Mapping[str, FloatArray] = field(default_factory=dict)


class GraphModel:
    """What the call graph says, as one expert more: silent about entries, and wherever parents or ratios are unknown.

    It answers for windows that end at the newest tick only. Replays and backtests end before it, and nobody knows any
    longer what parents' forecasts were then: an answer would be hindsight.
    """

    name = NAME

    def __init__(self, step: float) -> None:
        self._step = step
        self._told = Told()

    def hear(self, told: Told) -> None:
        """Say this from now on. Whoever asks from another thread gets all of the old or all of the new."""
        self._told = told

    def predict(self, batch: Batch) -> FloatArray:
        """Point forecasts ``(N, H, Q)`` of windows that end now."""
        told, answer = self._told, np.full((len(batch), batch.horizon), np.nan)
        for one, rows, counts in batch.groups():
            median = told.medians.get(one.name)
            if median is not None and len(median) >= batch.horizon and self._ends_now(one.end, told.origin):
                answer[rows][counts == len(one.values)] = median[: batch.horizon]
        return medians(answer)

    def _ends_now(self, end: float, origin: float) -> bool:
        """Ticks come anywhere, series end on multiples of their step: the newest value's step is the one that holds the
        middle of the tick's window.
        """
        return -0.499 * self._step < end - origin < 0.501 * self._step


class CallGraph:
    """Who calls whom how often. One call of :meth:`tick` per tick, before services are forecast."""

    def __init__(self, step: float) -> None:
        self.model = GraphModel(step)
        self.ratios: Mapping[Edge, Ratio] = {}
        self._sums: Mapping[Edge, Sums] = {}
        self._block: list[Measured] = []
        self._called: dict[Edge, int] = {}  # the tick of each edge's newest call
        self._ticks = 0

    def tick(self, observation: Observation, masked: frozenset[str], served: Mapping[str, Selected]) -> None:
        """Measure what was called in this tick, and say what follows from what was ``served`` at the tick before.

        In ticks of a fault, edges out of and into ``masked`` services count for nothing.
        """
        self._ticks += 1
        self._measure(observation, masked)
        callers = {caller for caller, _ in self._called}
        ahead = {name: shifted(served[name].forecast, observation.time) for name in callers & served.keys()}
        self.model.hear(Told(observation.time, carried(self._called, self.ratios, ahead)))

    def callers(self) -> dict[str, dict[str, Ratio]]:
        """Calls per request of each caller, by service called, as far as measured: those from outside have no ratio."""
        found: dict[str, dict[str, Ratio]] = {}
        for (caller, callee), ratio in sorted(self.ratios.items(), key=lambda item: item[0]):
            found.setdefault(callee, {})[caller] = ratio
        return found

    def _measure(self, observation: Observation, masked: frozenset[str]) -> None:
        now = Measured.of(observation, masked, self._called)
        self._called |= {edge: self._ticks for edge, rate in now.calls.items() if rate > 0.0}
        self._called = {edge: tick for edge, tick in self._called.items() if self._ticks - tick < FORGOTTEN}
        self._block.append(now)
        if len(self._block) == BLOCK:
            self._sums = folded(self._block, self._called, self._sums)
            self._block = []
            found = {edge: one.ratio() for edge, one in self._sums.items()}
            self.ratios = {edge: ratio for edge, ratio in found.items() if math.isfinite(ratio.value)}


def folded(block: Sequence[Measured], edges: Iterable[Edge], before: Mapping[Edge, Sums]) -> dict[Edge, Sums]:
    """The sums of ``edges`` after the ticks of ``block``; other edges are forgotten. Callers that are no services (an
    ingress) have no demand of their own, and so no ratio.
    """
    names = {name for one in block for name in one.totals}
    kept = [edge for edge in edges if edge[0] in names]
    calls = {edge: np.array([one.calls.get(edge, math.nan) for one in block]) for edge in kept}
    totals = {name: np.array([one.totals.get(name, math.nan) for one in block]) for name, _ in kept}
    return sums(calls, totals, {edge: before[edge] for edge in kept if edge in before})


def shifted(made: Forecast, now: float) -> FloatArray | None:
    """The medians ``(H,)`` of a forecast that was made before ``now`` (seconds since the epoch), as if made now.

    What it did not reach is its last step's. None where it knows nothing of what is to come.
    """
    median = made.values[:, MEDIAN]
    late = max(0, round((now - made.origin) / made.step))
    if late >= len(median) or not np.isfinite(median).all():
        return None
    return np.concatenate([median[late:], np.repeat(median[-1:], late)])


def carried(
    edges: Iterable[Edge], ratios: Mapping[Edge, Ratio], ahead: Mapping[str, FloatArray | None]
) -> dict[str, FloatArray]:
    """Medians ``(H,)`` of each service that is called: what its callers do ``ahead`` times their ratios.

    Of a service with a caller whose ratio or future is unknown nothing is said: half a sum would be a wrong forecast.
    That is the case of every entry, which is called from outside.

    It is one step along the graph, and of medians alone: the forecast of a caller that is called itself is better than
    what could be carried to it, and a tick of a thousand services has no time for quantiles that no mixture reads.
    """
    told: dict[str, FloatArray] = {}
    silent: set[str] = set()
    for edge in edges:
        ratio, forecast = ratios.get(edge), ahead.get(edge[0])
        if ratio is None or forecast is None:
            silent.add(edge[1])
        else:
            told[edge[1]] = told.get(edge[1], 0.0) + ratio.value * forecast
    return {name: median for name, median in told.items() if name not in silent}
