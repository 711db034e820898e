"""Online weights of experts: who gets them, how soon, and what moves nothing."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.mixture import Mixture, common
from forecasting.series import FloatArray

MEDIANS = np.array([0.5])


def equal(experts: int, outcomes: int = 1, level: FloatArray = MEDIANS) -> Mixture:
    return Mixture.fresh(np.full((1, experts, outcomes), 1.0 / experts), level)


def play(mixture: Mixture, told: FloatArray, actual: FloatArray, unit: float = 1.0) -> FloatArray:
    """Experts' ``told (T, M)`` and ``actual (T,)``, one outcome; the mixture's forecasts ``(T,)``."""
    said = np.empty(len(actual))
    for n, (experts, value) in enumerate(zip(told, actual, strict=True)):
        mixed, _ = mixture.mixed(experts[None, :, None])
        mixture.learn(experts[None, :, None], mixed, np.array([[value]]), np.full((1, 1), unit))
        said[n] = mixed[0, 0]
    return said


def weights(mixture: Mixture) -> FloatArray:
    return mixture.weights()[0, :, 0]


@pytest.mark.parametrize("seed", range(5))
def test_the_best_expert_is_found_and_equal_weights_are_beaten(seed: int) -> None:
    rng = np.random.default_rng(seed)
    actual = rng.normal(100, 5, 600)
    told = actual[:, None] + rng.normal(0, [1.0, 4.0, 8.0], (600, 3)) + [0.0, 6.0, 9.0]
    mixture = equal(3)
    said = play(mixture, told, actual, unit=5.0)
    assert weights(mixture).argmax() == 0
    assert weights(mixture)[0] > 0.9
    loss, best = np.abs(said - actual).mean(), np.abs(told[:, 0] - actual).mean()
    assert loss < 0.5 * np.abs(told.mean(axis=1) - actual).mean()
    assert loss < best + 0.5  # what was lost while it was being found


def test_a_slower_pace_finds_the_same_expert_later() -> None:
    told, actual = np.tile([100.0, 110.0], (200, 1)), np.full(200, 100.0)
    shares = {}
    for pace in (1.0, 0.5):
        mixture = Mixture.fresh(np.full((1, 2, 1), 0.5), MEDIANS, pace)
        play(mixture, told[:5], actual[:5], unit=5.0)
        early = weights(mixture)[0]
        play(mixture, told[5:], actual[5:], unit=5.0)
        shares[pace] = early, weights(mixture)[0]
    assert 0.5 < shares[0.5][0] < shares[1.0][0]
    assert min(late for _, late in shares.values()) > 0.95


def test_every_outcome_has_a_pace_of_its_own() -> None:
    mixture = Mixture.fresh(np.full((1, 2, 2), 0.5), np.array([0.5, 0.5]), np.array([1.0, 0.2]))
    told = np.array([[[100.0, 100.0], [110.0, 110.0]]])
    for _ in range(5):
        mixture.learn(told, mixture.mixed(told)[0], np.full((1, 2), 100.0), np.full((1, 2), 5.0))
    quick, slow = mixture.weights()[0, 0]
    assert quick > slow > 0.5


def test_errors_that_cancel_are_mixed() -> None:
    rng = np.random.default_rng(0)
    noise, actual = rng.normal(0, 5, 800), rng.normal(100, 5, 800)
    told = actual[:, None] + noise[:, None] * [1.0, -1.0]
    said = play(equal(2), told, actual, unit=5.0)
    assert np.abs(said - actual)[400:].mean() < 0.35 * np.abs(noise)[400:].mean()


def test_nothing_learned_yet_is_kept_in_arrays_apart() -> None:
    """Rows of a state may be written to: what one field is given must not show up in another."""
    mixture = equal(3)
    parts = (mixture.prior, mixture.regret, mixture.square, mixture.top, mixture.rate)
    for n, one in enumerate(parts):
        assert not any(np.shares_memory(one, other) for other in parts[n + 1 :])


def test_a_switch_is_followed() -> None:
    rng = np.random.default_rng(1)
    actual = rng.normal(100, 5, 800)
    good, bad = actual + rng.normal(0, 1, 800), actual + 8.0
    told = np.stack([np.where(np.arange(800) < 200, good, bad), np.where(np.arange(800) < 200, bad, good)], axis=1)
    mixture = equal(2)
    play(mixture, told[:200], actual[:200], unit=5.0)
    assert weights(mixture)[0] > 0.9
    play(mixture, told[200:], actual[200:], unit=5.0)
    assert weights(mixture)[1] > 0.9


def test_weights_are_a_convex_combination_of_those_awake() -> None:
    rng = np.random.default_rng(2)
    mixture = Mixture.fresh(rng.dirichlet(np.ones(4), (5, 3)).transpose(0, 2, 1), np.array([0.05, 0.5, 0.95]))
    for _ in range(50):
        told = rng.normal(0, 3, (5, 4, 3))
        told[rng.random(told.shape) < 0.3] = np.nan
        mixed, shares = mixture.mixed(told)
        awake = np.isfinite(told)
        assert (shares >= 0).all()
        assert not shares[~awake].any()
        np.testing.assert_allclose(shares.sum(axis=1), awake.any(axis=1), atol=1e-12)
        some = awake.any(axis=1)
        lowest, highest = (
            np.nanmin(np.nan_to_num(told, nan=np.inf), axis=1),
            np.nanmax(np.nan_to_num(told, nan=-99), axis=1),
        )
        assert ((mixed[some] >= lowest[some] - 1e-9) & (mixed[some] <= highest[some] + 1e-9)).all()
        assert np.isnan(mixed[~some]).all()
        mixture.learn(told, mixed, rng.normal(0, 3, (5, 3)), np.ones((5, 3)))


def test_a_sleeping_expert_neither_gains_nor_loses() -> None:
    rng = np.random.default_rng(3)
    actual = rng.normal(100, 5, 100)
    told = np.stack([actual + 1.0, actual + 8.0, actual - 3.0], axis=1)
    mixture = equal(3)
    play(mixture, told, actual, unit=5.0)
    state = [part[:, 0].copy() for part in (mixture.regret, mixture.square, mixture.top)]
    told[:, 0] = np.nan
    play(mixture, told, actual, unit=5.0)
    for before, after in zip(state, (mixture.regret, mixture.square, mixture.top), strict=True):
        np.testing.assert_array_equal(before, after[:, 0])


def test_a_gap_teaches_nothing_and_neither_does_what_was_never_said() -> None:
    mixture = equal(2)
    told = np.array([[[1.0], [2.0]]])
    mixture.learn(told, np.array([[1.5]]), np.array([[np.nan]]), np.ones((1, 1)))
    mixture.learn(told * np.nan, np.array([[np.nan]]), np.array([[3.0]]), np.full((1, 1), np.nan))
    np.testing.assert_array_equal(weights(mixture), [0.5, 0.5])


def test_units_make_the_scale_not_matter() -> None:
    rng = np.random.default_rng(4)
    actual = rng.normal(100, 5, 200)
    told = actual[:, None] + rng.normal(0, [1.0, 3.0], (200, 2))
    small, large = equal(2), equal(2)
    said = play(small, told, actual, unit=5.0)
    scaled = play(large, 1024.0 * told, 1024.0 * actual, unit=1024.0 * 5.0)
    np.testing.assert_allclose(scaled, 1024.0 * said, rtol=1e-12)
    np.testing.assert_allclose(weights(large), weights(small), rtol=1e-9)


def test_one_burst_does_not_decide_for_good() -> None:
    rng = np.random.default_rng(5)
    actual = rng.normal(100, 5, 400)
    told = np.stack([actual + 0.5, actual + 8.0], axis=1)
    told[50, 0], actual[50] = 0.0, 1e12  # the better one is as far away as can be, once
    mixture = equal(2)
    play(mixture, told, actual, unit=5.0)
    assert weights(mixture)[0] > 0.9


@pytest.mark.parametrize("level", [0.05, 0.5, 0.9, 0.99])
def test_the_loss_is_that_of_the_quantile(level: float) -> None:
    rng = np.random.default_rng(6)
    actual = rng.normal(0, 1, 3000)
    experts = np.quantile(rng.normal(0, 1, 100_000), [0.05, 0.5, 0.9, 0.99])
    mixture = equal(4, level=np.array([level]))
    said = play(mixture, np.tile(experts, (3000, 1)), actual)
    assert (actual[1500:] <= said[1500:]).mean() == pytest.approx(level, abs=0.03)


def test_services_and_outcomes_learn_apart() -> None:
    rng = np.random.default_rng(7)
    actual = rng.normal(100, 5, (300, 2, 2))
    off = np.array([[1.0, 9.0], [9.0, 1.0]])
    told = np.stack([actual + off, actual + off[::-1]], axis=2)  # (T, N, M, J)
    mixture = Mixture.fresh(np.full((2, 2, 2), 0.5), np.array([0.5, 0.5]))
    for experts, value in zip(told, actual, strict=True):
        mixed, _ = mixture.mixed(experts)
        mixture.learn(experts, mixed, value, np.full((2, 2), 5.0))
    np.testing.assert_array_equal(mixture.weights().argmax(axis=1), [[0, 1], [1, 0]])


def test_common_weights_count_services_by_age_and_the_default_as_one() -> None:
    told = np.array([[[0.9], [0.1]], [[0.5], [0.5]]])
    default = np.array([[0.3], [0.7]])
    np.testing.assert_allclose(common(told, np.zeros(2), default), default)
    np.testing.assert_allclose(common(told, np.array([500.0, 0.0]), default), [[0.6], [0.4]])
    np.testing.assert_allclose(common(told, np.array([9e9, 250.0]), default)[:, 0], np.array([1.45, 1.05]) / 2.5)
    np.testing.assert_allclose(common(told[:0], np.zeros(0), default), default)


def test_one_step_by_hand() -> None:
    mixture = equal(3)
    mixture.learn(np.array([[[1.0], [2.0], [6.0]]]), np.array([[3.0]]), np.array([[9.0]]), np.full((1, 1), 0.5))
    gain = np.array([-2.0, -1.0, 3.0])  # half a loss per unit of 0.5 that an expert lies higher than the mixture
    first_rate = 0.5  # sqrt(log(3)) is larger
    np.testing.assert_allclose(mixture.regret[0, :, 0], gain - first_rate * gain**2)
    rate = np.minimum(0.5 / np.abs(gain), np.sqrt(np.log(3.0) / gain**2))
    raw = rate * np.exp(rate * mixture.regret[0, :, 0])
    np.testing.assert_allclose(weights(mixture), raw / raw.sum())
