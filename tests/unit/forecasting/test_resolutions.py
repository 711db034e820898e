"""A ladder equals what is rolled up at once; forecasts of its rungs agree without losing their form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forecasting.base import MEDIAN, QUANTILES, Forecast
from forecasting.resolutions import (
    DAY,
    Ladder,
    ResolutionError,
    reconciled,
    rolled,
    rungs,
)
from forecasting.series import CEILING, FloatArray, Series

NAN = float("nan")


def series(values: list[float], first: int = 0, step: float = 5.0, season: int = 17_280) -> Series:
    return Series("shop", first * step, step, np.array(values, dtype=np.float64), season)


VALUES = st.lists(st.one_of(st.floats(0, 1e6), st.sampled_from([NAN, float("inf"), -3.0])), max_size=120)
FIRSTS = st.integers(0, 500)


class TestRolled:
    def test_means_over_whole_steps_aligned_to_the_epoch(self) -> None:
        coarse = rolled(series([9, 9, *range(12), 7], first=10), 60)
        np.testing.assert_array_equal(coarse.values, [5.5])
        assert (coarse.name, coarse.start, coarse.step, coarse.season, coarse.end) == ("shop", 60, 60, 1440, 120)

    @pytest.mark.parametrize(("known", "expected"), [(6, 4.0), (5, NAN), (0, NAN), (12, 4.0)])
    def test_half_of_the_parts_must_be_known(self, known: int, expected: float) -> None:
        coarse = rolled(series([4.0] * known + [NAN] * (12 - known)), 60)
        np.testing.assert_array_equal(coarse.values, [expected])

    def test_an_odd_number_of_parts_needs_the_greater_half(self) -> None:
        coarse = rolled(series([1, NAN, NAN, 1, 1, NAN], season=3), 15)
        np.testing.assert_array_equal(coarse.values, [NAN, 1.0])

    def test_broken_values_do_not_count(self) -> None:
        coarse = rolled(series([float("inf"), 2.0, -2.0, 1e300], season=8), 10)
        np.testing.assert_array_equal(coarse.values, [2.0, CEILING / 2])

    @pytest.mark.parametrize("values", [[], [1.0], [1.0] * 11])
    def test_too_short_a_series_has_no_whole_step(self, values: list[float]) -> None:
        coarse = rolled(series(values, first=1), 60)
        assert len(coarse.values) == 0
        assert coarse.start == 60

    def test_the_same_step_is_the_same_series(self) -> None:
        same = rolled(series([1, NAN, 3], first=7), 5)
        np.testing.assert_array_equal(same.values, [1, NAN, 3])
        assert (same.start, same.season) == (35, 17_280)

    def test_no_season_stays_none(self) -> None:
        assert rolled(series([1] * 12, season=1), 60).season == 1

    def test_what_came_later_changes_nothing(self) -> None:
        values = list(np.random.default_rng(1).uniform(0, 9, 100))
        early, late = rolled(series(values[:67], first=5), 60), rolled(series(values, first=5), 60)
        np.testing.assert_array_equal(early.values, late.values[: len(early.values)])

    @pytest.mark.parametrize("step", [12.0, 2.5, 61.0])
    def test_steps_must_be_whole_multiples(self, step: float) -> None:
        with pytest.raises(ResolutionError, match=r"no whole multiple of 5 s"):
            rolled(series([1.0] * 100), step)

    def test_steps_must_divide_the_day(self) -> None:
        with pytest.raises(ResolutionError, match=r"shop: steps of 900 s do not divide its day of 480 s"):
            rolled(series([1.0] * 400, season=96), 900)


class TestRungs:
    @pytest.mark.parametrize(
        ("base", "day", "expected"),
        [
            (5, DAY, (5, 60, 900, 3600)),
            (7, DAY, (7,)),
            (60, DAY, (60, 900, 3600)),
            (300, DAY, (300, 900, 3600)),
            (1800, DAY, (1800, 3600)),
            (5, 1440, (5, 60)),
            (5, 7200, (5, 60, 900, 3600)),
            (5, 100, (5,)),
            (0.5, DAY, (0.5, 60, 900, 3600)),
        ],
    )
    def test_what_is_coarser_and_fits(self, base: float, day: float, expected: tuple[float, ...]) -> None:
        assert rungs(base, day) == expected


class TestLadder:
    @given(values=VALUES, first=FIRSTS, capacity=st.integers(1, 40))
    def test_it_equals_what_is_rolled_up_at_once(self, values: list[float], first: int, capacity: int) -> None:
        whole = series(values, first, step=30, season=2880)
        ladder = Ladder("shop", 30, 2880, capacity)
        for number, value in enumerate(values):
            ladder.add((first + number) * 30, value)
        assert_equal(ladder, whole, capacity)

    @given(values=VALUES, first=FIRSTS, cut=st.integers(0, 120), capacity=st.integers(1, 200))
    def test_it_can_be_begun_from_a_series(self, values: list[float], first: int, cut: int, capacity: int) -> None:
        whole = series(values, first, step=30, season=2880)
        cut = min(cut, len(values))
        ladder = Ladder.of(whole.until(cut), capacity)
        for number in range(cut, len(values)):
            ladder.add((first + number) * 30, values[number])
        assert_equal(ladder, whole, capacity)

    @given(ticks=st.lists(st.tuples(st.integers(1, 70), st.floats(0, 100)), min_size=1, max_size=30), first=FIRSTS)
    def test_ticks_left_out_are_gaps(self, ticks: list[tuple[int, float]], first: int) -> None:
        ladder, number, values = Ladder("shop", 30, 2880, 50), first - 1, list[float]()
        for ahead, value in ticks:
            number += ahead if values else 1
            values += [NAN] * (number - first - len(values)) + [value]
            ladder.add(number * 30, value)
        assert_equal(ladder, series(values, first, step=30, season=2880), 50)

    def test_a_long_silence_costs_no_more_than_the_buffer(self) -> None:
        ladder = Ladder("shop", 5, 17_280, capacity=100)
        ladder.add(0, 1.0)
        ladder.add(3e9, 2.0)
        kept = [ladder.series(step).values for step in ladder.steps]
        assert [len(values) for values in kept] == [100] * 4
        assert [int(np.isfinite(values).sum()) for values in kept] == [1, 0, 0, 0]
        assert ladder.series(5).end == 3e9 + 5

    def test_nothing_is_there_before_the_first_value(self) -> None:
        ladder = Ladder("shop", 5, 17_280)
        assert list(ladder.steps) == [5, 60, 900, 3600]
        assert [len(ladder.series(step).values) for step in ladder.steps] == [0] * 4

    @pytest.mark.parametrize("time", [10, 5, 0, 11])
    def test_values_come_in_order_and_a_late_one_costs_nothing(self, time: float) -> None:
        ladder = Ladder("shop", 5, 17_280)
        ladder.add(5, 1.0)
        ladder.add(10, 2.0)
        with pytest.raises(ResolutionError, match="add values in order"):
            ladder.add(time, 9.0)
        ladder.add(15, 3.0)
        np.testing.assert_array_equal(ladder.series(5).values, [1, 2, 3])

    def test_what_it_gives_is_a_copy(self) -> None:
        ladder = Ladder("shop", 5, 17_280)
        ladder.add(0, 1.0)
        ladder.series(5).values[:] = 7
        assert ladder.series(5).values.tolist() == [1.0]

    def test_an_unknown_rung_is_named(self) -> None:
        with pytest.raises(ResolutionError, match="no rung of 30 s; choose one of 5, 60, 900, 3600"):
            Ladder("shop", 5, 17_280).series(30)

    def test_no_room_is_an_error(self) -> None:
        with pytest.raises(ResolutionError, match="at least 1 value"):
            Ladder("shop", 5, 17_280, capacity=0)

    def test_rungs_follow_an_accelerated_day(self) -> None:
        assert Ladder("shop", 5, 288).steps == (5, 60)
        assert Ladder("shop", 5, 1).steps == (5, 60, 900, 3600)


def assert_equal(ladder: Ladder, whole: Series, capacity: int) -> None:
    for step in ladder.steps:
        kept, expected = ladder.series(step), rolled(whole, step).tail(capacity)
        np.testing.assert_allclose(kept.values, expected.values, rtol=1e-12)
        assert (kept.step, kept.season) == (expected.step, expected.season)
        if len(whole.values):
            assert kept.start == expected.start


FINE, COARSE, HOUR = 60.0, 300.0, 3600.0


def forecast(values: FloatArray, step: float, origin: float = 0.0) -> Forecast:
    return Forecast("shop", "mix", origin, step, QUANTILES, values)


def fan(median: list[float], spread: float) -> FloatArray:
    """Quantiles around each median: half the spread below, the spread above."""
    return np.array(median)[:, None] + spread * np.array([-0.5, 0.0, 0.7, 1.0, 1.5])


def fans(length: int) -> st.SearchStrategy[FloatArray]:
    return arrays(np.float64, (length, 5), elements=st.floats(0, 1000)).map(lambda rows: np.sort(rows, axis=1))


class TestReconciled:
    @given(fine=fans(60), coarse=fans(13), top=fans(2), shift=st.integers(0, 70), holes=st.sets(st.integers(0, 59)))
    def test_wherever_both_exist_they_agree(
        self, fine: FloatArray, coarse: FloatArray, top: FloatArray, shift: int, holes: set[int]
    ) -> None:
        fine[sorted(holes)[:8]] = NAN
        told = forecast(fine, FINE, shift * FINE), forecast(coarse, COARSE), forecast(top, HOUR)
        one, two, three = reconciled(*told)
        for low, high in ((one, two), (two, three), (one, three)):
            assert_agree(low, high)
        for before, after in zip(told, (one, two, three), strict=True):
            np.testing.assert_array_equal(np.isnan(before.values), np.isnan(after.values))
            known = after.values[np.isfinite(after.values).all(axis=1)]
            assert (known >= 0).all()
            assert (np.diff(known, axis=1) >= 0).all()

    def test_what_agrees_already_stays(self) -> None:
        fine, coarse = forecast(fan([8, 9, 10, 11, 12], 4), FINE), forecast(fan([10], 2), COARSE)
        for before, after in zip((fine, coarse), reconciled(fine, coarse), strict=True):
            np.testing.assert_allclose(after.values, before.values)
            assert (after.series, after.model, after.origin, after.step) == ("shop", "mix", before.origin, before.step)

    def test_the_less_sure_rung_yields(self) -> None:
        _, sure = reconciled(forecast(fan([50] * 5, 40), FINE), forecast(fan([100], 1), COARSE))
        assert sure.values[0, MEDIAN] == pytest.approx(100, abs=0.2)
        sure, _ = reconciled(forecast(fan([50] * 5, 1), FINE), forecast(fan([100], 40), COARSE))
        assert sure.values[:, MEDIAN] == pytest.approx(50, abs=0.2)

    def test_without_spreads_a_mean_of_m_varies_an_mth(self) -> None:
        # structural scaling: variances 1 and 1/5, five parts; a gap of 10 is shared in halves
        point = np.full((6, 5), NAN)
        point[:, MEDIAN] = 20
        fine, coarse = reconciled(forecast(point[:5], FINE), forecast(point[5:] + 10, COARSE))
        assert fine.values[:, MEDIAN] == pytest.approx(25)
        assert coarse.values[:, MEDIAN] == pytest.approx(25)
        assert np.isnan(fine.values[:, 0]).all()

    def test_spreads_move_with_their_medians(self) -> None:
        before = fan([50] * 5, 10)
        fine, _ = reconciled(forecast(before, FINE), forecast(fan([100], 10), COARSE))
        moved = fine.values[:, MEDIAN] - 50
        assert (moved > 1).all()
        np.testing.assert_allclose(fine.values, before + moved[:, None])

    def test_the_covered_part_binds_and_the_rest_stays(self) -> None:
        before = fan([50] * 8, 10)  # begins two minutes into a coarse step: covers only the second one
        fine, coarse = reconciled(forecast(before, FINE, 120), forecast(fan([80, 90, 70], 10), COARSE))
        np.testing.assert_array_equal(fine.values[:3], before[:3])
        assert (fine.values[3:, MEDIAN] > 50).all()
        np.testing.assert_array_equal(coarse.values[[0, 2], MEDIAN], [80, 70])

    def test_medians_at_zero_stay_there_and_the_others_make_up_for_them(self) -> None:
        fine, coarse = reconciled(forecast(fan([0.0, 0, 0, 0, 100], 5), FINE), forecast(fan([2.0], 5), COARSE))
        assert fine.values.min() == 0
        assert fine.values[:, MEDIAN].mean() == pytest.approx(coarse.values[0, MEDIAN])

    def test_all_zero(self) -> None:
        zero = np.zeros((6, 5))
        for one in reconciled(forecast(zero[:5], FINE), forecast(zero[5:], COARSE)):
            assert not one.values.any()

    @pytest.mark.parametrize("length", [0, 3])
    def test_nothing_in_common_changes_nothing(self, length: int) -> None:
        fine, coarse = forecast(fan([5.0] * length, 1), FINE), forecast(fan([9.0], 1), COARSE)
        one, two = reconciled(fine, coarse)
        np.testing.assert_array_equal(one.values, fine.values)
        np.testing.assert_array_equal(two.values, coarse.values)

    def test_one_rung_agrees_with_itself(self) -> None:
        (one,) = reconciled(forecast(fan([5.0], 1), FINE))
        np.testing.assert_allclose(one.values, fan([5.0], 1))

    def test_what_cannot_be_reconciled(self) -> None:
        fine, coarse = forecast(fan([5.0] * 5, 1), FINE), forecast(fan([9.0], 1), COARSE)
        with pytest.raises(ResolutionError, match="at least one rung"):
            reconciled()
        with pytest.raises(ResolutionError, match="from fine to coarse"):
            reconciled(coarse, fine)
        with pytest.raises(ResolutionError, match="different services"):
            reconciled(fine, Forecast("cart", "mix", 0.0, COARSE, QUANTILES, coarse.values))
        with pytest.raises(ResolutionError, match="begin at multiples"):
            reconciled(forecast(fine.values, FINE, 31.0), coarse)
        with pytest.raises(ResolutionError, match="no whole multiple"):
            reconciled(fine, forecast(coarse.values, 90.0))


def assert_agree(fine: Forecast, coarse: Forecast) -> None:
    factor, shift = round(coarse.step / fine.step), round((coarse.origin - fine.origin) / fine.step)
    for number, row in enumerate(coarse.values):
        begin = shift + number * factor
        parts = fine.values[max(0, begin) : max(0, begin + factor), MEDIAN]
        if len(parts) == factor and np.isfinite(parts).all() and np.isfinite(row[MEDIAN]):
            assert parts.mean() == pytest.approx(row[MEDIAN], rel=1e-6, abs=1e-6)
