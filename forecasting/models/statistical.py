"""Simple exponential smoothing (EWMA), its factor chosen by one-step errors in the past.

Hyndman & Athanasopoulos, Forecasting: Principles and Practice, chapter 8.1 and (the spread) table 8.8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forecasting.base import Forecast, forecast_of
from forecasting.models.naive import NORMAL
from forecasting.series import FloatArray, Series, masked_mean, newest

HISTORY = 160
"""Values that the smoothing starts from: (1 - 0.05)^160 leaves nothing of older ones."""

ALPHAS: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Factors that compete where none is given; 1 is last value."""

SETTLE = 8
"""First errors of each series that do not count: the level is still that of the first value."""


class Ewma:
    """Level = alpha * value + (1 - alpha) * level. A gap leaves the level alone.

    ``alpha`` in (0, 1]; None lets the one with the smallest mean absolute one-step error win, for each series anew.
    """

    name = "ewma"
    minimum = 12

    def __init__(self, alpha: float | None = None) -> None:
        if alpha is not None and not 0.0 < alpha <= 1.0:
            raise ValueError(f"alpha must be above 0 and at most 1, not {alpha}")
        self._alphas = np.array(ALPHAS if alpha is None else (alpha,))

    def forecast(self, series: Sequence[Series], horizon: int) -> list[Forecast | None]:
        table = newest(series, HISTORY)
        enough = np.isfinite(table).sum(axis=1) >= self.minimum
        values = self._values(table, horizon)
        return [
            forecast_of(one, self.name, rows) if fine else None
            for one, rows, fine in zip(series, values, enough, strict=True)
        ]

    def _values(self, table: FloatArray, horizon: int) -> FloatArray:
        levels, errors = smooth(table, self._alphas)  # (N, A), (N, T, A)
        rated = np.where(np.isfinite(errors).cumsum(axis=1) > SETTLE, errors, np.nan)
        best = np.nan_to_num(masked_mean(np.abs(rated), axis=1), nan=np.inf).argmin(axis=1)  # (N,)
        rows = np.arange(len(table))
        sigma = np.sqrt(np.nan_to_num(masked_mean(rated[rows, :, best] ** 2, axis=1)))
        growth = np.sqrt(1.0 + np.arange(horizon) * self._alphas[best][:, None] ** 2)  # (N, H)
        return np.asarray(levels[rows, best][:, None, None] + (sigma[:, None] * growth)[:, :, None] * NORMAL)


def smooth(table: FloatArray, alphas: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Levels after the last value ``(N, A)`` and one-step errors ``(N, T', A)`` for every factor; NaN where unknown."""
    known = np.isfinite(table)
    start = int(np.argmax(known.any(axis=0))) if known.any() else table.shape[1]
    level = np.full((len(table), len(alphas)), np.nan)
    errors = np.full((len(table), table.shape[1] - start, len(alphas)), np.nan)
    plain = np.asarray(((known.cumsum(axis=1) > 1) & known).all(axis=0))  # every series has begun, and none has a gap
    for t in range(start, table.shape[1]):
        error = table[:, t, None] - level
        errors[:, t - start] = error
        if plain[t]:
            level = level + alphas * error
            continue
        stepped = np.where(np.isnan(level), table[:, t, None], level + alphas * error)
        level = np.where(known[:, t, None], stepped, level)
    return np.nan_to_num(level), errors
