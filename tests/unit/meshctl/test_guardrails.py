"""Each guardrail by itself, and in company."""

from __future__ import annotations

from typing import Any

import pytest

from meshctl.planning.guardrails import RULES, Guarded, guard_limit, guard_replicas, outcome


def replicas(proposed: int, previous: int, **changes: Any) -> Guarded:
    settings: dict[str, Any] = {"recent": [proposed], "bounds": (1, 10), "step_up": 2, "step_down": 1, "frozen": False}
    return guard_replicas(proposed, previous, **{**settings, **changes})


def limit(proposed: float, previous: float, **changes: Any) -> Guarded:
    settings: dict[str, Any] = {"bounds": (1.0, 100.0), "step": 0.5, "dead_band": 0.05, "frozen": False}
    return guard_limit(proposed, previous, **{**settings, **changes})


@pytest.mark.parametrize(
    ("proposed", "previous", "value", "rules"),
    [
        (4, 3, 4, ()),
        (3, 3, 3, ()),
        (9, 3, 5, ("step",)),
        (1, 5, 4, ("step",)),
        (0, 1, 1, ("bounds",)),
        (99, 9, 10, ("step", "bounds")),
        (3, 15, 10, ("step", "bounds")),  # the maximum was lowered: bounds hold at once
    ],
)
def test_steps_and_bounds(proposed: int, previous: int, value: int, rules: tuple[str, ...]) -> None:
    assert replicas(proposed, previous) == Guarded(value, rules)


def test_scale_down_waits_for_the_window() -> None:
    assert replicas(2, 5, recent=[5, 3, 2]) == Guarded(5, ("stabilization",))
    assert replicas(2, 5, recent=[4, 3, 2]) == Guarded(4, ("stabilization",))
    assert replicas(2, 5, recent=[2]) == Guarded(4, ("step",))


def test_an_old_peak_never_scales_up() -> None:
    assert replicas(2, 3, recent=[8, 2]).value == 3


def test_an_experiment_holds_scale_down_only() -> None:
    assert replicas(2, 5, frozen=True) == Guarded(5, ("chaos",))
    assert replicas(6, 5, frozen=True) == Guarded(6)


@pytest.mark.parametrize(
    ("proposed", "previous", "value", "rules"),
    [
        (50, 40, 50, ()),
        (30, 40, 30, ()),
        (10, 40, 20, ("step",)),
        (41, 40, 40, ("dead-band",)),
        (39, 40, 40, ("dead-band",)),
        (42, 40, 42, ()),
        (500, 40, 100, ("bounds",)),
        (0, 1, 1, ("step", "bounds")),
        (97, 120, 97, ()),
        (118, 120, 100, ("bounds",)),
        (118, 102, 100, ("bounds", "dead-band")),  # what is in force is out of bounds by less than the dead band
    ],
)
def test_limits(proposed: float, previous: float, value: float, rules: tuple[str, ...]) -> None:
    assert limit(proposed, previous) == Guarded(value, rules)


def test_an_experiment_holds_tightening_only() -> None:
    assert limit(10, 40, frozen=True) == Guarded(40, ("chaos",))
    assert limit(60, 40, frozen=True) == Guarded(60)


@pytest.mark.parametrize(
    ("value", "paused", "dry_run", "expected", "rules"),
    [
        (4, False, False, "applied", ()),
        (3, False, False, "held", ()),
        (4, True, False, "paused", ("pause",)),
        (3, True, False, "paused", ()),
        (4, False, True, "dry-run", ("dry-run",)),
        (4, True, True, "paused", ("pause",)),
    ],
)
def test_what_becomes_of_a_value(
    value: int, paused: bool, dry_run: bool, expected: str, rules: tuple[str, ...]
) -> None:
    assert outcome(Guarded(value), 3, paused=paused, dry_run=dry_run) == (Guarded(value, rules), expected)


def test_every_rule_has_its_name_in_the_list() -> None:
    used = {*replicas(99, 1).rules, *replicas(0, 9, recent=[8], frozen=True).rules, *limit(41, 40).rules}
    assert used <= set(RULES)
