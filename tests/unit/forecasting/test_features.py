"""What the network is told: shapes, scale, and nothing from the future."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from forecasting.features import (
    AHEAD,
    AROUND,
    CANDIDATES,
    CHANNELS,
    DAY_WIDTHS,
    LOUDEST,
    SPANS,
    SUMMARY,
    Features,
    blocks,
    features,
    joined,
    known_at,
)
from forecasting.series import Series
from tests.unit.forecasting.conftest import SEASON, Make, Wave

W, H = 48, 12


def told(series: Series, *origins: int) -> Features:
    return features(blocks(series, np.array(origins), W, H), H)


def test_shapes(make: Make, wave: Wave) -> None:
    found = told(make(wave(300)), 100, 200, 300)
    assert found.recent.shape == (3, W, CHANNELS)
    assert found.summary.shape == (3, SUMMARY)
    assert found.ahead.shape == (3, H, AHEAD)
    assert found.candidates.shape == (3, H, CANDIDATES)
    assert found.noise.shape == found.scale.shape == (3,)


@pytest.mark.parametrize("season", [1, 5, 20, SEASON])
def test_the_future_is_out_of_reach_even_of_short_seasons(make: Make, wave: Wave, season: int) -> None:
    values = wave(900)
    whole = replace(make(values), season=season)
    cut = replace(whole, values=values[:800])
    for item in fields(Features):
        np.testing.assert_array_equal(getattr(told(whole, 800), item.name), getattr(told(cut, 800), item.name))


def test_the_size_and_the_date_of_a_series_do_not_matter(make: Make, wave: Wave) -> None:
    values = wave(900)
    one, other = told(make(values), 900), told(make(values * 1000, start=9e8), 900)
    np.testing.assert_allclose(other.scale, one.scale * 1000)
    for name in ("recent", "summary", "ahead", "candidates", "noise"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-4, atol=1e-5)


def test_candidates_are_recent_means_and_yesterday_at_today_s_level(make: Make) -> None:
    day = 50 + 40 * np.sin(2 * np.pi * np.arange(SEASON) / SEASON)
    found = told(make(np.concatenate([day, 2 * day, 4 * day])), 2 * SEASON + 40)
    value = found.scale[0] * np.expm1(found.candidates[0].astype(float))
    assert value[0, 0] == pytest.approx(4 * day[39], rel=1e-3)  # the last value
    np.testing.assert_allclose(value[:, len(SPANS)], 4 * day[40 : 40 + H], rtol=1e-3)  # twice yesterday's


def test_without_a_season_the_mean_of_sixteen_stands_in(make: Make, wave: Wave) -> None:
    found = told(make(wave(60)), 60)
    assert not found.ahead.any()
    mean = found.candidates[0, :, 4]
    for number in range(len(SPANS), CANDIDATES):
        np.testing.assert_array_equal(found.candidates[0, :, number], mean)
    assert found.summary[0, len(SPANS) : len(SPANS) + 2].tolist() == [0, 0]


def test_a_full_day_is_flagged_but_not_a_week(make: Make, wave: Wave) -> None:
    found = told(make(wave(300)), 300)
    assert found.summary[0, len(SPANS) : len(SPANS) + 2].tolist() == [1, 0]
    assert found.ahead[0, :, : len(DAY_WIDTHS)].any()


def test_odd_series_give_finite_bounded_features(odd: Series) -> None:
    found = told(odd, len(odd.values))
    for name in ("recent", "summary", "ahead", "candidates", "noise", "scale"):
        assert np.isfinite(getattr(found, name)).all()
    assert (found.candidates <= LOUDEST).all()
    assert (found.scale > 0).all()


def test_look_ups_outside_are_gaps(make: Make) -> None:
    found = known_at(np.array([1.0, 2.0, 3.0]), np.array([2, 3]), np.array([-3, -1, 0]))
    np.testing.assert_array_equal(found, [[np.nan, 2.0, np.nan], [1.0, 3.0, np.nan]])


def test_joined_blocks_are_those_of_each(make: Make, wave: Wave) -> None:
    one, other = (blocks(make(wave(200, seed=n)), np.array([150, 200]), W, H) for n in (1, 2))
    both = joined([one, other])
    np.testing.assert_array_equal(both.recent, np.concatenate([one.recent, other.recent]))
    assert both.day.shape == (4, W + H + 2 * AROUND)
