"""How far a series ever went, and what that keeps a forecast from."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.extent import FARTHEST, LEAST_NOISE, LEVEL_SHARE, Extent
from tests.unit.forecasting.conftest import NAN, Make


def test_a_history_is_read_up_to_the_count_and_no_further(make: Make) -> None:
    extent = Extent.unknown(2)
    extent.begin(1, make([4.0, NAN, 6.0, 8.0, 999.0]), 4)
    np.testing.assert_array_equal(extent.highest, [NAN, 8.0])
    assert extent.noise[1] == pytest.approx(2.0 + LEVEL_SHARE * 6.0)  # only 6 and 8 stand side by side
    np.testing.assert_array_equal(extent.limit(), [np.inf, FARTHEST * 8.0])


def test_a_history_of_nothing_limits_nothing(make: Make) -> None:
    extent = Extent.unknown(1)
    extent.begin(0, make([NAN, NAN]), 2)
    assert np.isnan(extent.highest[0])
    assert extent.units(np.array([3.0])).tolist() == [3.0]
    assert extent.limit().tolist() == [np.inf]


def test_rest_and_one_absurd_value_do_not_decide_what_is_usual(make: Make) -> None:
    history = [0.0] * 500 + [50.0, 60.0, 50.0, 60.0, 50.0] + [0.0] * 500
    extent, moved = Extent.unknown(2), np.ones(2, dtype=np.bool_)
    extent.begin(0, make(history), len(history))
    extent.begin(1, make([*history, 1e15]), len(history) + 1)
    np.testing.assert_allclose(extent.noise, 10.0 + LEVEL_SHARE * 50.0, rtol=0.5)
    before = extent.noise.copy()
    for _ in range(64):  # as long as the change lately knows of it
        extent.see(np.ones(2), np.full(2, 1e13), moved)
    assert (extent.noise < 1.3 * before).all()


def test_only_those_that_moved_are_taught_and_gaps_teach_nothing() -> None:
    extent = Extent(np.array([5.0, 5.0, NAN, 5.0]), np.array([1.0, 1.0, NAN, 1.0]))
    extent.see(np.array([9.0, 9.0, 3.0, NAN]), np.array([2.0, 2.0, 2.0, NAN]), np.array([True, False, True, True]))
    np.testing.assert_array_equal(extent.highest, [9.0, 5.0, 3.0, 5.0])
    assert 1.0 < extent.noise[0] < 1.001
    np.testing.assert_array_equal(extent.noise[1:], [1.0, NAN, 1.0])


def test_what_is_usual_is_learned_from_the_first_value_on_that_is_not_0() -> None:
    extent, moved = Extent(np.zeros(1), np.zeros(1)), np.ones(1, dtype=np.bool_)
    for value, unit in ((0.0, 1e-11), (500.0, 1e-11), (700.0, 40.0)):
        extent.see(np.array([value]), np.array([unit]), moved)
    assert (extent.highest.tolist(), extent.noise.tolist()) == ([700.0], [40.0])


def test_the_long_run_is_forgotten_by_half_in_two_thousand_intervals() -> None:
    extent, moved = Extent(np.ones(1), np.ones(1)), np.ones(1, dtype=np.bool_)
    for _ in range(2_000):
        extent.see(np.zeros(1), np.zeros(1), moved)
    assert extent.noise[0] == pytest.approx(0.5)
    assert extent.units(np.zeros(1))[0] == pytest.approx(0.5 * LEAST_NOISE)
