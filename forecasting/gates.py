"""Whether a forecast may act: gates that open and close by the skill it has shown, with hysteresis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecasting.series import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether the mixture may act in a bucket of steps, and by which figure: ``skill`` over ``scored`` intervals.

    ``since`` is the absolute number of the interval in which it last opened or closed, -1 where it never did.
    """

    steps: str
    open: bool
    skill: float | None
    scored: int
    since: int

    def told(self) -> str:
        """One line for people."""
        if self.skill is None:
            return f"steps {self.steps}: {self.scored} scored ticks: too little history"
        verb = "beats" if self.skill > 0 else "loses to" if self.skill < 0 else "equals"
        return f"steps {self.steps}: {verb} last value (skill {self.skill:+.2f} over {self.scored} scored ticks)"


@dataclass(slots=True, eq=False)
class Gates:
    """Those of N series, one per bucket of steps: ``open (N, B)``, and ``changed (N, B)``, the absolute number of the
    interval of their last move, -1 before the first.
    """

    open: BoolArray
    changed: IntArray

    @classmethod
    def shut(cls, count: int, buckets: int) -> Gates:
        """None has moved yet."""
        return cls(np.zeros((count, buckets), dtype=bool), np.full((count, buckets), -1, dtype=np.int64))

    def judge(self, skill: FloatArray, now: IntArray, enter: float, leave: float) -> None:
        """Open above a skill of ``enter`` and close below ``leave``, at interval ``now (N,)``.

        ``skill (N, B)`` that is unknown (NaN) opens nothing and closes.
        """
        known = np.nan_to_num(skill, nan=-1.0)
        is_open = np.where(self.open, known >= leave, known > enter)
        self.changed = np.where(is_open != self.open, now[:, None], self.changed)
        self.open = is_open
