"""One forecast per series from all models: mixed, calibrated, and allowed to act only where it beats last value.

Each tick: settle what was said about the interval that has come; learn the weights of the models (``mixture``) and the
spread around their mixture (``conformal``); judge the mixture against last value (``scores``, the *gate*); forecast.
Everything is arrays over all series at once, so a thousand services cost little more than ten; and no array mixes
rows, so what is said about a series never depends on which others there are. Only one that is new learns from them: it
begins with their weights.

Skill is judged by bucket of steps (1, 2-5, 6-H), with hysteresis. Where it is not shown, the forecast may not act, and
says so (``selected``); it is told all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from forecasting.base import MEDIAN, QUANTILES, Forecaster, lawful
from forecasting.batch import Batch
from forecasting.conformal import (
    BESIDE,
    LEVELS,
    RATE,
    SPREADS,
    Around,
    Centre,
    Corrections,
    Spreads,
    U,
    complete,
    floored,
)
from forecasting.errors import ForecastingError
from forecasting.features import newest, scales
from forecasting.memory import NEVER, Ring
from forecasting.mixture import Mixture, common
from forecasting.models.naive import LastValue
from forecasting.rows import SHARED, joined, taken
from forecasting.scores import Figures, Scores, buckets
from forecasting.selected import Gate, Selected, Standing
from forecasting.series import BoolArray, FloatArray, IntArray, Series, fill_forward

__all__ = ["DuplicateSeriesError", "Gate", "Selected", "Selector", "buckets"]

NOISE = 64
"""Steps whose mean absolute change is the unit of an error."""

YOUNG = 8
"""Known values below which the size of a usual error is a guess: a miss measured in it would look like any number."""

STALE = 240
"""A series that was away for more intervals starts anew."""

LEARNED = "lstm"
"""The model whose own quantiles compete."""

LEAST_SHARE = 0.1
"""What last value counts at first, as a share of another model: it is there for the day on which all others fail."""

SHOWN = 0.95
"""The quantile whose coverage is told."""

RESTED = 60
"""Intervals learned from after which a series that never moved is believed to rest."""

AGREED = 1e-6
"""How far a model may be from the one value that a resting series ever had, as a share of it, to be heard."""

FEW = 4
"""Rows are settled apart from the others where they are at most one in so many: copying them costs something, too."""


class DuplicateSeriesError(ForecastingError):
    """A name is given to two series of one update."""


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What is said at an origin about the next H intervals, or, looked up, what the H newest origins said about one.

    ``told (N, M, H)``: the models' medians; ``mixed (N, H)`` their mixture; ``unit (N, H)`` the size of a usual error.
    ``spread (N, K, H, U)``: the quantiles that compete; ``blend (N, H, U)`` their mixture; ``calibrated (N, H, U)``
    that, moved, not yet in order; ``peaks (N, H, U)`` those of maxima, moved, not yet in order.
    """

    told: FloatArray
    mixed: FloatArray
    unit: FloatArray
    spread: FloatArray
    blend: FloatArray
    calibrated: FloatArray
    peaks: FloatArray

    @staticmethod
    def width(models: int) -> int:
        """Figures per step when packed, the spread apart."""
        return models + 2 + 3 * U

    def packed(self) -> FloatArray:
        """All but the spread as one array ``(N, H, width)``: a single look-up finds all of it."""
        single = (self.mixed[..., None], self.unit[..., None])
        parts = [np.moveaxis(self.told, 1, 2), *single, self.blend, self.calibrated, self.peaks]
        return np.concatenate(parts, axis=2)

    @classmethod
    def unpacked(cls, table: FloatArray, spread: FloatArray) -> Said:
        """The inverse of ``packed``; ``spread (N, H, K, U)`` by step, of any size of float."""
        models = table.shape[2] - cls.width(0)
        edges = [models, models + 1, *(models + 2 + U * np.arange(3))]
        told, mixed, unit, *beside = np.split(table, edges, axis=2)
        told = np.ascontiguousarray(np.moveaxis(told, 2, 1))
        spreads = np.ascontiguousarray(np.moveaxis(spread, 1, 2), dtype=np.float64)
        return cls(told, mixed[..., 0], unit[..., 0], spreads, *beside)


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """``values`` and ``peaks (N, H, Q)``, the next step's ``weights (N, M)``, the gates gone by ``acting (N, B)``."""

    values: FloatArray
    peaks: FloatArray
    weights: FloatArray
    acting: BoolArray


@dataclass(slots=True, eq=False)
class Memory:
    """Everything that is known about N series; row n of each array belongs to one of them. B buckets of steps.

    ``next`` and ``first (N,)``: absolute numbers of the next interval (``NEVER`` before the first tick) and of the
    first that was seen; ``step (N,)`` seconds; ``age (N,)`` intervals learned from. ``recent (N, H)``: the newest
    values. ``said``: what was said, packed; ``spread``: its spread, the most of it, in half the digits. ``open (N,
    B)``: the gates; ``changed (N, B)``: the interval of their last move, -1 before the first.
    """

    next: IntArray
    first: IntArray
    step: FloatArray
    age: FloatArray
    recent: FloatArray
    said: Ring
    spread: Ring
    mixture: Mixture
    quantiles: Mixture
    spreads: Spreads
    corrections: Corrections
    scores: Scores
    open: BoolArray
    changed: IntArray
    horizon: int = field(metadata=SHARED)

    @classmethod
    def fresh(cls, names: Sequence[str], prior: FloatArray, window: int) -> Memory:
        """Series that begin with the weights ``prior (M, H)``; skill is measured over ``window`` intervals."""
        count, (models, horizon) = len(names), prior.shape
        spreads = np.full((count, len(SPREADS), horizon * U), 1.0 / len(SPREADS))
        moves = (count, len(buckets(horizon)))
        return cls(
            next=np.full(count, NEVER),
            first=np.zeros(count, dtype=np.int64),
            step=np.zeros(count),
            age=np.zeros(count),
            recent=np.full((count, horizon), np.nan),
            said=Ring.empty(count, horizon, Said.width(models)),
            spread=Ring.empty(count, horizon, len(SPREADS), U, dtype=np.float32),
            mixture=Mixture.fresh(np.repeat(prior[None], count, axis=0), np.full(horizon, 0.5)),
            quantiles=Mixture.fresh(spreads, np.tile(LEVELS, horizon)),
            spreads=Spreads.fresh(names, horizon),
            corrections=Corrections.fresh(count, horizon),
            scores=Scores.empty(count, models, horizon, window),
            open=np.zeros(moves, dtype=bool),
            changed=np.full(moves, -1, dtype=np.int64),
            horizon=horizon,
        )

    # -- learning ------------------------------------------------------------------------------------------------

    def settle(self, batch: Batch) -> None:
        """Learn from every interval that has come since the last time, oldest first."""
        ends, begun, known = _firsts(batch.series) + batch.count, self.next != NEVER, newest(batch)
        if not begun.all():
            self.recent[~begun] = batch.newest(self.horizon)[~begun]
        self._catch_up(np.where(begun, ends - self.next, 0), ends, known)
        self.next, self.step = ends, batch.step.copy()
        self.first = np.where(begun, self.first, ends - batch.count)

    def _catch_up(self, late: IntArray, ends: IntArray, known: FloatArray) -> None:
        """Learn from the last ``late (N,)`` intervals before ``ends (N,)``; ``known (N, W)`` are their values.

        Which rows take part changes at each lateness that occurs; few of them are taken out for as long and put back,
        so that one that is late does not cost as much as if all were.
        """
        levels = np.unique(late[late > 0])[::-1].tolist()
        for level, lower in pairwise([*levels, 0]):
            rows, backs = np.flatnonzero(late >= level), range(level, lower, -1)
            if len(rows) * FEW > len(late):
                for back in backs:
                    self._learn(np.where(late >= back, ends - back, NEVER), known[:, -back])
                continue
            part = taken(self, rows)
            for back in backs:
                part._learn(ends[rows] - back, known[rows, -back])
            _put_back(self, rows, part)

    def _learn(self, number: IntArray, newest_: FloatArray) -> None:
        """Interval ``number (N,)`` was ``newest_ (N,)``, NaN = a gap; where it is ``NEVER``, nothing has come."""
        moved = number != NEVER
        self._shift(moved, newest_)
        said = Said.unpacked(self.said.about(number), self.spread.about(number))
        actual = np.where(moved, newest_, np.nan)[:, None] + np.zeros(self.horizon)  # (N, H)
        miss = actual - said.mixed
        self.mixture.learn(said.told, said.mixed, actual, said.unit)
        self.quantiles.learn(
            _flat(said.spread), _flat(said.blend), np.repeat(actual, U, axis=1), np.repeat(said.unit, U, axis=1)
        )
        self.spreads.learn(said.spread, actual, miss, said.unit, moved)
        self._correct(said, actual)
        self.age = self.age + np.isfinite(miss).any(axis=1)
        self._score(number, moved, said, actual)

    def _shift(self, moved: BoolArray, newest_: FloatArray) -> None:
        recent = np.concatenate([self.recent[:, 1:], newest_[:, None]], axis=1)
        self.recent = np.where(moved[:, None], recent, self.recent)

    def _correct(self, said: Said, actual: FloatArray) -> None:
        """Move the last calibration. Maxima are known up to the first gap in the steps behind them."""
        highest = np.maximum.accumulate(self.recent[:, ::-1], axis=1)
        self.corrections.served.move(said.calibrated, actual, RATE)
        self.corrections.peaks.move(said.peaks, np.where(np.isfinite(actual), highest, np.nan), RATE)

    def _score(self, number: IntArray, moved: BoolArray, said: Said, actual: FloatArray) -> None:
        told = np.concatenate([said.told, said.mixed[:, None]], axis=1)
        shown = complete(said.mixed, said.calibrated)[..., QUANTILES.index(SHOWN)]
        known = np.isfinite(shown) & np.isfinite(actual)
        self.scores.record(number, moved, np.abs(actual[:, None] - told), (known & (actual <= shown), known))

    # -- forecasting and judging ---------------------------------------------------------------------------------

    def calibrated(self, centre: Centre) -> Around:
        """Quantiles around the mixture."""
        unit, spread = centre.unit[:, None, None], self.spreads.around(centre)
        blend = self.quantiles.mixed(_flat(spread))[0].reshape(*centre.median.shape, U)
        moved = blend + unit * self.corrections.served.shift
        return Around(spread, blend, moved, complete(centre.median, moved))

    def peaks(self, values: FloatArray, unit: FloatArray) -> FloatArray:
        """Quantiles of maxima ``(N, H, Q)``, not yet in order: row k - 1 is that of the next k steps. ``values (N, H,
        Q)`` are served.
        """
        peaks = np.maximum.accumulate(values, axis=1)
        peaks[..., BESIDE] += unit[:, None, None] * self.corrections.peaks.shift
        return peaks

    def remember(self, said: Said) -> None:
        """Keep what is said now until reality comes."""
        self.said.remember(self.next, said.packed())
        self.spread.remember(self.next, np.moveaxis(said.spread, 1, 2))

    def judge(self, figures: Figures, enter: float, leave: float) -> None:
        """Open and close the gates by the skill of the mixture; one that is unknown opens nothing and closes."""
        skill = np.nan_to_num(figures.skill[:, -1], nan=-1.0)  # (N, B)
        is_open = np.where(self.open, skill >= leave, skill > enter)
        self.changed = np.where(is_open != self.open, self.next[:, None], self.changed)
        self.open = is_open

    def quiet(self) -> BoolArray:
        """Which series have no value over the last H steps, ``(N,)``: nothing may be said about them."""
        return np.asarray(~np.isfinite(self.recent).any(axis=1))


class Selector:
    """Mixes, calibrates and gates; ``update`` once per tick.

    ``window``: intervals that skill is measured over; ``least``: of them, how many must be scored before a gate opens.
    ``enter`` and ``leave``: skill at which a gate opens and closes (hysteresis). ``replay``: intervals that are
    forecast in hindsight when a series with a history first appears; 0 turns it off.
    """

    def __init__(
        self,
        models: Sequence[Forecaster],
        horizon: int,
        window: int = 120,
        *,
        least: int = 20,
        enter: float = 0.02,
        leave: float = -0.02,
        replay: int = 60,
    ) -> None:
        self._models: list[Forecaster] = [LastValue(), *(m for m in models if m.name != LastValue.name)]
        self._names = tuple(model.name for model in self._models)
        self._horizon, self._window, self._least = horizon, window, least
        self._enter, self._leave, self._replay = enter, leave, replay
        self._buckets = buckets(horizon)
        self._forget()

    @property
    def names(self) -> tuple[str, ...]:
        """The models, in the order of the weights."""
        return self._names

    def update(self, series: Sequence[Series]) -> list[Selected]:
        """Settle, learn, judge, forecast: one result per series, in order.

        Series that are no longer given are forgotten. One that is back-filled, of another step, rewound, or ``STALE``
        intervals late begins anew; one that skipped some is settled for all of them by what was said before. The same
        tick twice changes nothing. Raises DuplicateSeriesError, and changes nothing, where a name is given twice.
        """
        _distinct(series)
        if not series:
            self._forget()
            return []
        self._arrange(series)
        batch = Batch.now(series, self._horizon)
        self._memory.settle(batch)
        return self._forecast(self._memory, batch).rows()

    # -- membership ----------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._series: list[str] = []
        self._memory = Memory.fresh([], self._start(), self._window)

    def _arrange(self, series: Sequence[Series]) -> None:
        """Bring the memory's rows into the order of ``series``; series that are new are replayed first."""
        names = [one.name for one in series]
        places = {name: place for place, name in enumerate(self._series)}
        keep = np.array([places.get(name, -1) for name in names], dtype=np.int64)
        keep[keep >= 0] = np.where(self._begins_anew(series, keep), -1, keep)[keep >= 0]
        if names == self._series and (keep >= 0).all():
            return
        self._memory, self._series = self._rearranged(series, keep), names

    def _rearranged(self, series: Sequence[Series], keep: IntArray) -> Memory:
        """Row n is the old row ``keep[n]``, or that of a new series where it is negative."""
        new = np.flatnonzero(keep < 0)
        if not len(new):
            return taken(self._memory, keep)
        introduced = self._introduced([series[int(n)] for n in new])
        if len(new) == len(keep):
            return introduced
        order = np.argsort(np.concatenate([np.flatnonzero(keep >= 0), new]), kind="stable")
        return taken(joined([taken(self._memory, keep[keep >= 0]), introduced]), order)

    def _begins_anew(self, series: Sequence[Series], keep: IntArray) -> BoolArray:
        """Which are back-filled, of another step, rewound, or away for too long: ``(N,)``; ``keep (N,)`` are rows."""
        if not self._series:
            return np.zeros(len(series), dtype=bool)
        memory, first = self._memory, _firsts(series)
        late = first + np.array([len(one.values) for one in series]) - memory.next[keep]
        step = np.array([one.step for one in series])
        filled = first < memory.first[keep] - self._horizon
        return np.asarray((memory.step[keep] != step) | filled | (late < 0) | (late > STALE))

    def _introduced(self, series: Sequence[Series]) -> Memory:
        """Memory of new series, after forecasting their newest intervals in hindsight, each from its own past."""
        memory = Memory.fresh([one.name for one in series], self._prior(), self._window)
        ends = np.array([len(one.values) for one in series], dtype=np.int64)
        for back in range(min(self._replay, int(ends.max(initial=0))), 0, -1):
            batch = Batch(series, np.arange(len(series)), np.maximum(ends - back, 0), self._horizon)
            memory.settle(batch)
            self._forecast(memory, batch)
        memory.first = _firsts(series)
        return memory

    def _prior(self) -> FloatArray:
        """The weights that new series begin with, ``(M, H)``: what the others have learned, and nothing, half each."""
        mixture, start = self._memory.mixture, self._start()
        return 0.5 * common(mixture.weights(), self._memory.age, start) + 0.5 * start

    def _start(self) -> FloatArray:
        """Where nothing was learned all models count the same, but for last value."""
        shares = np.array([LEAST_SHARE, *np.ones(len(self._names) - 1)])
        return np.repeat((shares / shares.sum())[:, None], self._horizon, axis=1)

    # -- forecasting ---------------------------------------------------------------------------------------------

    def _forecast(self, memory: Memory, batch: Batch) -> Standing:
        """What is served, and why; it is remembered until reality comes."""
        answers = [model.predict(batch) for model in self._models]
        told = np.stack([answer[:, :, MEDIAN] for answer in answers], axis=1)  # (N, M, H)
        mixed, weights = memory.mixture.mixed(_heard(told, batch, memory.age))
        memory.spreads.refresh(memory.next, newest(batch))
        centre = Centre(mixed, told[:, 0], self._gap(answers), units(batch))
        around = memory.calibrated(centre)
        figures = memory.scores.figures(self._least)
        memory.judge(figures, self._enter, self._leave)
        acting = memory.open & ~memory.quiet()[:, None]
        peaks = memory.peaks(around.served, centre.unit)
        trusted = np.isfinite(newest(batch)).sum(axis=1) >= YOUNG
        memory.remember(_said(told, centre, around, peaks, trusted))
        ordered = floored(np.maximum.accumulate(lawful(peaks), axis=1))
        return self._standing(memory, batch, figures, Served(around.served, ordered, weights[:, :, 0], acting))

    def _gap(self, answers: Sequence[FloatArray]) -> FloatArray:
        """The learned quantiles' distance from their own median ``(N, H, U)``; NaN where no model tells any."""
        for name, answer in zip(self._names, answers, strict=True):
            if name == LEARNED:
                return np.asarray(answer[..., BESIDE] - answer[..., MEDIAN, None])
        return np.full((*answers[0].shape[:2], U), np.nan)

    def _standing(self, memory: Memory, batch: Batch, figures: Figures, served: Served) -> Standing:
        return Standing(
            names=[one.name for one in batch.series],
            models=self._names,
            buckets=self._buckets,
            least=self._least,
            end=batch.first_ahead,
            step=batch.step,
            values=served.values,
            peaks=served.peaks,
            weights=served.weights,
            figures=figures,
            open=served.acting,
            changed=memory.changed,
            quiet={int(row): silence(batch.series[int(row)], self._horizon) for row in np.flatnonzero(memory.quiet())},
        )


def units(batch: Batch) -> FloatArray:
    """The size of a usual error, ``(N,)``: the mean absolute change lately, and a little of the level."""
    raw = newest(batch)
    recent = fill_forward(raw[:, -NOISE - 1 :], np.zeros(len(raw)))
    return np.asarray(np.abs(np.diff(recent, axis=1)).mean(axis=1) + 0.05 * scales(raw))


def _heard(told: FloatArray, batch: Batch, age: FloatArray) -> FloatArray:
    """``told (N, M, H)`` of which only those models are heard about a resting series that say that it will rest."""
    resting, last = rests(batch, age), told[:, :1]
    if not resting.any():
        return told
    strays = np.abs(told - last) > AGREED * last
    return np.where(resting[:, None, None] & strays, np.nan, told)


def rests(batch: Batch, age: FloatArray) -> BoolArray:
    """Which series never had any value but one, over at least ``RESTED`` intervals learned from, or but 0: ``(N,)``.

    ``age (N,)``: intervals learned from. Series without any value rest at 0.
    """
    raw = newest(batch)
    low, high = np.fmin.reduce(raw, axis=1), np.fmax.reduce(raw, axis=1)
    resting = ~(high > low) & ((age >= RESTED) | ~(high > 0))
    for row in np.flatnonzero(resting):  # few: only here all of a history is read
        values = batch.series[batch.owner[row]].values[: batch.count[row]]
        only = np.nan_to_num(high[row])
        resting[row] = not ((np.maximum(values, 0.0) != only) & np.isfinite(values)).any()
    return np.asarray(resting)


def silence(series: Series, horizon: int) -> str:
    """Why nothing may be said about a series without any value over the last ``horizon`` steps."""
    known = np.isfinite(series.values).any()
    return f"no value for {horizon} steps: its source is silent" if known else "no values yet"


def _said(told: FloatArray, centre: Centre, around: Around, peaks: FloatArray, trusted: BoolArray) -> Said:
    """What is remembered; where the unit is not ``trusted (N,)`` nothing will be measured in it."""
    unit = np.repeat(np.where(trusted, centre.unit, np.nan)[:, None], told.shape[2], axis=1)
    return Said(told, centre.median, unit, around.spread, around.blend, around.calibrated, peaks[..., BESIDE])


def _distinct(series: Sequence[Series]) -> None:
    """Raises DuplicateSeriesError: memory is kept by name, and two series cannot share one."""
    counts = Counter(one.name for one in series)
    if len(counts) < len(series):
        twice = ", ".join(repr(name) for name, count in counts.items() if count > 1)
        raise DuplicateSeriesError(f"series given more than once in one update: {twice}; give each a name of its own")


def _put_back(state: Any, rows: IntArray, part: Any) -> None:
    """The inverse of ``taken``: write the rows of ``part`` to where they were in ``state``, in place."""
    for one in fields(state):
        mine, theirs = getattr(state, one.name), getattr(part, one.name)
        if isinstance(mine, np.ndarray) and "shared" not in one.metadata:
            mine[rows] = theirs
        elif is_dataclass(mine):
            _put_back(mine, rows, theirs)


def _firsts(series: Sequence[Series]) -> IntArray:
    """Absolute numbers of the first intervals, ``(N,)``."""
    return np.array([one.first for one in series], dtype=np.int64)


def _flat(table: FloatArray) -> FloatArray:
    """``(..., H, U)`` to ``(..., H * U)``."""
    return table.reshape(*table.shape[:-2], -1)
