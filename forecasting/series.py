"""Regular series: equally spaced values with gaps marked as NaN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """``values[i]`` (shape ``(T,)``, float64, NaN = gap) is the mean rate over ``[start + i*step, start + (i+1)*step)``.

    ``start`` is in seconds since the epoch, ``step`` in seconds. ``season`` is the number of steps in one day
    (a replay at higher speed has shorter days).
    """

    name: str
    start: float
    step: float
    values: FloatArray
    season: int

    @property
    def end(self) -> float:
        """The end of the last interval, seconds since the epoch."""
        return self.start + self.step * len(self.values)
