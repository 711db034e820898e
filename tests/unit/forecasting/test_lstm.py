"""The network as a forecaster: lawful, honest about its limits, and not last value in disguise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from forecasting import artifacts
from forecasting.base import QUANTILES, Forecast
from forecasting.ensemble import Selector
from forecasting.errors import ArtifactError, HorizonError
from forecasting.evaluate.backtest import backtest
from forecasting.features import AHEAD, CANDIDATES, CHANNELS, SUMMARY
from forecasting.models.lstm import Lstm, Network, limited
from forecasting.models.statistical import Ewma
from forecasting.series import Series
from tests.unit.forecasting.conftest import SEASON, Make, Wave


def lawful(forecast: Forecast) -> bool:
    values = forecast.values
    return bool(np.isfinite(values).all() and (values >= 0).all() and (np.diff(values, axis=1) >= 0).all())


def test_it_is_not_last_value_in_disguise(lstm: Lstm, make: Make, wave: Wave) -> None:
    """A forecast that only repeats the input resembles the value at its origin more than its target: it lags by h."""
    result = backtest(lstm, [make(wave(10 * SEASON, seed=7))], 12, cut=8 * SEASON)
    for step in (5, 12):
        told = result.values[:, step - 1, 1]
        at_target = np.corrcoef(told, result.actual[:, step - 1])[0, 1]
        at_origin = np.corrcoef(told, result.last)[0, 1]
        assert at_target > 0.9
        assert at_target > at_origin + 0.02


def test_it_beats_last_value_on_days_that_it_has_not_seen(lstm: Lstm, make: Make, wave: Wave) -> None:
    result = backtest(lstm, [make(wave(10 * SEASON, seed=7))], 12, cut=8 * SEASON)
    assert [result.relative_wape(h) < limit for h, limit in ((1, 0.95), (5, 0.7), (12, 0.5))] == [True] * 3


def test_odd_series_are_answered_lawfully_or_not_at_all(lstm: Lstm, odd: Series) -> None:
    (forecast,) = lstm.forecast([odd], 12)
    enough = np.isfinite(odd.values[-lstm.window :]).sum() >= lstm.minimum
    assert (forecast is not None) == enough
    assert forecast is None or lawful(forecast)


def test_a_constant_stays_and_nothing_stays_nothing(lstm: Lstm, make: Make) -> None:
    constant, zero = lstm.forecast([make([7.0] * 150), make([0.0] * 150)], 12)
    assert constant is not None
    assert zero is not None
    np.testing.assert_allclose(constant.values[:, 1], 7.0, rtol=0.05)
    assert zero.values.max() < 1e-3


def test_the_scale_of_a_series_is_carried_through(lstm: Lstm, make: Make, wave: Wave) -> None:
    values = wave(300)
    one, other = lstm.forecast([make(values), make(values * 1e6)], 12)
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(other.values, one.values * 1e6, rtol=1e-3)


def test_many_series_are_answered_as_each_alone(lstm: Lstm, make: Make, wave: Wave) -> None:
    many = [make(wave(300, seed=1)), make([1.0]), make(wave(40, seed=2)), make([])]
    together = lstm.forecast(many, 12)
    assert [answer is None for answer in together] == [False, True, False, True]
    (alone,) = lstm.forecast(many[2:3], 12)
    assert alone is not None
    assert together[2] is not None
    np.testing.assert_allclose(together[2].values, alone.values, rtol=1e-4)


def test_the_same_object_may_be_asked_about_twice(lstm: Lstm, make: Make, wave: Wave) -> None:
    series = make(wave(100))
    one, two = lstm.forecast([series, series], 3)
    assert one is not None
    assert two is not None
    np.testing.assert_allclose(one.values, two.values, rtol=1e-5)


def test_shorter_horizons_are_the_first_steps(lstm: Lstm, make: Make, wave: Wave) -> None:
    series = make(wave(200))
    (short,), (long,) = lstm.forecast([series], 3), lstm.forecast([series], 12)
    assert short is not None
    assert long is not None
    np.testing.assert_array_equal(short.values, long.values[:3])


def test_a_longer_horizon_than_trained_is_refused(lstm: Lstm, make: Make) -> None:
    with pytest.raises(HorizonError, match="sees 12 steps ahead, 13 were asked for"):
        lstm.forecast([make([1.0] * 50)], 13)


def test_quantiles_never_cross_for_any_weights() -> None:
    torch.manual_seed(0)
    network = Network(4, 8)
    for part in network.parameters():
        torch.nn.init.normal_(part, std=2.0)
    told = (torch.randn(9, 10, CHANNELS), torch.randn(9, SUMMARY), torch.randn(9, 4, AHEAD))
    z = network(*told, torch.rand(9, 4, CANDIDATES), torch.rand(9))
    assert z.shape == (9, 4, len(QUANTILES))
    assert (torch.diff(z, dim=2) >= 0).all()


def test_forecasting_leaves_the_threads_of_the_process_alone(lstm: Lstm, make: Make, wave: Wave) -> None:
    with limited(2):
        lstm.forecast([make(wave(100))], 12)
        assert torch.get_num_threads() == 2


def test_the_limit_on_threads_ends_with_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), limited(before + 1):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before


def test_it_acts_through_the_selector(lstm: Lstm, make: Make, wave: Wave) -> None:
    (selected,) = Selector([Ewma(), lstm], 12).update([make(wave(9 * SEASON, seed=3))])
    assert selected.model == "lstm"
    assert selected.reason.startswith("lstm beats last value (skill +0.")


def test_a_saved_model_says_the_same(lstm: Lstm, make: Make, wave: Wave, tmp_path: Path) -> None:
    lstm.save(tmp_path / "model")
    again = Lstm.load(tmp_path / "model")
    (one,), (two,) = (model.forecast([make(wave(200))], 12) for model in (lstm, again))
    assert one is not None
    assert two is not None
    np.testing.assert_array_equal(one.values, two.values)
    assert again.card["scores"] == lstm.card["scores"]


@pytest.mark.parametrize(
    "shape",
    [
        None,
        {},
        {"window": "x"},
        {"window": 48, "horizon": 3, "hidden": 16, "quantiles": list(QUANTILES)},
        {"window": 48, "horizon": 12, "hidden": 10**9, "quantiles": list(QUANTILES)},
        {"window": 48, "horizon": 12, "hidden": 16, "quantiles": [0.5]},
    ],
)
def test_a_model_of_another_shape_is_refused(lstm: Lstm, tmp_path: Path, shape: object) -> None:
    arrays = {name: part.detach().numpy() for name, part in lstm.network.state_dict().items()}
    artifacts.save(tmp_path / "model", arrays, {"shape": shape})
    with pytest.raises(ArtifactError, match="is not a model of this version"):
        Lstm.load(tmp_path / "model")


def test_only_the_doors_import_torch() -> None:
    code = (
        "import sys, forecasting, forecasting.ensemble, forecasting.models.statistical, forecasting.evaluate.backtest, "
        "forecasting.artifacts, forecasting.features; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
