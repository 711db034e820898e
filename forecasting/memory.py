"""What was said about intervals that have not come yet, for many series at once. Pure arrays.

Shapes: N series, L slots (one per origin, so that the newest H forecasts are there), H steps ahead. Series need not be
at the same interval; each is looked up by its own absolute interval numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forecasting.series import FloatArray, IntArray

NEVER = np.int64(-(2**62))


@dataclass(slots=True, eq=False)
class Ring:
    """``value (N, L, H, ...)``, remembered by origin: ``origin (N, L)`` is the absolute number of the first interval
    that each slot tells about.
    """

    origin: IntArray
    value: npt.NDArray[Any]

    @classmethod
    def empty(cls, count: int, horizon: int, *shape: int, dtype: npt.DTypeLike = np.float64) -> Ring:
        """Nothing said yet. ``dtype``: a float of any size."""
        return cls(np.full((count, horizon), NEVER), np.full((count, horizon, horizon, *shape), np.nan, dtype=dtype))

    def remember(self, origin: IntArray, value: FloatArray) -> None:
        """Keep ``value (N, H, ...)``, said at ``origin (N,)``."""
        slot = origin % self.origin.shape[1]
        if _aligned(origin):
            self.origin[:, slot[0]], self.value[:, slot[0]] = origin, value
            return
        rows = np.arange(len(origin))
        self.origin[rows, slot] = origin
        self.value[rows, slot] = value

    def about(self, number: IntArray) -> FloatArray:
        """What each of the H newest origins said about interval ``number (N,)``: ``(N, H, ...)``.

        Row h - 1 was said h steps before the end of the interval; NaN where nothing was said.
        """
        wanted = number[:, None] - np.arange(self.value.shape[2])
        found, origin = self._look_up(wanted % self.origin.shape[1], _aligned(number))
        found[origin != wanted] = np.nan
        return found

    def _look_up(self, slot: IntArray, aligned: bool) -> tuple[FloatArray, IntArray]:
        """Step h of slot ``slot[n, h]`` (a copy), and the origins that hold there."""
        steps = np.arange(slot.shape[1])
        if not aligned:
            rows = np.arange(len(slot))[:, None]
            return self.value[rows, slot, steps], self.origin[rows, slot]
        count, slots, horizon, *rest = self.value.shape
        flat = self.value.reshape(count, slots * horizon, *rest)  # one index for all series: much faster than three
        return flat.take(slot[0] * horizon + steps, axis=1), self.origin[:, slot[0]]


def _aligned(numbers: IntArray) -> bool:
    """Whether all series are at the same interval, as on every usual tick."""
    return len(numbers) > 0 and bool((numbers == numbers[0]).all())
