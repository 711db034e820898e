"""What learned models are told: shapes, meaning, scale, and nothing from the future."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings

from forecasting.artifacts import FORMAT
from forecasting.batch import Batch
from forecasting.features import (
    AHEAD,
    CANDIDATES,
    CLOCK,
    LAGS,
    MEANS,
    MEDIANS,
    RECENT,
    SEASONAL,
    SHARED,
    SIMPLE,
    A,
    Features,
    S,
    features,
    newest,
    scales,
)
from forecasting.seasons import BASES, EARLIER, LEVEL, MIXED, MOVED_WIDTHS, WINDOW
from forecasting.series import FloatArray, Series
from tests.unit.forecasting.conftest import NAN, SEASON, H, Make, Wave, futures

EVERYTHING = [part.name for part in fields(Features)]
DAY = 288


def told(series: Series, *counts: int) -> Features:
    return features(Batch.at(series, np.array(counts or (len(series.values),)), H))


def shared(found: Features, figure: str) -> FloatArray:
    """A figure about the windows in the series' own unit, ``(N,)``."""
    return np.asarray(found.last + found.scale * found.shared[:, SHARED.index(figure)])


def ahead(found: Features, figure: str) -> FloatArray:
    """A figure about the steps ahead in the series' own unit, ``(N, H)``."""
    return np.asarray(found.last[:, None] + found.scale[:, None] * found.ahead[:, :, AHEAD.index(figure)])


def real(values: FloatArray, step: float = 300.0, start: float = 0.0) -> Series:
    """A series whose season is a day by the clock."""
    return Series("shop", start, step, values, round(86_400 / step))


def test_shapes(make: Make, wave: Wave) -> None:
    found = told(make(wave(300)), 100, 200, 300)
    assert found.shared.shape == (3, S)
    assert found.ahead.shape == (3, H, A)
    assert found.candidates.shape == (3, H, CANDIDATES)
    assert found.recent.shape == found.yesterday.shape == (3, WINDOW)
    assert found.last.shape == found.scale.shape == (3,)


def test_no_window_has_features_too() -> None:
    found = features(Batch.now([], H))
    assert found.ahead.shape == (0, H, A)
    assert found.candidates.shape == (0, H, CANDIDATES)


def test_they_are_worked_out_once_per_batch(make: Make, wave: Wave) -> None:
    batch = Batch.now([make(wave(300))], H)
    assert features(batch) is features(batch)
    assert np.shares_memory(newest(batch), newest(batch))
    np.testing.assert_array_equal(newest(batch), batch.newest(RECENT))


# -- what they mean --------------------------------------------------------------------------------------------------


def test_figures_about_the_window_are_lags_means_and_medians(make: Make) -> None:
    values = np.random.default_rng(0).gamma(2.0, 20.0, 500)
    found = told(make(values))
    assert found.last[0] == values[-1]
    assert found.scale[0] == pytest.approx(values[-LEVEL:].mean())
    for n in LAGS:
        np.testing.assert_allclose(shared(found, f"lag {n}"), values[-n], rtol=1e-4)
    for n in MEANS:
        np.testing.assert_allclose(shared(found, f"mean of {n}"), values[-n:].mean(), rtol=1e-4)
    for n in MEDIANS:
        np.testing.assert_allclose(shared(found, f"median of {n}"), np.median(values[-n:]), rtol=1e-4)
    yesterday = values[-6 - SEASON : -SEASON].mean()
    np.testing.assert_allclose(shared(found, "mean of 6 yesterday"), yesterday, rtol=1e-4)
    restless = np.abs(np.diff(values))[-8:].mean() / found.scale
    np.testing.assert_allclose(found.shared[:, SHARED.index("restlessness of 8")], restless, rtol=1e-4)


def test_figures_ahead_are_centred_on_the_same_step_in_earlier_seasons(make: Make) -> None:
    values = np.random.default_rng(0).gamma(2.0, 20.0, 8 * SEASON)
    found, end = told(make(values)), len(values)
    for step in (0, H - 1):
        for days in (1, 2, 3):
            then = end + step - days * SEASON
            assert ahead(found, f"{days} days before, width 1")[0, step] == pytest.approx(values[then], rel=1e-3)
            mean = values[then - 15 : then + 16].mean()
            assert ahead(found, f"{days} days before, width 31")[0, step] == pytest.approx(mean, rel=1e-3)
        then = end + step - 7 * SEASON
        assert ahead(found, "a week before, width 1")[0, step] == pytest.approx(values[then], rel=1e-3)


def test_means_over_gaps_are_means_of_what_is_known(make: Make) -> None:
    values = np.random.default_rng(0).gamma(2.0, 20.0, 3 * SEASON)
    then = len(values) - SEASON
    values[then - 1 : then + 1] = NAN
    found = told(make(values))
    mean = np.nanmean(values[then - 2 : then + 3])
    assert ahead(found, "1 days before, width 5")[0, 0] == pytest.approx(mean, rel=1e-3)
    assert np.isnan(ahead(found, "1 days before, width 1")[0, 0])


def test_the_hour_before_is_told_where_days_are_real() -> None:
    values = np.random.default_rng(0).gamma(2.0, 20.0, 400)
    found = told(real(values))
    np.testing.assert_allclose(ahead(found, "an hour before, width 1")[0], values[-12:], rtol=1e-3)
    middle = values[-12 + 4 : -12 + 7].mean()
    assert ahead(found, "an hour before, width 3")[0, 5] == pytest.approx(middle, rel=1e-3)
    last = values[-2:].mean()  # of the three values around it only two have come
    assert ahead(found, "an hour before, width 3")[0, 11] == pytest.approx(last, rel=1e-3)


@pytest.mark.parametrize(("step", "steps_known"), [(900.0, 4), (600.0, 6)])
def test_more_than_an_hour_ahead_there_is_no_hour_before(step: float, steps_known: int) -> None:
    """Step h of a 15-minute series has its hour before behind it for h up to 4 only."""
    found = told(real(np.random.default_rng(0).gamma(2.0, 20.0, 400), step))
    known = np.isfinite(ahead(found, "an hour before, width 1")[0])
    assert known.tolist() == [n < steps_known for n in range(H)]


@pytest.mark.parametrize("step", [1200.0, 3600.0, 5.0])
def test_hours_of_too_few_or_too_many_steps_are_not_told(step: float) -> None:
    found = told(real(np.random.default_rng(0).gamma(2.0, 20.0, 400), step))
    assert np.isnan(ahead(found, "an hour before, width 1")).all()


def test_the_clock_is_that_of_each_step_ahead() -> None:
    series = real(np.ones(DAY + 6), start=3 * 86_400.0)  # the epoch was a Thursday: its fourth day follows, half past 0
    time, hour, day = told(series).ahead[0, :, -CLOCK:].T.astype(float)
    seconds = 1800.0 + 300.0 * np.arange(H)
    np.testing.assert_allclose(time, seconds / 86_400, atol=1e-6)
    np.testing.assert_allclose(hour, seconds % 3600 / 3600, atol=1e-6)
    np.testing.assert_allclose(day, 4 / 7, atol=1e-6)


def test_a_replay_at_higher_speed_has_no_clock(wave: Wave) -> None:
    both = Batch.now([replace(real(wave(300)), season=SEASON), real(wave(300))], H)
    known = np.isfinite(features(both).ahead[:, :, -CLOCK:])
    assert not known[0].any()
    assert known[1].all()
    hour = np.isfinite(ahead(features(both), "an hour before, width 1"))
    assert not hour[0].any()
    assert hour[1].all()


def test_candidates_are_recent_means_and_yesterday_at_today_s_level(make: Make) -> None:
    day = 50 + 40 * np.sin(2 * np.pi * np.arange(SEASON) / SEASON)
    found = told(make(np.concatenate([day, 2 * day, 4 * day])), 2 * SEASON + 40)
    value = found.last[0] + found.scale[0] * found.candidates[0].astype(float)
    first = SIMPLE + len(MIXED)
    np.testing.assert_allclose(value[:, 0], 4 * day[39], rtol=1e-4)  # the last value
    np.testing.assert_allclose(value[:, 1], 4 * day[37:40].mean(), rtol=1e-4)
    np.testing.assert_allclose(value[:, first], 4 * day[40 : 40 + H], rtol=1e-3)  # twice yesterday's
    gap = (4 * day[8:40] - 2 * day[8:40]).mean()
    np.testing.assert_allclose(value[:, first + 4], 2 * day[40 : 40 + H] + gap, rtol=1e-3)


def test_the_newest_means_move_like_earlier_seasons_did_at_today_s_level(make: Make) -> None:
    """A series that is twice its earlier self but for a bump now: the bump stays, the change from here on doubles."""
    day = 50 + 40 * np.sin(2 * np.pi * np.arange(SEASON) / SEASON)
    values = np.concatenate([np.tile(day, 8), 2 * day])[: 8 * SEASON + 40]
    values[-3:] += 30.0
    found, now = told(make(values)), values[-LEVEL:].mean()
    ratio = now / day[8:40].mean()
    for number, season in enumerate(EARLIER):
        for base in BASES:
            start, then = values[-base:].mean(), day[40 - base : 40].mean()
            wanted = start + ratio * (day[40 : 40 + H] - then)
            figure = f"mean of {base} moved like {season}, width 1"
            np.testing.assert_allclose(ahead(found, figure)[0], wanted, rtol=1e-3, err_msg=figure)
            over = found.shared[0, SHARED.index(f"mean of {base} above {season}")] * found.scale[0]
            assert over == pytest.approx(start - ratio * then, rel=1e-3, abs=1e-3)
            place = len(MOVED_WIDTHS) * (number * len(BASES) + BASES.index(base))
            if place in MIXED:
                candidate = found.candidates[0, :, SIMPLE + MIXED.index(place)].astype(float)
                np.testing.assert_allclose(found.last[0] + found.scale[0] * candidate, wanted, rtol=1e-3)


def test_what_is_known_of_the_last_days_is_their_mean(make: Make) -> None:
    values = np.random.default_rng(0).gamma(2.0, 20.0, 2 * SEASON + 60)
    found, end = told(make(values)), len(values)
    blocks = [values[end - days * SEASON - LEVEL : end - days * SEASON + H] for days in (1, 2)]
    mean = np.mean(blocks, axis=0)  # three days ago is unknown
    ratio = values[-LEVEL:].mean() / mean[:LEVEL].mean()
    wanted = values[-1] + ratio * (mean[LEVEL:] - mean[LEVEL - 1])
    np.testing.assert_allclose(ahead(found, "mean of 1 moved like the last days, width 1")[0], wanted, rtol=1e-3)
    assert np.isnan(ahead(found, "mean of 1 moved like a week ago, width 1")).all()


def test_figures_without_a_yesterday_are_those_that_are_called_seasonal(make: Make, wave: Wave) -> None:
    young = told(replace(make(wave(60)), season=10_000))
    unknown = {name for name, value in zip(SHARED, young.shared[0], strict=True) if np.isnan(value)}
    unknown |= {name for name, value in zip(AHEAD, young.ahead[0].T, strict=True) if np.isnan(value).all()}
    other = {name for name in AHEAD if name.startswith("an hour before")} | set(AHEAD[-CLOCK:])
    assert unknown - other == SEASONAL


def test_models_of_other_figures_are_of_another_format() -> None:
    """Stored forests ask for figures by number. If this fails, raise ``artifacts.FORMAT``, then note both here."""
    figures = hashlib.sha256(json.dumps([SHARED, AHEAD, CANDIDATES]).encode()).hexdigest()[:16]
    assert (FORMAT, figures) == (4, "d981ad5d8d097985")


def test_without_a_season_the_mean_of_24_stands_in(make: Make, wave: Wave) -> None:
    found = told(make(wave(60)))
    assert np.isnan(found.ahead).all()
    assert np.isnan(found.yesterday).all()
    assert np.isnan(found.shared[0, SHARED.index("mean of 6 yesterday")])
    mean = found.candidates[0, :, 1 + MEANS.index(24)]
    for number in range(SIMPLE, CANDIDATES):
        np.testing.assert_array_equal(found.candidates[0, :, number], mean)


def test_a_lull_does_not_blow_figures_up() -> None:
    raw = np.concatenate([np.full((1, RECENT - LEVEL), 100.0), np.zeros((1, LEVEL))], axis=1)
    assert scales(raw)[0] == pytest.approx(0.05 * raw.mean())
    assert scales(np.full((1, RECENT), NAN))[0] > 0


# -- what they do not depend on --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(futures())
def test_the_future_is_out_of_reach(pair: tuple[Series, Series]) -> None:
    past, whole = pair
    alone, inside = told(past), told(whole, len(past.values))
    for name in EVERYTHING:
        np.testing.assert_array_equal(getattr(inside, name), getattr(alone, name), err_msg=name)


@pytest.mark.parametrize("season", [1, 2, 5, 11])
def test_seasons_shorter_than_the_horizon_leak_nothing(make: Make, wave: Wave, season: int) -> None:
    values = wave(900)
    changed = values.copy()
    changed[800:] = 1e9
    one, other = (replace(make(v), season=season) for v in (values, changed))
    for name in EVERYTHING:
        np.testing.assert_array_equal(getattr(told(one, 800), name), getattr(told(other, 800), name), err_msg=name)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_size_of_a_series_does_not_matter(make: Make, wave: Wave, factor: float) -> None:
    values = wave(900)
    one, other = told(make(values)), told(make(values * factor))
    np.testing.assert_allclose(other.scale, one.scale * factor)
    np.testing.assert_allclose(other.last, one.last * factor)
    for name in ("shared", "ahead", "candidates"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-3, atol=1e-4)


def test_the_date_does_not_matter_beyond_the_clock(wave: Wave) -> None:
    one, other = (told(real(wave(900), start=start)) for start in (0.0, 1e9 + 300.0))
    np.testing.assert_array_equal(one.shared, other.shared)
    np.testing.assert_array_equal(one.ahead[:, :, :-CLOCK], other.ahead[:, :, :-CLOCK])
    assert not np.array_equal(one.ahead[:, :, -CLOCK:], other.ahead[:, :, -CLOCK:])


def test_many_windows_of_many_series_are_each_alone(make: Make, wave: Wave) -> None:
    many = [make(wave(300), "a"), real(wave(700, seed=1)), make([], "c"), make(wave(30), "d")]
    together = features(Batch.now(many, H))
    for number, one in enumerate(many):
        for name in EVERYTHING:
            np.testing.assert_array_equal(getattr(together, name)[number], getattr(told(one), name)[0], err_msg=name)


def test_odd_series_give_finite_or_unknown_figures(odd: Series) -> None:
    found = told(odd, *range(len(odd.values) + 1))
    for name in EVERYTHING:
        assert not np.isinf(getattr(found, name)).any(), name
    for name in ("candidates", "recent", "last", "scale"):
        assert np.isfinite(getattr(found, name)).all(), name
    assert (found.scale > 0).all()
