"""What was said about intervals that have come since."""

from __future__ import annotations

import numpy as np

from forecasting.memory import Ring
from tests.unit.forecasting.conftest import NAN

H = 3


def said(origin: int) -> list[float]:
    """What an origin says about itself and the two intervals after it: 100 * origin + interval."""
    return [100.0 * origin + origin + h for h in range(H)]


def test_nothing_was_said_at_first() -> None:
    ring = Ring.empty(2, H)
    np.testing.assert_array_equal(ring.about(np.array([0, 5])), [[NAN] * H] * 2)


def test_the_newest_origins_are_asked_about_an_interval() -> None:
    ring = Ring.empty(1, H)
    for origin in (7, 8, 9):
        ring.remember(np.array([origin]), np.array([said(origin)]))
    np.testing.assert_array_equal(ring.about(np.array([9])), [[909, 809, 709]])
    np.testing.assert_array_equal(ring.about(np.array([10])), [[NAN, 910, 810]])
    np.testing.assert_array_equal(ring.about(np.array([8])), [[808, 708, NAN]])


def test_older_origins_make_room() -> None:
    ring = Ring.empty(1, H)
    for origin in range(20):
        ring.remember(np.array([origin]), np.array([said(origin)]))
    np.testing.assert_array_equal(ring.about(np.array([19])), [[1919, 1819, 1719]])
    np.testing.assert_array_equal(ring.about(np.array([16])), [[NAN] * H])  # made room for 19


def test_an_origin_that_was_skipped_says_nothing() -> None:
    """Its slot still holds what an origin H intervals earlier said: that is about other intervals."""
    ring = Ring.empty(1, H)
    for origin in (5, 6, 7, 9):
        ring.remember(np.array([origin]), np.array([said(origin)]))
    np.testing.assert_array_equal(ring.about(np.array([9])), [[909, NAN, 709]])


def test_series_stand_at_intervals_of_their_own() -> None:
    ring = Ring.empty(2, H)
    ring.remember(np.array([4, 1000]), np.array([said(4), said(1000)]))
    np.testing.assert_array_equal(ring.about(np.array([5, 1000])), [[NAN, 405, NAN], [101000, NAN, NAN]])


def test_what_is_said_may_have_any_shape() -> None:
    ring = Ring.empty(1, H, 2, 4)
    value = np.arange(H * 8.0).reshape(1, H, 2, 4)
    ring.remember(np.array([0]), value)
    found = ring.about(np.array([2]))
    assert found.shape == (1, H, 2, 4)
    np.testing.assert_array_equal(found[0, 2], value[0, 2])
    assert np.isnan(found[0, :2]).all()


def test_intervals_before_the_epoch_are_as_good_as_any() -> None:
    ring = Ring.empty(1, H)
    ring.remember(np.array([-2]), np.array([said(-2)]))
    np.testing.assert_array_equal(ring.about(np.array([-1])), [[NAN, -201, NAN]])
