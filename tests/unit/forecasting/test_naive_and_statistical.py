"""Last value and the EWMA: what they say, and when they keep silent."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.base import Forecast
from forecasting.models.naive import LastValue, spread
from forecasting.models.statistical import Ewma, smooth
from forecasting.series import Series
from tests.unit.forecasting.conftest import Make, Wave

NAN = float("nan")


def only(answers: list[Forecast | None]) -> Forecast:
    (one,) = answers
    assert one is not None
    return one


def test_last_value_repeats_the_newest_known_value(make: Make) -> None:
    forecast = only(LastValue().forecast([make([1.0, 8.0, NAN])], 3))
    assert [forecast.at(h, 0.5) for h in (1, 2, 3)] == [8.0] * 3


def test_last_value_spreads_with_the_steps(make: Make, wave: Wave) -> None:
    forecast = only(LastValue().forecast([make(wave(200))], 12))
    widths = forecast.values[:, 3] - forecast.values[:, 1]
    assert (np.diff(widths) >= 0).all()
    assert widths[-1] > widths[0] > 0


def test_the_spread_is_the_root_mean_square_of_differences() -> None:
    np.testing.assert_allclose(spread(np.array([[0.0, 3.0, NAN, 7.0]]), 2), [[3.0, 4.0]])


def test_last_value_always_answers(odd: Series) -> None:
    _check(only(LastValue().forecast([odd], 12)))


def test_ewma_keeps_silent_or_answers_well(odd: Series) -> None:
    (forecast,) = Ewma().forecast([odd], 12)
    known = np.isfinite(odd.values).sum() >= Ewma.minimum
    assert (forecast is not None) == known
    if forecast is not None:
        _check(forecast)


def test_ewma_of_a_constant_is_the_constant(make: Make) -> None:
    forecast = only(Ewma().forecast([make([7.0] * 30)], 5))
    np.testing.assert_allclose(forecast.values, 7.0)


def test_ewma_follows_its_formula(make: Make) -> None:
    values = [float(v) for v in range(1, 15)]
    level = values[0]
    for value in values[1:]:
        level += 0.3 * (value - level)
    assert only(Ewma(0.3).forecast([make(values)], 1)).at(1, 0.5) == pytest.approx(level)


def test_a_gap_leaves_the_level_alone(make: Make) -> None:
    values = [5.0, 9.0] * 10
    gapped = [*values[:10], NAN, NAN, *values[10:]]
    whole, holed = (only(Ewma(0.4).forecast([make(v)], 1)).at(1, 0.5) for v in (values, gapped))
    assert whole == pytest.approx(holed)


def test_tuning_smooths_noise_and_follows_a_ramp(make: Make) -> None:
    noise = np.random.default_rng(1).normal(100, 10, 240)
    calm, quick = (
        only(one) for one in (Ewma().forecast([make(noise)], 1), Ewma().forecast([make(np.arange(240.0))], 1))
    )
    assert abs(calm.at(1, 0.5) - 100) < 5
    assert quick.at(1, 0.5) == 239.0


def test_many_series_are_answered_as_each_alone(make: Make, wave: Wave) -> None:
    many = [make(wave(90, seed=1)), make([1.0]), make(wave(300, seed=2)), make([])]
    together = Ewma().forecast(many, 4)
    for one, answer in zip(many, together, strict=True):
        (alone,) = Ewma().forecast([one], 4)
        assert (alone is None) == (answer is None)
        if alone is not None and answer is not None:
            np.testing.assert_allclose(alone.values, answer.values)


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.5, NAN])
def test_a_factor_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be above 0"):
        Ewma(alpha)


def test_smoothing_starts_at_the_first_known_value() -> None:
    levels, errors = smooth(np.array([[NAN, NAN, 4.0, 6.0]]), np.array([0.5]))
    assert levels.tolist() == [[5.0]]
    np.testing.assert_array_equal(errors[0, :, 0], [NAN, 2.0])


def _check(forecast: Forecast) -> None:
    assert np.isfinite(forecast.values).all()
    assert (forecast.values >= 0).all()
    assert (np.diff(forecast.values, axis=1) >= 0).all()
