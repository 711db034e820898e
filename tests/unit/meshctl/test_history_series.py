"""Series in memory: alignment, gaps, bounds."""

from __future__ import annotations

import numpy as np
import pytest

from meshctl.history.series import SeriesStore


def test_points_are_aligned_and_gaps_are_nan() -> None:
    store = SeriesStore(step=5.0, capacity=10)
    store.add("a", 1002.0, 1.0)
    store.add("a", 1017.5, 3.0)
    start, values = store.get("a")
    assert start == 1000.0
    np.testing.assert_array_equal(values, [1.0, np.nan, np.nan, 3.0])


def test_values_of_one_step_are_averaged() -> None:
    store = SeriesStore(step=1.0, capacity=4)
    for value in (1.0, 2.0, 6.0):
        store.add("a", 10.3, value)
    assert store.get("a")[1].tolist() == [3.0]


def test_only_the_newest_points_are_kept() -> None:
    store = SeriesStore(step=1.0, capacity=3)
    for time in range(10):
        store.add("a", float(time), float(time))
    start, values = store.get("a")
    assert (start, values.tolist()) == (7.0, [7.0, 8.0, 9.0])


def test_a_long_gap_forgets_everything_before_it() -> None:
    store = SeriesStore(step=1.0, capacity=3)
    store.add("a", 0.0, 5.0)
    store.add("a", 100.0, 7.0)
    start, values = store.get("a")
    assert start == 98.0
    np.testing.assert_array_equal(values, [np.nan, np.nan, 7.0])


def test_late_values_find_their_place_and_too_late_ones_are_dropped() -> None:
    store = SeriesStore(step=1.0, capacity=3)
    store.add("a", 10.0, 10.0)
    store.add("a", 8.0, 8.0)
    store.add("a", 7.0, 7.0)
    start, values = store.get("a")
    assert start == 8.0
    np.testing.assert_array_equal(values, [8.0, np.nan, 10.0])


def test_nan_is_no_value() -> None:
    store = SeriesStore(step=1.0, capacity=3)
    store.add("a", 1.0, float("nan"))
    assert store.names() == []


def test_floating_point_dust_does_not_shift_a_step() -> None:
    store = SeriesStore(step=0.1, capacity=100)
    for index in range(50):
        store.add("a", index * 0.1, float(index))
    assert store.get("a")[1].tolist() == [float(index) for index in range(50)]


def test_preload_fills_only_what_is_empty() -> None:
    store = SeriesStore(step=1.0, capacity=10)
    store.add("a", 5.0, 50.0)
    store.preload("a", 3.0, np.array([3.0, np.nan, 5.0]))
    start, values = store.get("a")
    assert start == 3.0
    np.testing.assert_array_equal(values, [3.0, np.nan, 50.0])


def test_preload_of_more_than_fits_keeps_the_newest() -> None:
    store = SeriesStore(step=1.0, capacity=4)
    store.preload("a", 0.0, np.arange(100.0))
    start, values = store.get("a")
    assert (start, values.tolist()) == (96.0, [96.0, 97.0, 98.0, 99.0])


def test_names_are_sorted_and_unknown_ones_raise() -> None:
    store = SeriesStore(step=1.0, capacity=4)
    for name in ("b", "a"):
        store.add(name, 0.0, 1.0)
    assert store.names() == ["a", "b"]
    with pytest.raises(KeyError):
        store.get("c")


@pytest.mark.parametrize(("step", "capacity"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_nonsense_is_refused(step: float, capacity: int) -> None:
    with pytest.raises(ValueError, match="expected step > 0"):
        SeriesStore(step, capacity)
