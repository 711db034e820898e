"""Statistics of errors, origins, and a backtest that notices a planted leak."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from forecasting.base import MEDIAN, QUANTILES, Forecaster
from forecasting.batch import Batch
from forecasting.calendar import Covariates
from forecasting.errors import LeakError
from forecasting.evaluate import stats
from forecasting.evaluate.backtest import backtest, check_causal, disturbed, last_values, origins
from forecasting.evaluate.contest import (
    BASELINE,
    CONTESTANTS,
    LEAST_RESIDUALS,
    RESIDUALS,
    USUAL,
    LastResiduals,
    Run,
    UnknownModelError,
    contestants,
)
from forecasting.evaluate.stats import coverage, mase, pinball, ratio, relative_wape, wape
from forecasting.evaluate.walk import LEARNED, run_learned, run_mixture
from forecasting.models.naive import LastValue
from forecasting.models.statistical import Ewma
from forecasting.series import FloatArray, Series
from tests.unit.forecasting.conftest import Make, Wave

pytestmark = pytest.mark.slow

NAN = float("nan")
INF = float("inf")
ACTUAL = np.array([10.0, 20.0, NAN, 10.0])


# -- statistics --


def test_wape_weighs_by_size_and_skips_gaps() -> None:
    assert wape(ACTUAL, np.array([12.0, 20.0, 99.0, 8.0])) == pytest.approx(4 / 40)
    assert np.isnan(wape(np.zeros(3), np.ones(3)))


def test_relative_wape_compares_the_pairs_that_both_know() -> None:
    mine, theirs = np.array([11.0, NAN, 1.0, 10.0]), np.array([12.0, 0.0, 1.0, 10.0])
    assert relative_wape(ACTUAL, mine, theirs) == pytest.approx(0.5)


def test_a_silent_model_is_not_as_good_as_the_reference() -> None:
    assert np.isnan(relative_wape(ACTUAL, np.full(4, NAN), ACTUAL))
    assert np.isnan(stats.relative_pinball(ACTUAL, np.full(4, NAN), ACTUAL, 0.9))


@pytest.mark.parametrize(("loss", "reference", "expected"), [(1, 2, 0.5), (0, 0, 1.0), (1, 0, INF)])
def test_ratio(loss: float, reference: float, expected: float) -> None:
    assert ratio(loss, reference) == expected


def test_pinball_is_lopsided() -> None:
    assert pinball(np.array(10.0), np.array(8.0), 0.9) == pytest.approx(1.8)
    assert pinball(np.array(8.0), np.array(10.0), 0.9) == pytest.approx(0.2)
    assert pinball(np.array(8.0), np.array(10.0), 0.5) == pytest.approx(1.0)


def test_relative_pinball_is_a_share_of_the_references() -> None:
    actual, mine, theirs = np.array([10.0, 10.0]), np.array([9.0, 11.0]), np.array([8.0, 12.0])
    assert stats.relative_pinball(actual, mine, theirs, 0.9) == pytest.approx(0.5)


def test_mase_is_one_for_the_naive_forecast_of_its_own_past() -> None:
    past = np.array([3.0, 5.0, 4.0, 8.0])
    assert mase(past[1:], past[:-1], past) == pytest.approx(1.0)
    assert mase(np.array([10.0]), np.array([12.0]), np.array([0.0, 4.0])) == pytest.approx(0.5)


@pytest.mark.parametrize("past", [[], [5.0], [5.0, 5.0, 5.0], [1.0, NAN, 2.0]])
def test_mase_of_a_past_that_never_moved_is_unknown(past: list[float]) -> None:
    assert np.isnan(mase(np.array([1.0]), np.array([2.0]), np.array(past)))
    assert np.isnan(stats.scaled_pinball(np.array([1.0]), np.array([2.0]), 0.9, np.array(past)))


def test_scaled_pinball_does_not_depend_on_the_unit() -> None:
    actual, told, past = np.array([4.0, NAN, 9.0]), np.array([5.0, 6.0, 7.0]), np.array([1.0, 3.0, 2.0])
    scaled = stats.scaled_pinball(actual, told, 0.9, past)
    assert scaled == pytest.approx((0.1 * 1 + 0.9 * 2) / 2 / 1.5)
    assert stats.scaled_pinball(1000 * actual, 1000 * told, 0.9, 1000 * past) == pytest.approx(scaled)


def test_coverage_skips_gaps() -> None:
    assert coverage(ACTUAL, np.array([10.0, 19.0, 99.0, 11.0])) == pytest.approx(2 / 3)
    assert np.isnan(coverage(np.array([NAN]), np.array([1.0])))


def test_the_worst_window_is_found_wherever_it_is() -> None:
    actual = np.array([0, 0, 9, 9, 0, 9, 0, 0, 0, 0], dtype=np.float64)  # 9 is above the quantile
    upper = np.ones(10)
    assert coverage(actual, upper) == pytest.approx(0.7)
    assert stats.worst_window_coverage(actual, upper, window=4) == pytest.approx(1 / 4)
    assert stats.worst_window_coverage(actual, upper, window=10) == pytest.approx(0.7)


def test_a_window_is_made_of_known_pairs() -> None:
    actual, upper = np.array([0.0, NAN, 9.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0, NAN, 1.0])
    np.testing.assert_allclose(stats.rolling_coverage(actual, upper, window=2), [0.5, 0.5])
    assert np.isnan(stats.worst_window_coverage(actual, upper, window=4))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([2.0, 0.5], 1.0), ([4.0, NAN, 1.0], 2.0), ([0.0, 3.0], 0.0), ([1.0, INF], INF), ([0.0, INF], NAN), ([NAN], NAN)],
)
def test_geometric_mean(values: list[float], expected: float) -> None:
    assert stats.geometric_mean(values) == pytest.approx(expected, nan_ok=True)


# -- origins --


def test_origins_fill_the_newest_fifth() -> None:
    found = origins(1000, 12)
    assert (found[0], found[-1], len(found)) == (800, 988, 188)
    assert (np.diff(found) > 0).all()


def test_origins_are_thinned_evenly() -> None:
    found = origins(50_000, 12, most=400)
    assert (found[0], found[-1], len(found)) == (40_000, 49_988, 400)
    assert set(np.diff(found)) <= {25, 26}


@pytest.mark.parametrize(("length", "expected"), [(0, 0), (10, 0), (60, 0), (61, 1), (65, 1), (70, 2)])
def test_a_short_series_has_few_origins(length: int, expected: int) -> None:
    found = origins(length, 12)
    assert len(found) == expected
    assert (found + 12 <= length).all()


def test_last_values_are_those_before_the_origin(make: Make) -> None:
    series = make([NAN, 3.0, NAN, 5.0])
    np.testing.assert_array_equal(last_values(series, np.arange(5)), [0.0, 0.0, 3.0, 3.0, 5.0])


# -- backtests --


def test_last_value_is_as_good_as_last_value(make: Make, wave: Wave) -> None:
    series = make(wave(300))
    result = backtest(LastValue(), series, np.arange(200, 295, 7), 5)
    assert result.actual.shape == (14, 5) == result.values.shape[:2]
    np.testing.assert_array_equal(result.actual[1], series.values[207:212])
    assert result.relative_wape(3) == 1.0
    assert 0.5 < result.coverage(1, 0.95) <= 1.0


def test_a_target_beyond_the_end_is_unknown(make: Make, wave: Wave) -> None:
    result = backtest(LastValue(), make(wave(300)), np.array([298]), 5)
    assert np.isfinite(result.actual[0]).tolist() == [True, True, False, False, False]


def test_a_backtest_of_a_silent_model_knows_nothing(make: Make) -> None:
    result = backtest(Ewma(), make([NAN] * 40), np.arange(5, 38), 2)
    assert np.isnan(result.values).all()
    assert np.isnan(result.relative_wape(1))
    assert np.isnan(result.coverage(1, 0.9))


@dataclass
class Constant:
    """Forecasts the level that it was fitted with."""

    level: float
    name: str = "constant"

    def predict(self, batch: Batch) -> FloatArray:
        return np.full((len(batch), batch.horizon, len(QUANTILES)), self.level)


class Peeker:
    """Reaches through its batch for the values behind the origin."""

    name = "peeker"

    def predict(self, batch: Batch) -> FloatArray:
        return np.repeat(batch.actual()[:, :, None], len(QUANTILES), axis=2)


def honest(series: Sequence[Series], cut: int) -> Forecaster:
    return Constant(float(np.mean([one.values[:cut].mean() for one in series])))


def leaking(series: Sequence[Series], cut: int) -> Forecaster:
    return Constant(float(np.mean([one.values.mean() for one in series])))


def peeking(series: Sequence[Series], cut: int) -> Forecaster:
    return Peeker()


def silent_if_it_rises(series: Sequence[Series], cut: int) -> Forecaster:
    return Constant(NAN if series[0].values.mean() > series[0].values[:cut].mean() + 30 else 1.0)


@pytest.mark.parametrize("fit", [leaking, peeking, silent_if_it_rises])
def test_a_planted_leak_is_noticed(fit: Callable[[Sequence[Series], int], Forecaster], make: Make, wave: Wave) -> None:
    series = [make(wave(300)), make(wave(300, seed=2), name="other")]
    with pytest.raises(LeakError, match="shop: the forecast at value 200 depends on later values; fit on the past"):
        check_causal(fit, series, 5, cut=200)


#: All of them; prophet is an extra.
EVERYBODY = [pytest.param(name, marks=pytest.mark.extras(name)) if name == "prophet" else name for name in CONTESTANTS]


def quick(name: str) -> Run:
    """The contestant, trained for a moment where it is trained."""
    if name in LEARNED:
        return partial(run_learned, name, steps=10)
    return partial(run_mixture, steps=10) if name == "mixture" else CONTESTANTS[name]


@pytest.mark.parametrize("name", EVERYBODY)
def test_no_contestant_sees_the_future(name: str, make: Make, wave: Wave) -> None:
    series = make(wave(900))
    counts = np.array([50, 300, 600])
    told = quick(name)(series, counts, 12).values
    again = quick(name)(disturbed(series, 600), counts, 12).values
    np.testing.assert_array_equal(told, again)


@pytest.mark.parametrize("name", ["mixture", "covariates"])
def test_nobody_sees_the_future_of_what_is_known_beside_a_series(name: str, make: Make, wave: Wave) -> None:
    orders = wave(900, seed=3)
    series, counts = make(wave(900)), np.array([500, 600, 700])
    told = []
    for later in (orders[700:], 7.0 - orders[700:]):
        beside = Covariates(("orders",), np.concatenate([orders[:700], later])[:, None])
        told.append(quick(name)(replace(series, covariates=beside), counts, 12))
    np.testing.assert_array_equal(told[0].values, told[1].values)
    assert np.isfinite(told[0].values[..., MEDIAN]).all()
    assert name == "covariates" or "covariates" in told[0].members


def test_an_honest_fit_passes(make: Make, wave: Wave) -> None:
    series = [make(wave(300))]
    check_causal(honest, series, 5, cut=200)
    check_causal(lambda *_: LastResiduals(), series, 5, cut=200)


def test_the_disturbed_series_has_the_same_past_and_another_future(make: Make, wave: Wave) -> None:
    series = make(wave(30))
    other = disturbed(series, 20)
    np.testing.assert_array_equal(other.values[:20], series.values[:20])
    assert (other.values[20:] != series.values[20:]).all()


# -- who takes part --


def test_contestants_come_in_the_order_asked_for_and_once() -> None:
    assert [one.name for one in contestants(["ewma", "last", "ewma"])] == ["ewma", "last"]
    assert [one.name for one in contestants()] == list(USUAL)
    assert {"last", "ewma", BASELINE} <= set(CONTESTANTS)


def test_an_unknown_model_is_named_with_those_that_there_are() -> None:
    with pytest.raises(UnknownModelError, match=r"'lstn'; choose from last, last\+residuals"):
        contestants(["last", "lstn"])


@pytest.mark.parametrize("name", EVERYBODY)
def test_every_contestant_answers_any_series(name: str, odd: Series) -> None:
    counts = np.array([0, len(odd.values) // 2, len(odd.values)])
    outcome = quick(name)(odd, counts, 3)
    assert outcome.values.shape == (3, 3, len(QUANTILES))
    assert outcome.seconds >= 0
    known = outcome.values[np.isfinite(outcome.values).all(axis=2)]
    assert (np.diff(known, axis=-1) >= 0).all()
    assert not (outcome.values < 0).any()


def test_the_baseline_is_last_value_with_quantiles_of_its_newest_residuals(make: Make) -> None:
    values = 200 + np.random.default_rng(3).normal(0, 10, 900)
    told = LastResiduals().predict(Batch.at(make(values), np.array([800]), 5))[0]
    known = [values[s + 4] - values[s - 1] for s in range(800 - 5 - RESIDUALS + 1, 800 - 5 + 1)]
    expected = values[799] + np.quantile(known, [0.05, 0.9, 0.95, 0.99], method="inverted_cdf")
    np.testing.assert_allclose(np.delete(told[4], MEDIAN), expected)
    assert told[4, MEDIAN] == values[799]


def test_the_baseline_covers_what_it_promises(make: Make) -> None:
    values = np.cumsum(np.random.default_rng(0).normal(0, 1, 4000)) + 500
    result = backtest(LastResiduals(), make(values), np.arange(1000, 3990), 12)
    for step in (1, 12):
        assert result.coverage(step, 0.9) == pytest.approx(0.9, abs=0.03)
        assert result.coverage(step, 0.99) == pytest.approx(0.99, abs=0.015)


def test_the_baseline_has_no_spread_before_it_has_seen_enough(make: Make, wave: Wave) -> None:
    told = LastResiduals().predict(Batch.at(make(wave(100)), np.array([LEAST_RESIDUALS, LEAST_RESIDUALS + 1]), 1))
    assert np.isfinite(told[:, 0, MEDIAN]).all()
    assert np.isnan(told[0, 0, -1])
    assert np.isfinite(told[1, 0, -1])
