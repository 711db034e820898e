"""What the selector says about every series after a tick, and why.

Most readers want little of it: ``Standing`` keeps the arrays of all series as they were at the tick, and ``Selected``
is one row of it that works out what it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forecasting.base import QUANTILES, Forecast, column
from forecasting.gates import Gate
from forecasting.scores import Figures
from forecasting.series import BoolArray, FloatArray, IntArray

MIXTURE, LAST = "mixture", "last"

SHOWN = 0.005
"""Shares of the mixture below this are not worth a word."""


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """All N series at one tick. M models, B buckets of steps; nothing in it changes later.

    ``end (N,)`` and ``step (N,)`` in seconds. ``values`` and ``peaks (N, H, Q)`` are served, ``weights (N, M)`` are
    those of the next step's median. ``open (N, B)``: gates that the forecast went by; ``changed (N, B)``: when they
    last moved. ``quiet``: why nothing may be said about some rows. ``least``: scored intervals a gate waits for.
    """

    names: Sequence[str]
    models: Sequence[str]
    buckets: Mapping[str, slice]
    least: int
    end: FloatArray
    step: FloatArray
    values: FloatArray
    peaks: FloatArray
    weights: FloatArray
    figures: Figures
    open: BoolArray
    changed: IntArray
    quiet: Mapping[int, str]

    def rows(self) -> list[Selected]:
        """One result per series, in order."""
        return [Selected(self, row) for row in range(len(self.names))]


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """The forecast of one series, which may be acted upon if ``skilled``."""

    standing: Standing
    row: int

    @property
    def forecast(self) -> Forecast:
        """What is expected, whether it may be acted upon or not."""
        all_ = self.standing
        end, step = float(all_.end[self.row]), float(all_.step[self.row])
        return Forecast(all_.names[self.row], self.model, end, step, QUANTILES, all_.values[self.row])

    @property
    def model(self) -> str:
        """``mixture``, or ``last`` where no other model has anything to say."""
        return LAST if self.standing.weights[self.row, 0] > 1.0 - SHOWN else MIXTURE

    @property
    def skilled(self) -> bool:
        """Whether any gate is open."""
        return bool(self.standing.open[self.row].any())

    @property
    def reason(self) -> str:
        """Why it may be acted upon or not, for people."""
        if self.row in self.standing.quiet:
            return self.standing.quiet[self.row]
        gates = self.gates
        if all(gate.skill is None for gate in gates):
            return f"{self.scored} of {self.standing.least} scored ticks: too little history"
        return "; ".join(gate.told() for gate in gates)

    @property
    def gates(self) -> tuple[Gate, ...]:
        """One per bucket of steps, nearest first."""
        all_, row = self.standing, self.row
        figures = (all_.open[row], all_.figures.skill[row, -1], all_.figures.scored[row], all_.changed[row])
        return tuple(
            Gate(label, bool(is_open), _known(skill), int(scored), int(since))
            for label, is_open, skill, scored, since in zip(all_.buckets, *figures, strict=True)
        )

    @property
    def weights(self) -> Mapping[str, float]:
        """The models' shares in the next step's median; those below half a percent are left out."""
        shares = zip(self.standing.models, self.standing.weights[self.row], strict=True)
        return {name: float(share) for name, share in shares if share >= SHOWN}

    @property
    def skill(self) -> Mapping[str, float | None]:
        """Per model and of the mixture, the mean over the buckets; None where one of them is unknown."""
        names = (*self.standing.models[1:], MIXTURE)
        return {name: _mean(row) for name, row in zip(names, self.standing.figures.skill[self.row, 1:], strict=True)}

    @property
    def losses(self) -> Mapping[str, Mapping[str, float | None]]:
        """Per model and of the mixture, mean absolute error by bucket of steps (``1``, ``2-5``, ``6-12``), in the unit
        of the series; None where nothing is scored.
        """
        names, labels = (*self.standing.models, MIXTURE), self.standing.buckets
        rows = self.standing.figures.loss[self.row]
        return {name: dict(zip(labels, map(_known, row), strict=True)) for name, row in zip(names, rows, strict=True)}

    @property
    def scored(self) -> int:
        """Intervals behind the figures."""
        return int(self.standing.figures.scored[self.row].max())

    @property
    def coverage(self) -> float | None:
        """The share of values at or below the mixture's 0.95 quantile lately (all steps); None before the first."""
        return _known(self.standing.figures.coverage[self.row])

    @property
    def peaks(self) -> FloatArray:
        """``(H, Q)``: row ``k - 1`` is the maximum of the next ``k`` steps."""
        return np.asarray(self.standing.peaks[self.row])

    def peak(self, steps: int, quantile: float) -> float:
        """Quantile of the *maximum* over the next ``steps`` steps (clipped to the horizon).

        The largest of the steps' quantiles misjudges it (any step may be the one that surprises); so it is tracked by
        how often such maxima were missed before. Raises QuantileError.
        """
        peaks = self.peaks
        return float(peaks[min(max(steps, 1), len(peaks)) - 1, column(QUANTILES, quantile)])

    def may_act(self, step: int) -> bool:
        """Whether the gate of step ``step`` (1 is the next) is open; never beyond the horizon."""
        parts = zip(self.standing.buckets.values(), self.standing.open[self.row], strict=True)
        return any(bool(is_open) and part.start < step <= part.stop for part, is_open in parts)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if np.isfinite(values).all() else None
