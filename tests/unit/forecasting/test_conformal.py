"""Calibration by past misses."""

from __future__ import annotations

import numpy as np

from forecasting.base import QUANTILES
from forecasting.conformal import FAR, HIGH, LOW, MEDIAN, calibrated, misses, shifts, width

FORECAST = np.array([90.0, 100.0, 105.0, 110.0, 120.0])


def gaussian(count: int, spread: float, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(100, spread, count)


def past(actual: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return misses(actual, np.broadcast_to(FORECAST, (len(actual), 5))).T


def test_misses_are_counted_in_widths() -> None:
    unit = float(width(FORECAST))
    assert unit == 20 + 0.05 * 100 + 1e-9
    np.testing.assert_allclose(misses(np.array(110.0), FORECAST), (110 - FORECAST) / unit)


def test_one_jump_from_nothing_stays_bounded() -> None:
    assert (misses(np.array(1e9), np.zeros(5)) == FAR).all()


def test_narrow_quantiles_are_widened_to_what_they_promise() -> None:
    fixed = calibrated(FORECAST, shifts(past(gaussian(2000, 40)), 20))
    fresh = gaussian(4000, 40, seed=1)
    for level, value in zip(QUANTILES, fixed, strict=True):
        assert abs((fresh <= value).mean() - level) < 0.03


def test_wide_quantiles_are_narrowed() -> None:
    fixed = calibrated(FORECAST, shifts(past(gaussian(2000, 2)), 20))
    assert FORECAST[LOW] < fixed[LOW] < 100 < fixed[HIGH] < FORECAST[HIGH]


def test_the_median_stays_unless_asked() -> None:
    low = past(gaussian(200, 5) + 20)
    assert calibrated(FORECAST, shifts(low, 20))[MEDIAN] == 100
    assert abs(calibrated(FORECAST, shifts(low, 20, median=True))[MEDIAN] - 120) < 2


def test_too_few_misses_shift_nothing() -> None:
    few = np.full((5, 240), np.nan)
    few[:, :19] = 3.0
    assert not shifts(few, 20).any()
    few[:, 19] = 3.0
    assert shifts(few, 20)[HIGH] == 3.0


def test_no_misses_at_all_shift_nothing() -> None:
    assert not shifts(np.full((3, 5, 10), np.nan), 0).any()


def test_few_misses_make_wide_forecasts() -> None:
    scores = np.tile(np.arange(20.0), (5, 1))
    assert shifts(scores, 20)[HIGH] == 19.0  # the largest of twenty, not the nineteenth
    assert shifts(scores, 20)[LOW] == 0.0


def test_the_result_is_ordered_and_not_negative() -> None:
    moved = calibrated(FORECAST, np.array([-99.0, 0.0, -50.0, 40.0, -70.0]))
    assert (np.diff(moved) >= 0).all()
    assert moved[0] == 0.0
    assert moved[MEDIAN] == 100.0
