"""Training: budget, determinism, holdout, gaps, cache."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from forecasting.artifacts import CARD, WEIGHTS
from forecasting.errors import TrainingError
from forecasting.features import blocks
from forecasting.models.lstm import Lstm
from forecasting.series import Series
from forecasting.training import (
    TrainSettings,
    cache_key,
    digest,
    draw,
    forget,
    pinball_loss,
    train,
    train_or_load,
    windows,
)
from tests.unit.forecasting.conftest import SEASON, Make, Wave

QUICK = TrainSettings(steps=6, seconds=60, threads=1, batch=16, hidden=8)


def quiet(done: int, total: int, text: str) -> None:
    """A caller that draws no bar."""


def weights(model: Lstm) -> dict[str, torch.Tensor]:
    return {name: part.clone() for name, part in model.network.state_dict().items()}


def test_the_same_seed_gives_the_same_weights_and_another_one_others(make: Make, wave: Wave) -> None:
    series = [make(wave(300))]
    one, two = (weights(train(series, QUICK, quiet)) for _ in range(2))
    other = weights(train(series, replace(QUICK, seed=1), quiet))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_training_leaves_torch_as_it_was(make: Make, wave: Wave) -> None:
    torch.manual_seed(5)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train([make(wave(200))], replace(QUICK, threads=threads + 1), quiet)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_the_number_of_steps_follows_from_the_seconds() -> None:
    assert TrainSettings(seconds=20).budget == 500
    assert TrainSettings(seconds=0.001).budget == 1
    assert TrainSettings(steps=7).budget == 7


def test_the_clock_ends_training_early(make: Make, wave: Wave) -> None:
    ticking = count()  # every look at the clock costs a second
    model = train([make(wave(300))], replace(QUICK, steps=1000, seconds=10), quiet, clock=lambda: float(next(ticking)))
    assert 5 <= model.card["steps"] <= 10


def test_progress_starts_at_nothing_and_ends_complete(make: Make, wave: Wave) -> None:
    seen: list[tuple[int, int, str]] = []
    train([make(wave(300))], replace(QUICK, steps=25), lambda *told: seen.append(told))
    assert [done for done, _, _ in seen] == [0, 10, 20, 25]
    assert {total for _, total, _ in seen} == {25}
    assert seen[0][2].startswith("loss ")


def test_the_newest_tenth_is_never_trained_on(make: Make, wave: Wave) -> None:
    values = wave(500)
    changed = values.copy()
    changed[450:] = 1e6
    one, two = (weights(train([make(v)], QUICK, quiet)) for v in (values, changed))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_windows_end_before_the_holdout_and_hold_enough(make: Make, wave: Wave) -> None:
    values = wave(500)
    values[100:140] = np.nan
    values[200:] = np.where(np.arange(200, 500) < 300, np.nan, values[200:])
    pool = windows([make(values), make([1.0, 2.0]), make([5.0] * 200)], QUICK)
    assert len(pool.series) == 1
    assert pool.origin.max() + QUICK.horizon <= 450
    assert 125 not in pool.origin  # nothing known in its horizon
    assert 132 in pool.origin  # a little in both
    assert not {290, 310} & set(pool.origin.tolist())  # too little in the window
    assert pool.origin.min() == Lstm.minimum


@pytest.mark.parametrize("values", [[], [1.0, 2.0, 3.0], [0.0] * 300, [4.0] * 300, [float("nan")] * 300])
def test_nothing_to_learn_is_said_and_not_tried(make: Make, values: list[float]) -> None:
    with pytest.raises(TrainingError, match="none of 1 series has 28 known, changing values"):
        train([make(values)], QUICK, quiet)


def test_gaps_reach_neither_loss_nor_weights(make: Make, wave: Wave) -> None:
    values = wave(400)
    values[np.random.default_rng(0).random(400) < 0.3] = np.nan
    model = train([make(values)], QUICK, quiet)
    assert all(torch.isfinite(part).all() for part in model.network.state_dict().values())


def test_huge_and_tiny_series_learn_together(make: Make, wave: Wave) -> None:
    model = train([make(wave(300) * 1e12), make(wave(300) * 1e-6), make([1e300, 0.0] * 150)], QUICK, quiet)
    assert all(torch.isfinite(part).all() for part in model.network.state_dict().values())


def test_batches_hold_windows_targets_and_noise_of_the_same_series(make: Make, wave: Wave) -> None:
    pool = windows([make(wave(200)), make(wave(200) + 10_000)], replace(QUICK, forget=0.0))
    raw, target, noise = draw(pool, np.random.default_rng(0), replace(QUICK, forget=0.0, batch=64))
    assert raw.recent.shape == (64, QUICK.window)
    high = np.nanmean(raw.recent, axis=1) > 5000
    assert 0 < high.sum() < 64
    assert ((target > 5000).all(axis=1) == high).all()
    np.testing.assert_array_equal(noise, np.where(high, pool.noise[1], pool.noise[0]))


def test_forgetting_hides_seasons_and_old_values_only(make: Make, wave: Wave) -> None:
    raw = blocks(make(wave(8 * SEASON)), np.arange(750, 768), QUICK.window, QUICK.horizon)
    hidden = forget(raw, np.random.default_rng(0), replace(QUICK, forget=1.0))
    assert np.isnan(hidden.day).all()
    assert np.isnan(hidden.week).all()
    np.testing.assert_array_equal(hidden.recent[:, -Lstm.minimum :], raw.recent[:, -Lstm.minimum :])
    assert np.isnan(hidden.recent[:, 0]).any()


def test_the_loss_ignores_gaps_and_is_lowest_at_the_quantiles() -> None:
    actual = torch.full((4, 3), 1.0)
    actual[0] = float("nan")
    right = torch.full((4, 3, 5), float(np.log(2.0)))
    assert float(pinball_loss(right, actual, torch.ones(4))) == pytest.approx(0.0, abs=1e-6)
    assert float(pinball_loss(right + 0.3, actual, torch.ones(4))) > 0.01


def test_the_card_tells_what_it_learned_from_and_how_well(lstm: Lstm) -> None:
    card = lstm.card
    assert card["data"]["series"][0] == {
        "name": "shop",
        "start": 1e6,
        "end": 1e6 + 5 * 672,
        "step": 5.0,
        "season": SEASON,
    }
    assert card["steps"] == card["settings"]["steps"] == 120
    assert set(card["versions"]) == {"python", "numpy", "torch"}
    assert all(card["scores"][f"h{h}"]["relative_wape"] < 0.95 for h in (1, 5, 12))
    json.dumps(card)


# -- the cache -------------------------------------------------------------------------------------------------------


def test_the_second_time_comes_from_the_cache_and_says_the_same(make: Make, wave: Wave, tmp_path: Path) -> None:
    series = [make(wave(300))]
    (first, fresh), (second, cached) = (train_or_load(series, QUICK, tmp_path, quiet) for _ in range(2))
    assert (fresh, cached) == (False, True)
    one, two = (model.forecast(series, 12)[0] for model in (first, second))
    assert one is not None
    assert two is not None
    np.testing.assert_array_equal(one.values, two.values)
    assert second.card["scores"] == first.card["scores"]


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_a_damaged_model_is_trained_again(make: Make, wave: Wave, tmp_path: Path, name: str) -> None:
    series = [make(wave(300))]
    train_or_load(series, QUICK, tmp_path, quiet)
    (folder,) = tmp_path.iterdir()
    (folder / name).write_bytes(b"damaged")
    assert [train_or_load(series, QUICK, tmp_path, quiet)[1] for _ in range(2)] == [False, True]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_the_key_changes_with_data_and_settings_but_not_with_the_date(make: Make, wave: Wave) -> None:
    values = wave(100)
    series = make(values)
    key = cache_key([series], QUICK)
    assert key == cache_key([make(values.copy(), start=5e6)], QUICK)
    others: list[tuple[Series, TrainSettings]] = [
        (make(values + 1), QUICK),
        (replace(series, season=95), QUICK),
        (make(values, name="other"), QUICK),
        (series, replace(QUICK, seed=9)),
    ]
    assert len({key, *(cache_key([one], settings) for one, settings in others)}) == 5
    assert digest([series, make([1.0])]) != digest([make([1.0]), series])
