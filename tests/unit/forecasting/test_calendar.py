"""Holidays by the clocks of a zone, and covariates that know no more than their series did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import holidays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting import calendar
from forecasting.calendar import (
    CalendarError,
    Covariates,
    Holidays,
    SettingError,
    aligned,
    holiday_effect,
    holiday_flags,
)
from forecasting.series import FloatArray, Series

NAN = float("nan")


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.fixture
def fresh() -> Iterator[None]:
    for cached in (calendar._year, calendar._spans):
        cached.cache_clear()
    yield
    for cached in (calendar._year, calendar._spans):
        cached.cache_clear()


class TestHolidays:
    def test_a_day_is_a_holiday_from_midnight_to_midnight(self) -> None:
        times = [at("2024-12-24T23:59:59"), at("2024-12-25T00:00"), at("2024-12-26T23:59"), at("2024-12-27T00:00")]
        assert holiday_flags(times, "DE").tolist() == [False, True, True, False]

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu", "America/New_York", "Pacific/Kiritimati"])
    def test_midnight_is_that_of_the_zone(self, zone: str) -> None:
        midnight = at("2024-10-03T00:00", zone)
        assert holiday_flags([midnight - 1, midnight, midnight + 86_399], "DE", zone=zone).tolist() == [
            False,
            True,
            True,
        ]
        assert holiday_flags([midnight + 86_400], "DE", zone=zone).tolist() == [False]

    def test_days_of_23_and_25_hours(self) -> None:
        easter = at("2024-03-31T00:00", "Europe/Berlin")  # the clocks went forward on Easter Sunday, Monday is free
        monday = easter + 23 * 3600
        assert holiday_flags([monday - 1, monday], "DE", zone="Europe/Berlin").tolist() == [False, True]

    def test_subdivisions_have_their_own(self) -> None:
        epiphany = [at("2024-01-06T12:00")]
        assert not holiday_flags(epiphany, "DE")[0]
        assert holiday_flags(epiphany, "DE", "BY")[0]
        assert not holiday_flags(epiphany, "DE", "BE")[0]

    def test_years_are_told_apart(self) -> None:
        times = [at(f"{year}-04-01T12:00") for year in (2023, 2024, 2025)]  # Easter Monday in 2024 only
        assert holiday_flags(times, "DE").tolist() == [False, True, False]

    def test_shapes_and_unknown_times(self) -> None:
        assert holiday_flags([], "US").tolist() == []
        assert holiday_flags([NAN, at("2024-07-04T10:00"), float("inf")], "US").tolist() == [False, True, False]

    @given(times=st.lists(st.integers(0, 2**31), max_size=20))
    def test_it_agrees_with_the_date_of_every_single_time(self, times: list[int]) -> None:
        table = holidays.country_holidays("FR")
        assert holiday_flags(times, "FR").tolist() == [datetime.fromtimestamp(t, UTC).date() in table for t in times]

    @pytest.mark.usefixtures("fresh")
    def test_a_year_is_looked_up_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[object] = []
        real = holidays.country_holidays

        def counted(*args: Any, **kwargs: Any) -> Any:
            asked.append(kwargs.get("years"))
            return real(*args, **kwargs)

        holiday_flags([], "IT")  # checks the country
        monkeypatch.setattr(holidays, "country_holidays", counted)
        for _ in range(3):
            holiday_flags([at("2024-12-31T10:00"), at("2025-01-01T10:00")], "IT")
        assert sorted(map(str, asked)) == ["2024", "2025"]

    @pytest.mark.parametrize(
        ("country", "expected"),
        [
            ("de", r"no holidays are known for 'de'; did you mean DE\b"),
            ("Germany", r"'Germany'; did you mean DE\b"),
            ("United Kingdom", r"did you mean GB\?"),
            ("USAA", r"\bUSA?\b"),
            ("", r"use an ISO 3166 code such as DE, GB, US"),
        ],
    )
    def test_an_unknown_country(self, country: str, expected: str) -> None:
        with pytest.raises(CalendarError, match=r"^forecast\.holidays\.country: .*" + expected):
            holiday_flags([0.0], country)

    @pytest.mark.parametrize(
        ("country", "subdivision", "expected"),
        [
            ("DE", "by", r"no subdivision 'by'; did you mean BY"),
            ("DE", "Bayernn", r"did you mean BY"),
            ("DE", "12345", r"use an ISO 3166 code such as BB, "),
            ("AF", "KAB", r"has no subdivisions; leave 'KAB' out"),
        ],
    )
    def test_an_unknown_subdivision(self, country: str, subdivision: str, expected: str) -> None:
        with pytest.raises(CalendarError, match=rf"forecast\.holidays\.country '{country}'.*{expected}"):
            holiday_flags([0.0], country, subdivision)

    @pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd"])
    def test_an_unknown_zone(self, zone: str) -> None:
        with pytest.raises(CalendarError, match=r"forecast\.holidays\.zone: no time zone .*Europe/Berlin"):
            holiday_flags([0.0], "DE", zone=zone)

    def test_what_is_wrong_and_near_is_said_apart_from_the_setting(self) -> None:
        with pytest.raises(SettingError) as caught:
            Holidays("DE", "BY", "Europe/Brlin")
        assert caught.value.setting == "forecast.holidays.zone"
        assert caught.value.problem == "no time zone 'Europe/Brlin'; did you mean Europe/Berlin?"

    def test_holidays_are_told_apart_by_their_begin(self) -> None:
        christmas, boxing = (at(f"2024-12-{day}T00:00", "Europe/Berlin") for day in (25, 26))
        times = np.array([[christmas - 1, christmas + 5], [boxing + 86_399, boxing + 86_400]])
        np.testing.assert_array_equal(
            Holidays("DE", zone="Europe/Berlin").begins(times), [[NAN, christmas], [boxing, NAN]]
        )

    def test_every_year_that_has_a_date(self) -> None:
        assert holiday_flags([-62_135_596_800.0, 2.5e11, 1e15, -1e15], "US").shape == (4,)


WEEK = 7 * 24


class TestEffect:
    """Hourly values over ten weeks; begins are those of three holidays."""

    @staticmethod
    def begins(*days: int) -> FloatArray:
        told = np.full(10 * WEEK, NAN)
        for day in days:
            told[24 * day : 24 * day + 24] = day
        return told

    def test_it_is_the_ratio_to_the_weeks_around(self) -> None:
        begins = self.begins(17, 31, 45)
        rates = np.tile(np.arange(1.0, WEEK + 1), 10) * np.where(np.isfinite(begins), 0.5, 1.0)
        assert holiday_effect(rates, begins, 24) == pytest.approx(0.5)

    def test_neighbouring_holidays_do_not_stand_for_ordinary_days(self) -> None:
        begins = self.begins(17, 24, 31)
        rates = np.where(np.isfinite(begins), 50.0, 100.0)
        assert holiday_effect(rates, begins, 24) == pytest.approx(0.5)

    def test_noise_is_no_effect(self) -> None:
        rates = 100.0 + np.random.default_rng(0).standard_normal(10 * WEEK)
        assert holiday_effect(rates, self.begins(17, 31, 45), 24) == pytest.approx(1.0, abs=0.01)

    def test_an_effect_that_varies_counts_less(self) -> None:
        begins = self.begins(17, 31, 45)
        rates = np.full(10 * WEEK, 100.0)
        for day, factor in ((17, 0.3), (31, 0.9), (45, 0.5)):
            rates[24 * day : 24 * day + 24] *= factor
        found = holiday_effect(rates, begins, 24)
        assert found is not None
        assert 0.5 < found < 0.9

    @pytest.mark.parametrize("days", [(), (17,), (17, 69)])  # the last one ends with the history: half a day is known
    def test_fewer_than_two_holidays_say_nothing(self, days: tuple[int, ...]) -> None:
        begins = self.begins(*days)
        rates = np.full(10 * WEEK, 100.0)
        rates[-18:] = NAN
        assert holiday_effect(rates, begins, 24) is None

    def test_it_is_bounded_and_needs_something_to_compare_with(self) -> None:
        begins = self.begins(17, 31)
        rates = np.where(np.isfinite(begins), 1e-9, 100.0)
        assert holiday_effect(rates, begins, 24) == pytest.approx(1 / calendar.MOST)
        assert holiday_effect(np.zeros(10 * WEEK), begins, 24) is None
        assert holiday_effect(np.full(10 * WEEK, NAN), begins, 24) is None
        assert holiday_effect(rates[:30], begins[:30], 24) is None


def grid(count: int, start: float = 100.0) -> Series:
    return Series("shop", start, 10.0, np.zeros(count), 8640)


class TestCovariates:
    def test_each_interval_takes_the_newest_value_observed_within_it(self) -> None:
        times = [100.0, 104.0, 110.0, 129.9, 99.0, 140.0]
        table = aligned(grid(4), {"replicas": (times, [1.0, 2.0, 3.0, 4.0, 9.0, 8.0])})
        np.testing.assert_array_equal(table["replicas"], [2, 3, 4, NAN])
        assert table.values.shape == (4, 1)

    def test_what_is_observed_at_the_end_of_an_interval_belongs_to_the_next(self) -> None:
        np.testing.assert_array_equal(aligned(grid(2), {"x": ([110.0], [5.0])})["x"], [NAN, 5])

    def test_a_covariate_that_stops_fades_to_unknown(self) -> None:
        np.testing.assert_array_equal(aligned(grid(3), {"x": ([101.0], [5.0])})["x"], [5, NAN, NAN])

    def test_order_does_not_matter_and_unknown_values_were_not_observed(self) -> None:
        times, values = [119.0, 112.0, 105.0, NAN], [NAN, 2.0, float("inf"), 1.0]
        np.testing.assert_array_equal(aligned(grid(2), {"x": (times, values)})["x"], [NAN, 2])

    def test_of_two_at_once_the_later_entry_counts(self) -> None:
        assert aligned(grid(1), {"x": ([105.0, 105.0], [1.0, 2.0])})["x"].tolist() == [2.0]

    def test_several_and_none(self) -> None:
        table = aligned(grid(2), {"a": ([100.0, 110.0], [1, 2]), "b": ([], []), "c": ([110], [-3])})
        assert table.names == ("a", "b", "c")
        np.testing.assert_array_equal(table.values, [[1, NAN, NAN], [2, NAN, -3]])
        assert aligned(grid(2), {}).values.shape == (2, 0)
        assert aligned(grid(0), {"a": ([1.0], [1.0])}).values.shape == (0, 1)

    @given(
        times=st.lists(st.floats(0, 300), max_size=30),
        changed=st.floats(-9, 9),
        count=st.integers(0, 15),
    )
    def test_nothing_comes_from_the_future(self, times: list[float], changed: float, count: int) -> None:
        values = np.arange(len(times), dtype=np.float64)
        end = grid(count).end
        later = np.where(np.array(times) >= end, changed, values)
        before, after = (aligned(grid(20), {"x": (times, one)}).until(count) for one in (values, later))
        np.testing.assert_array_equal(before.values, after.values)

    def test_the_past_is_a_copy_and_the_rest_a_view(self) -> None:
        table = aligned(grid(3), {"x": ([100, 110, 120], [1, 2, 3])})
        past = table.until(2)
        past.values[:] = 9
        assert table["x"].tolist() == [1, 2, 3]
        assert table.since(1)["x"].tolist() == [2, 3]
        assert table.since(0)["x"].tolist() == [1, 2, 3]

    def test_a_table_may_begin_later_than_its_series(self) -> None:
        table = Covariates(("x",), np.array([[5.0], [6.0], [7.0]]), begin=4)
        assert (table.until(6)["x"].tolist(), table.until(6).begin) == ([5, 6], 4)
        assert table.until(3)["x"].tolist() == []
        assert (table.since(3)["x"].tolist(), table.since(3).begin) == ([5, 6, 7], 1)
        assert (table.since(5)["x"].tolist(), table.since(5).begin) == ([6, 7], 0)
        assert table.since(9)["x"].tolist() == []

    def test_windows_know_the_rows_before_their_count(self) -> None:
        table = Covariates(("x", "y"), np.array([[1.0, 10], [2, 20], [3, 30]]), begin=2)
        found = table.before(np.array([5, 2, 3, 7, 0]), 2)
        assert found.shape == (5, 2, 2)
        np.testing.assert_array_equal(found[:, 0], [[2, 3], [NAN, NAN], [NAN, 1], [NAN, NAN], [NAN, NAN]])
        np.testing.assert_array_equal(found[0, 1], [20, 30])

    @given(
        counts=st.lists(st.integers(0, 12), min_size=1, max_size=6), begin=st.integers(0, 5), width=st.integers(1, 9)
    )
    def test_a_window_is_the_tail_of_its_past(self, counts: list[int], begin: int, width: int) -> None:
        table = Covariates(("x",), np.arange(6.0)[:, None], begin)
        found = table.before(np.array(counts), width)[:, 0]
        for row, count in zip(found, counts, strict=True):
            whole = np.concatenate([np.full(width + begin, NAN), table["x"], np.full(20, NAN)])
            np.testing.assert_array_equal(row, whole[count : count + width])

    def test_a_series_carries_what_is_beside_it(self) -> None:
        one = grid(4)
        one = replace(one, covariates=aligned(one, {"x": ([100, 110, 120, 130], [1, 2, 3, 4])}))
        for part, expected in ((one.until(2), [1, 2]), (one.tail(3), [2, 3, 4]), (one.until(3).tail(1), [3])):
            assert part.covariates is not None
            assert part.covariates["x"].tolist() == expected
            assert len(part.values) == len(expected)
        assert replace(one, name="other").covariates is one.covariates
        assert grid(4).until(2).covariates is grid(4).tail(2).covariates is None

    def test_what_does_not_fit(self) -> None:
        with pytest.raises(CalendarError, match=r"'x': 2 times for 1 values"):
            aligned(grid(2), {"x": ([1.0, 2.0], [1.0])})
        with pytest.raises(CalendarError, match="one column each"):
            Covariates(("a",), np.zeros((3, 2)))
        with pytest.raises(CalendarError, match="every name may come once"):
            Covariates(("a", "a"), np.zeros((3, 2)))
        with pytest.raises(CalendarError, match=r"no covariate 'b'; choose one of a"):
            Covariates(("a",), np.zeros((3, 1)))["b"]
