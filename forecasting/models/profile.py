"""The shape of earlier days at today's level: for hours and days ahead, where the newest values say little.

Seasonal naive with a level that adapts: yesterday repeats, but as busy as today is. The mean of several days hands on
less of the noise of each (Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 3rd edition, chapters 3.4 and
5.2). Which days are best differs by service (offices repeat weeks, batch jobs days); so there are several, and the
mixture chooses.
"""

from __future__ import annotations

import numpy as np

from forecasting.base import medians
from forecasting.batch import Batch
from forecasting.series import FloatArray, IntArray, masked_mean

FACTOR = 4.0
"""Today is taken to be at most this many times as busy as the earlier days, or as quiet."""

HOURS = 24
"""The level of today is that of the newest so-many-th part of a day, at least of ``LEAST`` values."""

LEAST = 4

AROUND = 288
"""Values within this part of a day of a step (five minutes) count as of the same time."""

MOST = 240
"""Values that a level is taken from at most: a day of ticks must not make every forecast read an hour of them."""


class Profile:
    """The mean of what came around the same time so many ``days`` ago, times (today's level / that of those days).

    Silent about windows of less than a day, about series without a season, and about steps of which none of ``days`` is
    known. Days that are unknown are left out. Only the median is told.
    """

    minimum = 0

    def __init__(self, name: str, days: tuple[int, ...]) -> None:
        if not days or min(days) < 1:
            raise ValueError(f"{name}: days must be at least 1 before the forecast, not {days}")
        self.name = name
        self._days = days

    def predict(self, batch: Batch) -> FloatArray:
        """Quantiles ``(N, H, Q)``."""
        width = _reach(batch).max(initial=LEAST)
        told = self._around(batch) * self._ratio(batch, int(width))[:, None]
        told[(batch.season <= 1) | (batch.count < batch.season)] = np.nan
        return medians(told)

    def _around(self, batch: Batch) -> FloatArray:
        """The mean of the earlier days around every step ahead, ``(N, H)``; NaN where none is known."""
        side = batch.season // AROUND
        most = int(side.max(initial=0))
        days = np.stack([batch.seasons_ago(day, -most, batch.horizon + most) for day in self._days])  # (D, N, H + 2S)
        mean = masked_mean(days, axis=0)
        near = np.full((len(batch), batch.horizon), np.nan)
        for one in np.unique(side):
            rows = np.flatnonzero(side == one)
            near[rows] = _moving_mean(mean[rows, most - one : mean.shape[1] - (most - one)], int(one))
        return near

    def _ratio(self, batch: Batch, width: int) -> FloatArray:
        """How many times as busy as on those days it is now, within ``FACTOR``; 1 where that is unknown: ``(N,)``."""
        recent = np.arange(width, 0, -1) <= _reach(batch)[:, None]
        days = np.stack([batch.seasons_ago(day, -width, 0) for day in self._days])
        then, now = masked_mean(days, axis=0), batch.newest(width)
        both = (
            recent & np.isfinite(then) & np.isfinite(now)
        )  # the same steps of both, or a gap would look like a change
        before, today = (np.where(both, table, 0.0).sum(axis=1) for table in (then, now))
        low, high = before / FACTOR, before * FACTOR
        ratio = np.clip(today, low, high) / np.where(before > 0.0, before, 1.0)
        return np.asarray(np.where(before > 0.0, ratio, 1.0))


PROFILES = {"profile1": (1,), "profile3": (1, 2, 3), "profile7": (7,)}
"""Yesterday, the last three days, the same day last week."""


def named(name: str) -> Profile:
    """One of ``PROFILES``."""
    return Profile(name, PROFILES[name])


def _reach(batch: Batch) -> IntArray:
    """Newest values that are the level of today, ``(N,)``."""
    return np.asarray(np.clip(batch.season // HOURS, LEAST, MOST))


def _moving_mean(table: FloatArray, side: int) -> FloatArray:
    """Means of the known ones of ``2 * side + 1`` neighbours: ``(N, H + 2 * side)`` to ``(N, H)``."""
    if side == 0:
        return table
    return masked_mean(np.lib.stride_tricks.sliding_window_view(table, 2 * side + 1, axis=1))
