"""Rules that bound every step. Each takes a value and returns a value; a rule that changed something gives its name.

Replicas pass ``stabilization``, ``chaos``, ``step`` and ``bounds``; limits and rates pass ``chaos``, ``step``,
``dead-band`` and ``bounds``. Bounds come last, so no other rule can lead out of them. ``pause`` and ``dry-run`` keep
what is in force.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshctl.model import Outcome

STABILIZATION = "stabilization"
CHAOS = "chaos"
STEP = "step"
DEAD_BAND = "dead-band"
BOUNDS = "bounds"
PAUSE = "pause"
DRY_RUN = "dry-run"

#: Every rule, in the order of the module's docstring.
RULES = (STABILIZATION, CHAOS, STEP, DEAD_BAND, BOUNDS, PAUSE, DRY_RUN)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A value on its way through the rules, with the names of those that changed it."""

    value: float
    rules: tuple[str, ...] = ()

    def then(self, rule: str, value: float) -> Guarded:
        """The value after ``rule``."""
        if value == self.value:
            return self
        return Guarded(value, self.rules if rule in self.rules else (*self.rules, rule))


def guard_replicas(
    proposed: int,
    previous: int,
    *,
    recent: Iterable[int],
    bounds: tuple[int, int],
    step_up: int,
    step_down: int,
    frozen: bool,
) -> Guarded:
    """The count that may follow ``previous``. ``recent`` are the proposals within the stabilization window.

    Scale-down goes no lower than the largest recent proposal, and nowhere while the service is ``frozen`` by an
    experiment.
    """
    guarded = Guarded(proposed)
    guarded = guarded.then(STABILIZATION, max(guarded.value, min(previous, max(recent, default=proposed))))
    guarded = guarded.then(CHAOS, max(guarded.value, previous) if frozen else guarded.value)
    guarded = guarded.then(STEP, _clamp(guarded.value, previous - step_down, previous + step_up))
    return guarded.then(BOUNDS, _clamp(guarded.value, *bounds))


def guard_limit(
    proposed: float,
    previous: float,
    *,
    bounds: tuple[float, float],
    step: float,
    dead_band: float,
    frozen: bool,
) -> Guarded:
    """The limit or rate that may follow ``previous``. Tightening is slowed, and held in experiments."""
    guarded = Guarded(proposed)
    guarded = guarded.then(CHAOS, max(guarded.value, previous) if frozen else guarded.value)
    guarded = guarded.then(STEP, max(guarded.value, previous * (1 - step)))
    guarded = guarded.then(BOUNDS, _clamp(guarded.value, *bounds))
    near = abs(guarded.value - previous) < dead_band * previous
    guarded = guarded.then(DEAD_BAND, previous if near else guarded.value)
    return guarded.then(BOUNDS, _clamp(guarded.value, *bounds))


def outcome(guarded: Guarded, previous: float, *, paused: bool, dry_run: bool) -> tuple[Guarded, Outcome]:
    """What becomes of a guarded value: kept back by pause or dry-run, held, or applied.

    The value stays what would have been chosen; ``previous`` stays in force unless the outcome is ``applied``.
    """
    changed = guarded.value != previous
    if paused:
        return _named(guarded, PAUSE if changed else None), "paused"
    if dry_run:
        return _named(guarded, DRY_RUN if changed else None), "dry-run"
    return guarded, "applied" if changed else "held"


def _named(guarded: Guarded, rule: str | None) -> Guarded:
    return Guarded(guarded.value, (*guarded.rules, rule)) if rule else guarded


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(value, high))
