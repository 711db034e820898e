"""How far a series ever went, and how restless it is in the long run. Pure arrays.

What was seen lately says little about a series that comes and goes: after hours without a request the size of a usual
error would be next to nothing, and the first burst a million of them. Quantiles learned in such units, or told by a
model that learned in them, would ask for a million times what was ever needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecasting.series import BoolArray, FloatArray, Series, clean

FARTHEST = 4.0
"""Nothing is forecast above so many times the highest value ever seen."""

LEAST_NOISE = 0.01
"""The size of a usual error is never less than this share of what it is in the long run."""

LEVEL_SHARE = 0.05
"""What a usual error is at least, as a share of the level."""

SLOW = 1.0 - 0.5 ** (1.0 / 2_000.0)
"""The long run forgets half in 2,000 intervals."""

STEEPEST = 10.0
"""How many times itself the long run may be pulled up at once: a broken sensor must not be remembered as usual."""


@dataclass(slots=True, eq=False)
class Extent:
    """Of N series: the ``highest`` value that was ever known, and the ``noise``, the size of a usual error in the long
    run; both ``(N,)``, NaN where nothing is known.
    """

    highest: FloatArray
    noise: FloatArray

    @classmethod
    def unknown(cls, count: int) -> Extent:
        """Of series that were not looked at yet."""
        return cls(np.full(count, np.nan), np.full(count, np.nan))

    def begin(self, row: int, one: Series, count: int) -> None:
        """Read the first ``count`` values of the series in ``row``."""
        values = clean(one.values[:count])
        known = values[np.isfinite(values)]
        if len(known):
            self.highest[row] = known.max()
            self.noise[row] = _usual(np.abs(np.diff(values))) + LEVEL_SHARE * _usual(known)

    def see(self, values: FloatArray, units: FloatArray, moved: BoolArray) -> None:
        """``values (N,)`` have come, and what a usual error was, ``units (N,)``, NaN = unknown, to those that
        ``moved (N,)``.
        """
        told = moved & np.isfinite(units) & (self.highest > 0.0)  # without a value but 0 a unit says nothing
        self.highest = np.where(moved, np.fmax(self.highest, values), self.highest)
        change = np.minimum(units - self.noise, STEEPEST * self.noise)
        slower = np.where(self.noise > 0.0, self.noise + SLOW * change, units)
        self.noise = np.where(told, slower, self.noise)

    def units(self, now: FloatArray) -> FloatArray:
        """The size of a usual error: ``now (N, ...)``, or a little of the long run where that is more. NaN stays."""
        least = LEAST_NOISE * np.nan_to_num(self.noise)
        return np.maximum(now, least.reshape(-1, *(1,) * (now.ndim - 1)))

    def limit(self) -> FloatArray:
        """What no forecast may pass, ``(N,)``; infinite where nothing is known."""
        return np.where(np.isfinite(self.highest), FARTHEST * self.highest, np.inf)


def _usual(values: FloatArray) -> float:
    """The median of those ``values`` that are positive, 0 where none is: neither rest nor one absurd value moves it."""
    positive = values[values > 0.0]
    return float(np.median(positive)) if len(positive) else 0.0
