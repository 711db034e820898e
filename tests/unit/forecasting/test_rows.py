"""Some rows of a state, and states one below the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from forecasting.rows import SHARED, chunks, joined, put_back, taken
from forecasting.series import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Inner:
    level: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class State:
    table: FloatArray
    inner: Inner
    rates: FloatArray = field(metadata=SHARED)


def state(first: int, count: int) -> State:
    numbers = np.arange(first, first + count, dtype=np.float64)
    return State(np.stack([numbers, -numbers], axis=1), Inner(numbers * 10), np.array([0.1, 0.2, 0.3]))


def test_rows_are_taken_from_every_array_but_shared_ones() -> None:
    some = taken(state(0, 5), np.array([4, 1]))
    assert some.table.tolist() == [[4, -4], [1, -1]]
    assert some.inner.level.tolist() == [40, 10]
    assert some.rates.tolist() == [0.1, 0.2, 0.3]


def test_an_array_of_rows_copies_and_a_slice_does_not() -> None:
    whole = state(0, 5)
    taken(whole, np.array([0])).table[:] = 99
    assert whole.table[0, 0] == 0
    assert taken(whole, slice(1, 3)).table.base is whole.table


def test_joined_states_hold_all_rows_in_order() -> None:
    both = joined([state(0, 2), state(5, 1), state(9, 0)])
    assert both.table[:, 0].tolist() == [0, 1, 5]
    assert both.inner.level.tolist() == [0, 10, 50]
    assert both.rates.tolist() == [0.1, 0.2, 0.3]


def test_taking_the_parts_and_joining_them_is_the_whole() -> None:
    whole = state(0, 7)
    again = joined([taken(whole, slice(0, 3)), taken(whole, slice(3, None))])
    np.testing.assert_array_equal(again.table, whole.table)
    np.testing.assert_array_equal(again.inner.level, whole.inner.level)


def test_what_was_taken_is_put_back_in_place_but_what_is_shared() -> None:
    whole, rows = state(0, 5), np.array([4, 1])
    table, part = whole.table, taken(whole, rows)
    part.table[:] = [[40, 41], [10, 11]]
    part.inner.level[:] = [400, 100]
    put_back(whole, rows, State(part.table, part.inner, np.zeros(3)))
    assert whole.table is table
    assert whole.table.tolist() == [[0, 0], [10, 11], [2, -2], [3, -3], [40, 41]]
    assert whole.inner.level.tolist() == [0, 100, 20, 30, 400]
    assert whole.rates.tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (5, [5]), (6, [3, 3]), (11, [4, 4, 3])])
def test_chunks_are_small_enough_and_miss_nothing(count: int, sizes: list[int]) -> None:
    parts = chunks(np.arange(count), 5)
    assert [len(part) for part in parts] == sizes
    assert [int(row) for part in parts for row in part] == list(range(count))
