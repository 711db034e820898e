"""Series that rest: that never had any value but one. Models that say anything else are not heard about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecasting.batch import Batch
from forecasting.features import RECENT, newest
from forecasting.memory import NEVER
from forecasting.series import BoolArray, FloatArray, IntArray, clean

RESTED = 60
"""Intervals learned from after which a series that never moved is believed to rest."""

AGREED = 1e-6
"""How far a model may be from the one value that a resting series ever had, as a share of it, to be heard."""


@dataclass(slots=True, eq=False)
class Older:
    """What is known about the values of N series that are older than the newest ``RECENT``: each is read once.

    Absolute numbers of intervals, ``(N,)`` each: values from ``begin`` up to ``end`` were read; ``value`` is the newest
    known one, at ``at``, and ``other`` the number of the newest that differs from it. ``NEVER`` and NaN stand for none.
    They stay right when a history is trimmed at its begin.
    """

    begin: IntArray
    end: IntArray
    value: FloatArray
    at: IntArray
    other: IntArray

    @classmethod
    def unread(cls, count: int) -> Older:
        """Nothing was read yet."""
        never = np.full((4, count), NEVER)
        return cls(never[0], never[1], np.full(count, np.nan), never[2], never[3])

    def resting(self, batch: Batch, first: IntArray, age: FloatArray) -> BoolArray:
        """Which series never had any value but one over at least ``RESTED`` intervals learned from, or but 0, ``(N,)``.

        ``batch`` has one window per series, ``first (N,)`` is the absolute number of its first interval, ``age (N,)``
        how many intervals were learned from. Series without any value rest at 0.
        """
        raw = newest(batch)
        low, high = np.fmin.reduce(raw, axis=1), np.fmax.reduce(raw, axis=1)
        resting = np.asarray(~(high > low) & ((age >= RESTED) | ~(high > 0)))
        self._catch_up(batch, first, resting)
        moved = (self.at >= first) & (self.value != np.nan_to_num(high))
        return np.asarray(resting & ~moved & (self.other < first))

    def _catch_up(self, batch: Batch, first: IntArray, wanted: BoolArray) -> None:
        """Read what is not read yet of those that are ``wanted (N,)``; a history that begins earlier now, all of it."""
        filled = wanted & (first < self.begin)
        self.at[filled] = self.other[filled] = self.end[filled] = NEVER
        self.begin = np.where(wanted & (self.end < first), first, self.begin)
        ends = first + batch.count - RECENT
        for row in np.flatnonzero(wanted & (ends > np.maximum(self.end, first))).tolist():
            begin = max(int(self.end[row]), int(first[row]))
            values = batch.series[row].values[begin - int(first[row]) : int(batch.count[row]) - RECENT]
            self._read(row, begin, clean(values))
        self.end = np.where(wanted, np.maximum(self.end, ends), self.end)

    def _read(self, row: int, begin: int, values: FloatArray) -> None:
        """Take in ``values`` of the series in ``row``, the first of which has the number ``begin``."""
        known = np.flatnonzero(np.isfinite(values))
        if not len(known):
            return
        last = values[known[-1]]
        others = known[values[known] != last]
        if len(others):
            self.other[row] = begin + others[-1]
        elif self.at[row] != NEVER and self.value[row] != last:
            self.other[row] = self.at[row]
        self.value[row], self.at[row] = last, begin + known[-1]


def heard(told: FloatArray, resting: BoolArray) -> FloatArray:
    """``told (N, M, H)``, the last value's first, of which only those models are heard about a resting series ``(N,)``
    that say that it will rest: what the others say is NaN.
    """
    if not resting.any():
        return told
    last = told[:, :1]
    strays = np.abs(told - last) > AGREED * last
    return np.asarray(np.where(resting[:, None, None] & strays, np.nan, told))
