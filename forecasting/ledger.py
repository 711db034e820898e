"""The record of one series: what every model said, and how far off it was once reality was known. Pure arrays.

Rings of ``K`` columns are addressed by the absolute number of the interval that was forecast, modulo K, so that a gap
ages old entries as time does. Axes: M models, H steps ahead, Q quantiles, K ring.
"""

from __future__ import annotations

import numpy as np

from forecasting.base import QUANTILES
from forecasting.conformal import MEDIAN, misses
from forecasting.evaluate.stats import absolute, pinball
from forecasting.series import FloatArray


class Ledger:
    """Pending forecasts by origin, and rings of what they missed by."""

    def __init__(self, models: int, horizon: int, memory: int) -> None:
        quantiles = len(QUANTILES)
        self.memory = memory
        self.next: int | None = None
        """Number of the first interval that is not settled; None before the first forecast."""
        self._steps = np.arange(horizon)
        self._origins = np.full(horizon, -1)
        self._pending = np.full((models, horizon, horizon, quantiles), np.nan)  # (M, origin, H, Q)
        self._recent = np.full(horizon, np.nan)  # newest actual values, newest last
        self.errors = np.full((models, horizon, memory), np.nan, dtype=np.float32)
        self.pinballs = np.full((models, horizon, memory), np.nan, dtype=np.float32)
        self.misses = np.full((models, horizon, quantiles, memory), np.nan, dtype=np.float32)
        self.peaks = np.full((models, horizon, quantiles, memory), np.nan, dtype=np.float32)

    def remember(self, origin: int, values: FloatArray) -> None:
        """Keep what the models ``(M, H, Q)`` say at ``origin``, the number of the first interval ahead."""
        slot = origin % len(self._origins)
        self._origins[slot] = origin
        self._pending[:, slot] = values
        if self.next is None:
            self.next = origin

    def settle(self, number: int, actual: float) -> None:
        """Interval ``number`` turned out to be ``actual``; NaN (a gap, a masked time) scores nothing."""
        made = number - self._steps  # the origin whose step h+1 this interval was
        slots = made % len(made)
        told = self._pending[:, slots]  # (M, H origins, H, Q)
        told = np.where((self._origins[slots] == made)[:, None, None], told, np.nan)
        self._recent = np.append(self._recent[1:], actual)
        self._settle_steps(number % self.memory, actual, told[:, self._steps, self._steps])
        self._settle_peaks(number % self.memory, told)
        self.next = number + 1

    def _settle_steps(self, column: int, actual: float, told: FloatArray) -> None:
        seen = np.full(told.shape[:-1], actual)
        self.errors[:, :, column] = absolute(seen, told[..., MEDIAN])
        self.pinballs[:, :, column] = pinball(seen[..., None], told, np.array(QUANTILES)).mean(axis=-1)
        self.misses[..., column] = misses(seen, told)

    def _settle_peaks(self, column: int, told: FloatArray) -> None:
        """The maximum over the first k steps of the forecast made k intervals ago, for every k; a gap inside scores
        nothing.
        """
        highest = np.maximum.accumulate(told, axis=2)[:, self._steps, self._steps]  # (M, k, Q)
        reality = np.maximum.accumulate(self._recent[::-1])
        self.peaks[..., column] = misses(np.broadcast_to(reality, highest.shape[:-1]), highest)

    def newest(self, count: int) -> FloatArray:
        """Absolute errors over the last ``count`` settled intervals, ``(M, H, count)``."""
        columns = ((self.next or 0) - 1 - np.arange(min(count, self.memory))) % self.memory
        return self.errors[:, :, columns].astype(np.float64)
