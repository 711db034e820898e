"""What is learned about many series, interval by interval: weights, spreads, corrections, scores. Pure arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from forecasting.base import QUANTILES
from forecasting.batch import Batch
from forecasting.conformal import (
    BESIDE,
    LEVELS,
    PACE,
    RATE,
    SPREADS,
    Around,
    Centre,
    Corrections,
    Spreads,
    U,
    complete,
    maxima,
    patient,
    settling,
)
from forecasting.extent import Extent
from forecasting.features import newest
from forecasting.gates import Gates
from forecasting.memory import NEVER, Ring
from forecasting.mixture import Mixture
from forecasting.rest import Older
from forecasting.rows import SHARED, put_back, taken
from forecasting.said import Said
from forecasting.scores import Scores, buckets
from forecasting.series import BoolArray, FloatArray, IntArray, Series

SHOWN = 0.95
"""The quantile whose coverage is told."""

FEW = 4
"""Rows are settled apart from the others where they are at most one in so many: copying them costs something, too."""


@dataclass(slots=True, eq=False)
class Memory:
    """Everything that is known about N series; row n of each array belongs to one of them.

    ``next`` and ``first (N,)``: absolute numbers of the next interval (``NEVER`` before the first tick) and of the
    first that was seen; ``step (N,)`` seconds; ``age (N,)`` intervals learned from. ``recent (N, H)``: the newest
    values. ``said``: what was said, packed; ``spread``: its spread, the most of it, in half the digits.
    ``older``: what was read of their histories to tell whether they rest; ``extent``: what limits what is said.
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
    gates: Gates
    older: Older
    extent: Extent
    horizon: int = field(metadata=SHARED)

    @classmethod
    def fresh(cls, names: Sequence[str], prior: FloatArray, window: int) -> Memory:
        """Series that begin with the weights ``prior (M, H)``; skill is measured over ``window`` intervals."""
        count, (models, horizon) = len(names), prior.shape
        spreads = np.full((count, len(SPREADS), horizon * U), 1.0 / len(SPREADS))
        return cls(
            next=np.full(count, NEVER),
            first=np.zeros(count, dtype=np.int64),
            step=np.zeros(count),
            age=np.zeros(count),
            recent=np.full((count, horizon), np.nan),
            said=Ring.empty(count, horizon, Said.width(models)),
            spread=Ring.empty(count, horizon, len(SPREADS), U, dtype=np.float32),
            mixture=Mixture.fresh(np.repeat(prior[None], count, axis=0), np.full(horizon, 0.5)),
            quantiles=Mixture.fresh(spreads, np.tile(LEVELS, horizon), np.repeat(patient(PACE, horizon), U)),
            spreads=Spreads.fresh(names, horizon),
            corrections=Corrections.fresh(count, horizon),
            scores=Scores.empty(count, models, horizon, window),
            gates=Gates.shut(count, len(buckets(horizon))),
            older=Older.unread(count),
            extent=Extent.unknown(count),
            horizon=horizon,
        )

    # -- learning ------------------------------------------------------------------------------------------------

    def settle(self, batch: Batch) -> None:
        """Learn from every interval that has come since the last time, oldest first."""
        ends, begun, known = firsts(batch.series) + batch.count, self.next != NEVER, newest(batch)
        if not begun.all():
            self.recent[~begun] = batch.newest(self.horizon)[~begun]
            for row in np.flatnonzero(~begun).tolist():
                self.extent.begin(row, batch.series[row], int(batch.count[row]))
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
            put_back(self, rows, part)

    def _learn(self, number: IntArray, newest_: FloatArray) -> None:
        """Interval ``number (N,)`` was ``newest_ (N,)``, NaN = a gap; where it is ``NEVER``, nothing has come."""
        moved = number != NEVER
        self._shift(moved, newest_)
        said = Said.unpacked(self.said.about(number), self.spread.about(number))
        actual = np.where(moved, newest_, np.nan)[:, None] + np.zeros(self.horizon)  # (N, H)
        miss = actual - said.mixed
        self.mixture.learn(said.told, said.mixed, actual, said.unit)
        unit = self.extent.units(said.unit)
        self.quantiles.learn(
            _flat(said.spread), _flat(said.blend), np.repeat(actual, U, axis=1), np.repeat(unit, U, axis=1)
        )
        self.spreads.learn(said.spread, actual, miss, unit, moved)
        self.extent.see(newest_, said.unit[:, 0], moved)
        self._correct(said, actual)
        self.age = self.age + np.isfinite(miss).any(axis=1)
        self._score(number, moved, said, actual)

    def _shift(self, moved: BoolArray, newest_: FloatArray) -> None:
        recent = np.concatenate([self.recent[:, 1:], newest_[:, None]], axis=1)
        self.recent = np.where(moved[:, None], recent, self.recent)

    def _correct(self, said: Said, actual: FloatArray) -> None:
        """Move the last calibration. Maxima are known up to the first gap in the steps behind them."""
        highest = np.maximum.accumulate(self.recent[:, ::-1], axis=1)
        rate = settling(self.age)[:, None, None]
        self.corrections.served.move(said.calibrated, actual, patient(rate, self.horizon, self.age))
        self.corrections.peaks.move(said.peaks, np.where(np.isfinite(actual), highest, np.nan), RATE)

    def _score(self, number: IntArray, moved: BoolArray, said: Said, actual: FloatArray) -> None:
        told = np.concatenate([said.told, said.mixed[:, None]], axis=1)
        shown = complete(said.mixed, said.calibrated)[..., QUANTILES.index(SHOWN)]
        known = np.isfinite(shown) & np.isfinite(actual)
        self.scores.record(number, moved, np.abs(actual[:, None] - told), (known & (actual <= shown), known))

    # -- forecasting ---------------------------------------------------------------------------------------------

    def calibrated(self, centre: Centre) -> Around:
        """Quantiles around the mixture."""
        unit, limit = centre.unit[:, None, None], self.extent.limit()[:, None, None]
        spread = np.minimum(self.spreads.around(centre), limit[..., None])
        blend = self.quantiles.mixed(_flat(spread))[0].reshape(*centre.median.shape, U)
        moved = np.minimum(blend + unit * self.corrections.served.shift, limit)
        return Around(spread, blend, moved, complete(centre.median, moved))

    def peaks(self, values: FloatArray, unit: FloatArray) -> FloatArray:
        """Quantiles of maxima ``(N, H, Q)``, not yet in order: row k - 1 is that of the next k steps. ``values (N, H,
        Q)`` are served.
        """
        peaks = maxima(values)
        peaks[..., BESIDE] += unit[:, None, None] * self.corrections.peaks.shift
        return np.minimum(peaks, self.extent.limit()[:, None, None])

    def remember(self, said: Said) -> None:
        """Keep what is said now until reality comes."""
        self.said.remember(self.next, said.packed())
        self.spread.remember(self.next, np.moveaxis(said.spread, 1, 2))

    def resting(self, batch: Batch) -> BoolArray:
        """Which series never had any value but one, ``(N,)``; ``batch`` is the one that was settled last."""
        return self.older.resting(batch, self.next - batch.count, self.age)

    def quiet(self) -> BoolArray:
        """Which series have no value over the last H steps, ``(N,)``: nothing may be said about them."""
        return np.asarray(~np.isfinite(self.recent).any(axis=1))


def firsts(series: Sequence[Series]) -> IntArray:
    """Absolute numbers of the first intervals, ``(N,)``."""
    return np.array([one.first for one in series], dtype=np.int64)


def _flat(table: FloatArray) -> FloatArray:
    """``(..., H, U)`` to ``(..., H * U)``."""
    return table.reshape(*table.shape[:-2], -1)
