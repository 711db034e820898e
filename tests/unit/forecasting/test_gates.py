"""Gates open late, close late, and say by what."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.gates import Gate, Gates

NAN = float("nan")


def test_between_the_two_lines_a_gate_stays_as_it_is() -> None:
    gates, told = Gates.shut(1, 1), []
    for number, skill in enumerate([0.01, 0.03, 0.01, -0.01, -0.03, 0.01]):
        gates.judge(np.array([[skill]]), np.array([100 + number]), 0.02, -0.02)
        told.append((bool(gates.open[0, 0]), int(gates.changed[0, 0])))
    assert told == [(False, -1), (True, 101), (True, 101), (True, 101), (False, 104), (False, 104)]


def test_on_the_line_nothing_moves() -> None:
    gates = Gates(np.array([[False, True]]), np.array([[-1, 5]]))
    gates.judge(np.array([[0.02, -0.02]]), np.array([9]), 0.02, -0.02)
    assert (gates.open.tolist(), gates.changed.tolist()) == ([[False, True]], [[-1, 5]])


def test_an_unknown_skill_opens_nothing_and_closes() -> None:
    gates = Gates(np.array([[False], [True]]), np.array([[-1], [5]]))
    gates.judge(np.full((2, 1), NAN), np.array([8, 9]), 0.02, -0.02)
    assert (gates.open.tolist(), gates.changed.tolist()) == ([[False], [False]], [[-1], [9]])


def test_what_was_told_before_does_not_change() -> None:
    gates = Gates.shut(1, 2)
    before = gates.open, gates.changed
    gates.judge(np.ones((1, 2)), np.array([3]), 0.02, -0.02)
    assert not before[0].any()
    assert (before[1] == -1).all()


@pytest.mark.parametrize(
    ("skill", "expected"),
    [
        (None, "steps 2-5: 7 scored ticks: too little history"),
        (0.25, "steps 2-5: beats last value (skill +0.25 over 7 scored ticks)"),
        (-0.25, "steps 2-5: loses to last value (skill -0.25 over 7 scored ticks)"),
        (0.0, "steps 2-5: equals last value (skill +0.00 over 7 scored ticks)"),
    ],
)
def test_a_gate_in_one_line(skill: float | None, expected: str) -> None:
    assert Gate("2-5", open=False, skill=skill, scored=7, since=-1).told() == expected
