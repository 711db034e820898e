"""Training the network: budget, determinism, what is drawn from, what is hidden, and the loss."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

from forecasting.base import QUANTILES
from forecasting.batch import Batch
from forecasting.errors import TrainingError
from forecasting.features import CANDIDATES, CLOCK, MEANS, SIMPLE, features
from forecasting.models.lstm import UNKNOWN, YESTERDAY, Lstm, told
from forecasting.series import FloatArray, Series
from forecasting.training import Pool, TrainSettings, forgetful, forgiven, pinball_loss, restless, train, windows
from tests.unit.forecasting.conftest import NAN, SEASON, H, Make, Wave, quiet

pytestmark = pytest.mark.slow

QUICK = TrainSettings(steps=6, batch=16, hidden=8, horizon=H)


def weights(model: Lstm) -> dict[str, torch.Tensor]:
    return {name: part.clone() for name, part in model.network.state_dict().items()}


def same(one: Lstm, other: Lstm) -> bool:
    return all(torch.equal(part, weights(other)[name]) for name, part in weights(one).items())


def finite(model: Lstm) -> bool:
    return all(bool(torch.isfinite(part).all()) for part in weights(model).values())


def origins(pool: Pool, values: FloatArray) -> list[int]:
    """Which values the windows of the pool end before (all values must differ)."""
    place = {value: number + 1 for number, value in enumerate(values.tolist())}
    return [place[value] for value in pool.seen.last.tolist()]


# -- budget and chance -----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_another_one_others(make: Make, wave: Wave) -> None:
    series = [make(wave(300))]
    one, two = (train(series, QUICK, quiet) for _ in range(2))
    assert same(one, two)
    assert not same(one, train(series, replace(QUICK, seed=1), quiet))


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
    ticking = count()  # every look at the clock costs a second; the first is the beginning
    settings = replace(QUICK, steps=None, seconds=10, rate=100.0)
    model = train([make(wave(300))], settings, quiet, clock=lambda: float(next(ticking)))
    assert next(ticking) == 11  # nine steps, and the look that ended it
    assert finite(model)


def test_a_machine_that_is_fast_enough_does_all_its_steps(make: Make, wave: Wave) -> None:
    looks = count()
    settings = replace(QUICK, steps=None, seconds=1.0, rate=8.0)
    train([make(wave(300))], settings, quiet, clock=lambda: next(looks) * 1e-6)
    assert next(looks) == 1 + settings.budget == 9


def test_a_number_of_steps_does_not_depend_on_the_clock(make: Make, wave: Wave) -> None:
    def model(second: float) -> Lstm:
        looks = count()
        return train([make(wave(300))], replace(QUICK, seconds=10), quiet, clock=lambda: next(looks) * second)

    assert same(model(1e-9), model(1e9))


def test_no_time_at_all_still_gives_a_model(make: Make, wave: Wave) -> None:
    model = train([make(wave(300))], replace(QUICK, steps=None, seconds=0.0), quiet, clock=lambda: 0.0)
    assert np.isfinite(model.predict(Batch.now([make(wave(300))], H))).all()


def test_progress_starts_at_nothing_and_ends_complete(make: Make, wave: Wave) -> None:
    seen: list[tuple[int, int, str]] = []
    train([make(wave(300))], replace(QUICK, steps=25), lambda *told: seen.append(told))
    assert [done for done, _, _ in seen] == [0, 10, 20, 25]
    assert {total for _, total, _ in seen} == {25}
    assert seen[0][2].startswith("loss ")


def test_training_lowers_the_loss(make: Make, wave: Wave) -> None:
    losses: list[float] = []
    series = [make(wave(5 * SEASON))]
    train(series, replace(QUICK, steps=81, batch=64), lambda done, total, text: losses.append(_loss(text)))
    assert losses[8] < 0.8 * losses[0]


def _loss(text: str) -> float:
    return float(text.removeprefix("loss ")) if text.startswith("loss ") else NAN


# -- what is learned from --------------------------------------------------------------------------------------------


def test_windows_hold_enough_behind_and_something_ahead(make: Make, wave: Wave) -> None:
    values = wave(500)
    values[100:140] = NAN
    values[200:300] = NAN
    pool = windows([make(values), make([1.0, 2.0], "short"), make([5.0] * 200, "still")], QUICK)
    assert pool.names == ("shop",)
    assert set(pool.who.tolist()) == {1}
    known = np.isfinite(values)
    expected = [n for n in range(16, 500 - H + 1) if known[max(0, n - 48) : n].sum() >= 16 and known[n : n + H].any()]
    assert len(pool.who) == len(expected)
    ends = [n for n in expected if known[n - 1]]
    assert [n for n in origins(pool, values) if n in set(ends)][:50] == ends[:50]


def test_codes_and_weights_are_those_of_the_series(make: Make, wave: Wave) -> None:
    low, high = make(wave(200), "low"), make(wave(200, noise=1.0) + 10_000, "high")
    pool = windows([low, high], QUICK)
    assert pool.names == ("low", "high")
    assert ((pool.seen.last > 5000) == (pool.who == 2)).all()
    for code, one in ((1, low), (2, high)):
        rows = pool.who == code
        expected = pool.seen.scale[rows, None] / restless(one, H)
        np.testing.assert_allclose(pool.weight[rows], expected, rtol=1e-5)
        values = pool.seen.last[rows, None] + pool.seen.scale[rows, None] * pool.target[rows]
        np.testing.assert_allclose(values[0], one.values[16 : 16 + H], rtol=1e-4)


def test_more_windows_than_allowed_are_drawn_from_all_series(make: Make, wave: Wave) -> None:
    series = [make(wave(300), "a"), make(wave(600, seed=1), "b")]
    pool = windows(series, replace(QUICK, windows=100))
    shares = np.bincount(pool.who, minlength=3)[1:]
    assert 95 <= shares.sum() <= 100
    assert shares[1] == pytest.approx(2 * shares[0], rel=0.1)
    again = windows(series, replace(QUICK, windows=100))
    np.testing.assert_array_equal(pool.seen.last, again.seen.last)
    other = windows(series, replace(QUICK, windows=100, seed=1))
    assert not np.array_equal(pool.seen.last, other.seen.last)


def test_the_unit_of_errors_is_that_of_last_value() -> None:
    series = Series("s", 0.0, 5.0, np.array([0.0, 2.0, NAN, 4.0, 10.0]), 10)
    np.testing.assert_allclose(restless(series, 3), [4.0, 2.0, 6.0])
    assert (restless(series, 12) > 0).all()
    assert not restless(replace(series, values=np.full(9, 3.0)), 3).any()


@pytest.mark.parametrize("values", [[], [1.0, 2.0, 3.0], [0.0] * 300, [4.0] * 300, [NAN] * 300, [float("inf")] * 300])
def test_nothing_to_learn_is_said_and_not_tried(make: Make, values: list[float]) -> None:
    with pytest.raises(
        TrainingError, match="none of 1 series has 28 known, changing values to learn from; record more"
    ):
        train([make(values)], QUICK, quiet)


def test_no_series_is_nothing_to_learn() -> None:
    with pytest.raises(TrainingError, match="none of 0 series"):
        train([], QUICK, quiet)


def test_odd_series_are_learned_from_or_refused(odd: Series) -> None:
    try:
        model = train([odd], QUICK, quiet)
    except TrainingError:
        known = odd.values[np.isfinite(odd.values)]
        assert len(known) < 28 or np.ptp(np.clip(known, 0, 1e15)) < 1e-290
    else:
        assert finite(model)


def test_gaps_reach_neither_loss_nor_weights(make: Make, wave: Wave) -> None:
    values = wave(400)
    values[np.random.default_rng(0).random(400) < 0.3] = NAN
    assert finite(train([make(values)], QUICK, quiet))


def test_huge_tiny_and_almost_still_series_learn_together(make: Make, wave: Wave) -> None:
    still = np.full(300, 1e9)
    still[150] += 1e-6
    series = [make(wave(300) * 1e12), make(wave(300) * 1e-6), make([1e300, 0.0] * 150), make(still)]
    assert finite(train([replace(one, name=str(n)) for n, one in enumerate(series)], QUICK, quiet))


# -- what is drawn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("balance", "ratio"), [(1.0, 16.0), (0.5, 4.0), (0.0, 1.0)])
def test_balance_says_how_much_a_long_series_outweighs_a_short_one(
    make: Make, wave: Wave, balance: float, ratio: float
) -> None:
    lengths = [16 * 60 + 16 + H - 1, 60 + 16 + H - 1]  # 960 and 60 windows
    series = [replace(make(wave(length)), name=str(length)) for length in lengths]
    pool = windows(series, replace(QUICK, balance=balance))
    assert pool.count.tolist() == [960, 60]
    rows = pool.draw(np.random.default_rng(0), 40_000)
    assert set(rows.tolist()) == set(range(1020))
    long, short = np.bincount(pool.who[rows])[1:]
    assert long / short == pytest.approx(ratio, rel=0.1)


def test_dropout_hides_while_training_only(make: Make, wave: Wave) -> None:
    model = train([make(wave(300))], replace(QUICK, dropout=0.5), quiet)
    inputs = told(features(Batch.now([make(wave(300))], H)), np.array([1]))
    assert torch.equal(model.network(inputs), model.network(inputs))
    model.network.train()
    assert not torch.equal(model.network(inputs), model.network(inputs))


# -- what is hidden --------------------------------------------------------------------------------------------------


def test_forgetting_hides_seasons_only(make: Make, wave: Wave) -> None:
    """A window whose seasons are forgotten looks like one of a series that is too young to have any."""
    values = wave(8 * SEASON + 40)
    old, young = make(values), make(values[-60:])
    inputs = told(features(Batch.now([old], H)), np.array([1]))
    hidden = forgetful(inputs, np.random.default_rng(0), replace(QUICK, forget=1.0, anonymous=0.0))
    newborn = told(features(Batch.now([young], H)), np.array([1]))
    assert not hidden.recent[:, :, YESTERDAY:].any()
    torch.testing.assert_close(hidden.recent, newborn.recent, atol=1e-2, rtol=1e-2)
    known = slice((hidden.figures.shape[2] - 2 * CLOCK) // 2, -2 * CLOCK)
    assert torch.equal(hidden.figures[:, :, known], newborn.figures[:, :, known])
    assert torch.equal(hidden.candidates[:, :, :SIMPLE], inputs.candidates[:, :, :SIMPLE])
    mean = inputs.candidates[:, :, 1 + MEANS.index(24)]
    for number in range(SIMPLE, CANDIDATES):
        assert torch.equal(hidden.candidates[:, :, number], mean)
    assert hidden.who.tolist() == [1]
    assert inputs.recent[:, :, YESTERDAY:].any()  # what was given is left alone


def test_forgetting_meets_the_share_that_was_asked_for(make: Make, wave: Wave) -> None:
    counts = np.arange(3 * SEASON, 8 * SEASON)
    inputs = told(features(Batch.at(make(wave(8 * SEASON)), counts, H)), np.ones(len(counts), dtype=np.int64))
    some = forgetful(inputs, np.random.default_rng(0), replace(QUICK, forget=0.3, anonymous=0.2))
    young = ~some.recent[:, :, YESTERDAY:].any(dim=2).any(dim=1)
    nameless = some.who == UNKNOWN
    assert float(young.float().mean()) == pytest.approx(0.3, abs=0.05)
    assert float(nameless.float().mean()) == pytest.approx(0.2, abs=0.05)
    assert torch.equal(some.figures[~young], inputs.figures[~young])
    assert torch.equal(some.candidates[~young], inputs.candidates[~young])


# -- the loss --------------------------------------------------------------------------------------------------------


def test_the_loss_ignores_gaps() -> None:
    actual = torch.full((4, 3), 1.0)
    actual[0] = NAN
    exact = torch.full((4, 3, len(QUANTILES)), 1.0)
    wrong = exact.clone()
    wrong[0] = 1e9  # said about gaps only
    assert float(pinball_loss(exact, actual, torch.ones(4, 3))) == 0.0
    assert float(pinball_loss(wrong, actual, torch.ones(4, 3))) == 0.0
    assert float(pinball_loss(exact + 1.0, actual, torch.ones(4, 3))) > 0
    assert float(pinball_loss(exact, torch.full((4, 3), NAN), torch.ones(4, 3))) == 0.0


def test_the_loss_is_lowest_at_the_quantiles() -> None:
    actual = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 3.0, (20_000, 1)).astype(np.float32))
    levels = torch.quantile(actual, torch.tensor(QUANTILES))
    ones = torch.ones_like(actual)

    def loss(z: torch.Tensor) -> float:
        return float(pinball_loss(z.expand(len(actual), 1, -1), actual, ones))

    best = loss(levels)
    for number in range(len(QUANTILES)):
        for shift in (-0.5, 0.5):
            moved = levels.clone()
            moved[number] += shift
            assert loss(moved) > best


def test_what_is_served_as_nothing_is_right_where_nothing_came() -> None:
    z = torch.tensor([[[-3.0, -2.5, -1.0]] * 3], requires_grad=True)  # one window: no traffic is -2
    actual = torch.tensor([[-2.0, -1.5, NAN]])  # nothing came, something came, unknown
    held = forgiven(z, actual, torch.tensor([-2.0]))
    np.testing.assert_array_equal(
        held[0].detach().numpy(), [[-2.0, -2.0, -1.0], [-3.0, -2.5, -1.0], [-3.0, -2.5, -1.0]]
    )
    held.sum().backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    np.testing.assert_array_equal(z.grad[0].numpy(), [[0, 0, 1], [1, 1, 1], [1, 1, 1]])


def test_errors_weigh_what_their_windows_weigh() -> None:
    actual, z = torch.zeros(2, 1), torch.zeros(2, 1, len(QUANTILES))
    z[0] = 1.0
    light, heavy = (float(pinball_loss(z, actual, torch.tensor([[w], [5.0]]))) for w in (1.0, 3.0))
    assert heavy == pytest.approx(3 * light)
