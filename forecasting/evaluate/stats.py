"""Errors of forecasts as pure functions of arrays. NaN (a gap) on either side takes the pair out of every figure.

Names follow Hyndman & Koehler 2006 (WAPE) and Gneiting & Raftery 2007 (pinball loss).
"""

from __future__ import annotations

import numpy as np

from forecasting.series import FloatArray, masked_mean


def absolute(actual: FloatArray, predicted: FloatArray) -> FloatArray:
    """``|actual - predicted|``, NaN where either is unknown."""
    return np.abs(actual - predicted)


def pinball(actual: FloatArray, predicted: FloatArray, quantile: float | FloatArray) -> FloatArray:
    """The loss that the ``quantile`` of the distribution minimises; half the absolute error at 0.5."""
    error = actual - predicted
    return np.maximum(quantile * error, (quantile - 1.0) * error)


def wape(actual: FloatArray, predicted: FloatArray) -> float:
    """Sum of absolute errors / sum of actual values; NaN where the actual values are all 0 or unknown."""
    error = absolute(actual, predicted)
    known = np.isfinite(error)
    total = float(np.abs(actual[known]).sum())
    return float(error[known].sum()) / total if total > 0 else float("nan")


def relative_wape(actual: FloatArray, predicted: FloatArray, reference: FloatArray) -> float:
    """The WAPE as a share of the reference's over the pairs that both know; below 1 beats it; 1 where neither errs."""
    mine, theirs = absolute(actual, predicted), absolute(actual, reference)
    both = np.isfinite(mine) & np.isfinite(theirs)
    return ratio(float(mine[both].sum()), float(theirs[both].sum()))


def ratio(loss: float, reference: float) -> float:
    """``loss / reference``; 1 where both are 0, infinite where only the reference is."""
    if reference > 0:
        return loss / reference
    return 1.0 if loss == 0 else float("inf")


def coverage(actual: FloatArray, upper: FloatArray) -> float:
    """The share of known values that were at most ``upper``."""
    known = np.isfinite(actual) & np.isfinite(upper)
    return float(masked_mean(np.where(known, actual <= upper, np.nan).ravel()))
