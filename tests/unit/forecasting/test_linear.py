"""Least absolute deviations on lags: it finds a law under gross errors, and minds only its own series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from forecasting.base import MEDIAN
from forecasting.batch import Batch
from forecasting.errors import LeakError
from forecasting.evaluate.backtest import backtest, check_causal
from forecasting.features import Features
from forecasting.models import linear
from forecasting.models.linear import FAR, FIRST, F, Linear, design, enough, fit, placed, windows
from forecasting.series import FloatArray, Series
from tests.unit.forecasting.conftest import NAN, SEASON, H, Make, Wave, assert_blind, futures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen(make: Make) -> Features:
    """Windows of a series that is anything but linear itself."""
    return windows(make(np.random.default_rng(1).gamma(2.0, 20.0, 9 * SEASON)), H)[0]


@pytest.fixture(scope="module")
def law() -> FloatArray:
    """A constant and six slopes for each step ahead, ``(H, 1 + F)``."""
    rng = np.random.default_rng(2)
    weights = np.zeros((H, 1 + F))
    for row in weights:
        row[rng.choice(1 + F, 6, replace=False)] = rng.normal(0, 0.5, 6)
    weights[:, 0] = 0.3
    return weights


def spoken(weights: FloatArray, seen: Features) -> FloatArray:
    """What the weights say about the windows, in the unit of the series: ``(N, H)``."""
    figures = np.einsum("nhf,hf->nh", design(seen), weights[:, 1:]) + weights[:, 0]
    return np.asarray(seen.last[:, None] + seen.scale[:, None] * figures)


def median(model: Linear, series: Sequence[Series], horizon: int = H) -> FloatArray:
    return np.asarray(model.predict(Batch.now(series, horizon))[..., MEDIAN])


def test_it_recovers_a_planted_law(seen: Features, law: FloatArray) -> None:
    target = spoken(law, seen)
    error = np.abs(spoken(fit(seen, target), seen) - target).mean()
    assert error < 0.01 * np.abs(target - seen.last[:, None]).mean()


def test_a_tenth_of_gross_outliers_does_not_bend_it(
    seen: Features, law: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = spoken(law, seen)
    wrong = np.random.default_rng(3).random(truth.shape) < 0.1
    target = np.where(wrong, truth + 3000.0, truth)
    size = np.abs(truth - seen.last[:, None]).mean()
    robust = np.abs(spoken(fit(seen, target), seen) - truth).mean() / size
    monkeypatch.setattr(linear, "ROUNDS", 1)  # a single round is plain least squares
    plain = np.abs(spoken(fit(seen, target), seen) - truth).mean() / size
    assert robust < 0.05
    assert plain > 20 * robust


def test_the_first_value_after_a_long_silence_does_not_bend_it(seen: Features, law: FloatArray) -> None:
    """Its window holds zeros only, so it is a billion times the window's scale. Beside it the gross errors of a tenth
    of the others must not count as small.
    """
    truth = spoken(law, seen)
    wrong = np.random.default_rng(3).random(truth.shape) < 0.1
    target = np.where(wrong, truth + 3000.0, truth)
    scale, last = seen.scale.copy(), seen.last.copy()
    scale[100], last[100], target[100] = 1e-9, 0.0, 50.0
    weights = fit(replace(seen, scale=scale, last=last), target)
    assert np.abs(spoken(weights, seen) - truth).mean() < 0.05 * np.abs(truth - seen.last[:, None]).mean()


def test_gaps_among_the_targets_do_not_count(seen: Features, law: FloatArray) -> None:
    target = spoken(law, seen)
    target[np.random.default_rng(4).random(target.shape) < 0.3] = NAN
    known = np.isfinite(target)
    error = np.abs(spoken(fit(seen, target), seen) - target)[known].mean()
    assert error < 0.01 * np.abs(target - seen.last[:, None])[known].mean()


def test_a_step_without_targets_says_the_last_value(seen: Features, law: FloatArray) -> None:
    target = spoken(law, seen)
    target[:, 3] = NAN
    weights = fit(seen, target)
    assert not weights[3].any()
    assert weights[[2, 4]].any(axis=1).all()


def test_it_beats_last_value_on_days_that_it_has_not_seen(fitted: Linear, make: Make, wave: Wave) -> None:
    other = make(wave(10 * SEASON, seed=7))
    result = backtest(fitted, other, np.arange(8 * SEASON, 10 * SEASON - H), H)
    assert [result.relative_wape(h) < limit for h, limit in ((1, 0.9), (5, 0.6), (12, 0.4))] == [True] * 3


# -- what it is told -------------------------------------------------------------------------------------------------


def test_figures_are_known_and_cut(odd: Series) -> None:
    table = design(windows(odd, H)[0])
    assert table.shape == (max(0, len(odd.values) - FIRST), H, F)
    assert (np.abs(table) <= FAR).all()


def test_windows_are_those_before_every_value_but_the_first(make: Make, wave: Wave) -> None:
    values = wave(100)
    told, target = windows(make(values), H)
    np.testing.assert_array_equal(told.last, values[FIRST - 1 : -1])
    np.testing.assert_array_equal(target[:, 0], values[FIRST:])
    np.testing.assert_array_equal(target[-1], [values[-1], *[NAN] * (H - 1)])


def test_only_the_newest_windows_are_learned_from(make: Make, wave: Wave, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "WINDOWS", 50)
    values = wave(300)
    told, target = windows(make(values), H)
    assert target.shape == (50, H)
    assert told.last[0] == values[249]
    monkeypatch.setattr(linear, "ROWS", 20)
    changed = np.where(np.arange(50)[:, None] < 30, 1e6, target)
    np.testing.assert_array_equal(fit(told, changed), fit(told, target))


def test_a_series_has_enough_where_as_much_is_known(make: Make) -> None:
    assert enough(make([1.0] * 212), H, 200)
    assert not enough(make([1.0] * 211), H, 200)
    assert not enough(make([1.0] * 211 + [NAN] * 500), H, 200)
    assert not enough(make([1.0] * 5000 + [NAN] * linear.ROWS), H, 200)  # known only where nobody looks


# -- odd series, sizes, names ----------------------------------------------------------------------------------------


def test_odd_series_are_fitted_without_complaint(odd: Series) -> None:
    weights = fit(*windows(odd, H))
    assert weights.shape == (H, 1 + F)
    assert np.isfinite(weights).all()


def test_odd_series_are_answered(fitted: Linear, odd: Series) -> None:
    told = median(fitted, [replace(odd, name="shop")])
    assert np.isfinite(told).all()
    assert (told >= 0).all()


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_stays(make: Make, value: float) -> None:
    series = make([value] * 150)
    model = Linear(["shop"], fit(*windows(series, H))[None])
    np.testing.assert_allclose(median(model, [series]), value, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_size_of_a_series_does_not_matter(make: Make, wave: Wave, factor: float) -> None:
    values = wave(5 * SEASON)
    one, other = (make(v) for v in (values, values * factor))
    told, scaled = (median(Linear(["shop"], fit(*windows(s, H))[None]), [s]) for s in (one, other))
    np.testing.assert_allclose(scaled, told * factor, rtol=1e-2)


def test_others_series_do_not_matter(fitted: Linear, make: Make, wave: Wave) -> None:
    shop, cart = make(wave(400)), make(wave(400, seed=1) * 50, "cart")
    both = Linear(["cart", "shop"], np.stack([fit(*windows(cart, H)), fitted.weights[0]]))
    np.testing.assert_array_equal(median(both, [shop, cart])[0], median(fitted, [shop])[0])
    unknown = median(fitted, [cart, shop])
    assert np.isnan(unknown[0]).all()
    np.testing.assert_array_equal(unknown[1], median(fitted, [shop])[0])


def test_places_follow_the_names_and_the_owners(make: Make) -> None:
    series = [make([1.0], "b"), make([1.0], "?"), make([1.0], "a")]
    batch = Batch(series, np.array([0, 0, 1, 2]), np.ones(4, dtype=np.int64), H)
    assert placed(["a", "b"], batch).tolist() == [1, 1, -1, 0]


def test_shorter_horizons_are_the_first_steps_and_longer_ones_unknown(fitted: Linear, make: Make, wave: Wave) -> None:
    series = make(wave(300))
    short, same, long = (median(fitted, [series], horizon) for horizon in (3, H, H + 2))
    np.testing.assert_array_equal(short, same[:, :3])
    np.testing.assert_array_equal(long[:, :H], same)
    assert np.isnan(long[:, H:]).all()


def test_a_model_of_no_series_is_silent(make: Make, wave: Wave) -> None:
    assert np.isnan(median(Linear([], np.zeros((0, H, 1 + F))), [make(wave(100))])).all()


def test_chunks_change_nothing(fitted: Linear, make: Make, wave: Wave, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> FloatArray:
        return fitted.predict(Batch.at(make(wave(300)), np.arange(100, 300), H))

    whole = told()
    monkeypatch.setattr(linear, "CHUNK", 7)
    np.testing.assert_allclose(told(), whole, rtol=1e-12)


# -- the future ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(futures())
def test_it_cannot_see_the_future(fitted: Linear, pair: tuple[Series, Series]) -> None:
    assert_blind(fitted, *pair)


def test_it_is_fitted_on_the_past_only(make: Make, wave: Wave) -> None:
    def honest(series: Sequence[Series], cut: int) -> Linear:
        return Linear(["shop"], fit(*windows(series[0].until(cut), H))[None])

    def leaking(series: Sequence[Series], cut: int) -> Linear:
        return Linear(["shop"], fit(*windows(series[0], H))[None])

    whole = [make(wave(400))]
    check_causal(honest, whole, H, 350)
    with pytest.raises(LeakError, match="shop: the forecast at value 350"):
        check_causal(leaking, whole, H, 350)
