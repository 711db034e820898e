"""Sums behind skill, losses and coverage."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.scores import Scores, buckets
from forecasting.series import FloatArray

H = 6


def record(scores: Scores, number: int, errors: FloatArray, count: int = 1) -> None:
    """The same ``errors (M + 1, H)`` for all series; nothing is said about coverage."""
    none = np.zeros((count, H), dtype=bool)
    scores.record(np.full(count, number), np.ones(count, dtype=bool), np.tile(errors, (count, 1, 1)), (none, none))


@pytest.mark.parametrize(
    ("horizon", "labels"), [(1, ["1"]), (3, ["1", "2-3"]), (6, ["1", "2-5", "6"]), (12, ["1", "2-5", "6-12"])]
)
def test_buckets_cover_the_horizon_once(horizon: int, labels: list[str]) -> None:
    found = buckets(horizon)
    assert list(found) == labels
    rows = np.concatenate([np.arange(horizon)[part] for part in found.values()])
    assert rows.tolist() == list(range(horizon))


def test_skill_compares_the_same_intervals_and_steps() -> None:
    scores = Scores.empty(1, 2, H, 10)
    record(scores, 0, np.array([[4.0] * H, [1.0] * H, [2.0] * H]))
    record(scores, 1, np.array([[8.0] * H, [np.nan] * H, [2.0] * H]))  # the model slept
    figures = scores.figures(1)
    np.testing.assert_allclose(figures.skill[0], [[0.0] * 3, [0.75] * 3, [1 - 4 / 12] * 3], rtol=1e-6)
    np.testing.assert_allclose(figures.loss[0], [[6.0] * 3, [1.0] * 3, [2.0] * 3], rtol=1e-6)
    assert figures.scored.tolist() == [[2, 2, 2]]


def test_nothing_is_known_before_anything_is_scored() -> None:
    figures = Scores.empty(2, 3, 12, 10).figures(0)
    assert np.isnan(figures.loss).all()
    assert np.isnan(figures.coverage).all()
    assert not figures.scored.any()
    assert np.isnan(Scores.empty(2, 3, 12, 10).figures(1).skill).all()


def test_skill_waits_for_the_least_intervals_per_bucket() -> None:
    scores, errors = Scores.empty(1, 1, H, 10), np.array([[4.0] * H, [1.0] * H])
    errors[:, 5] = np.nan  # the last step has not been reached yet
    record(scores, 0, errors)
    record(scores, 1, np.array([[4.0] * H, [1.0] * H]))
    figures = scores.figures(2)
    assert figures.scored.tolist() == [[2, 2, 1]]
    np.testing.assert_allclose(figures.skill[0, 1], [0.75, 0.75, np.nan])


@pytest.mark.parametrize(
    ("mine", "last", "skill"), [(0.0, 0.0, 0.0), (1.0, 0.0, -1.0), (99.0, 1.0, -1.0), (0.0, 1.0, 1.0)]
)
def test_skill_has_bounds(mine: float, last: float, skill: float) -> None:
    scores = Scores.empty(1, 1, H, 10)
    record(scores, 0, np.array([[last] * H, [mine] * H]))
    assert (scores.figures(1).skill[0, 1] == skill).all()


def test_one_broken_value_is_gone_once_it_leaves_the_window() -> None:
    scores = Scores.empty(1, 1, H, 10)
    record(scores, 0, np.array([[1e15] * H, [1e15] * H]))
    for number in range(1, 11):
        record(scores, number, np.array([[4.0] * H, [1.0] * H]))
    figures = scores.figures(1)
    np.testing.assert_array_equal(figures.skill[0, 1], 0.75)
    np.testing.assert_array_equal(figures.loss[0], [[4.0] * 3, [1.0] * 3])


def test_series_that_did_not_move_or_are_elsewhere_are_left_alone() -> None:
    scores, errors = Scores.empty(3, 1, H, 10), np.ones((3, 2, H))
    errors[1] = 7.0
    hits = np.ones((3, H), dtype=bool), np.ones((3, H), dtype=bool)
    scores.record(np.array([5, -(2**62), 3]), np.array([True, False, True]), errors, hits)
    figures = scores.figures(1)
    assert figures.scored.tolist() == [[1] * 3, [0] * 3, [1] * 3]
    np.testing.assert_array_equal(figures.coverage, [1.0, np.nan, 1.0])
    assert [int(row.argmax()) for row in scores.count[[0, 2], 0, 0]] == [5, 3]


def test_coverage_counts_steps_whose_quantile_was_shown() -> None:
    scores = Scores.empty(1, 1, H, 10)
    for number in range(300):
        good = np.array([[True, True, True, False, False, False]])
        shown = np.array([[True, True, True, True, number < 50, False]])
        scores.record(np.array([number]), np.array([True]), np.ones((1, 2, H)), (good, shown))
    assert scores.figures(1).coverage[0] == 0.75  # what was shown long ago is forgotten
