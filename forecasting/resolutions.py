"""One service at several resolutions: a ladder of coarser series, and forecasts of its rungs that agree.

Five minutes are forecast in base ticks, an hour in minutes, a day in quarters of an hour: no model has to iterate over
thousands of steps, and each sees a history as long as its horizon needs. Forecasts made apart contradict each other;
``reconciled`` makes them one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from forecasting.base import Forecast, column
from forecasting.errors import ForecastingError
from forecasting.series import CEILING, BoolArray, FloatArray, Series, clean

DAY = 86_400.0

STEPS = (60.0, 900.0, 3600.0)
"""Seconds per step of the rungs above the base tick."""

CAPACITY = 12_000
"""Values kept per rung: eight days of minutes, one more than a weekly look-up needs. At most 96 kB each."""


class ResolutionError(ForecastingError):
    """A step that is not a whole multiple of the finer one, a value out of order, or rungs of different grids."""


def rolled(series: Series, step: float) -> Series:
    """``series`` on a coarser grid: means over whole intervals that begin at multiples of ``step`` since the epoch.

    A mean is NaN unless at least half of its parts are known: gaps are marked, not invented. Intervals that the series
    covers only in part (at its begin and at its end) are left out: they would change when more values come.
    Raises ResolutionError where ``step`` is no whole multiple of the series' step, or does not divide its day.
    """
    factor = _factor(series.step, step)
    season = _season(series, factor)
    skipped = -series.first % factor
    count = max(0, len(series.values) - skipped) // factor
    parts = clean(series.values[skipped : skipped + count * factor]).reshape(count, factor)
    known = np.isfinite(parts)
    values = _means(np.where(known, parts, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64), factor)
    return Series(series.name, (series.first + skipped) // factor * step, step, values, season)


def rungs(base_step: float, day: float = DAY) -> tuple[float, ...]:
    """The steps of a ladder, finest first: the base tick, and what of ``STEPS`` is a whole multiple of it and divides
    ``day`` seconds (a replay at higher speed has shorter days).
    """
    coarser = (step for step in STEPS if step > base_step and _divides(base_step, step) and _divides(step, day))
    return (base_step, *coarser)


class Ladder:
    """The newest values of one service at every rung, kept up tick by tick in bounded memory.

    At any moment ``series(step)`` equals the newest ``capacity`` values of ``rolled(everything added, step)``.
    """

    __slots__ = ("_base", "_name", "_next", "_rungs", "_season")

    def __init__(self, name: str, base_step: float, season: int, capacity: int = CAPACITY) -> None:
        """``season`` is in base steps per day. Raises ResolutionError for a capacity below 1."""
        if capacity < 1:
            raise ResolutionError(f"{name}: a ladder keeps at least 1 value per rung, not {capacity}")
        self._name, self._base, self._season = name, base_step, season
        self._next: int | None = None
        steps = rungs(base_step, base_step * season if season > 1 else DAY)
        self._rungs = {step: _Rung(_factor(base_step, step), capacity) for step in steps}

    @classmethod
    def of(cls, series: Series, capacity: int = CAPACITY) -> Ladder:
        """A ladder that has been given every value of ``series``, without going through them one by one."""
        ladder = cls(series.name, series.step, series.season, capacity)
        if len(series.values):
            ladder._next = series.first + len(series.values)
            for step, rung in ladder._rungs.items():
                rung.seed(rolled(series, step), series)
        return ladder

    @property
    def steps(self) -> tuple[float, ...]:
        """Seconds per step of every rung, finest first."""
        return tuple(self._rungs)

    def add(self, time: float, value: float) -> None:
        """The mean rate over the base tick that begins at ``time`` (seconds since the epoch; NaN = not known).

        Ticks left out are gaps. Raises ResolutionError for a time that is not later than the newest; nothing changes.
        """
        number = round(time / self._base)
        if self._next is not None and number < self._next:
            newest = (self._next - 1) * self._base
            raise ResolutionError(f"{self._name}: value of {time:g} came after that of {newest:g}; add values in order")
        known = min(max(value, 0.0), CEILING) if math.isfinite(value) else None
        for rung in self._rungs.values():
            rung.add(number, known)
        self._next = number + 1

    def series(self, step: float) -> Series:
        """What is kept at the rung of ``step`` seconds, copied. Raises ResolutionError where there is no such rung."""
        rung = self._rungs.get(step)
        if rung is None:
            steps = ", ".join(f"{one:g}" for one in self._rungs)
            raise ResolutionError(f"{self._name}: no rung of {step:g} s; choose one of {steps}")
        season = max(1, self._season // rung.factor)
        return Series(self._name, rung.first * step, step, rung.ring.values(), season)


class _Rung:
    """One rung: closed intervals in a ring, and the sums of the open one. Numbers count steps since the epoch."""

    __slots__ = ("_known", "_number", "_total", "_whole", "factor", "ring")

    def __init__(self, factor: int, capacity: int) -> None:
        self.factor, self.ring = factor, _Ring(capacity)
        self._number: int | None = None
        self._whole = False
        self._total = self._known = 0.0

    @property
    def first(self) -> int:
        """The number of the oldest value kept; of the first to come, where there is none."""
        return 0 if self._number is None else self._number + (not self._whole) - self.ring.held

    def seed(self, closed: Series, series: Series) -> None:
        """Take over closed intervals, and open the one that the last values of ``series`` begin."""
        self.ring.extend(closed.values)
        last = series.first + len(series.values)
        self._number = last // self.factor
        rest = min(last % self.factor, len(series.values))
        self._whole = rest == last % self.factor
        parts = clean(series.values[len(series.values) - rest :])
        self._total, self._known = float(np.nansum(parts)), float(np.isfinite(parts).sum())

    def add(self, base: int, value: float | None) -> None:
        """Base tick number ``base`` (None = not known); ticks between it and the one before are gaps."""
        number, part = divmod(base, self.factor)
        if self._number is None:
            self._number, self._whole = number, part == 0
        if number > self._number:
            self._close()
            self.ring.extend(np.full(min(number - self._number, self.ring.capacity), np.nan))
            self._number = number
        if value is not None:
            self._total, self._known = self._total + value, self._known + 1
        if part == self.factor - 1:
            self._close()

    def _close(self) -> None:
        """The open interval ends. One that was begun in the middle is not whole and leaves no value."""
        assert self._number is not None
        if self._whole:
            self.ring.extend(_means(np.array([self._total]), np.array([self._known]), self.factor))
        self._number += 1
        self._whole, self._total, self._known = True, 0.0, 0.0


class _Ring:
    """The newest ``capacity`` values. It grows by doubling, so a coarse rung costs little before it has lived long."""

    __slots__ = ("_data", "_end", "capacity", "held")

    def __init__(self, capacity: int) -> None:
        self.capacity, self.held, self._end = capacity, 0, 0
        self._data = np.empty(min(capacity, 64))

    def extend(self, values: FloatArray) -> None:
        values = values[-self.capacity :]
        self._grow(min(self.capacity, self.held + len(values)))
        size = len(self._data)
        self._data[(self._end + np.arange(len(values))) % size] = values
        self._end = (self._end + len(values)) % size
        self.held = min(self.held + len(values), size)

    def values(self) -> FloatArray:
        """Oldest first, copied."""
        return self._data[(self._end - self.held + np.arange(self.held)) % len(self._data)]

    def _grow(self, needed: int) -> None:
        if needed <= len(self._data):
            return
        data = np.empty(min(self.capacity, max(needed, 2 * len(self._data))))
        data[: self.held] = self.values()
        self._data, self._end = data, self.held


def reconciled(*forecasts: Forecast) -> tuple[Forecast, ...]:
    """Forecasts of one service at several rungs, made consistent: wherever a step of a coarse one is covered by whole
    steps of a finer one, the mean of their medians equals its median.

    The medians are moved as little as possible, in least squares weighted by 1 / variance: each rung yields where it is
    least sure (temporal hierarchies with variance scaling: Athanasopoulos, Hyndman, Kourentzes & Petropoulos,
    European Journal of Operational Research 262, 2017; in projection form, Wickramasuriya, Athanasopoulos & Hyndman,
    JASA 114, 2019). Variances are read off the widest quantiles; where one is unknown or 0, structural scaling takes
    their place (a mean of m ticks has a variance of 1/m). Other quantiles move with their median; nothing becomes
    negative or crosses. Steps that are NaN, or covered in part, bind nothing.

    Finest first. Raises ResolutionError for other orders, for different services and for grids that do not align.
    """
    _check(forecasts)
    median = [column(one.quantiles, 0.5) for one in forecasts]
    lawful = [_ordered(one.values) for one in forecasts]
    told = np.concatenate([values[:, at] for values, at in zip(lawful, median, strict=True)])
    moved = _consistent(told, _bonds(forecasts, np.isfinite(told)), _variances(forecasts, lawful))
    cuts = np.cumsum([len(values) for values in lawful])[:-1]
    shifts = np.split(np.where(np.isfinite(told), moved - told, 0.0), cuts)
    results = [_ordered(values + shift[:, None]) for values, shift in zip(lawful, shifts, strict=True)]
    return tuple(replace(one, values=values) for one, values in zip(forecasts, results, strict=True))


def _check(forecasts: Sequence[Forecast]) -> None:
    if not forecasts:
        raise ResolutionError("nothing to reconcile: give the forecast of at least one rung")
    names = {one.series for one in forecasts}
    if len(names) > 1:
        raise ResolutionError(f"forecasts of different services ({', '.join(sorted(names))}) cannot be reconciled")
    for fine, coarse in pairwise(forecasts):
        if not fine.step < coarse.step:
            raise ResolutionError(
                f"{fine.series}: rungs go from fine to coarse, not {fine.step:g} s, {coarse.step:g} s"
            )


def _bonds(forecasts: Sequence[Forecast], known: BoolArray) -> FloatArray:
    """``(B, all)``: per coarse step and finer rung that covers it, 1 at the coarse step and -1/m at its m parts."""
    begins = np.cumsum([0, *(len(one.values) for one in forecasts)])
    rows: list[FloatArray] = []
    for c, coarse in enumerate(forecasts):
        for f, fine in enumerate(forecasts[:c]):
            rows.extend(_bond(fine, coarse, int(begins[f]), int(begins[c]), known))
    return np.array(rows).reshape(len(rows), len(known))


def _bond(fine: Forecast, coarse: Forecast, fines: int, coarses: int, known: BoolArray) -> list[FloatArray]:
    """``fines`` and ``coarses`` are the places of the first steps of both among all steps."""
    factor, shift = _factor(fine.step, coarse.step), (coarse.origin - fine.origin) / fine.step
    if abs(shift - round(shift)) > 1e-6:
        raise ResolutionError(
            f"{fine.series}: forecasts from {fine.origin:g} and {coarse.origin:g} are not a whole number of "
            f"{fine.step:g} s apart; let both begin at multiples of their steps"
        )
    rows = []
    for number in range(len(coarse.values)):
        begin = round(shift) + number * factor
        parts = slice(fines + begin, fines + begin + factor)
        whole = begin >= 0 and begin + factor <= len(fine.values)
        if whole and known[coarses + number] and known[parts].all():
            row = np.zeros(len(known))
            row[coarses + number], row[parts] = 1.0, -1.0 / factor
            rows.append(row)
    return rows


def _variances(forecasts: Sequence[Forecast], values: Sequence[FloatArray]) -> FloatArray:
    """Up to a common factor, the variance of every step: ``(all,)``, positive."""
    spread = np.concatenate([rows[:, -1] - rows[:, 0] for rows in values])
    if len({one.quantiles for one in forecasts}) == 1 and (spread > 0.0).all():
        scale: FloatArray = (spread / spread.max()) ** 2
        return np.maximum(scale, 1e-12)
    return np.concatenate([np.full(len(one.values), forecasts[0].step / one.step) for one in forecasts])


def _consistent(told: FloatArray, bonds: FloatArray, variance: FloatArray) -> FloatArray:
    """The nearest non-negative point to ``told (all,)`` for which ``bonds @ x = 0``.

    Values that would be negative are held at 0 and the rest is solved again. All zeros always satisfy the bonds, so
    this ends with a solution, at the latest with that one.
    """
    free = np.ones(len(told), dtype=np.bool_)
    while len(bonds):
        start = np.where(free, np.nan_to_num(told), 0.0)
        weighted = bonds * np.where(free, np.sqrt(variance), 0.0)
        length = np.linalg.norm(weighted, axis=1, keepdims=True)
        scaled = bonds / np.where(length > 0.0, length, 1.0)  # bonds of sure and of unsure steps weigh alike
        pull = np.where(free, variance, 0.0)[:, None] * scaled.T
        moved = start - pull @ np.linalg.lstsq(scaled @ pull, scaled @ start, rcond=None)[0]
        negative = moved < -1e-12 * max(1.0, float(np.abs(start).max(initial=0.0)))
        if not negative.any():
            return np.asarray(np.maximum(moved, 0.0))
        free &= ~negative
    return told


def _ordered(values: FloatArray) -> FloatArray:
    """Not negative, never decreasing from left to right; NaN (a quantile that was not forecast) stays where it is."""
    return np.asarray(np.where(np.isnan(values), np.nan, np.fmax.accumulate(np.maximum(values, 0.0), axis=-1)))


def _means(total: FloatArray, known: FloatArray, factor: int) -> FloatArray:
    return np.asarray(np.where(2 * known >= factor, total / np.maximum(known, 1.0), np.nan))


def _factor(fine: float, coarse: float) -> int:
    if not _divides(fine, coarse):
        raise ResolutionError(f"a step of {coarse:g} s is no whole multiple of {fine:g} s; choose one that is")
    return round(coarse / fine)


def _divides(part: float, whole: float) -> bool:
    times = whole / part
    return times >= 1 - 1e-9 and abs(times - round(times)) < 1e-6


def _season(series: Series, factor: int) -> int:
    if series.season <= 1:
        return 1
    if series.season % factor:
        day = series.step * series.season
        raise ResolutionError(f"{series.name}: steps of {series.step * factor:g} s do not divide its day of {day:g} s")
    return series.season // factor
