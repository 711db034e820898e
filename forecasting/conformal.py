"""Calibration by past misses: shift each quantile until it would have been right lately. Pure.

Conformalised quantile regression (Romano, Patterson & Candes 2019) over a rolling window. Misses are counted in units
of the forecast's own width, so that a quiet night says something about a busy noon. The median stays: it is what the
skill gate judged. The promise is marginal and holds as far as the near future resembles the window; a sudden change
of regime is covered only after the window has seen it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from forecasting.base import QUANTILES, lawful
from forecasting.series import FloatArray

LOW, HIGH, MEDIAN = QUANTILES.index(0.05), QUANTILES.index(0.95), QUANTILES.index(0.5)

FLOOR = 0.05
"""A width counts as at least this share of the median: a flat forecast that misses a little is no infinite surprise."""

FAR = 3.0
"""Misses beyond this many widths count as this many: one jump from nothing must not poison the window."""


def width(values: FloatArray) -> FloatArray:
    """The unit of misses: from the 0.05 to the 0.95 quantile, ``(..., Q)`` to ``(...)``."""
    return np.asarray(values[..., HIGH] - values[..., LOW] + FLOOR * values[..., MEDIAN] + 1e-9)


def misses(actual: FloatArray, values: FloatArray) -> FloatArray:
    """How far reality lay above each quantile: ``(...)`` and ``(..., Q)`` to ``(..., Q)``; NaN where either is
    unknown.
    """
    return np.clip((actual[..., None] - values) / width(values)[..., None], -FAR, FAR)


def shifts(past: npt.NDArray[np.floating[Any]], least: int, median: bool = False) -> FloatArray:
    """What to add to each quantile, in widths: ``past (..., Q, K)`` (NaN = none) to ``(..., Q)``; 0 under ``least``
    misses.

    The rank carries the finite-sample correction (n+1)q, rounded outwards: few misses make wide forecasts. The median
    is shifted only where asked.
    """
    if past.shape[-1] == 0:
        return np.zeros(past.shape[:-1])
    ordered = np.sort(past, axis=-1)  # NaN goes to the end
    count = np.isfinite(past).sum(axis=-1)
    levels = np.array(QUANTILES)
    exact = (count + 1) * levels
    rank = np.where(levels > 0.5, np.ceil(exact), np.floor(exact))
    index = np.clip(rank, 1, np.maximum(count, 1)).astype(np.int64) - 1
    found = np.take_along_axis(ordered, index[..., None], axis=-1)[..., 0]
    return np.where((count >= max(1, least)) & ((levels != 0.5) | median), found, 0.0)


def calibrated(values: FloatArray, shift: FloatArray) -> FloatArray:
    """``values (..., Q)`` moved by ``shift (..., Q)`` widths; still ordered around the median, still not negative."""
    moved = values + shift * width(values)[..., None]
    median = moved[..., MEDIAN : MEDIAN + 1]
    moved[..., :MEDIAN] = np.minimum(moved[..., :MEDIAN], median)
    moved[..., MEDIAN + 1 :] = np.maximum(moved[..., MEDIAN + 1 :], median)
    return lawful(moved)
