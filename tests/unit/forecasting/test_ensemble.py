"""The selector: who acts, why, and how well calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest

from forecasting.base import QUANTILES, Forecast, forecast_of
from forecasting.ensemble import Selected, Selector, buckets
from forecasting.models.naive import LastValue
from forecasting.models.statistical import Ewma
from forecasting.series import FloatArray, Series
from tests.unit.forecasting.conftest import Make, Wave

H = 6


@dataclass
class Plan:
    """A model that reads its median off a list: ``medians[n]`` is what it says about value number n."""

    medians: FloatArray
    name: str = "plan"
    minimum: int = 1
    half: float = 1.0

    def forecast(self, series: Sequence[Series], horizon: int) -> list[Forecast | None]:
        return [self._one(one, horizon) for one in series]

    def _one(self, series: Series, horizon: int) -> Forecast | None:
        count = len(series.values)
        if count < self.minimum:
            return None
        ahead = self.medians[count : count + horizon]
        shape = np.array([-self.half, 0, self.half, 1.5 * self.half, 2 * self.half])
        return forecast_of(series, self.name, ahead[:, None] + shape)


def ticks(selector: Selector, series: Series, first: int, last: int) -> list[Selected]:
    return [selector.update([replace(series, values=series.values[:n])])[0] for n in range(first, last)]


def test_too_little_history_says_how_much_is_missing(make: Make, wave: Wave) -> None:
    values = wave(200)
    selected = ticks(Selector([Plan(values)], H), make(values), 0, 16)[-1]
    assert (selected.model, selected.skilled) == ("last", False)
    assert selected.reason == "7 of 20 scored ticks: too little history"
    assert selected.skill == {"plan": None}


def test_a_model_that_knows_acts_after_twenty_scored_ticks(make: Make, wave: Wave) -> None:
    values = wave(200)
    results = ticks(Selector([Plan(values)], H), make(values), 0, 60)
    first = next(i for i, one in enumerate(results) if one.skilled)
    assert first in (28, 29)  # of the first eight nothing counts: no spread can be known yet
    assert results[-1].reason.startswith("plan beats last value (skill +1.00 over ")
    assert results[-1].skill["plan"] == pytest.approx(1.0)
    assert results[-1].losses["plan"] == {"1": 0.0, "2-5": 0.0, "6": 0.0}


def test_a_long_history_is_replayed_so_that_there_is_no_cold_start(make: Make, wave: Wave) -> None:
    values = wave(200)
    (selected,) = Selector([Plan(values)], H).update([make(values[:150])])
    assert selected.skilled
    assert selected.scored == 60


def test_replay_can_be_turned_off_and_done_by_hand(make: Make, wave: Wave) -> None:
    values = wave(200)
    selector = Selector([Plan(values)], H, replay=0)
    series = make(values[:150])
    selector.warm_up([series], origins=30)
    (selected,) = selector.update([series])
    assert (selected.scored, selected.skilled) == (30 + H - 1, True)  # so that every step ahead is scored on 30


def test_a_model_that_loses_does_not_act_and_is_named(make: Make, wave: Wave) -> None:
    values = wave(200)
    selected = ticks(Selector([Plan(values[::-1] * 3)], H), make(values), 0, 60)[-1]
    assert not selected.skilled
    assert selected.reason.startswith("plan loses to last value (skill -")


def test_ties_go_to_last_value(make: Make) -> None:
    selected = ticks(Selector([Plan(np.full(200, 7.0))], H), make([7.0] * 60), 0, 60)[-1]
    assert not selected.skilled
    assert selected.reason == "plan does not clearly beat last value (skill +0.00, +0.02 needed)"


def test_hysteresis_keeps_a_model_that_draws_and_drops_one_that_loses(make: Make) -> None:
    rng = np.random.default_rng(0)
    values = 100 + rng.normal(0, 10, 400)
    medians = values.copy()
    medians[120:] = values[119:-1]  # from here on: the value before, as good as last
    medians[260:] = 0.0  # and then hopeless
    results = ticks(Selector([Plan(medians)], 1), make(values), 0, 330)
    assert results[119].skilled
    assert results[220].skilled
    assert results[220].reason.startswith("plan is held against last value (skill +0.0")
    assert not results[320].skilled


def test_a_clearly_better_model_takes_over_and_a_slightly_better_one_does_not(make: Make, wave: Wave) -> None:
    values = wave(300)
    one = Plan(values + 4.0, name="one")
    slightly = Plan(values + 3.8, name="slightly")
    late = values + 50.0
    late[150:] = values[150:]
    clearly = Plan(late, name="clearly")
    assert {r.model for r in ticks(Selector([one, slightly], H), make(values), 100, 102)} <= {"one", "slightly"}
    chosen = [r.model for r in ticks(Selector([one, clearly], H), make(values), 100, 260)]
    assert chosen[0] == "one"
    assert chosen[-1] == "clearly"
    assert sum(a != b for a, b in pairwise(chosen)) == 1


def test_gaps_are_not_scored(make: Make, wave: Wave) -> None:
    values = wave(100)
    gapped = values.copy()
    gapped[40:70] = np.nan
    whole = ticks(Selector([Plan(values)], H), make(values), 30, 90)[-1]
    holed = ticks(Selector([Plan(values)], H), make(gapped), 30, 90)[-1]
    assert whole.scored == 60
    assert holed.scored == 30
    assert holed.skill["plan"] == pytest.approx(1.0)


def test_a_silent_source_is_not_acted_upon(make: Make, wave: Wave) -> None:
    values = wave(100)
    values[-H:] = np.nan
    (selected,) = Selector([Plan(wave(200))], H).update([make(values)])
    assert (selected.model, selected.skilled) == ("last", False)
    assert selected.reason == "no value for 6 steps: its source is silent"


def test_a_missed_tick_settles_what_came_in_between(make: Make, wave: Wave) -> None:
    values = wave(200)
    selector = Selector([Plan(values)], H)
    ticks(selector, make(values), 100, 101)
    (selected,) = selector.update([make(values[:110])])
    assert selected.scored == 51  # nine of the ten new intervals were never forecast one step ahead
    assert selected.skilled


def test_the_same_tick_twice_changes_nothing(make: Make, wave: Wave) -> None:
    values = wave(100)
    selector = Selector([Ewma()], H)
    first, second = (selector.update([make(values)])[0] for _ in range(2))
    assert first.skill == second.skill
    np.testing.assert_array_equal(first.forecast.values, second.forecast.values)


def test_trimming_old_values_keeps_the_scores(make: Make, wave: Wave) -> None:
    values = wave(200)
    whole, trimmed = Selector([Ewma()], H), Selector([Ewma()], H)
    for n in range(130, 180):
        series = make(values[:n])
        (left,) = whole.update([series])
        (right,) = trimmed.update([series if n < 150 else series.tail(125)])
        assert left.scored == right.scored
        assert left.reason.split("(")[0] == right.reason.split("(")[0]


def test_a_back_filled_or_rewound_series_is_scored_anew(make: Make, wave: Wave) -> None:
    values = wave(200)
    selector = Selector([Ewma()], H)
    young = make(values[190:195], start=1e6 + 5 * 190)
    assert selector.update([young])[0].scored == 0
    assert selector.update([make(values[:196])])[0].scored == 60
    assert selector.update([make(values[:40])])[0].scored == 28


def test_series_come_and_go(make: Make, wave: Wave) -> None:
    selector = Selector([Ewma()], H)
    a, b = make(wave(100), name="a"), make(wave(100, seed=1), name="b")
    assert [one.forecast.series for one in selector.update([a, b])] == ["a", "b"]
    assert [one.forecast.series for one in selector.update([b])] == ["b"]
    assert selector.update([]) == []
    assert selector.update([b, a])[1].scored == 60


def test_odd_series_are_answered_lawfully(odd: Series) -> None:
    selector = Selector([Ewma()], 12)
    for count in (len(odd.values) // 2, len(odd.values), len(odd.values)):
        (selected,) = selector.update([replace(odd, values=odd.values[:count])])
        _check(selected)


def test_no_values_yet(make: Make) -> None:
    for values in ([], [float("nan")] * 30):
        (selected,) = Selector([Ewma()], H).update([make(values)])
        assert selected.reason == "no values yet"
        assert not selected.forecast.values.any()


def test_overconfident_quantiles_are_calibrated(make: Make) -> None:
    rng = np.random.default_rng(3)
    actual = rng.normal(100, 10, 700)
    selector = Selector([Plan(np.full(700, 100.0), half=1.0)], H)
    results = ticks(selector, make(actual), 300, 690)
    upper = np.array([one.forecast.at(1, 0.95) for one in results])
    assert results[-1].model == "plan"
    assert 0.91 <= (actual[300:690] <= upper).mean() <= 0.98
    assert results[-1].coverage == pytest.approx(0.95, abs=0.04)


def test_the_peak_covers_maxima_where_the_largest_step_does_not(make: Make) -> None:
    rng = np.random.default_rng(4)
    actual = rng.normal(100, 10, 900)
    results = ticks(Selector([Plan(np.full(900, 100.0), half=10.0)], H), make(actual), 300, 890)
    highest = np.array([actual[n : n + H].max() for n in range(300, 890)])
    peaks = np.array([one.peak(H, 0.9) for one in results])
    naive = np.array([one.forecast.peak(H, 0.9) for one in results])
    assert 0.84 <= (highest <= peaks).mean() <= 0.95
    assert (highest <= naive).mean() < 0.75


def test_the_peak_is_clipped_to_the_horizon_and_grows(make: Make, wave: Wave) -> None:
    (selected,) = Selector([Ewma()], H).update([make(wave(200))])
    peaks = [selected.peak(k, 0.95) for k in range(1, H + 1)]
    assert peaks == sorted(peaks)
    assert selected.peak(99, 0.95) == peaks[-1]
    assert selected.peak(1, 0.95) >= selected.forecast.at(1, 0.95)


def test_last_value_is_always_there_once() -> None:
    assert Selector([LastValue(), Ewma()], H)._names == ["last", "ewma"]


@pytest.mark.parametrize(
    ("horizon", "labels"), [(1, ["1"]), (3, ["1", "2-3"]), (6, ["1", "2-5", "6"]), (12, ["1", "2-5", "6-12"])]
)
def test_buckets_cover_the_horizon_once(horizon: int, labels: list[str]) -> None:
    found = buckets(horizon)
    assert list(found) == labels
    rows = np.concatenate([np.arange(horizon)[part] for part in found.values()])
    assert rows.tolist() == list(range(horizon))


def _check(selected: Selected) -> None:
    values = selected.forecast.values
    assert values.shape == (12, len(QUANTILES))
    for table in (values, selected.peaks):
        assert np.isfinite(table).all()
        assert (table >= 0).all()
        assert (np.diff(table, axis=1) >= 0).all()
    assert (np.diff(selected.peaks, axis=0) >= 0).all()
    assert selected.reason
