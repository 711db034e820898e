"""What a Forecast promises."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.base import QUANTILES, Forecast, forecast_of, lawful
from forecasting.errors import ForecastingError, QuantileError
from forecasting.series import Series


@pytest.fixture
def forecast() -> Forecast:
    rows = np.arange(10.0).reshape(2, 5)[::-1]  # the first step is the higher one
    return forecast_of(Series("s", 0.0, 5.0, np.ones(3), 10), "last", rows)


def test_it_starts_where_the_series_ends(forecast: Forecast) -> None:
    assert (forecast.series, forecast.model, forecast.origin, forecast.step) == ("s", "last", 15.0, 5.0)


def test_steps_count_from_one(forecast: Forecast) -> None:
    assert forecast.at(1, 0.05) == 5.0
    assert forecast.at(2, 0.99) == 4.0


def test_the_peak_is_the_largest_of_the_steps(forecast: Forecast) -> None:
    assert forecast.peak(2, 0.99) == 9.0


def test_an_unknown_quantile_names_the_known_ones(forecast: Forecast) -> None:
    with pytest.raises(QuantileError, match=r"0\.8 was not forecast; choose one of 0\.05, 0\.5") as caught:
        forecast.at(1, 0.8)
    assert isinstance(caught.value, ForecastingError)


def test_lawful_values_are_ordered_and_not_negative() -> None:
    assert lawful(np.array([-3.0, 2.0, 1.0, 5.0, 4.0])).tolist() == [0, 2, 2, 5, 5]


def test_the_quantiles_that_costs_of_nine_and_ninety_nine_to_one_ask_for_are_there() -> None:
    assert {0.05, 0.5, 0.9, 0.95, 0.99} <= set(QUANTILES)
