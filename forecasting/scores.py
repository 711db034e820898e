"""How well the models and their mixture did lately, by bucket of steps, beside last value. Pure arrays.

Skill = 1 - loss / loss of last value over the same intervals; the loss is the absolute error of the median. Sums are
kept per interval and added up anew each time: nothing drifts, and one broken value is gone once it leaves the window.

Shapes: N series, M models and the mixture after them, H steps ahead, B buckets of steps, W intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forecasting.series import BoolArray, FloatArray, IntArray

COVERED = 200
"""Intervals that the coverage is measured over."""


def buckets(horizon: int) -> dict[str, slice]:
    """Steps that are judged together: the next one, up to 5, and the rest; label to rows."""
    edges = [(1, 1), (2, min(5, horizon)), (6, horizon)]
    return {f"{a}" if a == b else f"{a}-{b}": slice(a - 1, b) for a, b in edges if a <= b}


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """``skill (N, M + 1, B)``: NaN where too little is scored, -1 at worst. ``scored (N, B)``: intervals behind it.
    ``loss (N, M + 1, B)``: mean absolute errors, NaN where nothing is scored. ``coverage (N,)``: share of values at or
    below the quantile shown, NaN where none was.
    """

    skill: FloatArray
    scored: IntArray
    loss: FloatArray
    coverage: FloatArray


@dataclass(slots=True, eq=False)
class Scores:
    """By interval modulo W: ``loss (N, M + 1, B, W)``, the sum of absolute errors over the steps of a bucket; ``base``,
    that of last value over the same steps; ``count`` of them; ``first``, whether the bucket's first step is one.

    ``good`` and ``shown (N, COVERED)``: steps whose quantile reality stayed below, and all that had one.
    """

    loss: npt.NDArray[np.float32]
    base: npt.NDArray[np.float32]
    count: npt.NDArray[np.int16]
    first: BoolArray
    good: npt.NDArray[np.int16]
    shown: npt.NDArray[np.int16]

    @classmethod
    def empty(cls, count: int, models: int, horizon: int, window: int) -> Scores:
        """Nothing scored yet; ``models`` is M."""
        shape, covered = (count, models + 1, len(buckets(horizon)), window), (count, COVERED)
        kinds = ((shape, "f4"), (shape, "f4"), (shape, "i2"), (shape, "?"), (covered, "i2"), (covered, "i2"))
        return cls(*(np.zeros(size, dtype=kind) for size, kind in kinds))

    def record(self, number: IntArray, moved: BoolArray, errors: FloatArray, hits: tuple[BoolArray, BoolArray]) -> None:
        """Interval ``number (N,)`` has come where ``moved (N,)``: ``errors (N, M + 1, H)`` (last value first, the
        mixture last, NaN = not said or not known); ``hits``: whether it stayed below the quantile shown, and whether
        that is known, ``(N, H)`` each.
        """
        starts = [part.start for part in buckets(errors.shape[2]).values()]
        known = np.isfinite(errors)
        size = np.where(known, errors, 0.0)
        _put(self.loss, number, moved, np.add.reduceat(size, starts, axis=2))
        _put(self.base, number, moved, np.add.reduceat(known * size[:, :1], starts, axis=2))
        _put(self.count, number, moved, np.add.reduceat(known, starts, axis=2, dtype=np.int16))
        _put(self.first, number, moved, known[:, :, starts])
        good, shown = hits
        _put(self.good, number, moved, good.sum(axis=1))
        _put(self.shown, number, moved, shown.sum(axis=1))

    def figures(self, least: int) -> Figures:
        """Skill (where at least ``least`` intervals are scored), losses and coverage."""
        loss, base = _total(self.loss), _total(self.base)
        scored, count, shown = _total(self.first), _total(self.count), _total(self.shown)
        skill = np.where(base > 0, 1.0 - loss / np.where(base > 0, base, 1.0), np.where(loss > 0, -1.0, 0.0))
        return Figures(
            np.where(scored >= least, np.maximum(skill, -1.0), np.nan),
            scored[:, -1].astype(np.int64),
            np.where(count > 0, loss / np.maximum(count, 1), np.nan),
            np.where(shown > 0, _total(self.good) / np.maximum(shown, 1), np.nan),
        )


def _put(ring: npt.NDArray[Any], number: IntArray, moved: BoolArray, values: npt.NDArray[Any]) -> None:
    """``ring[n, ..., number[n] % W] = values[n]`` where ``moved``."""
    slots = number % ring.shape[-1]
    if moved.all() and (slots == slots[0]).all():
        ring[..., slots[0]] = values
        return
    rows = np.flatnonzero(moved)
    ring[rows, ..., slots[rows]] = values[rows]


def _total(ring: npt.NDArray[Any]) -> FloatArray:
    return np.asarray(ring.sum(axis=-1, dtype=np.float64))
