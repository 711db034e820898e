"""Robust statistics of block means and of steps. Pure arrays; NaN is unknown everywhere."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from forecasting.series import FloatArray, masked_mean

FAINT: Final = 1e-6
"""The least level, so that ratios to it exist: a request in eleven days."""

NEGLIGIBLE: Final = 0.02
"""The least spread and noise, in square roots relative to that of the level: less (4 % of a rate) matters to nobody."""


def block_means(values: FloatArray) -> FloatArray:
    """Means along the last axis; NaN where less than half is known."""
    return np.where(np.isfinite(values).mean(axis=-1) >= 0.5, masked_mean(values), np.nan)


def noise(values: FloatArray, usual: FloatArray, width: int) -> FloatArray:
    """The mean absolute difference of successive square roots, usual ones removed, per ``width`` values."""
    rest = np.sqrt(values) - usual
    return masked_mean(np.abs(np.diff(rest, prepend=np.nan)).reshape(-1, width))


def explained(roots: FloatArray, usual: FloatArray) -> float:
    """The share of the variance of ``(days, B)`` that the profile ``(B,)`` explains, adjusted for having been taken
    from these days, and from robust deviations: single bursts and holes do not hide a day's shape.
    """
    rest, whole = deviation(roots - usual), deviation(roots - median(roots))
    adjusted = rest**2 * len(roots) / (len(roots) - 1)
    return max(0.0, 1.0 - adjusted / whole**2) if whole > 0.0 else 0.0


def restless(roots: FloatArray, usual: FloatArray, patience: int) -> float:
    """The largest log ratio of rates to the profile ``(B,)``, over windows of ``patience`` blocks."""
    end = roots.size // patience * patience
    told, expected = (one.reshape(-1)[:end].reshape(-1, patience) for one in (roots, np.tile(usual, len(roots))))
    heard = np.isfinite(told).mean(axis=1) >= 0.5
    expected = masked_mean(np.where(np.isfinite(told), expected, np.nan))[heard]
    least = math.sqrt(FAINT)
    ratio = np.maximum(masked_mean(told)[heard], least) / np.maximum(expected, least)
    return float(2.0 * np.abs(np.log(ratio)).max(initial=0.0))


def shapes(roots: FloatArray) -> FloatArray:
    """The rank correlation of each day ``(days, B)`` with the profile of the others; a single 0 where none is known."""
    told = []
    for number, day in enumerate(roots):
        others = columns_median(np.delete(roots, number, axis=0))
        known = np.isfinite(day) & np.isfinite(others)
        told.append(correlation(day[known], others[known]) if known.mean() >= 0.75 else np.nan)
    return np.array([one for one in told if np.isfinite(one)] or [0.0])


def correlation(one: FloatArray, other: FloatArray) -> float:
    """Spearman's rank correlation; 0 where either does not vary."""
    x, y = _ranks(one), _ranks(other)
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / size if size > 0.0 else 0.0


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks around 0; equal values share theirs."""
    order = np.sort(values)
    return (np.searchsorted(order, values) + np.searchsorted(order, values, side="right") - len(values)) / 2.0


def columns_median(table: FloatArray) -> FloatArray:
    """The median of the known values of every column of ``(days, B)``: ``(B,)``."""
    return np.array([median(column) for column in table.T])


def median(values: FloatArray) -> float:
    """The median of the known values; NaN where there are none."""
    known = np.sort(values[np.isfinite(values)])
    return float(known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2.0 if len(known) else math.nan


def deviation(values: FloatArray) -> float:
    """1.4826 times the median absolute value: the standard deviation of normal residuals, whatever the outliers."""
    return 1.4826 * median(np.abs(values))
