"""Last value: tomorrow is like now. The yardstick of every other model.

Its spread is that of the differences over h steps seen lately: ``v[t+h] - v[t]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from forecasting.base import QUANTILES, Forecast, forecast_of
from forecasting.series import FloatArray, Series, last_known, masked_mean, newest

HISTORY = 120
"""Values that the spread is taken from."""

NORMAL: FloatArray = np.array([NormalDist().inv_cdf(q) for q in QUANTILES])
"""Quantiles of the standard normal distribution, ``(Q,)``."""


class LastValue:
    """The newest known value for every step; 0 for a series that never had one. It always answers."""

    name = "last"
    minimum = 0

    def forecast(self, series: Sequence[Series], horizon: int) -> list[Forecast | None]:
        table = newest(series, HISTORY)  # (N, T)
        level = last_known(table)[:, None, None]
        values = level + spread(table, horizon)[:, :, None] * NORMAL  # (N, H, Q)
        return [forecast_of(one, self.name, rows) for one, rows in zip(series, values, strict=True)]


def spread(table: FloatArray, horizon: int) -> FloatArray:
    """Root mean square of the h-step differences of ``(N, T)``: ``(N, H)``, growing with h, 0 where unknown."""
    result = np.zeros((len(table), horizon))
    for h in range(1, min(horizon, table.shape[1] - 1) + 1):
        result[:, h - 1] = masked_mean((table[:, h:] - table[:, :-h]) ** 2)
    return np.maximum.accumulate(np.sqrt(np.nan_to_num(result)), axis=1)
