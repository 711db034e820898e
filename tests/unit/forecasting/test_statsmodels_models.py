"""ETS, Theta and SARIMAX: what they learn, what they leave out by rule, and that no history upsets them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest

from forecasting.base import MEDIAN, QUANTILES, Forecaster
from forecasting.batch import Batch
from forecasting.models import exponential, sarimax, statistical, theta
from forecasting.models.exponential import Ets
from forecasting.models.naive import NORMAL
from forecasting.models.sarimax import CovariateError, Sarimax
from forecasting.models.statistical import Past, bridged, each, profile
from forecasting.models.theta import Theta
from forecasting.series import FloatArray, Series

pytestmark = pytest.mark.slow

NAN = float("nan")
H = 6
MODELS: Sequence[Forecaster] = (Ets(history=150), Theta(history=150), Sarimax(history=150))
NAMES = ("ets", "theta", "sarimax")


@pytest.fixture(params=MODELS, ids=NAMES)
def model(request: pytest.FixtureRequest) -> Forecaster:
    chosen: Forecaster = request.param
    return chosen


def one(model: Forecaster, values: FloatArray | list[float], season: int = 1, horizon: int = H) -> FloatArray:
    """``(H, Q)`` at the end of ``values``; no warning gets out."""
    series = Series("shop", 1e6, 5.0, np.asarray(values, dtype=np.float64), season)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = model.predict(Batch.now([series], horizon))
    assert told.shape == (1, horizon, len(QUANTILES))
    return np.asarray(told[0])


def curve(first: int, last: int, season: int) -> FloatArray:
    return np.asarray(60 + 40 * np.sin(2 * np.pi * np.arange(first, last) / season))


def noisy(length: int, season: int, noise: float = 3.0, seed: int = 0) -> FloatArray:
    return np.asarray(curve(0, length, season) + np.random.default_rng(seed).normal(0, noise, length))


def assert_lawful(told: FloatArray) -> None:
    assert np.isfinite(told).all()
    assert (told >= 0).all()
    assert (np.diff(told, axis=-1) >= 0).all()


def error(told: FloatArray, season: int, length: int) -> float:
    return float(np.abs(told[:, MEDIAN] - curve(length, length + len(told), season)).mean())


def test_no_history_upsets_it(model: Forecaster, odd: Series) -> None:
    told = one(model, odd.values, odd.season)
    known = np.isfinite(odd.values).sum()
    if known >= 24 and 2 * known >= len(odd.values):
        assert_lawful(told)
    else:
        assert np.isnan(told).all()


@pytest.mark.parametrize("season", [12, 24, 60], ids=["short", "middle", "long"])
def test_it_learns_a_season(model: Forecaster, season: int) -> None:
    told = one(model, noisy(130, season), season)
    assert error(told, season, 130) < 6.0  # last value: about 20
    assert_lawful(told)


def test_a_season_longer_than_the_history_is_learned_too(model: Forecaster) -> None:
    assert error(one(model, noisy(1000, 300), 300), 300, 1000) < 3.0


def test_under_two_seasons_nothing_seasonal_is_fitted(model: Forecaster) -> None:
    values = noisy(100, 51)
    np.testing.assert_array_equal(one(model, values, 51), one(model, values, 1))
    assert not np.array_equal(one(model, values, 50), one(model, values, 1))


def test_the_spread_is_that_of_the_noise(model: Forecaster) -> None:
    told = one(model, np.random.default_rng(3).normal(100, 10, 150))
    sigma = (told[0, -1] - told[0, MEDIAN]) / NORMAL[-1]
    assert 7 < sigma < 13
    assert abs(told[0, MEDIAN] - 100) < 8


def test_the_spread_grows_with_the_steps_of_a_random_walk(model: Forecaster) -> None:
    told = one(model, 500 + np.random.default_rng(4).normal(0, 5, 150).cumsum())
    widths = told[:, -1] - told[:, 0]
    assert (np.diff(widths) > 0).all()
    assert widths[3] == pytest.approx(2 * widths[0], rel=0.25)  # the root of the steps


def test_the_unit_of_the_series_does_not_matter(model: Forecaster) -> None:
    values = noisy(100, 24)
    np.testing.assert_allclose(one(model, values * 1024.0, 24), 1024.0 * one(model, values, 24), rtol=1e-6)


def test_a_constant_is_answered_by_itself(model: Forecaster) -> None:
    assert (one(model, [7.0] * 40) == 7.0).all()
    assert (one(model, [0.0] * 40) == 0.0).all()


def test_gaps_inside_cost_little(model: Forecaster) -> None:
    values = noisy(140, 24)
    values[[30, 31, 32, 70, 111, 112]] = NAN
    assert error(one(model, values, 24), 24, 140) < 6.0


def test_a_gap_before_the_origin_is_forecast_too(model: Forecaster) -> None:
    values = noisy(120, 24)
    gapped = np.concatenate([values, np.full(4, NAN)])
    np.testing.assert_allclose(one(model, gapped, 24, 6), one(model, values, 24, 10)[4:])


def test_more_gaps_than_values_are_silence(model: Forecaster) -> None:
    values = np.random.default_rng(0).normal(50, 5, 60)
    assert np.isfinite(one(model, np.concatenate([values, np.full(60, NAN)]))).all()
    assert np.isnan(one(model, np.concatenate([values, np.full(61, NAN)]))).all()


def test_too_little_is_silence(model: Forecaster) -> None:
    values = np.random.default_rng(0).normal(50, 5, 24)
    assert np.isnan(one(model, values[:23])).all()
    assert_lawful(one(model, values))


def test_the_history_is_bounded(model: Forecaster) -> None:
    values = noisy(160, 24)
    changed = np.concatenate([[1e6] * 500, values])
    np.testing.assert_array_equal(one(model, values[-150:]), one(model, changed))


def test_a_window_does_not_see_what_follows(model: Forecaster) -> None:
    values = noisy(200, 24)
    series = Series("shop", 1e6, 5.0, values, 24)
    told = model.predict(Batch.at(series, np.array([10, 70, 150]), H))
    assert np.isnan(told[0]).all()
    for row, count in ((1, 70), (2, 150)):
        np.testing.assert_array_equal(told[row], one(model, values[:count], 24))


def test_many_series_are_answered_in_their_order(model: Forecaster) -> None:
    histories = (np.full(30, 1.0), np.empty(0), noisy(60, 24), np.full(30, 2.0))
    many = [Series(str(number), 0.0, 5.0, values, 1) for number, values in enumerate(histories)]
    told = model.predict(Batch.now(many, 2))
    assert (told[0] == 1.0).all()
    assert np.isnan(told[1]).all()
    np.testing.assert_array_equal(told[2], one(model, many[2].values, 1, 2))
    assert (told[3] == 2.0).all()


def test_night_rates_are_never_negative(model: Forecaster) -> None:
    values = np.maximum(0.0, noisy(120, 24) - 60.0)
    assert_lawful(one(model, values, 24, 24))


@pytest.mark.parametrize(
    ("module", "library", "model"),
    [(exponential, "ETSModel", Ets()), (theta, "ThetaModel", Theta()), (sarimax, "SARIMAX", Sarimax())],
    ids=NAMES,
)
def test_a_library_that_fails_is_silence(
    monkeypatch: pytest.MonkeyPatch, module: object, library: str, model: Forecaster
) -> None:
    def fail(*_: object, **__: object) -> None:
        warnings.warn("about to fail", RuntimeWarning, stacklevel=1)
        raise np.linalg.LinAlgError("singular matrix")

    monkeypatch.setattr(module, library, fail)
    assert np.isnan(one(model, noisy(60, 24))).all()


@pytest.mark.parametrize("answer", [NAN, float("inf"), 1e9], ids=["unknown", "infinite", "absurd"])
def test_a_broken_answer_is_silence(answer: float) -> None:
    series = Series("shop", 0.0, 5.0, noisy(60, 24), 24)
    told = each(Batch.now([series], 3), lambda past: np.full((past.steps, len(QUANTILES)), answer), 60, 24)
    assert np.isnan(told).all()


def test_an_answer_becomes_lawful_and_gets_its_unit_back() -> None:
    series = Series("shop", 0.0, 5.0, np.array([1.0, 3.0] * 20), 1)  # mean 2
    told = each(Batch.now([series], 2), lambda past: np.tile([-1.0, 1.0, 0.5, 2.0, 1.5], (past.steps, 1)), 60, 24)
    np.testing.assert_array_equal(told[0], [[0.0, 2.0, 2.0, 4.0, 4.0]] * 2)


def test_a_mistake_in_a_model_is_not_silence() -> None:
    def fit(past: Past) -> FloatArray:
        raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        each(Batch.now([Series("shop", 0.0, 5.0, noisy(60, 24), 24)], 3), fit, 60, 24)


def test_a_past_knows_its_times() -> None:
    seen: list[Past] = []

    def fit(past: Past) -> FloatArray:
        seen.append(past)
        return np.ones((past.steps, len(QUANTILES)))

    values = np.concatenate([[NAN] * 3, noisy(40, 10), [NAN] * 2])
    each(
        Batch.now(
            [Series("shop", 1000.0, 5.0, values, 10)],
            4,
        ),
        fit,
        100,
        24,
    )
    (past,) = seen
    assert (past.start, past.steps, past.season, len(past.values)) == (1015.0, 6, 10, 40)
    assert past.times()[[0, 40, -1]].tolist() == [1015.0, 1215.0, 1240.0]


def test_a_profile_is_the_shape_without_level_and_trend() -> None:
    shape = np.array([5.0, -1.0, -1.0, -3.0])
    values = np.tile(shape, 5) + 100.0 + 2.0 * np.arange(20)
    np.testing.assert_allclose(profile(values, 4), shape, atol=1e-9)
    np.testing.assert_allclose(profile(values[1:], 4), shape, atol=1e-9)  # counted back from the end


def test_a_profile_lives_with_gaps() -> None:
    shape = np.array([6.0, 0.0, -2.0, -4.0])
    values = np.tile(shape, 6) + np.repeat([10.0, 14.0, 10.0, 14.0, 10.0, 14.0], 4)
    values[[1, 6, 15]] = NAN
    np.testing.assert_allclose(profile(values, 4), shape, atol=1.0)
    values[3::4] = NAN  # never seen: between its neighbours
    assert profile(values, 4)[3] == pytest.approx(np.mean(profile(values, 4)[[2, 0]]), abs=1.0)


def test_a_profile_of_many_steps_is_smooth() -> None:
    values = noisy(480 * 2, 480, noise=10.0)
    truth = curve(0, 480, 480) - 60
    assert np.abs(profile(values, 480) - truth).mean() < 4.0  # the mean of two seasons: about 5.6
    assert statistical.FINEST < 480


def test_bridges_are_straight() -> None:
    assert bridged(np.array([1.0, NAN, NAN, 4.0, NAN, 6.0])).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_theta_has_the_variance_of_simple_smoothing() -> None:
    np.testing.assert_allclose(theta._sigma(4.0, 0.5, 3) ** 2, [4.0, 5.0, 6.0])


def test_covariates_move_the_forecast() -> None:
    start, step, count = 1e6, 5.0, 120
    sale = (np.arange(count + H) // 15) % 2 == 1  # on for 15 steps, off for 15; step 120 is the first of an off

    def covariates(times: FloatArray) -> FloatArray:
        index = np.rint((times - start) / step).astype(int)
        return np.asarray(sale[index][:, None], dtype=np.float64)

    values = 50 + 30.0 * sale[:count] + np.random.default_rng(0).normal(0, 2, count)
    assert np.abs(one(Sarimax(covariates), values)[:, MEDIAN] - 50).max() < 5
    assert one(Sarimax(), values)[0, MEDIAN] > 70


def test_covariates_that_do_not_vary_have_no_effect() -> None:
    values = np.random.default_rng(0).normal(50, 5, 60)
    np.testing.assert_array_equal(one(Sarimax(lambda t: np.ones((len(t), 2))), values), one(Sarimax(), values))


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        (lambda times: times, r"gave shape \(66,\) for 66 times; return one row per time: \(66, K\)"),
        (lambda times: np.ones((5, 1)), r"gave shape \(5, 1\) for 66 times"),
        (lambda times: np.full((len(times), 2), NAN), "gave nan in row 0, column 0; every figure must be known"),
    ],
    ids=["no-columns", "too-few", "unknown"],
)
def test_wrong_covariates_are_an_error(figures: sarimax.Covariates, message: str) -> None:
    with pytest.raises(CovariateError, match=message):
        one(Sarimax(figures), np.random.default_rng(0).normal(50, 5, 60))
