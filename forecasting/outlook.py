"""Forecasts of hours and of a day beside those of the next ticks, each from the resolution that suits it.

A ladder per service (``resolutions``) keeps its newest values in coarser steps; per rung a mixture of simple models
(``ensemble``) forecasts one *span*. Whoever asks gets forecasts that agree: ``ahead`` reconciles the spans with each
other and with the forecast of the next ticks, which stands as it is, since limits and replicas go by it.

Work is done only where a coarse step has been completed, and shared out: services form *shards*, each with mixtures of
its own, and a tick updates as many shards as must be so that all have had their turn before the next step is complete.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from forecasting.base import MEDIAN, Forecast, Forecaster, lawful
from forecasting.ensemble import Selector
from forecasting.models import MODELS
from forecasting.resolutions import DAY, Ladder, reconciled, rolled, rungs
from forecasting.selected import Selected
from forecasting.series import BoolArray, FloatArray, Series

SPANS = {"1h": 3600.0, "1d": DAY}
"""Name and seconds of what is looked ahead."""

SIMPLE = ("ewma", "median12", "median48", "seasonal_naive", "profile1", "profile3", "profile7")
"""Models, beside last value."""

MOST_STEPS = 96
"""Steps that a span is cut into at most: a day in quarters of an hour."""

CELL = 256
"""Bytes that a mixture remembers per service, origin and step: each of the H newest origins told about H steps."""

ROOM = 150e6
"""Bytes that the mixtures of one span may remember. Meshes of more services are forecast in coarser steps: up to 162
services an hour is cut into minutes, up to 63 a day into quarters of an hour."""

SHARD = (25, 100)
"""Services that are updated together, between these: fewer where a span has more steps. An update takes 5 to 20 ms."""

NEWCOMERS = 8
"""Services that are taken up per tick at most: all of their past is read."""

SCORED = 24
"""How often a new shard forecasts its farthest step in hindsight, and sees what came, before it says anything."""

REHEARSED = 2
"""Steps of hindsight per tick."""

PINNED, UNSURE = 1e-6, 1e-2
"""Spreads as shares of the widest, for ``reconciled``: of what must not move, and at least of all else. Variances are
eight orders of magnitude apart, so what is pinned keeps its place but for a rounding error."""


@dataclass(frozen=True, slots=True, eq=False)
class Ahead:
    """The forecast of one service over one span. ``selected`` says who made it and whether it has shown skill;
    ``forecast`` is its forecast, cut to the span and reconciled.
    """

    span: str
    selected: Selected
    forecast: Forecast


@dataclass(slots=True, eq=False)
class _Kept:
    """The ladder of one service, when its history began, and the end of the newest whole step (seconds)."""

    ladder: Ladder
    begin: float
    end: float

    @classmethod
    def of(cls, one: Series, finest: float) -> _Kept:
        """All of a history; the step that has begun is left to come."""
        coarse = rolled(one, finest)
        return cls(Ladder.of(coarse), one.start, coarse.end)

    def catch_up(self, one: Series, finest: float) -> None:
        """Add the whole steps that ``one`` has completed; begin anew where it was rewound, back-filled or replaced."""
        if one.end < self.end - one.step / 2 or one.start < self.begin - finest or one.start > self.end:
            again = _Kept.of(one, finest)
            self.ladder, self.begin, self.end = again.ladder, again.begin, again.end
            return
        fresh = rolled(one.tail(round((one.end - self.end) / one.step)), finest)
        for place, value in enumerate(fresh.values):
            self.ladder.add(fresh.start + place * finest, float(value))
        self.end = fresh.end if len(fresh.values) else self.end


@dataclass(slots=True, eq=False)
class _Shard:
    """Some services, and a mixture per rung.

    ``done``: per rung, the steps since the epoch that it has learned. ``rehearsing``: rungs at which it has not come to
    the present yet.
    """

    mixtures: dict[float, Selector]
    done: dict[float, int]
    rehearsing: set[float]
    kept: dict[str, _Kept] = field(default_factory=dict)


class Outlook:
    """Keeps the ladders and the mixtures of one mesh; ``update`` once per tick, ``ahead`` whenever somebody asks.

    ``base_step``: seconds of a tick; ``day``: seconds of a day (a replay at higher speed has shorter ones).
    ``services``: how many are expected, which sets how fine the steps are. ``beside``: a model that is one more member
    of every mixture. ``spans`` says the step of each span
    that is forecast, ``skipped`` why another one is not.
    """

    def __init__(self, base_step: float, day: float = DAY, services: int = 1, beside: Forecaster | None = None) -> None:
        found = {name: step_for(seconds, base_step, day, services) for name, seconds in SPANS.items()}
        self.spans: dict[str, float] = {name: step for name, step in found.items() if step is not None}
        self.skipped = {name: _why_not(name, base_step, day) for name, step in found.items() if step is None}
        self._base, self._beside = base_step, beside
        self._horizons: dict[float, int] = {}
        for name, step in self.spans.items():
            self._horizons[step] = max(self._horizons.get(step, 0), round(SPANS[name] / step))
        least, most = SHARD
        self._size = max(least, min(most, most * 24 // max(self._horizons.values(), default=1)))
        self._shards: list[_Shard] = []
        self._homes: dict[str, _Shard] = {}
        self._told: dict[tuple[str, float], Selected] = {}

    # -- each tick -----------------------------------------------------------------------------------------------

    def update(self, series: Sequence[Series]) -> frozenset[str]:
        """Take up what has come; ``series`` are in base steps, all that are known. Says whose outlook is new.

        Series that are no longer given are forgotten. New ones begin with all of their history, a few per tick.
        """
        if not self._horizons:
            return frozenset()
        known = {one.name: one for one in series if len(one.values)}
        self._forget(known)
        now = max((one.end for one in known.values()), default=0.0)
        strangers = [one for name, one in known.items() if name not in self._homes]
        for one in strangers[:NEWCOMERS]:
            self._admit(one, now)
        told: set[str] = set()
        for step in self._horizons:
            for shard in self._turn(step, now, len(strangers) > NEWCOMERS):
                told.update(self._learn(shard, step, now, known))
        return frozenset(told)

    def due(self, time: float) -> bool:
        """Whether any service that is taken up has yet to learn a step that is complete at ``time`` (seconds)."""
        return any(self._waiting(step, time) for step in self._horizons)

    def _forget(self, known: Mapping[str, Series]) -> None:
        for name in [name for name in self._homes if name not in known]:
            del self._homes.pop(name).kept[name]
            for step in self._horizons:
                self._told.pop((name, step), None)
        self._shards = [shard for shard in self._shards if shard.kept]

    def _admit(self, one: Series, now: float) -> None:
        """Into the first shard that has room: it begins with what the others there have learned, at their next turn."""
        home = next((shard for shard in self._shards if len(shard.kept) < self._size), None)
        if home is None:
            home = self._new_shard(now)
            self._shards.append(home)
        for step in self._horizons.keys() - home.rehearsing:
            home.done[step] = min(home.done[step], _complete(now, step) - 1)
        home.kept[one.name] = _Kept.of(one, min(self._horizons))
        self._homes[one.name] = home

    def _new_shard(self, now: float) -> _Shard:
        mixtures = {step: _mixture(horizon, self._beside) for step, horizon in self._horizons.items()}
        done = {step: _complete(now, step) - hindsight(self._horizons[step]) for step in mixtures}
        return _Shard(mixtures, done, set(mixtures))

    def _turn(self, step: float, now: float, more: bool) -> list[_Shard]:
        """Whose turn it is at one rung: enough for all to have theirs before the next step, and one that rehearses.

        It does not begin to while it has room and ``more`` services are to come.
        """
        late, quota = self._waiting(step, now), math.ceil(len(self._shards) * self._base / step)
        ready = [shard for shard in late if step not in shard.rehearsing]
        new = [shard for shard in late if step in shard.rehearsing and not (more and len(shard.kept) < self._size)]
        return [*ready[:quota], *new[:1]]

    def _waiting(self, step: float, time: float) -> list[_Shard]:
        """Shards that have not learned the last whole step yet (or have, but the clock was set back), those that have
        waited for longest first.
        """
        late = [shard for shard in self._shards if shard.done[step] != _complete(time, step)]
        return sorted(late, key=lambda shard: shard.done[step])

    def _learn(self, shard: _Shard, step: float, now: float, known: Mapping[str, Series]) -> list[str]:
        """Update one mixture: to the present, or, while it rehearses, by a few steps. Says whose forecasts are new."""
        last = _complete(now, step)
        for name, member in shard.kept.items():
            member.catch_up(known[name], min(self._horizons))
        kept = (one.ladder.series(step) for one in shard.kept.values())
        coarse = [one for one in kept if len(one.values)]
        begin = min((one.first + 1 for one in coarse), default=last)  # there is no hindsight before the first value
        past = step in shard.rehearsing and shard.done[step] < last
        first = max(shard.done[step] + 1, min(begin, last)) if past else last
        for number in range(first, min(first + REHEARSED, last + 1)):
            told = shard.mixtures[step].update([one.until(number - one.first) for one in coarse if number > one.first])
            shard.done[step] = number
        if shard.done[step] < last:
            return []
        shard.rehearsing.discard(step)
        names = [one.standing.names[one.row] for one in told]
        self._told.update({(name, step): one for name, one in zip(names, told, strict=True)})
        return names

    # -- asked for -----------------------------------------------------------------------------------------------

    def ahead(self, service: str, ticks: Forecast | None = None) -> dict[str, Ahead]:
        """The newest forecasts of ``service`` by span; none where it is not taken up yet.

        They agree with each other and with ``ticks``, its forecast of the next ticks: wherever a step of a coarser one
        is covered by whole steps of a finer one, its median is the mean of theirs. ``ticks`` stands, the others yield.
        """
        told = {step: self._told.get((service, step)) for step in self._horizons}
        chosen = {step: one for step, one in told.items() if one is not None}
        agreed = agreeing([chosen[step].forecast for step in sorted(chosen)], ticks)
        by_step = {one.step: one for one in agreed}
        return {
            name: Ahead(name, chosen[step], _cut(by_step[step], SPANS[name]))
            for name, step in self.spans.items()
            if step in chosen
        }


def step_for(span: float, base_step: float, day: float, services: int) -> float | None:
    """The step to forecast ``span`` seconds in: the finest rung of which a whole number, at most ``MOST_STEPS``, makes
    the span, and whose mixtures fit into ``ROOM``; where none does, the coarsest. None where a span is longer than a
    day (no earlier day tells about it) or where there is no such rung.
    """
    if span > day * (1.0 + 1e-9):
        return None
    fits = [step for step in rungs(base_step, day) if _whole(span, step) and span / step <= MOST_STEPS]
    return next((step for step in fits if services * CELL * (span / step) ** 2 <= ROOM), fits[-1] if fits else None)


def hindsight(horizon: int) -> int:
    """Steps that a new shard forecasts in hindsight, so that it has learned about all steps ahead."""
    return horizon + SCORED


def agreeing(forecasts: Sequence[Forecast], ticks: Forecast | None = None) -> tuple[Forecast, ...]:
    """``forecasts`` of one service, finest first, reconciled with each other and with ``ticks``, which does not move.

    Where ticks are as long as the steps of the finest one, they take the place of those steps.
    """
    told = list(forecasts)
    if not told:
        return ()
    pinned = np.zeros(len(told[0].values), dtype=np.bool_)
    if ticks is not None and math.isclose(ticks.step, told[0].step):
        told[0], pinned = _spliced(told[0], ticks)
        ticks = None
    widest = max(1e-9, *(float(np.nanmax(one.values[:, -1] - one.values[:, 0])) for one in told))
    bare = [_bare(one, widest) for one in told]
    bare[0].values[pinned, 1] = bare[0].values[pinned, 0] + PINNED * widest
    if ticks is not None:
        bare.insert(0, replace(_bare(ticks, 0.0, PINNED * widest), origin=_aligned(ticks, told[0].origin)))
    moved = reconciled(*bare)[-len(told) :]
    return tuple(_shifted(one, to.values[:, 0]) for one, to in zip(told, moved, strict=True))


def _bare(one: Forecast, widest: float, width: float | None = None) -> Forecast:
    """Only the median and, above it, how unsure it is: what ``reconciled`` weighs by. No step is all but sure."""
    median = one.values[:, MEDIAN]
    spread = np.maximum(one.values[:, -1] - one.values[:, 0], UNSURE * widest) if width is None else width
    return replace(one, quantiles=(0.5, 0.99), values=np.stack([median, median + spread], axis=1))


def _shifted(one: Forecast, median: FloatArray) -> Forecast:
    """All quantiles moved with their median."""
    shift = median - one.values[:, MEDIAN]
    values = lawful(one.values + np.where(np.isfinite(shift), shift, 0.0)[:, None])
    return replace(one, values=values)


def _spliced(one: Forecast, ticks: Forecast) -> tuple[Forecast, BoolArray]:
    """``one`` with the steps that ``ticks`` tells about in its place, and which those are."""
    places = np.arange(len(ticks.values)) + round((ticks.origin - one.origin) / one.step)
    inside = (places >= 0) & (places < len(one.values))
    values, pinned = one.values.copy(), np.zeros(len(one.values), dtype=np.bool_)
    values[places[inside]], pinned[places[inside]] = ticks.values[inside], True
    return replace(one, values=values), pinned


def _aligned(ticks: Forecast, origin: float) -> float:
    """The origin of ``ticks``, free of the rounding of epoch seconds: whole ticks after ``origin``."""
    return origin + round((ticks.origin - origin) / ticks.step) * ticks.step


def _cut(one: Forecast, span: float) -> Forecast:
    return replace(one, values=one.values[: round(span / one.step)])


def _mixture(horizon: int, beside: Forecaster | None = None) -> Selector:
    models = [MODELS[name]() for name in SIMPLE] + ([] if beside is None else [beside])
    return Selector(models, horizon=horizon, replay=0)  # hindsight is spread over ticks here


def _complete(time: float, step: float) -> int:
    """Steps that are complete at ``time``."""
    return math.floor(time / step + 1e-6)


def _whole(span: float, step: float) -> bool:
    times = span / step
    return times >= 1.0 - 1e-9 and abs(times - round(times)) < 1e-6


def _why_not(name: str, base_step: float, day: float) -> str:
    if SPANS[name] > day * (1.0 + 1e-9):
        return f"days of {day:g} s are shorter than {name}: no earlier day tells about it"
    return f"no step of which at most {MOST_STEPS} make {name} is a whole multiple of a tick of {base_step:g} s"
