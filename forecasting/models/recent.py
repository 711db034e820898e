"""The median of the newest values: where traffic is noise around a level, nothing simple is better.

Unlike a mean it does not move for a burst or a hole, and it is the best constant forecast under the absolute error.
"""

from __future__ import annotations

import numpy as np

from forecasting.base import medians
from forecasting.batch import Batch
from forecasting.series import FloatArray


class RecentMedian:
    """The median of the known ones of the newest ``span`` values; silent where fewer than half are known."""

    def __init__(self, span: int) -> None:
        if span < 1:
            raise ValueError(f"span must be at least 1, not {span}")
        self.name = f"median{span}"
        self.minimum = -(-span // 2)
        self._span = span

    def predict(self, batch: Batch) -> FloatArray:
        """The same for every step ahead."""
        ordered = np.sort(batch.newest(self._span), axis=1)  # NaN last
        known = np.isfinite(ordered).sum(axis=1)
        rows = np.arange(len(ordered))
        low, high = np.maximum(known - 1, 0) // 2, known // 2
        middle = 0.5 * (ordered[rows, low] + ordered[rows, np.minimum(high, self._span - 1)])
        told = np.where(known >= self.minimum, middle, np.nan)
        return medians(np.repeat(told[:, None], batch.horizon, axis=1))
