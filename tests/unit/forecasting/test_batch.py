"""Windows: where they look, and that they look at nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting.batch import Batch
from forecasting.series import CEILING, FloatArray, Series
from tests.unit.forecasting.conftest import NAN, futures

LOOKS: dict[str, Callable[[Batch], FloatArray]] = {
    "newest": lambda batch: batch.newest(20),
    "a season ago": lambda batch: batch.seasons_ago(1, -5, 15),
    "three seasons ago": lambda batch: batch.seasons_ago(3, 0, 15),
    "no season ago": lambda batch: batch.seasons_ago(0, -5, 15),
}


def series(values: list[float] | FloatArray, name: str = "s", season: int = 4) -> Series:
    return Series(name, 100.0, 5.0, np.asarray(values, dtype=np.float64), season)


COUNTING = series(np.arange(20.0))


def counts(*numbers: int) -> Batch:
    return Batch.at(COUNTING, np.array(numbers), 3)


def test_now_is_the_end_of_every_series() -> None:
    batch = Batch.now([COUNTING, series([]), series([1, 2])], 3)
    assert len(batch) == 3
    assert batch.count.tolist() == [20, 0, 2]
    assert batch.owner.tolist() == [0, 1, 2]


def test_the_newest_values_are_right_aligned_and_end_before_the_origin() -> None:
    np.testing.assert_array_equal(counts(20, 2, 0).newest(3), [[17, 18, 19], [NAN, 0, 1], [NAN] * 3])


def test_wider_and_narrower_looks_at_one_batch_agree() -> None:
    """The widest is kept: what was asked for before must not change what is seen later."""
    batch = counts(20, 2, 0)
    for width in (2, 5, 3, 25, 1, 25):
        np.testing.assert_array_equal(batch.newest(width), counts(20, 2, 0).newest(width))
        assert batch.newest(width).shape == (3, width)


def test_step_0_is_the_first_step_ahead() -> None:
    np.testing.assert_array_equal(counts(10, 12).seasons_ago(1, -1, 2), [[5, 6, 7], [7, 8, 9]])
    np.testing.assert_array_equal(counts(10, 12).seasons_ago(2, 0, 3), [[2, 3, 4], [4, 5, 6]])


def test_what_lies_before_the_series_is_unknown() -> None:
    np.testing.assert_array_equal(counts(3, 9).seasons_ago(1, -1, 2), [[NAN, NAN, 0], [4, 5, 6]])


def test_a_season_shorter_than_the_horizon_ends_at_the_origin() -> None:
    np.testing.assert_array_equal(counts(10).seasons_ago(1, 0, 6), [[6, 7, 8, 9, NAN, NAN]])
    np.testing.assert_array_equal(counts(10, 11).seasons_ago(1, 5, 8), [[NAN] * 3] * 2)


def test_a_season_of_nothing_counts_as_one_step() -> None:
    batch = Batch.at(series([1, 2, 3], season=0), np.array([2]), 2)
    np.testing.assert_array_equal(batch.seasons_ago(1, 0, 2), [[2, NAN]])
    assert batch.season.tolist() == [1]


def test_what_came_is_known_as_far_as_it_has_come() -> None:
    np.testing.assert_array_equal(counts(0, 18, 20).actual(), [[0, 1, 2], [18, 19, NAN], [NAN] * 3])


def test_values_are_cleaned() -> None:
    dirty = series([float("inf"), -3.0, 1e300, NAN])
    batch = Batch.at(dirty, np.array([4, 0]), 4)
    np.testing.assert_array_equal(batch.newest(4)[0], [NAN, 0, CEILING, NAN])
    np.testing.assert_array_equal(batch.actual()[1], [NAN, 0, CEILING, NAN])
    assert dirty.values[1] == -3.0  # the series keeps its own


def test_each_window_reads_its_own_series() -> None:
    one, none, two = series([1, 2, 3], "a", 2), series([9], "b"), series([4, 5, 6, 7], "c", 3)
    batch = Batch([one, none, two], np.array([0, 0, 2]), np.array([3, 2, 4]), 2)
    assert [(found.name, rows, part.tolist()) for found, rows, part in batch.groups()] == [
        ("a", slice(0, 2), [3, 2]),
        ("c", slice(2, 3), [4]),
    ]
    np.testing.assert_array_equal(batch.newest(2), [[2, 3], [1, 2], [6, 7]])
    np.testing.assert_array_equal(batch.seasons_ago(1, 0, 1), [[2], [1], [5]])
    assert batch.season.tolist() == [2, 2, 3]


def test_the_time_of_the_first_step_ahead() -> None:
    late = replace(COUNTING, start=900.0, step=60.0)
    batch = Batch([COUNTING, late], np.array([0, 1]), np.array([0, 20]), 3)
    assert batch.first_ahead.tolist() == [100.0, 2100.0]
    assert batch.step.tolist() == [5.0, 60.0]


@pytest.mark.parametrize("batch", [Batch.now([], 3), Batch.at(COUNTING, np.array([], dtype=np.int64), 3)])
def test_no_window_gives_empty_tables(batch: Batch) -> None:
    assert len(batch) == 0
    assert batch.newest(5).shape == (0, 5)
    assert batch.seasons_ago(1, -2, 3).shape == (0, 5)
    assert batch.actual().shape == (0, 3)
    assert batch.season.shape == batch.step.shape == batch.first_ahead.shape == (0,)


@pytest.mark.parametrize("look", LOOKS)
@settings(max_examples=30, deadline=None)
@given(pair=futures(most=60))
def test_a_window_inside_a_history_equals_one_whose_history_ends_there(look: str, pair: tuple[Series, Series]) -> None:
    past, whole = pair
    inside = LOOKS[look](Batch.at(whole, np.array([len(past.values)]), 12))
    np.testing.assert_array_equal(inside, LOOKS[look](Batch.now([past], 12)))


@pytest.mark.parametrize("look", LOOKS)
@settings(max_examples=20, deadline=None)
@given(pair=futures(most=60), data=st.data())
def test_many_windows_are_each_alone(look: str, pair: tuple[Series, Series], data: st.DataObject) -> None:
    whole = pair[1]
    numbers = np.array(data.draw(st.lists(st.integers(0, len(whole.values)), min_size=1, max_size=6)))
    together = LOOKS[look](Batch.at(whole, numbers, 12))
    each = [LOOKS[look](Batch.at(whole, numbers[n : n + 1], 12)) for n in range(len(numbers))]
    np.testing.assert_array_equal(together, np.concatenate(each))
