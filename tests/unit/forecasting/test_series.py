"""Regular series and the array helpers that every model stands on."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.series import CEILING, Series, clean, fill_forward, last_known, masked_mean, newest

NAN = float("nan")


def series(values: list[float], start: float = 100.0) -> Series:
    return Series("s", start, 5.0, np.array(values), 10)


def test_the_end_is_that_of_the_last_interval() -> None:
    assert series([1, 2, 3]).end == 115.0


def test_absolute_numbers_survive_trimming() -> None:
    whole = series([1, 2, 3, 4])
    assert whole.first == 20
    assert whole.tail(1).first == 23
    assert whole.tail(1).end == whole.end


def test_a_tail_longer_than_the_series_is_the_series() -> None:
    assert series([1, 2]).tail(9).start == 100.0


def test_the_past_is_a_copy() -> None:
    whole = series([1, 2, 3])
    past = whole.until(2)
    assert past.values.base is None
    assert past.values.tolist() == [1, 2]
    assert past.start == whole.start


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [(float("inf"), NAN), (float("-inf"), NAN), (NAN, NAN), (-1.0, 0.0), (1e300, CEILING), (3.5, 3.5)],
)
def test_clean(dirty: float, cleaned: float) -> None:
    np.testing.assert_array_equal(clean(np.array([dirty])), [cleaned])


def test_newest_aligns_right() -> None:
    table = newest([series([1, 2, 3]), series([]), series([9])], 2)
    np.testing.assert_array_equal(table, [[2, 3], [NAN, NAN], [NAN, 9]])


def test_gaps_take_the_value_before_them() -> None:
    table = np.array([[NAN, 1.0, NAN, 3.0, NAN], [NAN] * 5])
    np.testing.assert_array_equal(fill_forward(table, np.array([7.0, 8.0])), [[7, 1, 1, 3, 3], [8] * 5])


def test_masked_mean_of_nothing_is_unknown_without_a_warning() -> None:
    np.testing.assert_array_equal(masked_mean(np.array([[1.0, NAN, 3.0], [NAN] * 3])), [2.0, NAN])


def test_last_known() -> None:
    np.testing.assert_array_equal(last_known(np.array([[1.0, 2.0, NAN], [NAN] * 3])), [2.0, 0.0])
    np.testing.assert_array_equal(last_known(np.empty((2, 0))), [0.0, 0.0])
