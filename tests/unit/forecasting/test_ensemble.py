"""The selector: who acts, why, how well calibrated, and what other series cannot change."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest

from forecasting import learning
from forecasting.base import MEDIAN, QUANTILES, Forecaster, medians
from forecasting.batch import Batch
from forecasting.conformal import NOTHING
from forecasting.ensemble import STALE, DuplicateSeriesError, Selector
from forecasting.errors import QuantileError
from forecasting.gates import Gate
from forecasting.learning import Memory
from forecasting.models.naive import LastValue
from forecasting.models.statistical import Ewma
from forecasting.selected import Selected
from forecasting.series import FloatArray, IntArray, Series, clean
from tests.unit.forecasting.conftest import ODD, Make, Wave

pytestmark = pytest.mark.slow

H = 6


@dataclass
class Plan:
    """A model that reads its median off a list: ``medians[n]`` is what it says about value number n.

    It is silent about series in ``not_about`` and before ``minimum`` values.
    """

    medians: FloatArray
    name: str = "plan"
    minimum: int = 1
    not_about: Collection[str] = ()

    def predict(self, batch: Batch) -> FloatArray:
        ahead = np.pad(self.medians, (0, batch.horizon), constant_values=np.nan)
        told = np.stack([ahead[count : count + batch.horizon] for count in batch.count])
        names = np.array([one.name for one in batch.series])[batch.owner]
        told[np.isin(names, list(self.not_about)) | (batch.count < self.minimum)] = np.nan
        return medians(told)


def ticks(selector: Selector, series: Series, first: int, last: int) -> list[Selected]:
    return [selector.update([replace(series, values=series.values[:n])])[0] for n in range(first, last)]


def crowd(selector: Selector, table: FloatArray, first: int, last: int) -> list[list[Selected]]:
    """Many series, tick by tick: ``table (N, T)``."""
    return [
        selector.update([Series(f"s{row}", 0.0, 5.0, values[:n], 96) for row, values in enumerate(table)])
        for n in range(first, last)
    ]


def gate(selected: Selected, steps: str) -> Gate:
    (found,) = [one for one in selected.gates if one.steps == steps]
    return found


def figures(selected: Selected) -> tuple[object, ...]:
    """Everything that is told, as plain values."""
    told = (selected.model, selected.skilled, selected.reason, selected.gates, dict(selected.weights))
    scores = (dict(selected.skill), dict(selected.losses), selected.scored, selected.coverage)
    return (*told, *scores, selected.forecast.values.tolist(), selected.peaks.tolist(), selected.forecast.origin)


# -- gates -----------------------------------------------------------------------------------------------------------


def test_too_little_history_says_how_much_is_missing(make: Make, wave: Wave) -> None:
    values = wave(200)
    selected = ticks(Selector([Plan(values)], H), make(values), 0, 16)[-1]
    assert (selected.model, selected.skilled) == ("mixture", False)
    assert selected.reason == "15 of 20 scored ticks: too little history"
    assert selected.skill == {"plan": None, "mixture": None}
    assert {one.skill for one in selected.gates} == {None}


def test_a_gate_opens_after_as_many_scored_intervals_as_it_waits_for(make: Make, wave: Wave) -> None:
    values = wave(200)
    results = ticks(Selector([Plan(values, minimum=0)], H, least=25), make(values), 0, 60)
    for steps, behind in (("1", 0), ("2-5", 1), ("6", 5)):
        opened = next(n for n, one in enumerate(results) if gate(one, steps).open)
        assert (gate(results[opened], steps).scored, gate(results[opened - 1], steps).scored) == (25, 24)
        assert opened == 25 + behind  # the first outcome of step h comes h ticks after the first forecast
        assert gate(results[-1], steps).since == 200_000 + opened  # 1e6 s are 200,000 steps
    assert results[-1].reason.startswith("steps 1: beats last value (skill +0.8")


def test_a_long_history_is_replayed_so_that_there_is_no_cold_start(make: Make, wave: Wave) -> None:
    values = wave(200)
    (selected,) = Selector([Plan(values)], H).update([make(values[:150])])
    assert selected.skilled
    assert selected.model == selected.forecast.model == "mixture"
    assert selected.scored == 60
    assert Selector([Plan(values)], H, replay=0).update([make(values[:150])])[0].scored == 0


def test_a_replay_equals_having_been_there(make: Make, wave: Wave) -> None:
    values = wave(300)
    values[200:210] = np.nan
    series = make(values)
    (replayed,) = Selector([Ewma()], H, replay=60).update([series])
    there = ticks(Selector([Ewma()], H, replay=0), series, 240, 301)[-1]
    assert figures(replayed) == figures(there)


def test_a_model_that_loses_does_not_act(make: Make, wave: Wave) -> None:
    values = wave(400)
    results = ticks(Selector([Plan(np.full(400, 500.0))], H), make(values), 0, 240)
    assert not any(one.skilled for one in results)
    assert "loses to last value (skill -" in results[40].reason
    assert (results[-1].skill["plan"] or 0.0) < -0.5
    assert (results[-1].skill["mixture"] or 0.0) > -0.1  # its weight is gone by now
    assert results[-1].weights["last"] > 0.9


def test_ties_go_to_last_value(make: Make) -> None:
    selected = ticks(Selector([Plan(np.full(200, 7.0))], H), make([7.0] * 60), 0, 60)[-1]
    assert not selected.skilled
    assert selected.reason.startswith(
        "steps 1: equals last value (skill +0.00 over 59 scored ticks); steps 2-5: equals"
    )


def test_a_closed_gate_does_not_change_what_is_expected(make: Make, wave: Wave) -> None:
    values = wave(200)
    results = ticks(Selector([Plan(values)], H), make(values), 1, 40)
    assert [one.skilled for one in results] == [False] * 19 + [True] * 20
    for n, one in enumerate(results[10:], start=11):
        assert one.model == one.forecast.model == "mixture"
        actual = values[n : n + H]
        assert np.abs(one.forecast.values[:, MEDIAN] - actual).max() < 0.2 * np.abs(values[n - 1] - actual).max()


def test_every_bucket_has_a_gate_of_its_own(make: Make) -> None:
    values = np.random.default_rng(0).normal(100, 10, 300)

    class Near(Plan):
        """Knows the next step, and is nowhere near the truth after it."""

        def predict(self, batch: Batch) -> FloatArray:
            told = super().predict(batch)
            told[:, 1:] *= 3.0
            return told

    selected = ticks(Selector([Near(values)], H), make(values), 0, 200)[-1]
    assert [one.open for one in selected.gates] == [True, False, False]
    assert [selected.may_act(step) for step in range(8)] == [False, True] + [False] * 6
    assert selected.skilled
    assert selected.forecast.at(1, 0.5) == pytest.approx(values[199], abs=3.0)
    np.testing.assert_allclose(selected.forecast.values[1:, MEDIAN], values[198], rtol=0.03)  # told, not acted upon


def test_hysteresis_keeps_what_draws_and_drops_what_loses(make: Make) -> None:
    rng = np.random.default_rng(0)
    values = 100 + rng.normal(0, 10, 400)
    told = values.copy()
    told[120:] = values[119:-1]  # from here on: the value before, as good as last
    told[260:] = 0.0  # and then hopeless
    results = ticks(Selector([Plan(told)], 1), make(values), 0, 330)
    assert results[119].skilled
    assert results[259].skilled
    assert -0.02 <= (results[259].gates[0].skill or 0.0) <= 0.02  # would open no gate, closes none
    closed = [n for n, one in enumerate(results) if n > 259 and not one.skilled]
    assert closed
    assert "loses to last value" in results[closed[0]].reason
    assert results[closed[0]].gates[0].since == 200_000 + closed[0]


def test_a_model_that_comes_right_is_let_in_again(make: Make) -> None:
    values = 100 + np.random.default_rng(1).normal(0, 10, 400)
    told = values.copy()
    told[150:230] = 0.0
    results = ticks(Selector([Plan(told)], 1), make(values), 140, 380)
    assert results[0].skilled
    assert not results[90].skilled
    assert results[-1].skilled


def test_skill_is_that_of_the_newest_120_intervals(make: Make, wave: Wave) -> None:
    values = wave(200)
    results = ticks(Selector([Plan(values)], H), make(values), 0, 150)
    assert [one.scored for one in results[117:]] == [117, 118, 119, *[120] * 30]


def test_last_value_is_always_there_once() -> None:
    assert Selector([LastValue(), Ewma()], H).names == ("last", "ewma")


# -- the mixture -----------------------------------------------------------------------------------------------------


def test_weights_go_to_who_knows_and_sum_to_one(make: Make, wave: Wave) -> None:
    values = wave(300)
    models: list[Forecaster] = [Plan(values), Plan(values * 0.5, name="half"), Ewma()]
    results = ticks(Selector(models, H, window=60), make(values), 0, 120)
    for one in results[20:]:
        assert sum(one.weights.values()) == pytest.approx(1.0, abs=0.02)  # small ones are not told
    assert results[-1].weights["plan"] > 0.8
    assert "half" not in results[-1].weights
    assert results[-1].losses["plan"] == {"1": 0.0, "2-5": 0.0, "6": 0.0}
    last = np.abs(np.diff(values))[58:118].mean()  # of the newest 60 intervals
    assert results[-1].losses["last"]["1"] == pytest.approx(last, rel=1e-5)


def test_a_model_that_sleeps_keeps_its_weight(make: Make, wave: Wave) -> None:
    values = wave(400)
    told = values.copy()
    told[200:260] = np.nan
    results = ticks(Selector([Plan(told)], 1), make(values), 100, 300)
    before, asleep, after = results[99], results[140], results[160]
    assert before.weights["plan"] > 0.8
    assert asleep.weights == {"last": 1.0}
    assert after.weights["plan"] == pytest.approx(before.weights["plan"], abs=0.01)


def test_a_model_may_be_silent_about_some_series(make: Make, wave: Wave) -> None:
    values = wave(200)
    selector = Selector([Plan(values, not_about=["b"])], H)
    a, b = selector.update([make(values[:150], name=name) for name in "ab"])
    assert a.skilled
    assert b.weights == {"last": 1.0}
    assert (a.model, b.model, b.forecast.model) == ("mixture", "last", "last")
    np.testing.assert_array_equal(b.forecast.values[:, MEDIAN], values[149])
    assert b.skill["plan"] is None
    assert b.losses["plan"] == {"1": None, "2-5": None, "6": None}


def test_new_series_start_from_the_weights_of_the_others(make: Make, wave: Wave) -> None:
    values = wave(200)
    selector, young = Selector([Plan(values), Plan(values[::-1], name="other")], H), make(values[:1], name="young")
    (alone,) = selector.update([young])
    assert alone.weights == pytest.approx({"last": 0.1 / 2.1, "plan": 1.0 / 2.1, "other": 1.0 / 2.1})
    selector.update([])
    old = [make(values, name=f"old {n}") for n in range(20)]
    selector.update(old)
    among = selector.update([*old, young])[-1]
    assert among.weights["plan"] > 0.6


def test_scale_does_not_matter(make: Make, wave: Wave) -> None:
    values = wave(400)
    small = ticks(Selector([Ewma()], H), make(values), 370, 400)
    large = ticks(Selector([Ewma()], H), make(values * 2.0**20), 370, 400)
    for one, other in zip(small, large, strict=True):
        np.testing.assert_allclose(other.forecast.values, one.forecast.values * 2.0**20, rtol=1e-9)
        np.testing.assert_allclose(other.peaks, one.peaks * 2.0**20, rtol=1e-9)
        assert [g.open for g in one.gates] == [g.open for g in other.gates]
        assert one.weights == pytest.approx(other.weights)
        assert one.coverage == other.coverage


# -- calibration -----------------------------------------------------------------------------------------------------


def test_quantiles_around_a_bare_median_keep_their_promise() -> None:
    actual = np.random.default_rng(3).normal(100, 10, (40, 400))
    results = crowd(Selector([Plan(np.full(400, 100.0))], H), actual, 250, 390)
    said = np.array([[one.forecast.values for one in tick] for tick in results])  # (T, N, H, Q)
    for step in (0, H - 1):
        below = actual[:, 250 + step : 390 + step].T[:, :, None] <= said[:, :, step]
        np.testing.assert_allclose(below.mean(axis=(0, 1)), QUANTILES, atol=0.02)
    assert {one.model for one in results[-1]} == {"mixture"}
    assert np.mean([one.coverage for one in results[-1]]) == pytest.approx(0.95, abs=0.02)


def test_quantiles_come_back_after_a_shift() -> None:
    actual = np.random.default_rng(4).normal(100, 5, (30, 400))
    actual[:, 280:] *= 4.0
    results = crowd(Selector([Ewma()], H), actual, 270, 390)
    said = np.array([[one.forecast.at(1, 0.95) for one in tick] for tick in results])  # (T, N)
    below = said >= actual[:, 270:390].T
    assert not below[10].any()
    assert below[30:].mean() > 0.9
    assert below[70:].mean() == pytest.approx(0.95, abs=0.03)


def test_a_series_that_rested_for_long_is_covered_soon_after_it_moves() -> None:
    """Quantiles held by the median must not drift: after a rest they would miss for about as long as it lasted."""
    rng = np.random.default_rng(5)
    actual = np.concatenate([np.full((30, 400), 100.0), rng.normal(100, 10, (30, 110))], axis=1)
    selector = Selector([Ewma()], 2, replay=0)
    results = crowd(selector, actual, 1, 508)[430:]
    said = np.array([[[one.forecast.at(1, 0.9), one.peak(2, 0.9)] for one in tick] for tick in results])  # (T, N, 2)
    highest = np.maximum(actual[:, 431:508], actual[:, 432:509])
    assert (said[..., 0] >= actual[:, 431:508].T).mean() == pytest.approx(0.9, abs=0.07)
    assert (said[..., 1] >= highest.T).mean() == pytest.approx(0.9, abs=0.07)


def test_after_hours_without_a_request_a_burst_is_not_taken_for_millions() -> None:
    """What is usual lately is next to nothing then, and no quantile may be learned in units of it."""
    rng = np.random.default_rng(6)
    actual = np.where(rng.random((8, 1_300)) < 0.2, rng.uniform(500, 1_000, (8, 1_300)), 0.0)
    actual[:, 300:1_000] = 0.0
    results = crowd(Selector([Ewma()], H, replay=0), actual, 250, 1_300)
    said = np.array([[one.forecast.values for one in tick] for tick in results])[750:]  # since the first request again
    peaks = np.array([[one.peaks for one in tick] for tick in results])[750:]
    highest = actual.max(axis=1)[:, None, None]
    assert (said <= 2.5 * highest).all()
    assert (peaks <= 3.0 * highest).all()
    below = said[100:299, :, 0, QUANTILES.index(0.95)] >= actual[:, 1_100:1_299].T
    assert below.mean() == pytest.approx(0.95, abs=0.03)


def test_the_peak_covers_maxima_where_the_largest_step_does_not() -> None:
    actual = np.random.default_rng(4).normal(100, 10, (40, 500))
    results = crowd(Selector([Plan(np.full(500, 100.0))], H), actual, 300, 450)[50:]
    highest = np.lib.stride_tricks.sliding_window_view(actual, H, axis=1).max(axis=2)[:, 350:450].T
    peaks = np.array([[one.peak(H, 0.9) for one in tick] for tick in results])
    naive = np.array([[one.forecast.peak(H, 0.9) for one in tick] for tick in results])
    assert (highest <= peaks).mean() == pytest.approx(0.9, abs=0.03)
    assert (highest <= naive).mean() < 0.75


def test_the_peak_is_clipped_to_the_horizon_and_grows(make: Make, wave: Wave) -> None:
    (selected,) = Selector([Ewma()], H).update([make(wave(200))])
    peaks = [selected.peak(k, 0.95) for k in range(1, H + 1)]
    assert peaks == sorted(peaks)
    assert (selected.peak(99, 0.95), selected.peak(0, 0.95)) == (peaks[-1], peaks[0])
    with pytest.raises(QuantileError, match=r"quantile 0\.42 was not forecast"):
        selected.peak(1, 0.42)


# -- gaps, silence, missed ticks ---------------------------------------------------------------------------------------


def test_gaps_are_not_scored(make: Make, wave: Wave) -> None:
    values = wave(100)
    gapped = values.copy()
    gapped[40:70] = np.nan
    whole = ticks(Selector([Plan(values)], H, window=60), make(values), 30, 90)[-1]
    holed = ticks(Selector([Plan(values)], H, window=60), make(gapped), 30, 90)[-1]
    assert (whole.scored, holed.scored) == (60, 30)
    assert holed.skill["plan"] == pytest.approx(1.0)


def test_a_gap_teaches_nothing(make: Make, wave: Wave) -> None:
    values = wave(200)
    selector = Selector([Plan(values)], H)
    before = ticks(selector, make(values), 140, 150)[-1]
    gap = make(np.append(values[:149], [np.nan] * 3))
    after = selector.update([gap])[0]
    assert after.weights == before.weights
    assert after.coverage == before.coverage


def test_a_silent_source_is_not_acted_upon(make: Make, wave: Wave) -> None:
    values = wave(120)
    values[100:110] = np.nan
    results = ticks(Selector([Plan(wave(200))], H), make(values), 99, 115)
    assert results[6].skilled
    silent = results[100 + H - 99]
    assert (silent.model, silent.skilled) == ("mixture", False)
    assert not any(silent.may_act(step) for step in range(1, H + 1))
    assert silent.reason == "no value for 6 steps: its source is silent"
    assert not any(one.open for one in silent.gates)
    np.testing.assert_allclose(silent.forecast.values[:, MEDIAN], wave(200)[106:112], rtol=0.01)  # as the plan has it
    assert results[-1].skilled  # its gates were not forgotten


def test_missed_ticks_are_settled_by_what_was_said_before(make: Make, wave: Wave) -> None:
    values = wave(200)
    selector = Selector([Plan(values)], H, window=60)
    ticks(selector, make(values), 100, 101)
    (selected,) = selector.update([make(values[:110])])
    assert [one.scored for one in selected.gates] == [51, 52, 56]  # of ten new intervals, as far as origins reached
    assert selected.skilled


def test_missed_ticks_of_a_known_past_change_only_what_was_not_said(make: Make, wave: Wave) -> None:
    values = wave(300)
    one_by_one, jumping = Selector([Ewma()], 1), Selector([Ewma()], 1)
    left = ticks(one_by_one, make(values), 200, 203)
    ticks(jumping, make(values), 200, 202)
    right = jumping.update([make(values[:202])])[0]
    assert figures(left[-1]) == figures(right)


def test_the_same_tick_twice_changes_nothing(make: Make, wave: Wave) -> None:
    values = wave(200)
    selector = Selector([Ewma()], H)
    results = [selector.update([make(values)])[0] for _ in range(20)]
    assert all(figures(one) == figures(results[0]) for one in results)
    selector.update([make(values)])
    other = Selector([Ewma()], H)
    other.update([make(values)])
    longer = make(wave(201))
    assert figures(selector.update([longer])[0]) == figures(other.update([longer])[0])


def test_trimming_old_values_changes_nothing(make: Make, wave: Wave) -> None:
    values = wave(800)
    whole, trimmed = Selector([Ewma()], H), Selector([Ewma()], H)
    for n in range(700, 725):
        series = make(values[:n])
        (left,), (right,) = whole.update([series]), trimmed.update([series if n < 710 else series.tail(600)])
        assert figures(left) == figures(right)


@pytest.mark.parametrize("what", ["back-filled", "rewound", "another step", "stale"])
def test_what_is_another_series_by_the_same_name_begins_anew(what: str, make: Make, wave: Wave) -> None:
    values = wave(600)
    old = make(values[100:200], start=1e6 + 500)
    selector, new = Selector([Ewma()], H), make(values[:210])
    selector.update([old])
    if what == "rewound":
        new = make(values[100:190], start=1e6 + 500)
    elif what == "another step":
        new = replace(old, start=2e6, step=10.0, values=values[100:200])
    elif what == "stale":
        new = make(values[100 : 200 + STALE + 1], start=1e6 + 500)
    (selected,) = selector.update([new])
    other = Selector([Ewma()], H).update([new])[0]
    assert (selected.scored, selected.losses["last"]) == (other.scored, other.losses["last"])
    assert selected.standing.changed.tolist() == other.standing.changed.tolist()


def test_a_series_that_was_away_for_less_is_settled(make: Make, wave: Wave) -> None:
    values = wave(400)
    selector = Selector([Plan(values)], H)
    open_ = selector.update([make(values[:100])])[0].gates[0]
    (selected,) = selector.update([make(values[: 100 + STALE])])
    assert open_.open
    assert [one.scored for one in selected.gates] == [0, 0, 0]  # nothing was said about the newest 120 intervals
    assert not selected.skilled
    assert selected.weights["plan"] > 0.5  # but the weights are not forgotten


def test_results_do_not_change_later_and_do_not_see_the_future(make: Make, wave: Wave) -> None:
    values = wave(300)
    disturbed = values.copy()
    disturbed[250:] = 1e6
    here, there = Selector([Ewma()], H), Selector([Ewma()], H)
    results = ticks(here, make(values), 235, 251)
    told = [figures(one) for one in results]
    ticks(here, make(values), 251, 270)
    assert [figures(one) for one in results] == told
    assert [figures(one) for one in ticks(there, make(disturbed), 235, 251)] == told


# -- some late, some not ---------------------------------------------------------------------------------------------

LATE = {
    "one": [40, *[1] * 11],
    "two by as much": [1, 40, *[1] * 9, 40],
    "three, each by its own": [1, 1, 2, 9, 30, *[1] * 7],
    "one, the others not at all": [25, *[0] * 11],
    "most": [30, *[12] * 10, 1],
    "all": [5] * 12,
}


def _late(late: Sequence[int], wave: Wave) -> tuple[Selector, list[list[Selected]]]:
    """Twelve series; after some ticks ``late`` intervals come at once, and then one by one."""
    table = [wave(300, seed=row) for row in range(12)]
    selector = Selector([Ewma()], H, replay=30)
    counts, results = np.full(12, 150), []
    for more in (1, 1, 1, np.array(late), 1, 1):
        counts = counts + more
        given = [Series(f"s{row}", 0.0, 5.0, table[row][:count], 96) for row, count in enumerate(counts)]
        results.append(selector.update(given))
    return selector, results


def _arrays(state: Any) -> Iterator[tuple[str, Any]]:
    for part in fields(state):
        value = getattr(state, part.name)
        yield from _arrays(value) if is_dataclass(value) else [(part.name, value)]


@pytest.mark.parametrize("late", LATE.values(), ids=list(LATE))
def test_few_that_are_late_are_settled_as_if_all_were(
    late: list[int], wave: Wave, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, told = _late(late, wave)
    monkeypatch.setattr(learning, "FEW", 10**9)  # nobody is few: the loop works on all rows
    whole, expected = _late(late, wave)
    assert [[figures(one) for one in tick] for tick in told] == [[figures(one) for one in tick] for tick in expected]
    for (name, mine), (_, theirs) in zip(_arrays(some._memory), _arrays(whole._memory), strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=name)


def test_one_that_is_late_costs_the_others_nothing(wave: Wave, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, learn = [], Memory._learn

    def counted(memory: Memory, number: IntArray, newest: FloatArray) -> None:
        rows.append(len(number))
        learn(memory, number, newest)

    monkeypatch.setattr(Memory, "_learn", counted)
    _late(LATE["one"], wave)
    assert rows == [12] * (29 + 3) + [1] * 39 + [12] * 3  # the replay and three ticks, what was missed, three ticks


# -- many series -----------------------------------------------------------------------------------------------------


def test_series_come_and_go_and_change_places(make: Make, wave: Wave) -> None:
    selector = Selector([Ewma()], H)
    a, b = make(wave(100), name="a"), make(wave(100, seed=1), name="b")
    together = selector.update([a, b])
    assert [one.forecast.series for one in together] == ["a", "b"]
    (kept,) = selector.update([b])
    assert figures(kept) == figures(together[1])
    assert selector.update([]) == []
    assert [one.scored for one in selector.update([b, a])] == [60, 60]


def test_a_name_that_is_given_twice_is_refused_and_costs_nothing(make: Make, wave: Wave) -> None:
    selector, values = Selector([Ewma()], H), wave(100)
    a, b = make(values, name="a"), make(values, name="b")
    before = [figures(one) for one in selector.update([a, b])]
    with pytest.raises(DuplicateSeriesError, match=r"more than once in one update: 'b'; give each a name of its own"):
        selector.update([b, a, make(values[:50], name="b")])
    assert [figures(one) for one in selector.update([a, b])] == before


def test_series_at_different_intervals_are_settled_apart(make: Make, wave: Wave) -> None:
    selector = Selector([Ewma()], H, replay=10)
    values, other = wave(400), wave(400, seed=1)
    paces = {"a": 1, "b": 3, "c": 0}
    alone = {name: Selector([Ewma()], H, replay=10) for name in paces}
    for tick in range(30):
        given = [
            make(values[: 200 + tick * pace] if name != "c" else other[:150], name=name, start=1e6 - 35.0 * pace)
            for name, pace in paces.items()
        ]
        for one, selected in zip(given, selector.update(given), strict=True):
            assert figures(selected) == figures(alone[one.name].update([one])[0])


def test_odd_series_are_answered_lawfully_and_do_not_touch_the_others(make: Make, wave: Wave) -> None:
    odd = [make(values, name=name) for name, values in ODD.items()]
    good = make(wave(150), name="good")
    among, alone = (Selector([Ewma()], 12, replay=20) for _ in range(2))
    for part in (0.5, 0.9, 1.0, 1.0):
        given = [replace(one, values=one.values[: round(part * len(one.values))]) for one in (*odd, good)]
        results = among.update(given)
        for one, selected in zip(given, results, strict=True):
            _check(selected)
            known = clean(one.values)[np.isfinite(one.values)]
            if selected.model == "last":
                last = known[-1] if len(known) and known[-1] >= NOTHING else 0.0
                np.testing.assert_array_equal(selected.forecast.values[:, MEDIAN], last)
        assert figures(results[-1]) == figures(alone.update([given[-1]])[0])


@pytest.mark.parametrize("values", [[], [float("nan")] * 30])
def test_no_values_yet(values: list[float], make: Make) -> None:
    (selected,) = Selector([Ewma()], H).update([make(values)])
    assert selected.reason == "no values yet"
    assert (selected.forecast.values == 0.0).all()
    assert (selected.peaks == 0.0).all()
    assert selected.coverage is None


@pytest.mark.parametrize("length", [1, 7, 30, 100, 700])
def test_where_there_was_never_anything_but_0_every_quantile_is_0(
    length: int, make: Make, learned: Mapping[str, Forecaster]
) -> None:
    """Whatever models say, and whether there are gaps."""
    gaps = np.where(np.arange(length) % 3 > 0, 0.0, np.nan)
    tables: dict[str, FloatArray] = {"shop": np.zeros(length), "gaps": gaps, "none": np.full(length, np.nan)}
    selector = Selector([Ewma(), Plan(np.full(length, 9.0)), *learned.values()], 12)
    for one in selector.update([make(values, name=name) for name, values in tables.items()]):
        assert (one.forecast.values == 0.0).all(), one.forecast.series
        assert (one.peaks == 0.0).all(), one.forecast.series
        assert not one.skilled


@pytest.mark.parametrize("value", [1e-7, 7.1, 1e9])
def test_a_constant_series_is_forecast_as_it_is(value: float, make: Make, learned: Mapping[str, Forecaster]) -> None:
    bad = Plan(np.full(400, 1.01 * value))
    (one,) = Selector([Ewma(), bad, *learned.values()], 12).update([make([value] * 400)])
    assert one.scored == 60
    np.testing.assert_allclose(one.forecast.values[:, MEDIAN], value, rtol=1e-6)
    assert (one.forecast.values[:, 0] >= 0.9 * value).all()
    assert (one.forecast.values <= 1.1 * value).all()
    assert one.weights.keys() >= {"last", "ewma"}
    assert "plan" not in one.weights
    assert not one.skilled


def test_a_constant_series_is_at_rest_once_it_was_learned_from_and_until_it_moves(make: Make) -> None:
    def told(values: FloatArray, **options: int) -> float:
        plan = Plan(np.full(1000, 8.0))
        return float(Selector([plan], H, **options).update([make(values)])[0].forecast.at(1, 0.5))

    flat = np.full(600, 7.0)
    assert told(flat, replay=60) == 7.0
    assert told(flat, replay=59) > 7.0
    assert told(np.append(flat, np.nan), replay=61) == 7.0
    for place, other in ((-1, 7.1), (-1, 0.0), (0, 7.1)):  # a long time ago is not too long
        moved = flat.copy()
        moved[place] = other
        assert told(moved, replay=60) != 7.0


def test_an_idle_service_that_once_was_busy_is_not_taken_for_one_at_rest(make: Make) -> None:
    values = np.zeros(600)
    values[10] = 5.0
    (one,) = Selector([Plan(np.full(700, 8.0))], H).update([make(values)])
    assert one.forecast.at(1, 0.5) > 0.0


def _check(selected: Selected) -> None:
    values = selected.forecast.values
    assert values.shape == (12, len(QUANTILES))
    for table in (values, selected.peaks):
        assert np.isfinite(table).all()
        assert (table >= 0).all()
        assert (np.diff(table, axis=1) >= 0).all()
    assert (np.diff(selected.peaks, axis=0) >= 0).all()
    assert selected.reason


def test_plans_are_models(make: Make) -> None:
    plans: Sequence[Plan] = [Plan(np.arange(9.0)), Plan(np.arange(9.0), not_about=["shop"])]
    told = [plan.predict(Batch.now([make([1.0, 2.0])], 2))[0, :, MEDIAN].tolist() for plan in plans]
    assert told[0] == [2.0, 3.0]
    assert np.isnan(told[1]).all()
