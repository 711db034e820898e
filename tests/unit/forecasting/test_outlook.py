"""Hours and days ahead: forecasts that agree, and that a restart does not change, at a bounded cost per tick."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting import outlook as module
from forecasting.base import MEDIAN, QUANTILES, Forecast
from forecasting.models.recent import RecentMedian
from forecasting.outlook import NEWCOMERS, REHEARSED, SPANS, Outlook, agreeing, hindsight, step_for
from forecasting.resolutions import DAY, rolled
from forecasting.series import FloatArray, Series

pytestmark = pytest.mark.slow

TICK = 60.0
SEASON = 1440
NAN = float("nan")

REHEARSAL = 24
"""Steps of hindsight here, so that gates may open (20) and tests are quick."""

QUICK = REHEARSAL // REHEARSED + 2
"""Ticks after which a handful of services has rehearsed."""


@pytest.fixture(autouse=True)
def short_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "hindsight", lambda _: REHEARSAL)


def rates(count: int, seed: int = 0, level: float = 100.0) -> FloatArray:
    noise = np.random.default_rng(seed).normal(0.0, 0.05, count)
    return np.asarray(level * (1.0 + 0.5 * np.sin(2 * np.pi * np.arange(count) / SEASON) + noise))


def series(values: FloatArray, name: str = "shop", first: int = 0, step: float = TICK, season: int = SEASON) -> Series:
    return Series(name, first * step, step, np.asarray(values, dtype=np.float64), season)


def lived(outlook: Outlook, values: FloatArray, begin: int, name: str = "shop", first: int = 0) -> Outlook:
    """Tick by tick, the first of them with ``begin`` values."""
    for count in range(begin, len(values) + 1):
        outlook.update([series(values[:count], name, first)])
    return outlook


def asked(outlook: Outlook, known: Sequence[Series], ticks: int = QUICK) -> Outlook:
    """The same history again and again, until it has been rehearsed."""
    for _ in range(ticks):
        outlook.update(known)
    return outlook


def forecast(step: float, origin: float, median: FloatArray, spread: float = 10.0) -> Forecast:
    beside = spread * np.array([-0.5, 0.0, 0.3, 0.5, 1.0])
    return Forecast("shop", "mixture", origin, step, QUANTILES, np.maximum(median[:, None] + beside, 0.0))


def pairs(fine: Forecast, coarse: Forecast) -> Iterator[tuple[float, float]]:
    """The median of every coarse step that is covered by fine ones, and the mean of theirs."""
    factor, shift = round(coarse.step / fine.step), round((coarse.origin - fine.origin) / fine.step)
    for number, row in enumerate(coarse.values):
        begin = shift + number * factor
        if begin >= 0 and begin + factor <= len(fine.values):
            yield row[MEDIAN], float(fine.values[begin : begin + factor, MEDIAN].mean())


def assert_consistent(fine: Forecast, coarse: Forecast, least: int = 1) -> None:
    found = list(pairs(fine, coarse))
    assert len(found) >= least
    for whole, parts in found:
        assert whole == pytest.approx(parts, rel=1e-6, abs=1e-6)


class TestSteps:
    @pytest.mark.parametrize(
        ("tick", "services", "hour", "day"),
        [
            (5.0, 10, 60.0, 900.0),
            (1.0, 10, 60.0, 900.0),
            (60.0, 63, 60.0, 900.0),
            (5.0, 100, 60.0, 3600.0),
            (5.0, 1000, 900.0, 3600.0),
            (45.0, 10, 45.0, 900.0),
            (900.0, 10, 900.0, 900.0),
            (48.0, 1, 48.0, 3600.0),
        ],
    )
    def test_the_finest_that_fits(self, tick: float, services: int, hour: float, day: float) -> None:
        outlook = Outlook(tick, services=services)
        assert outlook.spans == {"1h": hour, "1d": day}
        assert outlook.skipped == {}

    def test_a_replay_with_days_of_24_minutes_has_none(self) -> None:
        outlook = Outlook(5.0, 1440.0)
        assert outlook.spans == {}
        assert outlook.skipped["1h"] == "days of 1440 s are shorter than 1h: no earlier day tells about it"
        assert outlook.update([series(rates(100), step=5.0, season=288)]) == frozenset()
        assert outlook.ahead("shop") == {}
        assert not outlook.due(1e9)

    def test_a_replay_with_days_of_two_hours_has_the_hour_only(self) -> None:
        outlook = asked(Outlook(5.0, 7200.0), [series(rates(4 * 1440), step=5.0, season=1440)])
        assert (outlook.spans, list(outlook.skipped)) == ({"1h": 60.0}, ["1d"])
        assert list(outlook.ahead("shop")) == ["1h"]

    @pytest.mark.parametrize("tick", [7.0, 37.0, 1000.0])
    def test_ticks_that_divide_nothing_are_told(self, tick: float) -> None:
        assert "no step of which at most 96 make 1h" in Outlook(tick).skipped["1h"]

    def test_room_decides(self) -> None:
        assert [step_for(DAY, 5.0, DAY, count) for count in (1, 63, 64, 10**6)] == [900.0, 900.0, 3600.0, 3600.0]


class TestUpdate:
    def test_both_spans_after_the_rehearsal(self) -> None:
        outlook = asked(Outlook(TICK), [series(rates(3 * SEASON))])
        found = outlook.ahead("shop")
        assert {name: (one.forecast.step, one.forecast.values.shape) for name, one in found.items()} == {
            "1h": (60.0, (60, 5)),
            "1d": (900.0, (96, 5)),
        }
        for one in found.values():
            assert one.forecast.origin == 3 * DAY
            assert np.isfinite(one.forecast.values).all()
            assert (np.diff(one.forecast.values, axis=1) >= 0).all()

    def test_a_model_beside_takes_part_in_every_span(self) -> None:
        outlook = asked(Outlook(TICK, beside=RecentMedian(7)), [series(rates(3 * SEASON))])
        for one in outlook.ahead("shop").values():
            assert one.selected.standing.models[-1] == "median7"
            assert "median7" in one.selected.losses
        assert "median7" not in asked(Outlook(TICK), [series(rates(SEASON))]).ahead("shop")["1d"].selected.losses

    def test_nothing_is_said_before_the_rehearsal_is_over(self) -> None:
        outlook = asked(Outlook(TICK), [series(rates(SEASON))], 3)
        assert outlook.ahead("shop") == {}

    def test_a_day_is_foreseen_better_than_by_its_last_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "hindsight", hindsight)
        values = rates(5 * SEASON)
        outlook = asked(Outlook(TICK), [series(values[: 4 * SEASON])], 61)
        median = outlook.ahead("shop")["1d"].forecast.values[:, MEDIAN]
        actual = values[4 * SEASON :].reshape(96, 15).mean(axis=1)
        assert np.abs(median - actual).mean() < 0.2 * np.abs(values[4 * SEASON - 1] - actual).mean()
        assert outlook.ahead("shop")["1d"].selected.skilled

    def test_a_clock_that_was_set_back_is_followed(self) -> None:
        values = rates(3 * SEASON)
        outlook = asked(Outlook(TICK), [series(values)])
        outlook.update([series(values[: 2 * SEASON])])
        assert [one.forecast.origin for one in outlook.ahead("shop").values()] == [2 * DAY, 2 * DAY]

    def test_work_is_done_when_a_step_is_complete(self) -> None:
        values = rates(4 * 17_280)
        known = [series(values[: 17_280 + extra], step=5.0, season=17_280) for extra in range(14)]
        outlook = asked(Outlook(5.0), [known[0]])
        assert [bool(outlook.update([one])) for one in known[1:]] == [False] * 11 + [True, False]
        assert not outlook.due(known[-1].end)
        assert outlook.due(known[-1].end + 60.0)

    def test_the_work_is_shared_out(self) -> None:
        names = [f"s{number}" for number in range(30)]
        values = rates(17_280)
        outlook = Outlook(5.0)

        def known(count: int) -> list[Series]:
            return [series(values[:count], name, step=5.0, season=17_280) for name in names]

        for _ in range(60):
            outlook.update(known(17_256))
        turns = [outlook.update(known(17_256 + extra)) for extra in range(12, 24)]
        assert sorted(map(len, turns)) == [0] * 10 + [5, 25]
        assert sorted(name for turn in turns for name in turn) == sorted(names)

    def test_newcomers_are_taken_up_a_few_per_tick(self) -> None:
        known = [series(rates(200), f"s{number}") for number in range(NEWCOMERS + 1)]
        outlook = Outlook(TICK)
        outlook.update(known)
        assert len(outlook._homes) == NEWCOMERS
        asked(outlook, known)
        assert all(outlook.ahead(one.name) for one in known)

    def test_a_service_without_values_waits(self) -> None:
        outlook = Outlook(TICK)
        assert outlook.update([series(np.empty(0))]) == frozenset()
        assert outlook.ahead("shop") == {}

    def test_a_service_that_is_gone_is_forgotten(self) -> None:
        both = [series(rates(SEASON), name) for name in ("shop", "cart")]
        outlook = asked(Outlook(TICK), both)
        outlook.update(both[1:])
        assert (outlook.ahead("shop"), list(outlook.ahead("cart"))) == ({}, ["1h", "1d"])
        outlook.update([])
        assert outlook.ahead("cart") == {}

    def test_a_service_that_comes_later_is_served_at_once(self) -> None:
        old = series(rates(SEASON))
        outlook = asked(Outlook(TICK), [old])
        told = outlook.update([old, series(rates(30, level=7.0), "young", SEASON - 30)])
        assert "young" in told
        assert outlook.ahead("young")["1h"].forecast.values[:, MEDIAN] == pytest.approx(np.full(60, 7.0), rel=0.3)
        assert not outlook.ahead("young")["1h"].selected.skilled

    def test_nothing_is_rehearsed_before_the_first_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "hindsight", hindsight)
        found = lived(Outlook(TICK), rates(16), 1).ahead("shop")
        assert {name: one.forecast.origin for name, one in found.items()} == {"1h": 16 * TICK, "1d": 900.0}

    def test_a_young_service_has_no_day_before_a_quarter_of_an_hour(self) -> None:
        outlook = asked(Outlook(TICK), [series(rates(14))])
        assert list(outlook.ahead("shop")) == ["1h"]
        assert list(lived(outlook, rates(15), 15).ahead("shop")) == ["1h", "1d"]

    @pytest.mark.parametrize("level", [0.0, 3.0])
    def test_what_never_moved_is_expected_to_stay(self, level: float) -> None:
        outlook = asked(Outlook(TICK), [series(np.full(2 * SEASON, level))])
        for one in outlook.ahead("shop", forecast(TICK, 2 * DAY, np.full(12, level), 0.0)).values():
            assert one.forecast.values[:, MEDIAN] == pytest.approx(np.full(len(one.forecast.values), level))

    def test_gaps_are_not_zeros(self) -> None:
        values = rates(2 * SEASON)
        values[np.random.default_rng(0).random(len(values)) < 0.3] = np.nan
        values[-200:-20] = np.nan
        found = lived(asked(Outlook(TICK), [series(values[:-5])]), values, len(values) - 4).ahead("shop")
        for one in found.values():
            assert np.isfinite(one.forecast.values).all()
            assert one.forecast.values[:10, MEDIAN].min() > 50.0

    def test_a_masked_service_keeps_its_place(self) -> None:
        values = rates(SEASON + 15)
        masked, other = series(values[:SEASON], "masked"), values
        outlook = asked(Outlook(TICK), [masked, series(other[:SEASON], "other")])
        for count in range(SEASON + 1, SEASON + 16):
            outlook.update([masked, series(other[:count], "other")])
        assert outlook.ahead("masked")["1h"].forecast.origin == DAY
        assert outlook.ahead("other")["1h"].forecast.origin == DAY + 900.0

    @pytest.mark.parametrize("change", ["rewound", "filled", "replaced"])
    def test_a_history_that_changed_is_read_again(self, change: str) -> None:
        values = rates(2 * SEASON)
        outlook = asked(Outlook(TICK), [series(values[SEASON:], first=SEASON)])
        now = {
            "rewound": series(values[SEASON:-600], first=SEASON),
            "filled": series(np.append(values, 1.0)),
            "replaced": series(values, first=9 * SEASON),
        }[change]
        for count in (len(now.values), len(now.values) + 1):
            outlook.update([series(np.append(now.values, 1.0)[:count], first=now.first)])
        kept = outlook._homes["shop"].kept["shop"].ladder.series(TICK)
        expected = np.append(now.values, 1.0) if change != "rewound" else now.values
        np.testing.assert_array_equal(kept.values[: len(expected)], expected)
        assert kept.start == now.start


class TestRestart:
    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 400), st.integers(1, 60), st.integers(0, 2**31), st.booleans())
    def test_the_ladders_are_those_of_the_stored_history(self, first: int, more: int, seed: int, gaps: bool) -> None:
        values = rates(240 + more, seed % 1000)
        if gaps:
            values[np.random.default_rng(seed).random(len(values)) < 0.4] = np.nan
            values[-1] = 1.0
        season = 17_280
        lasting = Outlook(5.0)
        for count in range(240, len(values) + 1):
            lasting.update([series(values[:count], first=first, step=5.0, season=season)])
        whole = series(values, first=first, step=5.0, season=season)
        kept = lasting._homes["shop"].kept["shop"]
        kept.catch_up(whole, 60.0)
        found, expected = kept.ladder.series(60.0), rolled(whole, 60.0)
        np.testing.assert_allclose(found.values, expected.values)
        assert found.start == expected.start

    def test_forecasts_are_those_of_one_that_never_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As far as hindsight goes: a service that has not lived for longer."""
        monkeypatch.setattr(module, "hindsight", lambda _: 60)
        values = rates(2 * SEASON)[SEASON : SEASON + 59]
        lasting = lived(Outlook(TICK), values, 1, first=SEASON)
        restarted = asked(Outlook(TICK), [series(values, first=SEASON)], 60 // REHEARSED + 2)
        for span in SPANS:
            one, two = (outlook.ahead("shop")[span] for outlook in (lasting, restarted))
            np.testing.assert_allclose(one.forecast.values, two.forecast.values, rtol=1e-9)
            assert one.selected.weights == pytest.approx(two.selected.weights)
            assert one.selected.gates == two.selected.gates


class TestAgreement:
    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**31),
        tick=st.sampled_from([1.0, 5.0, 20.0]),
        minutes=st.integers(1, 40),
        late=st.integers(0, 700),
        past=st.integers(0, 14),
        level=st.sampled_from([0.0, 0.01, 50.0, 1e6]),
    )
    def test_means_of_medians_are_the_coarser_medians(
        self, seed: int, tick: float, minutes: int, late: int, past: int, level: float
    ) -> None:
        rng, now = np.random.default_rng(seed), 1_700_000_100.0
        ticks = forecast(tick, now + late * tick, level * rng.random(round(60 * minutes / tick)), level * rng.random())
        hour = forecast(60.0, now + past * 60.0, level * rng.random(60), level * rng.random())
        day = forecast(900.0, now, 2 * level * rng.random(96), level * rng.random())
        hour_, day_ = agreeing([hour, day], ticks)
        scale = max(level, 1.0)
        for fine, coarse in ((ticks, hour_), (ticks, day_), (hour_, day_)):
            for whole, parts in pairs(fine, coarse):
                assert whole == pytest.approx(parts, rel=1e-6, abs=1e-6 * scale)
        assert list(pairs(hour_, day_))
        for one in (hour_, day_):
            assert (one.values >= 0.0).all()
            assert (np.diff(one.values, axis=1) >= 0.0).all()

    def test_what_is_covered_follows_and_the_rest_hardly_moves(self) -> None:
        ticks = forecast(5.0, 3600.0, np.full(12, 30.0))
        hour, day = forecast(60.0, 3600.0, np.full(60, 10.0)), forecast(900.0, 3600.0, np.full(96, 10.0))
        hour_, day_ = agreeing([hour, day], ticks)
        assert hour_.values[0, MEDIAN] == pytest.approx(30.0)
        np.testing.assert_array_equal(day_.values[4:], day.values[4:])
        assert 10.0 < day_.values[0, MEDIAN] < 12.0

    def test_the_surer_one_yields_less(self) -> None:
        hour, day = forecast(60.0, 0.0, np.full(60, 10.0), 1.0), forecast(900.0, 0.0, np.full(96, 20.0), 50.0)
        hour_, day_ = agreeing([hour, day])
        assert hour_.values[0, MEDIAN] == pytest.approx(10.0, abs=0.1)
        assert day_.values[0, MEDIAN] == pytest.approx(10.0, abs=0.1)

    def test_ticks_of_the_same_length_take_their_place(self) -> None:
        ticks = forecast(60.0, 900.0 + 120.0, np.full(30, 30.0), 4.0)
        hour, day = forecast(60.0, 900.0, np.full(60, 10.0)), forecast(900.0, 900.0, np.full(96, 10.0))
        hour_, day_ = agreeing([hour, day], ticks)
        np.testing.assert_allclose(hour_.values[2:32], ticks.values, rtol=1e-6)
        assert_consistent(hour_, day_, 4)

    def test_ticks_that_cover_no_whole_step_change_nothing(self) -> None:
        ticks = forecast(5.0, 5.0, np.full(12, 99.0))
        (hour,) = agreeing([forecast(60.0, 0.0, np.full(60, 10.0))], ticks)
        np.testing.assert_allclose(hour.values[:, MEDIAN], 10.0)

    def test_fractions_of_epoch_seconds_do_not_matter(self) -> None:
        origin = round(1_700_000_100.0 / 0.1) * 0.1 + 0.1 * 600
        ticks = forecast(0.1, origin, np.full(1200, 30.0))
        (hour,) = agreeing([forecast(60.0, 1_700_000_100.0, np.full(60, 10.0))], ticks)
        np.testing.assert_allclose(hour.values[1:3, MEDIAN], 30.0, rtol=1e-6)

    def test_nothing_agrees_with_nothing(self) -> None:
        assert agreeing([], forecast(5.0, 0.0, np.ones(3))) == ()

    def test_a_tick_as_long_as_both_rungs(self) -> None:
        outlook = asked(Outlook(900.0), [series(rates(400), step=900.0, season=96)])
        ticks = forecast(900.0, 400 * 900.0, np.full(3, 77.0))
        hour, day = (outlook.ahead("shop", ticks)[span].forecast for span in SPANS)
        assert (hour.values.shape, day.values.shape) == ((4, 5), (96, 5))
        np.testing.assert_array_equal(hour.values, day.values[:4])
        np.testing.assert_allclose(hour.values[:3], ticks.values)

    def test_what_is_asked_for_agrees_whatever_the_time(self) -> None:
        values = rates(2 * SEASON + 20)
        outlook = asked(Outlook(TICK), [series(values[: 2 * SEASON])])
        for count in range(2 * SEASON, 2 * SEASON + 21):
            outlook.update([series(values[:count])])
            ticks = forecast(TICK, count * TICK, rates(12, count))
            found = outlook.ahead("shop", ticks)
            np.testing.assert_allclose(found["1h"].forecast.values[:12, MEDIAN], ticks.values[:, MEDIAN], rtol=1e-6)
            assert_consistent(found["1h"].forecast, found["1d"].forecast, 3)


def test_every_model_of_the_outlook_has_a_name_of_its_own() -> None:
    names = module._mixture(4).names
    assert len(set(names)) == len(names)
    assert {"last", "ewma", "profile1", "profile3", "profile7"} <= set(names)
