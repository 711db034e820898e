"""Errors of forecasts as pure functions of arrays. NaN (a gap) on either side takes the pair out of every figure.

Names follow Hyndman & Koehler 2006 (WAPE, MASE), Gneiting & Raftery 2007 (pinball loss) and Makridakis et al. 2022
(scaled pinball loss, the measure of the M5 uncertainty competition).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from forecasting.series import FloatArray, masked_mean

WINDOW = 200
"""Consecutive forecasts in which a coverage must hold: an average over months hides a bad day."""


def absolute(actual: FloatArray, predicted: FloatArray) -> FloatArray:
    """``|actual - predicted|``, NaN where either is unknown."""
    return np.abs(actual - predicted)


def pinball(actual: FloatArray, predicted: FloatArray, quantile: float | FloatArray) -> FloatArray:
    """The loss that the ``quantile`` of the distribution minimises; half the absolute error at 0.5."""
    error = actual - predicted
    return np.maximum(quantile * error, (quantile - 1.0) * error)


def scaled_pinball(actual: FloatArray, predicted: FloatArray, quantile: float, past: FloatArray) -> float:
    """The mean pinball loss in units of ``naive_error(past)``: comparable between series of any size."""
    return _scaled(pinball(actual, predicted, quantile), past)


def relative_pinball(actual: FloatArray, predicted: FloatArray, reference: FloatArray, quantile: float) -> float:
    """The pinball loss as a share of the reference's over the pairs that both know; below 1 beats it."""
    return _relative(pinball(actual, predicted, quantile), pinball(actual, reference, quantile))


def wape(actual: FloatArray, predicted: FloatArray) -> float:
    """Sum of absolute errors / sum of actual values; NaN where the actual values are all 0 or unknown."""
    error = absolute(actual, predicted)
    known = np.isfinite(error)
    total = float(np.abs(actual[known]).sum())
    return float(error[known].sum()) / total if total > 0 else float("nan")


def relative_wape(actual: FloatArray, predicted: FloatArray, reference: FloatArray) -> float:
    """The WAPE as a share of the reference's over the pairs that both know; below 1 beats it; 1 where neither errs.

    NaN where no pair is known.
    """
    return _relative(absolute(actual, predicted), absolute(actual, reference))


def mase(actual: FloatArray, predicted: FloatArray, past: FloatArray) -> float:
    """Mean absolute scaled error: the mean absolute error in units of ``naive_error(past)``.

    NaN where nothing is known, or where the past never moved.
    """
    return _scaled(absolute(actual, predicted), past)


def naive_error(past: FloatArray) -> float:
    """The mean absolute change from one value of ``past (T,)`` to the next; NaN where two never stand side by side."""
    return float(masked_mean(np.abs(np.diff(past))))


def ratio(loss: float, reference: float) -> float:
    """``loss / reference``; 1 where both are 0, infinite where only the reference is."""
    if reference > 0:
        return loss / reference
    return 1.0 if loss == 0 else float("inf")


def coverage(actual: FloatArray, upper: FloatArray) -> float:
    """The share of known values that were at most ``upper``."""
    return float(masked_mean(_covered(actual, upper).ravel()))


def rolling_coverage(actual: FloatArray, upper: FloatArray, window: int = WINDOW) -> FloatArray:
    """The coverage of every ``window`` consecutive known pairs of ``(N,)``, oldest first: ``(K - window + 1,)``.

    Empty where fewer than ``window`` of the N pairs are known (K).
    """
    covered = _covered(actual, upper)
    covered = covered[np.isfinite(covered)]
    if len(covered) < window:
        return np.empty(0)
    total = np.concatenate([[0.0], np.cumsum(covered)])
    return np.asarray((total[window:] - total[:-window]) / window)


def worst_window_coverage(actual: FloatArray, upper: FloatArray, window: int = WINDOW) -> float:
    """The smallest coverage of any ``window`` consecutive known pairs; NaN where there are fewer."""
    rolling = rolling_coverage(actual, upper, window)
    return float(rolling.min()) if len(rolling) else float("nan")


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of what is known: the average of ratios that treats 2 and 1/2 as equally far from 1.

    Fleming & Wallace 1986. 0 where one value is 0; NaN where none is known, or where 0 and infinity meet.
    """
    numbers = np.array([value for value in values if not np.isnan(value)], dtype=np.float64)
    if not len(numbers) or (0.0 in numbers and np.inf in numbers):
        return float("nan")
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(numbers).mean()))


def _covered(actual: FloatArray, upper: FloatArray) -> FloatArray:
    known = np.isfinite(actual) & np.isfinite(upper)
    return np.where(known, actual <= upper, np.nan)


def _relative(mine: FloatArray, theirs: FloatArray) -> float:
    both = np.isfinite(mine) & np.isfinite(theirs)
    return ratio(float(mine[both].sum()), float(theirs[both].sum())) if both.any() else float("nan")


def _scaled(losses: FloatArray, past: FloatArray) -> float:
    scale, mean = naive_error(past), float(masked_mean(losses.ravel()))
    return mean / scale if scale > 0 else float("nan")
