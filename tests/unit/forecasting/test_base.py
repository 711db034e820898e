"""What a Forecast promises, and how answers become forecasts."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.base import MEDIAN, QUANTILES, Forecast, column, forecast_of, forecasts, lawful, medians
from forecasting.batch import Batch
from forecasting.errors import ForecastingError, QuantileError
from forecasting.series import FloatArray, Series

NAN = float("nan")


@pytest.fixture
def forecast() -> Forecast:
    rows = np.arange(10.0).reshape(2, 5)[::-1]  # the first step is the higher one
    return forecast_of(Series("s", 0.0, 5.0, np.ones(3), 10), "last", rows)


class Echo:
    """Says the length of the window; keeps silent about empty ones."""

    name = "echo"

    def predict(self, batch: Batch) -> FloatArray:
        count = np.where(batch.count > 0, batch.count, np.nan)
        return medians(np.repeat(count[:, None], batch.horizon, axis=1))


def test_it_starts_where_the_series_ends(forecast: Forecast) -> None:
    assert (forecast.series, forecast.model, forecast.origin, forecast.step) == ("s", "last", 15.0, 5.0)


def test_steps_count_from_one(forecast: Forecast) -> None:
    assert forecast.at(1, 0.05) == 5.0
    assert forecast.at(2, 0.99) == 4.0


def test_the_peak_is_the_largest_of_the_steps(forecast: Forecast) -> None:
    assert forecast.peak(2, 0.99) == 9.0
    assert forecast.peak(1, 0.5) == 6.0


def test_an_unknown_quantile_names_the_known_ones(forecast: Forecast) -> None:
    with pytest.raises(QuantileError, match=r"0\.8 was not forecast; choose one of 0\.05, 0\.5") as caught:
        forecast.at(1, 0.8)
    assert isinstance(caught.value, ForecastingError)


def test_columns_follow_the_quantiles() -> None:
    assert [column(QUANTILES, q) for q in QUANTILES] == list(range(len(QUANTILES)))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-3.0, 2.0, 1.0, 5.0, 4.0], [0, 2, 2, 5, 5]),
        ([NAN, 3.0, NAN, 2.0, NAN], [NAN, 3, NAN, 3, NAN]),
        ([NAN] * 5, [NAN] * 5),
    ],
)
def test_lawful_values_are_ordered_and_not_negative(values: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(lawful(np.array(values)), expected)


def test_medians_leave_everything_around_them_unknown() -> None:
    told = medians(np.array([[1.0, -2.0], [NAN, 4.0]]))
    assert told.shape == (2, 2, len(QUANTILES))
    np.testing.assert_array_equal(told[..., MEDIAN], [[1, 0], [NAN, 4]])
    assert np.isnan(np.delete(told, MEDIAN, axis=2)).all()


def test_a_model_that_is_silent_about_a_series_gives_no_forecast() -> None:
    loud, silent = Series("a", 0.0, 5.0, np.ones(3), 10), Series("b", 0.0, 5.0, np.empty(0), 10)
    first, second = forecasts(Echo(), [loud, silent], 2)
    assert second is None
    assert first is not None
    assert (first.model, first.origin, first.at(2, 0.5)) == ("echo", 15.0, 3.0)


def test_the_quantiles_that_costs_of_nine_and_ninety_nine_to_one_ask_for_are_there() -> None:
    assert {0.05, 0.5, 0.9, 0.95, 0.99} <= set(QUANTILES)
