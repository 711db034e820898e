"""Many windows of many series at once: what every model is asked about. Pure arrays.

A *window* is a series and a number of values: everything before index ``count`` is known, index ``count`` is the first
step ahead. Every look-up is masked to indices below ``count``, so a window inside a longer history equals one whose
history ends there: training, backtests and the running tick share this code, and none of them can see the future.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from forecasting.series import FloatArray, IntArray, Series, clean


@dataclass(frozen=True, eq=False)
class Batch:
    """N windows, ``horizon`` steps ahead each.

    ``owner (N,)`` says which of ``series`` a window belongs to (never decreasing: windows of one series stand
    together), ``count (N,)`` how many of its values are known. ``memo`` holds what was worked out about the windows
    once, for all models.
    """

    series: Sequence[Series]
    owner: IntArray
    count: IntArray
    horizon: int
    memo: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def now(cls, series: Sequence[Series], horizon: int) -> Batch:
        """One window per series: its end."""
        return cls(series, np.arange(len(series)), np.array([len(s.values) for s in series], dtype=np.int64), horizon)

    @classmethod
    def at(cls, series: Series, counts: IntArray, horizon: int) -> Batch:
        """Many windows of one series."""
        return cls([series], np.zeros(len(counts), dtype=np.int64), np.asarray(counts, dtype=np.int64), horizon)

    def __len__(self) -> int:
        return len(self.count)

    def groups(self) -> Iterator[tuple[Series, slice, IntArray]]:
        """Each series that has windows, the rows that are its own, and their counts."""
        edges = np.searchsorted(self.owner, np.arange(len(self.series) + 1))
        for number, one in enumerate(self.series):
            rows = slice(int(edges[number]), int(edges[number + 1]))
            if rows.start < rows.stop:
                yield one, rows, self.count[rows]

    def newest(self, width: int) -> FloatArray:
        """The newest ``width`` values of every window, cleaned, right-aligned, NaN where unknown: ``(N, width)``."""
        found: FloatArray | None = self.memo.get("newest")
        if found is None or found.shape[1] < width:
            found = self.memo["newest"] = self._cut(-width, 0, 0)
        return found[:, found.shape[1] - width :]

    def seasons_ago(self, seasons: int, first: int, last: int) -> FloatArray:
        """Values at steps ``first`` to ``last - 1`` around the origin, so many seasons earlier: ``(N, last - first)``.

        Step 0 is the first step ahead. What is not known yet (a season shorter than the horizon) is NaN.
        """
        return self._cut(first, last, seasons)

    def actual(self) -> FloatArray:
        """What came, ``(N, H)``: for scoring and training only. NaN where it has not come yet."""
        table = np.full((len(self), self.horizon), np.nan)
        for one, rows, counts in self.groups():
            table[rows] = _window(one.values, counts, 0, self.horizon)
        return clean(table)

    @cached_property
    def season(self) -> IntArray:
        """Steps per season of every window's series, ``(N,)``."""
        return np.array([max(1, one.season) for one in self.series], dtype=np.int64)[self.owner]

    @cached_property
    def first_ahead(self) -> FloatArray:
        """The begin of the first step ahead of every window, seconds since the epoch, ``(N,)``."""
        start = np.array([one.start for one in self.series])
        return np.asarray(start[self.owner] + self.step * self.count)

    @cached_property
    def step(self) -> FloatArray:
        """Seconds per step, ``(N,)``."""
        return np.array([one.step for one in self.series])[self.owner]

    def _cut(self, first: int, last: int, seasons: int) -> FloatArray:
        table = np.full((len(self), last - first), np.nan)
        if len(self) == len(self.series) and (self.owner == np.arange(len(self))).all():
            self._cut_single(table, first, seasons)
            return clean(table)
        for one, rows, counts in self.groups():
            shift = seasons * max(1, one.season)
            part = _window(one.values, counts, first - shift, last - shift)
            known = max(0, shift - first)  # columns from here on lie at or after the origin
            part[:, known:] = np.nan
            table[rows] = part
        return clean(table)

    def _cut_single(self, table: FloatArray, first: int, seasons: int) -> None:
        """As ``_cut`` where every series has one window: a tick of a thousand services comes here."""
        width = table.shape[1]
        for row, one, count in zip(table, self.series, self.count.tolist(), strict=True):
            low = count + first - seasons * max(1, one.season)
            begin, end = max(low, 0), min(low + width, count, len(one.values))
            if begin < end:
                row[begin - low : end - low] = one.values[begin:end]


def _window(values: FloatArray, counts: IntArray, first: int, last: int) -> FloatArray:
    """``values[count + first : count + last]`` for every count, NaN outside: ``(len(counts), last - first)``."""
    if len(counts) == 1:
        return _single(values, int(counts[0]) + first, int(counts[0]) + last)
    low, high = int(counts.min()) + first, int(counts.max()) + last
    padded = _single(values, low, high)[0]
    return np.lib.stride_tricks.sliding_window_view(padded, last - first)[counts + first - low].copy()


def _single(values: FloatArray, low: int, high: int) -> FloatArray:
    row = np.full((1, high - low), np.nan)
    begin, end = max(low, 0), min(high, len(values))
    if begin < end:
        row[0, begin - low : end - low] = values[begin:end]
    return row
