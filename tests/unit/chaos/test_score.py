"""The score: each factor by hand, its bounds, and how the lower bound behaves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.score import WEIGHTS, Counts, Score, Target, Window, score, score_document, total

TARGET = Target(exposure=0.30, slo=0.99, objective=30.0, step=5.0)


def windows(*bad: int, requests: int = 100, control: int = 0) -> list[Window]:
    return [Window(5.0 * i, Counts(requests, b), Counts(requests, control)) for i, b in enumerate(bad)]


def measured(fault: list[Window], recovery: list[Window], target: Target = TARGET, seed: int = 0) -> Score:
    result = score(fault, recovery, target, np.random.default_rng(seed))
    assert result is not None
    return result


def factor(result: Score, name: str) -> float:
    return next(f.value for f in result.factors if f.name == name)


def test_a_mesh_that_contains_every_fault_scores_100() -> None:
    result = measured(windows(0, 0), windows(0, 0))
    assert (result.value, result.lower) == (100.0, 100.0)


def test_the_weights_are_those_of_the_formula() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)
    assert [WEIGHTS[name] for name in ("containment", "availability", "recovery", "budget")] == [0.35, 0.25, 0.2, 0.2]


def test_every_factor_by_hand() -> None:
    """6 % excess of 30 % injected; loss of 6 % in 2 of 4 windows; recovered at once; burn 6 of 14.4."""
    result = measured(windows(6, 6), windows(0, 0))
    expected = {"containment": 1 - 0.06 / 0.30, "availability": 1 - 0.03, "recovery": 1.0, "budget": 1 - 6 / 14.4}
    assert {f.name: f.value for f in result.factors} == pytest.approx(expected)
    product = np.prod([expected[name] ** weight for name, weight in WEIGHTS.items()])
    assert result.value == pytest.approx(100 * product)


def test_control_errors_are_no_effect_of_the_fault() -> None:
    result = measured(windows(6, 6, control=6), windows(6, 6, control=6))
    assert result.value == pytest.approx(100.0)


def test_one_dead_factor_is_not_averaged_away() -> None:
    result = measured(windows(15, 15), windows(0))
    assert factor(result, "containment") == pytest.approx(0.5)
    assert factor(result, "budget") == 0.0
    assert result.value == 0.0


def test_recovery_halves_with_every_objective() -> None:
    late = measured(windows(5), windows(5, 5, 5, 5, 5, 5, 0))  # 6 windows of 5 s = one objective
    assert factor(late, "recovery") == pytest.approx(0.5)


def test_a_fault_without_recovery_counts_all_that_was_watched() -> None:
    result = measured(windows(5), windows(5, 5))
    assert factor(result, "recovery") == pytest.approx(2 ** (-10 / 30))
    assert "not within the 10 s watched" in next(f.reason for f in result.factors if f.name == "recovery")


def test_a_window_without_traffic_proves_no_recovery() -> None:
    result = measured(windows(5), [*windows(0, requests=0), *windows(0)])
    assert factor(result, "recovery") == pytest.approx(2 ** (-5 / 30))


def only_control(*bad: int) -> list[Window]:
    """Windows after the fault: its treatment arm has ended."""
    return [Window(0.0, Counts(0, 0), Counts(100, b)) for b in bad]


def test_without_a_treatment_arm_recovery_is_everybodys() -> None:
    result = measured(windows(5), only_control(4, 2, 0))
    assert factor(result, "recovery") == pytest.approx(2 ** (-10 / 30))
    assert factor(result, "availability") == pytest.approx(1 - (0.05 + 0.04 + 0.02) / 4)


def test_a_window_of_the_fault_without_a_treatment_arm_says_nothing() -> None:
    with_edge = measured([*only_control(50), *windows(6, 6)], windows(0))
    assert factor(with_edge, "availability") == pytest.approx(1 - 0.12 / 3)


def test_a_better_treatment_arm_is_no_more_than_whole() -> None:
    assert measured(windows(0, 0, control=5), windows(0)).value == 100.0


@pytest.mark.parametrize(
    ("fault", "exposure"),
    [([], 0.3), (windows(1, requests=0), 0.3), (windows(1), 0.0), ([Window(0, Counts(9, 1), Counts(0, 0))], 0.3)],
)
def test_nothing_to_measure_is_no_score(fault: list[Window], exposure: float) -> None:
    target = Target(exposure, 0.99, 30.0, 5.0)
    assert score(fault, [], target, np.random.default_rng(0)) is None


def test_the_lower_bound_is_below_the_score_and_repeatable() -> None:
    first, second = (measured(windows(5, 3), windows(0, 0)) for _ in range(2))
    assert 0 < first.lower < first.value
    assert first == second


def test_more_requests_raise_the_lower_bound() -> None:
    few = measured(windows(3, 3), windows(0))
    many = measured(windows(300, 300, requests=10_000), windows(0, requests=10_000))
    assert few.value == pytest.approx(many.value)
    assert few.lower < many.lower


def test_the_lower_bound_holds_for_most_repetitions() -> None:
    """At least 9 of 10 bounds from samples lie below the score of the truth (nominal: 95 %)."""
    generator = np.random.default_rng(7)
    truth = measured(windows(400, 400, requests=10_000), windows(0, requests=10_000)).value
    below = 0
    for seed in range(200):
        bad = generator.binomial(500, 0.04, size=2)
        below += measured(windows(*map(int, bad), requests=500), windows(0, requests=500), seed=seed).lower <= truth
    assert below >= 180


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=6),
    st.floats(0.01, 1.0),
    st.floats(0.5, 1.0),
)
def test_scores_stay_in_bounds(
    fault: list[tuple[int, int]], recovery: list[tuple[int, int]], exposure: float, slo: float
) -> None:
    during, after = ([Window(0.0, Counts(50, t), Counts(50, c)) for t, c in pairs] for pairs in (fault, recovery))
    result = measured(during, after, Target(exposure, slo, 30.0, 5.0))
    assert 0 <= result.lower <= result.value <= 100
    assert all(0 <= f.value <= 1 for f in result.factors)


def test_totals_add_both_arms() -> None:
    assert total(windows(1, 2, control=3)) == (Counts(200, 3), Counts(200, 6))
    assert total([]) == (Counts(0, 0), Counts(0, 0))


def test_the_document_explains_every_factor() -> None:
    document = json.loads(json.dumps(score_document(measured(windows(6, 6), windows(0)))))
    assert [f["name"] for f in document["factors"]] == list(WEIGHTS)
    assert all(f["reason"] for f in document["factors"])
