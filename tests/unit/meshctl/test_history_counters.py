"""Counters with restarts and gaps; quantiles of histograms."""

from __future__ import annotations

import numpy as np
import pytest

from meshctl.history.counters import CounterTracker, quantile


def test_the_first_point_is_only_a_reference() -> None:
    tracker = CounterTracker()
    assert tracker.delta("a", 0.0, 100.0, 5000.0) is None
    assert tracker.delta("a", 0.0, 101.0, 5010.0) == 10.0


def test_counters_do_not_mix() -> None:
    tracker = CounterTracker()
    tracker.delta(("a", 1), 0.0, 100.0, 10.0)
    assert tracker.delta(("a", 2), 0.0, 101.0, 20.0) is None
    assert len(tracker) == 2


def test_a_smaller_value_is_a_restart() -> None:
    tracker = CounterTracker()
    tracker.delta("a", 0.0, 100.0, 50.0)
    assert tracker.delta("a", 0.0, 101.0, 7.0) == 7.0


def test_a_later_start_is_a_restart_even_if_the_value_grew() -> None:
    tracker = CounterTracker()
    tracker.delta("a", 1.0, 100.0, 50.0)
    assert tracker.delta("a", 99.5, 101.0, 60.0) == 60.0


def test_points_out_of_order_are_ignored() -> None:
    tracker = CounterTracker()
    tracker.delta("a", 0.0, 100.0, 50.0)
    tracker.delta("a", 0.0, 102.0, 60.0)
    assert tracker.delta("a", 0.0, 101.0, 55.0) is None
    assert tracker.delta("a", 0.0, 102.0, 60.0) is None
    assert tracker.delta("a", 0.0, 103.0, 61.0) == 1.0


def test_a_gap_beyond_the_horizon_makes_a_stranger() -> None:
    tracker = CounterTracker(horizon=30.0)
    tracker.delta("a", 0.0, 100.0, 50.0)
    assert tracker.delta("a", 0.0, 131.0, 90.0) is None
    assert tracker.delta("a", 0.0, 132.0, 91.0) == 1.0


def test_forgotten_counters_take_no_memory() -> None:
    tracker = CounterTracker()
    tracker.delta("old", 0.0, 100.0, 1.0)
    tracker.delta("new", 0.0, 200.0, 1.0)
    tracker.forget(before=150.0)
    assert len(tracker) == 1


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        ([10, 0, 0, 0], 0.5, 0.5),
        ([0, 10, 0, 0], 0.5, 1.5),
        ([0, 10, 0, 0], 1.0, 2.0),
        ([5, 5, 0, 0], 0.5, 1.0),
        ([5, 0, 5, 0], 0.9, 3.6),
        ([0, 0, 0, 9], 0.5, 4.0),
        ([0, 10, 0, 0], 0.0, 1.0),
        ([0, 0, 0, 0], 0.5, None),
    ],
)
def test_quantiles_are_linear_within_a_bucket(counts: list[float], q: float, expected: float | None) -> None:
    found = quantile([1.0, 2.0, 4.0], counts, q)
    assert found == (None if expected is None else pytest.approx(expected))


def test_quantiles_of_many_samples_are_close_to_the_exact_ones() -> None:
    samples = np.random.default_rng(3).gamma(2.0, 0.05, 20_000)
    bounds = np.linspace(0.01, 1.0, 100)
    counts = np.histogram(samples, bins=[0.0, *bounds, np.inf])[0]
    for q in (0.5, 0.95, 0.99):
        assert quantile(bounds.tolist(), counts.tolist(), q) == pytest.approx(np.quantile(samples, q), abs=0.01)


def test_a_histogram_without_bounds_has_no_quantile() -> None:
    assert quantile([], [3], 0.5) is None


@pytest.mark.parametrize(("counts", "q"), [([1, 2], 0.5), ([1, 2, 3, 4], 1.5), ([1, 2, 3, 4], -0.1)])
def test_nonsense_is_refused(counts: list[float], q: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        quantile([1.0, 2.0, 4.0], counts, q)
