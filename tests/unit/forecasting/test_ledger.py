"""Settling: every forecast meets the value that it was about, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.conformal import MEDIAN, width
from forecasting.ledger import Ledger
from forecasting.series import FloatArray

NAN = float("nan")


def told(*medians: float) -> FloatArray:
    """One model, quantiles 1 apart around the medians of each step."""
    return np.asarray((np.array(medians)[:, None] + np.arange(-1.0, 4.0))[None])


def test_each_step_is_scored_against_its_own_interval() -> None:
    ledger = Ledger(1, 3, 8)
    ledger.remember(100, told(10, 20, 30))
    for number, actual in ((100, 11.0), (101, 23.0), (102, 36.0)):
        ledger.settle(number, actual)
    newest = ledger.newest(3)[0]  # (H, newest first)
    np.testing.assert_array_equal(newest[0], [NAN, NAN, 1.0])
    np.testing.assert_array_equal(newest[1], [NAN, 3.0, NAN])
    np.testing.assert_array_equal(newest[2], [6.0, NAN, NAN])
    assert ledger.next == 103


def test_a_gap_scores_nothing() -> None:
    ledger = Ledger(1, 2, 8)
    ledger.remember(5, told(1, 1))
    ledger.settle(5, NAN)
    assert np.isnan(ledger.newest(8)).all()


def test_a_silent_model_is_not_scored() -> None:
    ledger = Ledger(2, 1, 8)
    ledger.remember(5, np.concatenate([told(1), np.full((1, 1, 5), NAN)]))
    ledger.settle(5, 4.0)
    assert ledger.newest(1)[0, 0, 0] == 3.0
    assert np.isnan(ledger.newest(1)[1]).all()


def test_old_entries_leave_the_ring_and_the_window() -> None:
    ledger = Ledger(1, 1, 4)
    for number in range(10):
        ledger.remember(number, told(0))
        ledger.settle(number, float(number))
    np.testing.assert_array_equal(ledger.newest(9)[0, 0], [9, 8, 7, 6])
    np.testing.assert_array_equal(ledger.newest(2)[0, 0], [9, 8])


def test_forecasting_twice_at_one_origin_counts_once() -> None:
    ledger = Ledger(1, 1, 4)
    ledger.remember(7, told(0))
    ledger.remember(7, told(2))
    ledger.settle(7, 5.0)
    assert np.nansum(ledger.errors) == 3.0


def test_peaks_compare_maxima_with_maxima() -> None:
    ledger = Ledger(1, 3, 8)
    values = told(10, 30, 20)
    ledger.remember(0, values)
    for number, actual in enumerate((12.0, 25.0, 40.0)):
        ledger.settle(number, actual)
    unit = float(width(values[0, 1]))
    assert ledger.peaks[0, 1, MEDIAN, 1] == pytest.approx((25 - 30) / unit, rel=1e-6)  # of two steps
    assert ledger.peaks[0, 2, MEDIAN, 2] == pytest.approx((40 - 30) / unit, rel=1e-6)  # of three


def test_a_gap_inside_a_peak_scores_nothing() -> None:
    ledger = Ledger(1, 2, 8)
    ledger.remember(0, told(10, 30))
    ledger.settle(0, NAN)
    ledger.settle(1, 5.0)
    assert np.isnan(ledger.peaks[0, 1]).all()
