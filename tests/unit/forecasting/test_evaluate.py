"""Statistics of errors, and a backtest that notices a planted leak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from forecasting.base import QUANTILES, Forecast, Forecaster, forecast_of
from forecasting.errors import LeakError
from forecasting.evaluate.backtest import backtest, check_causal, disturbed
from forecasting.evaluate.stats import coverage, pinball, ratio, relative_wape, wape
from forecasting.models.lstm import Lstm
from forecasting.models.naive import LastValue
from forecasting.models.statistical import Ewma
from forecasting.series import Series
from forecasting.training import TrainSettings, train
from tests.unit.forecasting.conftest import Make, Wave

NAN = float("nan")
ACTUAL = np.array([10.0, 20.0, NAN, 10.0])


def test_wape_weighs_by_size_and_skips_gaps() -> None:
    assert wape(ACTUAL, np.array([12.0, 20.0, 99.0, 8.0])) == pytest.approx(4 / 40)
    assert np.isnan(wape(np.zeros(3), np.ones(3)))


def test_relative_wape_compares_the_pairs_that_both_know() -> None:
    mine, theirs = np.array([11.0, NAN, 1.0, 10.0]), np.array([12.0, 0.0, 1.0, 10.0])
    assert relative_wape(ACTUAL, mine, theirs) == pytest.approx(0.5)


@pytest.mark.parametrize(("loss", "reference", "expected"), [(1, 2, 0.5), (0, 0, 1.0), (1, 0, float("inf"))])
def test_ratio(loss: float, reference: float, expected: float) -> None:
    assert ratio(loss, reference) == expected


def test_pinball_is_lopsided() -> None:
    assert pinball(np.array(10.0), np.array(8.0), 0.9) == pytest.approx(1.8)
    assert pinball(np.array(8.0), np.array(10.0), 0.9) == pytest.approx(0.2)
    assert pinball(np.array(8.0), np.array(10.0), 0.5) == pytest.approx(1.0)


def test_coverage_skips_gaps() -> None:
    assert coverage(ACTUAL, np.array([10.0, 19.0, 99.0, 11.0])) == pytest.approx(2 / 3)
    assert np.isnan(coverage(np.array([NAN]), np.array([1.0])))


def test_last_value_is_as_good_as_last_value(make: Make, wave: Wave) -> None:
    result = backtest(LastValue(), [make(wave(300)), make(wave(250))], 5, cut=200, stride=7)
    assert result.actual.shape == (14 + 7, 5) == result.values.shape[:2]
    assert result.relative_wape(3) == 1.0
    assert 0.8 < result.coverage(1, 0.95) <= 1.0


def test_a_backtest_of_a_silent_model_knows_nothing(make: Make, wave: Wave) -> None:
    result = backtest(Ewma(), [make(wave(40))], 2, cut=5, stride=1)
    assert np.isnan(result.values[:7]).all()
    assert np.isfinite(result.values[7:]).all()


@dataclass
class Peeker:
    """Reaches through the array that it was given for the one behind it."""

    name: str = "peeker"
    minimum: int = 0

    def forecast(self, series: Sequence[Series], horizon: int) -> list[Forecast | None]:
        return [self._one(one, horizon) for one in series]

    def _one(self, one: Series, horizon: int) -> Forecast:
        whole = one.values if one.values.base is None else one.values.base
        ahead = whole[len(one.values) : len(one.values) + horizon]
        told = np.resize(ahead if len(ahead) else one.values[-1:], horizon)
        return forecast_of(one, self.name, np.repeat(told[:, None], len(QUANTILES), axis=1))


def test_a_model_cannot_reach_behind_the_past_that_it_is_given(make: Make, wave: Wave) -> None:
    result = backtest(Peeker(), [make(wave(300))], 5, cut=200)
    assert result.relative_wape(5) == 1.0


@dataclass
class Mean:
    """Forecasts the mean that it was fitted with."""

    mean: float
    name: str = "mean"
    minimum: int = 0

    def forecast(self, series: Sequence[Series], horizon: int) -> list[Forecast | None]:
        return [forecast_of(one, self.name, np.full((horizon, len(QUANTILES)), self.mean)) for one in series]


def honest(series: Sequence[Series], cut: int) -> Forecaster:
    return Mean(float(np.mean([one.values[:cut].mean() for one in series])))


def leaking(series: Sequence[Series], cut: int) -> Forecaster:
    return Mean(float(np.mean([one.values.mean() for one in series])))


def test_a_planted_leak_in_the_fit_is_noticed(make: Make, wave: Wave) -> None:
    series = [make(wave(300))]
    check_causal(honest, series, 5, cut=200)
    with pytest.raises(LeakError, match="shop: the forecast at value 200 depends on later values"):
        check_causal(leaking, series, 5, cut=200)


def test_our_own_training_does_not_leak(make: Make, wave: Wave) -> None:
    settings = TrainSettings(steps=4, seconds=60, threads=1, batch=16, hidden=8, holdout=0.0)

    def fit(series: Sequence[Series], cut: int) -> Lstm:
        return train([one.until(cut) for one in series], settings, lambda done, total, text: None)

    check_causal(fit, [make(wave(400)), make(wave(350, seed=2), name="b")], 12, cut=300)


def test_the_disturbed_series_has_the_same_past_and_another_future(make: Make, wave: Wave) -> None:
    series = make(wave(30))
    other = disturbed(series, 20)
    np.testing.assert_array_equal(other.values[:20], series.values[:20])
    assert (other.values[20:] != series.values[20:]).all()
