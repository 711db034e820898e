"""Quantiles that keep their promise, and the spreads that compete."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.base import MEDIAN, QUANTILES
from forecasting.conformal import (
    BESIDE,
    LEAST,
    LEAST_RATE,
    LEVELS,
    RATE,
    SETTLED,
    SPREADS,
    START,
    TRACKED_RATE,
    TURNS,
    WINDOW,
    Centre,
    Residuals,
    Spreads,
    Tracker,
    U,
    complete,
    differences,
    empirical,
    floored,
    maxima,
    patient,
    settling,
)
from forecasting.series import BoolArray, FloatArray
from tests.unit.forecasting.conftest import NAN

HIGH, LOW = 2, 0  # among LEVELS: 0.95 and 0.05


def track(actual: FloatArray, rate: float, start: FloatArray = START) -> tuple[FloatArray, BoolArray]:
    """One series, one step, base 0, unit 1: quantiles ``(T, U)`` as told, and whether reality lay above them."""
    tracker, told = Tracker.at(1, 1, start), np.empty((len(actual), U))
    for n, value in enumerate(actual):
        told[n] = tracker.shift[0, 0]
        tracker.move(tracker.shift, np.array([[value]]), rate)
    return told, actual[:, None] > told


def centre(count: int, horizon: int, unit: float = 2.0) -> Centre:
    learned = np.array([[75.0, 80.0, 84.0, 86.0, 89.0], [NAN, 99.0, 102.0, 104.0, 106.0]])  # (L, Q)
    return Centre(
        np.full((count, horizon), 100.0),
        np.full((count, horizon), 90.0),
        np.repeat(learned[None, :, None], horizon, axis=2).repeat(count, axis=0),
        np.full(count, unit),
    )


@pytest.mark.parametrize("rate", [RATE, TRACKED_RATE])
def test_tracked_quantiles_find_those_of_noise(rate: float) -> None:
    actual = np.random.default_rng(0).standard_t(4, 20_000)
    told, above = track(actual, rate)
    np.testing.assert_allclose(above.mean(axis=0), 1.0 - LEVELS, atol=0.002)
    np.testing.assert_allclose(told[10_000:, :3].mean(axis=0), np.quantile(actual, LEVELS[:3]), atol=0.35)


@pytest.mark.parametrize(("size", "column"), [(5.0, HIGH), (20.0, HIGH), (-5.0, LOW), (-20.0, LOW)])
def test_after_a_shift_a_quantile_is_back_within_the_stated_steps(size: float, column: int) -> None:
    rng = np.random.default_rng(1)
    actual = np.concatenate([rng.uniform(-1, 1, 500), size + rng.uniform(-1, 1, 500)])
    told, _ = track(actual, RATE)
    toward = LEVELS[column] if size > 0 else 1.0 - LEVELS[column]
    within = int(np.ceil((abs(size) + 2.0) / (RATE * toward)))
    back = told[500:, column] >= size - 1.0 if size > 0 else told[500:, column] <= size + 1.0
    assert not back[0]
    assert back[min(within, 499)]


def test_twenty_misses_move_a_quantile_by_a_usual_error() -> None:
    told, _ = track(np.full(21, 99.0), RATE)
    assert told[20, HIGH] - told[0, HIGH] == pytest.approx(0.95)


def test_the_maximum_of_one_step_is_that_step() -> None:
    values = np.sort(np.random.default_rng(5).uniform(0, 9, (3, 1, len(QUANTILES))), axis=2)
    np.testing.assert_allclose(maxima(values), values)


def test_maxima_lie_between_those_of_steps_that_move_together_and_of_independent_ones() -> None:
    levels = np.array(QUANTILES)
    tail = np.tile(-np.log1p(-levels), (1, 9, 1))  # every step: exponential with mean 1
    together, apart = tail, -np.log1p(-(levels ** (1.0 / np.arange(1.0, 10.0)[:, None])))
    found = maxima(tail)
    np.testing.assert_allclose(found[0, 8], -np.log1p(-(levels ** (1.0 / 3.0))))
    assert (found[0, 1:] > together[0, 1:]).all()
    assert (found[0, 1:] < apart[1:]).all()


def test_a_step_that_is_higher_than_all_others_makes_the_maximum() -> None:
    values = np.tile(np.linspace(1.0, 2.0, len(QUANTILES)), (1, 4, 1))
    values[0, 2] += 100.0
    assert (maxima(values)[0, :, 0] > 100.0).tolist() == [False, False, True, True]


def test_an_unknown_step_makes_maxima_unknown() -> None:
    values = np.ones((1, 3, len(QUANTILES)))
    values[0, 1] = np.nan
    assert np.isnan(maxima(values)).all(axis=2).tolist() == [[False, True, True]]


def test_what_is_judged_later_is_learned_from_more_slowly() -> None:
    np.testing.assert_allclose(patient(0.6, 9)[[0, 3, 8]], [[0.6], [0.3], [0.2]])
    tracker = Tracker.at(1, 4, np.zeros(U))
    tracker.move(np.zeros((1, 4, U)), np.ones((1, 4)), patient(RATE, 4))
    np.testing.assert_allclose(tracker.shift[0, 0], RATE * LEVELS)
    np.testing.assert_allclose(tracker.shift[0, 3], 0.5 * RATE * LEVELS)


def test_the_young_learn_faster_and_slow_down() -> None:
    newborn, young, old = patient(0.6, 9, np.array([0.0, 3.0 * LEAST, 1e9]))[..., 0]
    np.testing.assert_allclose(newborn, 0.6)
    np.testing.assert_allclose(young[[0, 3, 8]], [0.6, 0.3, 0.3])
    np.testing.assert_allclose(old, patient(0.6, 9)[:, 0])


def test_the_last_calibration_slows_down_with_the_root_of_the_age_and_never_stops() -> None:
    ages = np.array([0.0, 1.0, SETTLED, 4.0 * SETTLED, 1e9])
    np.testing.assert_allclose(settling(ages), [RATE, RATE, RATE, RATE / 2.0, LEAST_RATE])
    rates = patient(settling(ages)[:, None, None], 9, ages)
    np.testing.assert_allclose(rates[-1, [0, 8], 0], [LEAST_RATE, LEAST_RATE / 3.0])


def test_what_is_unknown_teaches_nothing() -> None:
    tracker = Tracker.at(2, 2, START)
    before = tracker.shift.copy()
    tracker.move(np.full((2, 2, U), np.nan), np.ones((2, 2)), RATE)
    tracker.move(np.zeros((2, 2, U)), np.full((2, 2), np.nan), RATE)
    np.testing.assert_array_equal(tracker.shift, before)


def test_empirical_quantiles_are_those_of_numpy_and_gaps_do_not_count() -> None:
    rng = np.random.default_rng(2)
    past = rng.normal(0, 1, (3, 4, WINDOW)).astype(np.float32)
    past[0, 0, ::3] = np.nan
    np.testing.assert_allclose(empirical(past), np.moveaxis(np.nanquantile(past, LEVELS, axis=2), 0, 2), rtol=1e-5)


@pytest.mark.parametrize(("known", "silent"), [(0, True), (LEAST - 1, True), (LEAST, False)])
def test_few_misses_have_no_quantiles(known: int, silent: bool) -> None:
    past = np.full((1, WINDOW), np.nan, dtype=np.float32)
    past[0, :known] = 1.0
    assert np.isnan(empirical(past)).all() == silent
    assert np.isnan(empirical(np.empty((1, 0), dtype=np.float32))).all()


def test_residuals_hold_the_newest_misses_of_those_that_moved() -> None:
    residuals = Residuals.empty(2, 1)
    for n in range(WINDOW + 30):
        residuals.add(np.full((2, 1), float(n)), np.array([True, n < 40]))
    assert sorted(residuals.past[0, 0]) == list(range(30, WINDOW + 30))
    assert np.isfinite(residuals.past[1, 0]).sum() == 40
    residuals.refresh(np.array([1]))
    assert np.isnan(residuals.quantile[0]).all()
    assert residuals.quantile[1, 0, HIGH] == pytest.approx(0.95 * 39, rel=1e-6)


def test_differences_are_quantiles_of_changes_over_h_steps() -> None:
    recent = np.cumsum(np.random.default_rng(3).normal(0, 1, (2, 200)), axis=1)
    recent[1, 50:60] = np.nan
    found = differences(recent, 3)
    for h in (1, 2, 3):
        change = recent[:, h:] - recent[:, :-h]
        np.testing.assert_allclose(found[:, h - 1], np.nanquantile(change, LEVELS, axis=1).T, atol=1e-4)


@pytest.mark.parametrize("width", [0, 1, 5, LEAST])
def test_differences_of_a_short_history_are_unknown(width: int) -> None:
    assert np.isnan(differences(np.ones((2, width)), 12)).all()


def test_complete_quantiles_are_ordered_and_never_negative_and_keep_the_median() -> None:
    median = np.array([[100.0, 3.0, 0.0]])
    beside = np.array([[[120.0, 90.0, 130.0, 110.0], [-4.0, 5.0, 4.0, 9.0], [-1.0, -1.0, -1.0, -1.0]]])
    np.testing.assert_array_equal(
        complete(median, beside), [[[100, 100, 100, 130, 130], [0, 3, 5, 5, 9], [0, 0, 0, 0, 0]]]
    )


def test_complete_leaves_what_is_lawful_alone() -> None:
    values = np.sort(np.random.default_rng(4).uniform(0, 9, (5, 6, len(QUANTILES))), axis=2)
    np.testing.assert_array_equal(complete(values[..., MEDIAN], values[..., BESIDE]), values)


def test_what_means_nothing_is_0_and_what_is_unknown_stays_so() -> None:
    found = complete(np.array([[9e-10, 1e-9, np.nan]]), np.array([[[0.0, 9e-10, 1e-9, 2.0]] * 3]))
    np.testing.assert_array_equal(found[0, :2], [[0, 0, 0, 1e-9, 2], [0, 1e-9, 1e-9, 1e-9, 2]])
    assert np.isnan(found[0, 2]).all()
    np.testing.assert_array_equal(floored(np.array([[-3.0, 0.0, 9e-10, 1e-9, np.nan]])), [[0, 0, 0, 1e-9, np.nan]])


def test_spreads_stand_around_their_centre_in_the_order_of_their_names() -> None:
    spreads = Spreads.fresh(["a"], 2)
    around = dict(zip(SPREADS, spreads.around(centre(1, 2))[0], strict=True))
    np.testing.assert_allclose(around["lstm"], np.tile([75.0, 84.0, 86.0, 89.0], (2, 1)))
    np.testing.assert_allclose(around["lstm tracked"], np.tile([94.8, 104.2, 106.2, 109.2], (2, 1)))
    np.testing.assert_allclose(around["boosting"], np.tile([NAN, 102.0, 104.0, 106.0], (2, 1)))
    assert np.isnan(around["residuals"]).all()
    np.testing.assert_allclose(around["tracked"], np.tile(100.0 + 1.5 * START * 1.2 * 2.0, (2, 1)))
    np.testing.assert_allclose(around["last"], 90.0)


def test_a_model_without_quantiles_leaves_its_spreads_silent() -> None:
    told = centre(1, 2)
    told.learned[:] = np.nan
    silent = np.asarray(np.isnan(Spreads.fresh(["a"], 2).around(told)).all(axis=(0, 2, 3)))
    quiet = [name for name, no in zip(SPREADS, silent, strict=True) if no]
    assert quiet == ["lstm", "lstm tracked", "boosting", "residuals"]


def test_spreads_learn_how_much_the_median_misses_by() -> None:
    spreads, told = Spreads.fresh(["a", "b"], 1), centre(2, 1)
    moved, unit = np.array([True, True]), np.full((2, 1), 2.0)
    for _ in range(200):
        actual = np.array([[150.0], [np.nan]])
        spreads.learn(spreads.around(told), actual, actual - told.median, unit, moved)
    assert spreads.miss[0, 0] == 50.0
    assert np.isnan(spreads.miss[1, 0])
    np.testing.assert_array_equal(spreads.tracked.shift[1, 0], 1.5 * START)
    assert spreads.around(told)[0, SPREADS.index("tracked"), 0, HIGH] > 150.0


def test_the_mean_miss_forgets_half_in_thirty_intervals() -> None:
    spreads, told = Spreads.fresh(["a"], 1), centre(1, 1)
    for size in [10.0] + [0.0] * 30:
        actual = told.median + size
        spreads.learn(spreads.around(told), actual, actual - told.median, np.ones((1, 1)), np.array([True]))
    assert spreads.miss[0, 0] == pytest.approx(5.0)


def test_every_series_has_its_turn_and_no_other_moves_it() -> None:
    names = [f"s{n}" for n in range(40)]
    recent = np.cumsum(np.random.default_rng(5).normal(0, 1, (40, 100)), axis=1)
    together, turns = Spreads.fresh(names, 2), []
    together.refresh(np.full(40, 1000), recent)
    assert together.differences.any(axis=(1, 2)).all()  # nobody waits for the first time
    for tick in range(1001, 1001 + TURNS):
        together.differences[:] = 0.0
        together.refresh(np.full(40, tick), recent)
        turns.append(np.asarray(together.differences.any(axis=(1, 2))))
    assert (np.sum(turns, axis=0) == 1).all()
    assert max(map(np.sum, turns)) < 20
    alone = Spreads.fresh(names[7:8], 2)
    alone.refresh(np.array([1000]), recent[7:8])
    for tick, due in zip(range(1001, 1001 + TURNS), turns, strict=True):
        alone.differences[:] = 0.0
        alone.refresh(np.array([tick]), recent[7:8])
        assert alone.differences.any() == due[7]
