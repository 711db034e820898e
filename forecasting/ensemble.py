"""One forecast per series from all models: mixed, calibrated, and allowed to act only where it beats last value.

Each tick: settle what was said about the interval that has come; learn (``learning``) the weights of the models
(``mixture``) and the spread around their mixture (``conformal``); judge the mixture against last value (``scores``,
``gates``); forecast.
Everything is arrays over all series at once, so a thousand services cost little more than ten; and no array mixes
rows, so what is said about a series never depends on which others there are. Only one that is new learns from them: it
begins with their weights.

Skill is judged by bucket of steps (1, 2-5, 6-H), with hysteresis. Where it is not shown, the forecast may not act, and
says so (``selected``); it is told all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecasting.base import MEDIAN, Forecaster, lawful
from forecasting.batch import Batch
from forecasting.conformal import BESIDE, LEARNED, Around, Centre, floored
from forecasting.errors import ForecastingError
from forecasting.extent import LEVEL_SHARE
from forecasting.features import newest, scales
from forecasting.learning import Memory, firsts
from forecasting.mixture import common
from forecasting.models.naive import LastValue
from forecasting.rest import heard
from forecasting.rows import joined, taken
from forecasting.said import Said
from forecasting.scores import Figures, buckets
from forecasting.selected import Selected, Standing
from forecasting.series import BoolArray, FloatArray, IntArray, Series, fill_forward

NOISE = 64
"""Steps whose mean absolute change is the unit of an error."""

YOUNG = 8
"""Known values below which the size of a usual error is a guess: a miss measured in it would look like any number."""

STALE = 240
"""A series that was away for more intervals starts anew."""

LEAST_SHARE = 0.1
"""What last value counts at first, as a share of another model: it is there for the day on which all others fail."""


class DuplicateSeriesError(ForecastingError):
    """A name is given to two series of one update."""


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """``values`` and ``peaks (N, H, Q)``, the next step's ``weights (N, M)``, the gates gone by ``acting (N, B)``."""

    values: FloatArray
    peaks: FloatArray
    weights: FloatArray
    acting: BoolArray


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
        memory, first = self._memory, firsts(series)
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
        memory.first = firsts(series)
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
        limit = memory.extent.limit()[:, None, None]
        answers = [np.minimum(model.predict(batch), limit) for model in self._models]
        told = np.stack([answer[:, :, MEDIAN] for answer in answers], axis=1)  # (N, M, H)
        mixed, weights = memory.mixture.mixed(heard(told, memory.resting(batch)))
        memory.spreads.refresh(memory.next, newest(batch))
        unit = units(batch)
        centre = Centre(mixed, told[:, 0], self._learned(answers), memory.extent.units(unit))
        around = memory.calibrated(centre)
        figures = memory.scores.figures(self._least)
        memory.gates.judge(figures.skill[:, -1], memory.next, self._enter, self._leave)  # of the mixture
        acting = memory.gates.open & ~memory.quiet()[:, None]
        peaks = memory.peaks(around.served, centre.unit)
        trusted = np.isfinite(newest(batch)).sum(axis=1) >= YOUNG
        memory.remember(_said(told, centre, around, peaks, np.where(trusted, unit, np.nan)))
        ordered = floored(np.maximum.accumulate(lawful(peaks), axis=1))
        return self._standing(memory, batch, figures, Served(around.served, ordered, weights[:, :, 0], acting))

    def _learned(self, answers: Sequence[FloatArray]) -> FloatArray:
        """The answers of the models whose quantiles compete, ``(N, L, H, Q)``; NaN for one that is not there."""
        by_name, silent = dict(zip(self._names, answers, strict=True)), np.full_like(answers[0], np.nan)
        return np.stack([by_name.get(name, silent) for name in LEARNED], axis=1)

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
            changed=memory.gates.changed,
            quiet={int(row): silence(batch.series[int(row)], self._horizon) for row in np.flatnonzero(memory.quiet())},
        )


def units(batch: Batch) -> FloatArray:
    """The size of a usual error, ``(N,)``: the mean absolute change lately, and a little of the level."""
    raw = newest(batch)
    recent = fill_forward(raw[:, -NOISE - 1 :], np.zeros(len(raw)))
    return np.asarray(np.abs(np.diff(recent, axis=1)).mean(axis=1) + LEVEL_SHARE * scales(raw))


def silence(series: Series, horizon: int) -> str:
    """Why nothing may be said about a series without any value over the last ``horizon`` steps."""
    known = np.isfinite(series.values).any()
    return f"no value for {horizon} steps: its source is silent" if known else "no values yet"


def _said(told: FloatArray, centre: Centre, around: Around, peaks: FloatArray, unit: FloatArray) -> Said:
    """What is remembered; ``unit (N,)`` is NaN where nothing will be measured in it."""
    each = np.repeat(unit[:, None], told.shape[2], axis=1)
    return Said(told, centre.median, each, around.spread, around.blend, around.calibrated, peaks[..., BESIDE])


def _distinct(series: Sequence[Series]) -> None:
    """Raises DuplicateSeriesError: memory is kept by name, and two series cannot share one."""
    counts = Counter(one.name for one in series)
    if len(counts) < len(series):
        twice = ", ".join(repr(name) for name, count in counts.items() if count > 1)
        raise DuplicateSeriesError(f"series given more than once in one update: {twice}; give each a name of its own")
