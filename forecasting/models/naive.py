"""Last value and last season: the yardsticks of every other model.

Hyndman & Athanasopoulos, Forecasting: Principles and Practice (3rd edition), chapter 5.2 and (the spread) 5.5.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from forecasting.base import MEDIAN, QUANTILES, lawful
from forecasting.batch import Batch
from forecasting.series import FloatArray, IntArray, last_known, masked_mean

HISTORY = 120
"""Values that the spread is taken from."""

SEASONS = 3
"""Seasons that are looked back for a step whose value one season ago is a gap, or lies beyond the origin."""

NORMAL: FloatArray = np.array([NormalDist().inv_cdf(q) for q in QUANTILES])
"""Quantiles of the standard normal distribution, ``(Q,)``."""


class LastValue:
    """The newest known value for every step; 0 for a series that never had one. It always answers.

    Its spread is that of the differences over h steps seen lately: ``v[t+h] - v[t]``.
    """

    name = "last"
    minimum = 0

    def predict(self, batch: Batch) -> FloatArray:
        """Quantiles ``(N, H, Q)``."""
        table = batch.newest(HISTORY)  # (N, T)
        level = last_known(table)[:, None]
        return normal(level, spread(table, batch.horizon))


class SeasonalNaive:
    """The same step one season ago; silent about a window of less than a season.

    A gap there takes the value of a season earlier, and so does a step more than a season ahead (up to ``SEASONS``
    seasons; NaN beyond). The spread is the root mean square of the newest differences over one season, growing with
    the root of the seasons in between; where no such difference is known, only the median is told.
    """

    name = "seasonal_naive"
    minimum = 0

    def predict(self, batch: Batch) -> FloatArray:
        """Quantiles ``(N, H, Q)``."""
        values, seasons = _earlier(batch)  # (N, H) each
        values[batch.count < batch.season] = np.nan
        changes = batch.newest(HISTORY) - batch.seasons_ago(1, -HISTORY, 0)
        sigma = np.sqrt(masked_mean(changes**2))[:, None] * np.sqrt(seasons)
        told = normal(values, sigma)
        told[..., MEDIAN] = values
        return told


def normal(mean: FloatArray, sigma: FloatArray) -> FloatArray:
    """Quantiles ``(..., Q)`` of normal distributions cut at zero; NaN where either is unknown."""
    return lawful(mean[..., None] + sigma[..., None] * NORMAL)


def _earlier(batch: Batch) -> tuple[FloatArray, IntArray]:
    """For every step ahead the newest known value whole seasons before it, and how many: ``(N, H)`` each."""
    values = batch.seasons_ago(1, 0, batch.horizon)
    seasons = np.ones(values.shape, dtype=np.int64)
    for ago in range(2, SEASONS + 1):
        gap = np.isnan(values)
        if not gap.any():
            break
        values = np.where(gap, batch.seasons_ago(ago, 0, batch.horizon), values)
        seasons[gap] = ago
    return values, seasons


def spread(table: FloatArray, horizon: int) -> FloatArray:
    """Root mean square of the h-step differences of ``(N, T)``: ``(N, H)``, growing with h, 0 where unknown."""
    known = np.isfinite(table)
    filled, weight = np.where(known, table, 0.0), known.astype(np.float64)
    whole, width = bool(known.all()), table.shape[1]
    result = np.zeros((len(table), horizon))
    for h in range(1, min(horizon, width - 1) + 1):
        change, pairs = filled[:, h:] - filled[:, :-h], np.float64(width - h)
        if not whole:
            change *= weight[:, h:]
            change *= weight[:, :-h]
            pairs = np.maximum(np.einsum("nt,nt->n", weight[:, h:], weight[:, :-h]), 1.0)
        result[:, h - 1] = np.einsum("nt,nt->n", change, change) / pairs
    return np.maximum.accumulate(np.sqrt(result), axis=1)
