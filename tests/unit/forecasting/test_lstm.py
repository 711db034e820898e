"""The network as a forecaster: lawful, honest about its limits, and not last value in disguise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting.artifacts import Artifact
from forecasting.base import MEDIAN, QUANTILES, forecasts
from forecasting.batch import Batch
from forecasting.errors import ArtifactError, HorizonError, LeakError
from forecasting.evaluate.backtest import backtest, check_causal
from forecasting.features import CANDIDATES, features
from forecasting.models import lstm as module
from forecasting.models.lstm import CHANNELS, FIGURES, UNKNOWN, Lstm, Network, Told, limited, squashed, told
from forecasting.seasons import WINDOW
from forecasting.series import FloatArray, Series
from forecasting.training import TrainSettings, train
from tests.unit.forecasting.conftest import NAN, SEASON, H, Make, Wave, assert_blind, futures, quiet

pytestmark = pytest.mark.slow

QUICK = TrainSettings(steps=6, batch=16, hidden=8, horizon=H)


def say(model: Lstm, *series: Series, horizon: int = H) -> FloatArray:
    """``(N, H, Q)`` at the end of every series."""
    return model.predict(Batch.now(series, horizon))


def assert_lawful(values: FloatArray) -> None:
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (np.diff(values, axis=-1) >= 0).all()


# -- skill -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [5, 12])
def test_it_is_not_last_value_in_disguise(lstm: Lstm, make: Make, wave: Wave, step: int) -> None:
    """The shift test. A forecast that only repeats its input resembles the value at its origin more than its target:
    held against what came, it fits best when it is moved back by h.
    """
    later = make(wave(10 * SEASON, seed=7, noise=10.0))
    counts = np.arange(8 * SEASON, 10 * SEASON - H)
    median = backtest(lstm, later, counts, H).values[:, step - 1, MEDIAN]
    targets = counts + step - 1
    fits = [float(np.corrcoef(median, later.values[targets - lag])[0, 1]) for lag in range(step + 1)]
    assert int(np.argmax(fits)) <= 1
    assert fits[0] > 0.85
    assert fits[0] > fits[step] + 0.02


def test_last_value_itself_would_fail_the_shift_test(make: Make, wave: Wave) -> None:
    values = wave(10 * SEASON, seed=7, noise=10.0)
    said, came = values[:-12], values[12:]
    assert np.corrcoef(said, came)[0, 1] < 0.9  # at the origin it is 1


def test_it_beats_last_value_on_days_that_it_has_not_seen(lstm: Lstm, make: Make, wave: Wave) -> None:
    result = backtest(lstm, make(wave(10 * SEASON, seed=7)), np.arange(8 * SEASON, 10 * SEASON - H), H)
    assert [result.relative_wape(h) < limit for h, limit in ((1, 0.95), (5, 0.7), (12, 0.5))] == [True] * 3


# -- lawful answers --------------------------------------------------------------------------------------------------


def test_odd_series_are_answered_lawfully_or_not_at_all(lstm: Lstm, odd: Series) -> None:
    (values,) = say(lstm, odd)
    enough = np.isfinite(odd.values[-WINDOW:]).sum() >= lstm.minimum
    if enough:
        assert_lawful(values)
    else:
        assert np.isnan(values).all()


def test_fifteen_values_are_too_few_and_sixteen_enough(lstm: Lstm, make: Make, wave: Wave) -> None:
    gone = np.full(30, NAN)
    few, enough, old = say(
        lstm, make(wave(15)), make(np.concatenate([wave(16), gone])), make(np.concatenate([wave(300), [*gone] * 2]))
    )
    assert np.isnan(few).all()
    assert_lawful(enough)
    assert np.isnan(old).all()  # nothing is known lately


def test_a_constant_stays_and_nothing_stays_nothing(lstm: Lstm, make: Make) -> None:
    constant, zero = say(lstm, make([7.0] * 150), make([0.0] * 150))
    np.testing.assert_allclose(constant[:, MEDIAN], 7.0, rtol=0.05)
    assert zero.max() < 1e-3


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_scale_of_a_series_is_carried_through(lstm: Lstm, make: Make, wave: Wave, factor: float) -> None:
    one, other = say(lstm, make(wave(300)), make(wave(300) * factor))
    np.testing.assert_allclose(other, one * factor, rtol=1e-3)


@settings(max_examples=50, deadline=None)
@given(futures())
def test_it_cannot_see_the_future(lstm: Lstm, pair: tuple[Series, Series]) -> None:
    assert_blind(lstm, *pair)


def test_many_series_are_answered_as_each_alone(lstm: Lstm, make: Make, wave: Wave) -> None:
    many = [make(wave(300, seed=1)), make([1.0]), make(wave(40, seed=2), "cart"), make([])]
    together = forecasts(lstm, many, H)
    assert [answer is None for answer in together] == [False, True, False, True]
    for number in (0, 2):
        np.testing.assert_allclose(say(lstm, *many)[number], say(lstm, many[number])[0], rtol=1e-4)


def test_chunks_change_nothing(lstm: Lstm, make: Make, wave: Wave, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch.at(make(wave(300)), np.arange(100, 300), H)
    whole = lstm.predict(batch)
    monkeypatch.setattr(module, "CHUNK", 7)
    np.testing.assert_allclose(lstm.predict(batch), whole, rtol=1e-4)


def test_no_window_gives_an_empty_answer(lstm: Lstm) -> None:
    assert say(lstm, horizon=3).shape == (0, 3, len(QUANTILES))


def test_shorter_horizons_are_the_first_steps(lstm: Lstm, make: Make, wave: Wave) -> None:
    series = make(wave(200))
    np.testing.assert_allclose(say(lstm, series, horizon=3), say(lstm, series)[:, :3], rtol=1e-5)


def test_a_longer_horizon_than_trained_is_refused(lstm: Lstm, make: Make) -> None:
    with pytest.raises(HorizonError, match="sees 12 steps ahead, 13 were asked for; train it for 13"):
        say(lstm, make([1.0] * 50), horizon=13)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 30.0))
def test_quantiles_never_cross_for_any_weights(seed: int, size: float) -> None:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = Network(4, 8, 2)
        for part in network.parameters():
            torch.nn.init.normal_(part, std=size)
        asked = Told(
            torch.randn(9, 10, CHANNELS),
            torch.randn(9, 4, FIGURES),
            torch.randn(9, 4, CANDIDATES),
            torch.rand(9),
            torch.randint(3, (9,)),
        )
        z = network(asked)
    assert z.shape == (9, 4, len(QUANTILES))
    assert (torch.diff(z, dim=2) >= 0).all()


def test_the_first_forecast_is_the_mean_of_the_candidates(make: Make, wave: Wave) -> None:
    """Before any training: a mix of all of them, whatever else it is told."""
    seen = features(Batch.now([make(wave(800))], H))
    with torch.no_grad():
        z = Network(H, 8, 0)(told(seen, np.array([UNKNOWN]))).numpy()
    np.testing.assert_allclose(z[0, :, MEDIAN], seen.candidates[0].mean(axis=1), atol=1e-5)


# -- what it is told -------------------------------------------------------------------------------------------------


def test_inputs_are_finite_and_bounded(odd: Series) -> None:
    counts = np.arange(len(odd.values) + 1)
    inputs = told(features(Batch.at(odd, counts, H)), np.zeros(len(counts), dtype=np.int64))
    assert inputs.recent.shape == (len(counts), WINDOW, CHANNELS)
    assert inputs.figures.shape == (len(counts), H, FIGURES)
    for part, bound in ((inputs.recent, 8.0), (inputs.figures, 4.0), (inputs.candidates, 20.0), (inputs.noise, 5.0)):
        assert torch.isfinite(part).all()
        assert part.abs().max() <= bound


def test_unknown_figures_are_marked_and_known_zeros_are_not(make: Make, wave: Wave) -> None:
    seen = features(Batch.now([make(wave(60))], H))
    figures = told(seen, np.array([0])).figures.numpy()[0]
    table = np.concatenate([np.repeat(seen.shared, H, axis=0), seen.ahead[0, :, :-3]], axis=1)
    values, known = figures[:, : table.shape[1]], figures[:, table.shape[1] : 2 * table.shape[1]]
    np.testing.assert_array_equal(known, np.isfinite(table))
    assert not values[known == 0].any()
    assert 0 < known.mean() < 1
    assert known[0, 0] == 1  # lag 1 is 0, and known


def test_squashed_keeps_sign_and_order_and_is_cut() -> None:
    found = squashed(np.array([-1e9, -1.0, 0.0, 1.0, 3.0, 1e9, NAN]))
    np.testing.assert_allclose(found, [-4, -np.log(2), 0, np.log(2), np.log(4), 4, NAN])


# -- names of series -------------------------------------------------------------------------------------------------


def test_a_series_that_it_was_not_trained_on_has_the_code_of_the_unknown(lstm: Lstm, make: Make, wave: Wave) -> None:
    values = wave(300)
    known, stranger, other = say(lstm, make(values, "shop"), make(values, "stranger"), make(values, "other"))
    np.testing.assert_array_equal(stranger, other)
    assert_lawful(stranger)
    assert not np.allclose(known, stranger, rtol=1e-6)
    np.testing.assert_allclose(known[:, MEDIAN], stranger[:, MEDIAN], rtol=0.2)  # it copes all the same


def test_codes_follow_the_names(lstm: Lstm, make: Make, wave: Wave) -> None:
    """Two series whose codes are exchanged together with their names are answered as before."""
    network = Network(H, 16, 2)
    own = lstm.network.state_dict()
    codes = torch.stack([own["series.weight"][0], torch.full((8,), 0.5), torch.full((8,), -0.5)])
    network.load_state_dict({**own, "series.weight": codes})
    one = Lstm(network, ["a", "b"])
    turned = Network(H, 16, 2)
    turned.load_state_dict({**own, "series.weight": codes[[0, 2, 1]]})
    other = Lstm(turned, ["b", "a"])
    asked = [make(wave(200), "a"), make(wave(200), "b"), make(wave(200), "c")]
    answer = say(one, *asked)
    np.testing.assert_array_equal(say(other, *asked), answer)
    assert not np.allclose(answer[0], answer[1], rtol=1e-6)


# -- threads and storage ---------------------------------------------------------------------------------------------


def test_forecasting_leaves_the_threads_of_the_process_alone(lstm: Lstm, make: Make, wave: Wave) -> None:
    with limited(2):
        say(lstm, make(wave(100)))
        assert torch.get_num_threads() == 2


def test_the_limit_on_threads_ends_with_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), limited(before + 1):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before


def test_a_restored_model_says_the_same(lstm: Lstm, make: Make, wave: Wave) -> None:
    arrays, shape = lstm.stored()
    again = Lstm.restored(Artifact(arrays, {"lstm": shape}))
    assert again.names == lstm.names == ("shop",)
    asked = [make(wave(200)), make(wave(200), "other")]
    np.testing.assert_array_equal(say(again, *asked), say(lstm, *asked))


@pytest.mark.parametrize(
    "changes",
    [
        {"horizon": "x"},
        {"horizon": None},
        {"horizon": 3},
        {"horizon": 0},
        {"hidden": 10**9},
        {"hidden": 8},
        {"quantiles": [0.5]},
        {"quantiles": None},
        {"names": None},
        {"names": ["shop", "cart"]},
        {"names": []},
    ],
)
def test_a_model_of_another_shape_is_refused(lstm: Lstm, changes: dict[str, Any]) -> None:
    arrays, shape = lstm.stored()
    with pytest.raises(ArtifactError, match=r"the LSTM is not one of this version \(.+\); train it again"):
        Lstm.restored(Artifact(arrays, {"lstm": {**shape, **changes}}))


@pytest.mark.parametrize("card", [{}, {"lstm": None}, {"lstm": {}}, {"lstm": 5}])
def test_a_card_that_tells_no_shape_is_refused(lstm: Lstm, card: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="train it again"):
        Lstm.restored(Artifact(lstm.stored()[0], card))


@pytest.mark.parametrize("name", ["prior", "lstm.weight_ih_l0"])
def test_weights_that_are_missing_or_not_finite_are_refused(lstm: Lstm, name: str) -> None:
    arrays, shape = lstm.stored()
    missing = {key: part for key, part in arrays.items() if key != name}
    broken = {**arrays, name: np.full_like(arrays[name], NAN)}
    for found in (missing, broken, {}):
        with pytest.raises(ArtifactError, match="train it again"):
            Lstm.restored(Artifact(found, {"lstm": shape}))


def test_only_the_doors_import_torch() -> None:
    code = (
        "import sys, forecasting.ensemble, forecasting.models.statistical, forecasting.evaluate.backtest, "
        "forecasting.artifacts, forecasting.features, forecasting.bundle, forecasting.models.boosting; "
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- the future ------------------------------------------------------------------------------------------------------


def test_it_is_trained_on_the_past_only(make: Make, wave: Wave) -> None:
    def honest(series: Sequence[Series], cut: int) -> Lstm:
        return train([one.until(cut) for one in series], QUICK, quiet)

    def leaking(series: Sequence[Series], cut: int) -> Lstm:
        return train(series, replace(QUICK, steps=20), quiet)

    whole = [make(wave(400)), make(wave(400, seed=1) * 9, "cart")]
    check_causal(honest, whole, H, 350)
    with pytest.raises(LeakError, match="the forecast at value 350"):
        check_causal(leaking, whole, H, 350)
