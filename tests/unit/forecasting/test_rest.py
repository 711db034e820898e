"""Series that rest: as told by reading everything each time, but read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting import rest
from forecasting.batch import Batch
from forecasting.features import RECENT
from forecasting.rest import RESTED, Older, heard
from forecasting.rows import joined, taken
from forecasting.series import BoolArray, FloatArray, Series, clean

OLD = float(RESTED)


def asked(older: Older, series: Sequence[Series], age: FloatArray) -> BoolArray:
    return older.resting(Batch.now(series, 2), np.array([one.first for one in series]), age)


def reads_all(series: Sequence[Series], age: FloatArray) -> list[bool]:
    """The definition: every value of the history is looked at."""
    told = []
    for one, learned in zip(series, age, strict=True):
        known = [value for value in clean(one.values).tolist() if np.isfinite(value)]
        recent = [value for value in clean(one.values[-RECENT:]).tolist() if np.isfinite(value)]
        only = recent[0] if recent else 0.0
        told.append(all(value == only for value in known) and (only == 0.0 or learned >= RESTED))
    return told


VALUES = st.sampled_from([0.0, 0.0, 0.0, 7.0, 7.0, 7.0, np.nan, -1.0, np.inf, 8.0])
STRETCHES = st.lists(st.tuples(VALUES, st.integers(1, RECENT + 40)), min_size=1, max_size=6)


@settings(max_examples=150)
@given(
    tables=st.lists(STRETCHES, min_size=2, max_size=3),
    steps=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 500), st.booleans()), min_size=2, max_size=8),
)
def test_reading_once_tells_what_reading_all_tells(
    tables: list[list[tuple[float, int]]], steps: list[tuple[int, int, bool]]
) -> None:
    """Histories grow, are trimmed, are longer at their begin again, and are asked about now and then."""
    wholes = [np.concatenate([np.full(count, value) for value, count in table]) for table in tables]
    older, end = Older.unread(len(wholes)), 1
    for more, begin, young in steps:
        end += more
        age = np.array([0.0 if young else OLD] * len(wholes))
        series = [
            Series(str(row), 5.0 * min(begin, end, len(whole)), 5.0, whole[min(begin, end) : end], 96)
            for row, whole in enumerate(wholes)
        ]
        assert asked(older, series, age).tolist() == reads_all(series, age)


@pytest.mark.parametrize("place", [0, 50, 900, 999])
def test_one_other_value_anywhere_is_no_rest(place: int) -> None:
    values = np.full(1000, 7.0)
    still = Series("still", 0.0, 5.0, values, 96)
    moved = replace(still, values=np.where(np.arange(1000) == place, 7.1, values))
    assert asked(Older.unread(2), [still, moved], np.full(2, OLD)).tolist() == [True, False]


def test_it_rests_again_once_the_other_value_is_trimmed() -> None:
    values = np.full(1000, 7.0)
    values[100] = 8.0
    whole, older = Series("s", 0.0, 5.0, values, 96), Older.unread(1)
    told = [asked(older, [whole.tail(count)], np.full(1, OLD)).tolist() for count in (1000, 900, 899)]
    assert told == [[False], [False], [True]]


def test_what_is_revised_lately_is_seen() -> None:
    """Late telemetry fills gaps among the newest values: they are looked at each time."""
    values = np.full(1000, 7.0)
    older, series = Older.unread(1), Series("s", 0.0, 5.0, values, 96)
    assert asked(older, [series], np.full(1, OLD)).tolist() == [True]
    values[990] = 9.0
    assert asked(older, [series], np.full(1, OLD)).tolist() == [False]
    values[990] = 7.0
    assert asked(older, [series], np.full(1, OLD)).tolist() == [True]


def test_every_value_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(values: FloatArray) -> FloatArray:
        read.append(len(values))
        return clean(values)

    monkeypatch.setattr(rest, "clean", counted)
    older, whole = Older.unread(1), Series("s", 0.0, 5.0, np.zeros(20_000), 96)
    for end in range(19_900, 20_000):
        asked(older, [whole.until(end)], np.zeros(1))
    assert read == [19_900 - RECENT, *[1] * 99]


def test_what_was_read_follows_its_series_when_rows_change_places() -> None:
    values = np.zeros((3, 1000))
    values[1, 10] = 5.0
    series = [Series(str(row), 0.0, 5.0, one, 96) for row, one in enumerate(values)]
    older = Older.unread(3)
    assert asked(older, series, np.zeros(3)).tolist() == [True, False, True]
    turned: Any = joined([taken(older, np.array([2, 1])), Older.unread(1)])
    assert asked(turned, [series[2], series[1], replace(series[1], name="new")], np.zeros(3)).tolist() == [
        True,
        False,
        False,
    ]


def test_about_a_series_at_rest_only_those_are_heard_that_agree() -> None:
    told = np.array([[[7.0, 7.0], [7.0, 7.1]], [[7.0, 7.0], [7.0, 7.1]]])
    found = heard(told, np.array([True, False]))
    np.testing.assert_array_equal(found[0], [[7.0, 7.0], [7.0, np.nan]])
    np.testing.assert_array_equal(found[1], told[1])
    assert heard(told, np.zeros(2, dtype=bool)) is told
