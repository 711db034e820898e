"""Regular time series in memory, one ring of values per name."""

from __future__ import annotations

from collections.abc import Iterable
from math import floor

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

#: A time just below a multiple of the step by floating-point dust belongs to that multiple.
_DUST = 1e-6


class SeriesStore:
    """Series whose points lie at multiples of ``step`` seconds since the epoch; the newest ``capacity`` points are
    kept.

    A point is the mean of what was added to its step; a step without a value is NaN.
    """

    def __init__(self, step: float, capacity: int) -> None:
        if step <= 0 or capacity < 1:
            raise ValueError(f"expected step > 0 and capacity >= 1, got step {step} and capacity {capacity}")
        self.step = step
        self.capacity = capacity
        self._series: dict[str, _Ring] = {}

    def add(self, name: str, time: float, value: float) -> None:
        """Add ``value`` to the step that ``time`` falls into. Values older than what is kept, and NaN, are dropped."""
        if np.isfinite(value):
            self._ring(name).add(floor(time / self.step + _DUST), value)

    def preload(self, name: str, start: float, values: Iterable[float]) -> None:
        """Put ``values``, one per step from ``start``, where the series holds nothing yet."""
        ring, first = self._ring(name), floor(start / self.step + _DUST)
        for offset, value in enumerate(values):
            if np.isfinite(value) and not ring.holds(first + offset):
                ring.add(first + offset, float(value))

    def names(self) -> list[str]:
        """The names of all series, sorted."""
        return sorted(self._series)

    def get(self, name: str) -> tuple[float, Values]:
        """The time of the first point and the values, gaps NaN. Raises KeyError for an unknown name."""
        first, values = self._series[name].read()
        return first * self.step, values

    def on_grid(self, name: str, start: float, count: int) -> Values:
        """The values of ``count`` steps from ``start`` on, NaN where none is kept. Raises KeyError as ``get`` does."""
        began, values = self.get(name)
        shift = round((began - start) / self.step)
        low = min(max(0, shift), count)
        high = max(low, min(count, shift + len(values)))
        grid = np.full(count, np.nan)
        grid[low:high] = values[low - shift : high - shift]
        return grid

    def _ring(self, name: str) -> _Ring:
        return self._series.setdefault(name, _Ring(self.capacity))


class _Ring:
    """Sums and counts by step number; position = step number modulo capacity."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._sums = np.zeros(capacity)
        self._counts = np.zeros(capacity, dtype=np.int64)
        self._first: int | None = None
        self._last = 0

    def holds(self, index: int) -> bool:
        return self._inside(index) and bool(self._counts[index % self._capacity])

    def add(self, index: int, value: float) -> None:
        if self._first is None:
            self._first = self._last = index
        if index <= self._last - self._capacity:
            return
        self._advance(index)
        self._first = max(min(self._first, index), self._last - self._capacity + 1)
        position = index % self._capacity
        self._sums[position] += value
        self._counts[position] += 1

    def read(self) -> tuple[int, Values]:
        if self._first is None:
            return 0, np.empty(0)
        where = np.arange(self._first, self._last + 1) % self._capacity
        counts = self._counts[where]
        return self._first, np.where(counts > 0, self._sums[where] / np.maximum(counts, 1), np.nan)

    def _inside(self, index: int) -> bool:
        return self._first is not None and self._first <= index <= self._last

    def _advance(self, index: int) -> None:
        """Forget what the steps after the last one up to ``index`` overwrite."""
        steps = index - self._last
        if steps <= 0:
            return
        stale = np.arange(self._last + 1, self._last + 1 + min(steps, self._capacity)) % self._capacity
        self._sums[stale] = 0.0
        self._counts[stale] = 0
        self._last = index
