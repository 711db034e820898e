"""Earlier days at today's level: what is expected, and when nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.base import MEDIAN
from forecasting.batch import Batch
from forecasting.models import MODELS
from forecasting.models.profile import PROFILES, Profile
from forecasting.series import FloatArray, Series

DAY = 48
SHAPE = 100.0 + 50.0 * np.sin(2 * np.pi * np.arange(DAY) / DAY)
LAST = PROFILES["profile1"]


def told(values: FloatArray, horizon: int = 6, days: tuple[int, ...] = LAST, season: int = DAY) -> FloatArray:
    """Medians ``(H,)`` after all of ``values``."""
    series = Series("shop", 0.0, 1800.0, np.asarray(values, dtype=np.float64), season)
    answer = Profile("profile", days).predict(Batch.now([series], horizon))
    assert np.isnan(np.delete(answer, MEDIAN, axis=2)).all()
    return np.asarray(answer[0, :, MEDIAN])


@pytest.mark.parametrize("days", PROFILES.values())
def test_a_shape_that_repeats_is_foreseen_for_a_whole_day(days: tuple[int, ...]) -> None:
    np.testing.assert_allclose(told(np.tile(SHAPE, 8)[:-7], DAY, days), np.roll(SHAPE, 7))


def test_it_follows_the_level_of_today() -> None:
    values = np.concatenate([SHAPE, 1.5 * SHAPE[:20]])
    np.testing.assert_allclose(told(values), 1.5 * SHAPE[20:26])


@pytest.mark.parametrize(("today", "ratio"), [(100.0, 4.0), (3.0, 3.0), (0.3, 0.3), (0.01, 0.25), (0.0, 0.25)])
def test_the_level_moves_within_a_factor(today: float, ratio: float) -> None:
    np.testing.assert_allclose(told(np.concatenate([SHAPE, today * SHAPE[:20]])), ratio * SHAPE[20:26])


@pytest.mark.parametrize("count", [0, 1, DAY - 1])
def test_it_is_silent_under_a_day(count: int) -> None:
    assert np.isnan(told(SHAPE[:count])).all()


def test_it_is_silent_without_a_season_and_before_the_day_that_it_reads() -> None:
    assert np.isnan(told(np.ones(100), season=1)).all()
    assert np.isnan(told(np.tile(SHAPE, 6), days=(7,))).all()
    assert np.isfinite(told(np.tile(SHAPE, 1), days=(1, 2, 3))).all()


def test_days_are_averaged_and_those_with_a_gap_left_out() -> None:
    days = np.array([1.0, 2.0, 6.0])[:, None] * np.ones(DAY)
    days[2, 20:23] = np.nan
    values = np.concatenate([days.ravel(), np.full(20, 3.0)])
    np.testing.assert_allclose(told(values, days=(1, 2, 3)), [1.5, 1.5, 1.5, 3.0, 3.0, 3.0])


def test_a_gap_today_does_not_look_like_a_change_of_level() -> None:
    values = np.concatenate([np.linspace(1.0, 5.0, DAY), np.linspace(1.0, 5.0, DAY)])
    values[-2:] = np.nan
    np.testing.assert_allclose(told(values), values[:6])


def test_without_any_value_today_the_level_stays() -> None:
    np.testing.assert_allclose(told(np.concatenate([SHAPE, np.full(DAY, np.nan)]), days=(2,)), SHAPE[:6])


@pytest.mark.parametrize("level", [0.0, 7.0])
def test_what_never_moves_is_told_so(level: float) -> None:
    np.testing.assert_array_equal(told(np.full(3 * DAY, level)), np.full(6, level))


def test_fine_steps_are_taken_with_their_neighbours() -> None:
    day = 1440
    spike = np.ones(2 * day)
    spike[720] = 12.0  # half a day before the end of the first day
    found = told(spike[: day + 700], 40, season=day)
    np.testing.assert_allclose(found[[14, 15, 25, 26]], [1.0, 2.0, 2.0, 1.0])


def test_what_comes_later_changes_nothing() -> None:
    values = np.random.default_rng(0).uniform(1.0, 9.0, 9 * DAY)
    series, horizon = Series("shop", 0.0, 1800.0, values, DAY), DAY
    counts = np.array([DAY, 2 * DAY + 5, 8 * DAY])
    for model in (MODELS[name]() for name in PROFILES):
        inside = model.predict(Batch.at(series, counts, horizon))
        alone = [model.predict(Batch.now([series.until(int(count))], horizon))[0] for count in counts]
        np.testing.assert_array_equal(inside, alone)


def test_a_row_does_not_depend_on_the_others() -> None:
    rng = np.random.default_rng(1)
    mixed = [Series(f"s{day}", 0.0, 60.0, rng.uniform(1.0, 9.0, 4 * day), day) for day in (1440, 96, 24, 1)]
    for model in (MODELS[name]() for name in PROFILES):
        together = model.predict(Batch.now(mixed, 8))
        apart = [model.predict(Batch.now([one], 8))[0] for one in mixed]
        np.testing.assert_allclose(together, apart, rtol=1e-12)


def test_an_empty_batch_has_an_empty_answer() -> None:
    assert Profile("profile", (1,)).predict(Batch.now([], 5)).shape == (0, 5, 5)


@pytest.mark.parametrize("days", [(), (0,), (1, -1)])
def test_days_must_be_past(days: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="days must be at least 1"):
        Profile("profile", days)
