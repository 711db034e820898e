"""Regular series: equally spaced values with gaps marked as NaN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from forecasting.calendar import Covariates

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

CEILING = 1e15
"""A rate above this is a broken sensor; it is cut so that squares and sums stay finite."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """``values[i]`` (shape ``(T,)``, float64, NaN = gap) is the mean rate over ``[start + i*step, start +
    (i+1)*step)``.

    ``start`` is in seconds since the epoch, ``step`` in seconds. ``season`` is the number of steps in one day
    (a replay at higher speed has shorter days). ``covariates`` were measured beside it, cut as ``values`` are: none of
    their rows belongs to an interval that ``values`` do not have.
    """

    name: str
    start: float
    step: float
    values: FloatArray
    season: int
    covariates: Covariates | None = None

    @property
    def end(self) -> float:
        """The end of the last interval, seconds since the epoch."""
        return self.start + self.step * len(self.values)

    @property
    def first(self) -> int:
        """The absolute number of the first interval: ``start / step``. It stays right when old values are trimmed."""
        return round(self.start / self.step)

    def until(self, count: int) -> Series:
        """The first ``count`` values, copied: whoever holds the result cannot reach what comes later."""
        beside = self.covariates
        past = None if beside is None else beside.until(count)
        return replace(self, values=self.values[:count].copy(), covariates=past)

    def tail(self, count: int) -> Series:
        """The newest ``count`` values (a view)."""
        cut, beside = max(0, len(self.values) - count), self.covariates
        return replace(
            self,
            start=self.start + cut * self.step,
            values=self.values[cut:],
            covariates=None if beside is None else beside.since(cut),
        )


def clean(values: FloatArray) -> FloatArray:
    """A copy in which infinities are gaps, negative rates 0, and absurd ones cut at ``CEILING``."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.clip(np.where(np.isfinite(numbers), numbers, np.nan), 0.0, CEILING)


def newest(series: Sequence[Series], count: int) -> FloatArray:
    """The newest ``count`` cleaned values of every series, right-aligned, NaN in front: shape ``(N, count)``."""
    table = np.full((len(series), count), np.nan)
    for row, one in zip(table, series, strict=True):
        tail = one.values[-count:]
        if len(tail):
            row[-len(tail) :] = tail
    return clean(table)


def fill_forward(table: FloatArray, otherwise: FloatArray) -> FloatArray:
    """Gaps take the value before them; leading gaps take ``otherwise``. ``(N, T)`` and ``(N,)`` give ``(N, T)``."""
    known = np.isfinite(table)
    source = np.maximum.accumulate(np.where(known, np.arange(table.shape[1]), -1), axis=1)
    filled = np.take_along_axis(table, np.maximum(source, 0), axis=1)
    return np.where(source >= 0, filled, otherwise[:, None])


def masked_mean(table: FloatArray, axis: int = -1) -> FloatArray:
    """The mean of the finite values along ``axis``; NaN (without a warning) where there are none."""
    known = np.isfinite(table)
    count = known.sum(axis=axis)
    total = np.where(known, table, 0.0).sum(axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def last_known(table: FloatArray) -> FloatArray:
    """The newest finite value of every row of ``(N, T)``; 0 where a row has none."""
    if table.shape[1] == 0:
        return np.zeros(len(table))
    return fill_forward(table, np.zeros(len(table)))[:, -1]
