"""The tests of readings: a skill or a coverage that stays on the wrong side of its line."""

from __future__ import annotations

import math
from typing import Final

from forecasting.drift import evidence
from forecasting.drift.causes import Cause, Drift
from forecasting.drift.references import Reference

MARGIN: Final = 0.05
"""A skill or a coverage has recovered when it is better than its line by this."""

BELOW: Final = 0.1
"""How far the coverage may lie below what it should be."""


class Readings:
    """Since when each reading is bad; reported after a quarter of a day, and again only after it had recovered."""

    __slots__ = ("_active", "_bad", "_nominal", "_reference")

    def __init__(self, reference: Reference, nominal: float) -> None:
        self._reference, self._nominal = reference, nominal
        self._active: set[Cause] = set()
        self._bad: dict[Cause, float] = {}  # since when a reading is on the wrong side

    def test(self, now: float, skill: float | None, coverage: float | None, explained: bool) -> Drift | None:
        """Take in the readings at ``now`` (seconds since the epoch); nothing is reported where the data ``explained``
        it.
        """
        series = self._reference.series
        worse = self._since("skill", skill, 0.0, now, explained)
        off = self._since("coverage", coverage, self._nominal - BELOW, now, explained)
        if worse is not None and skill is not None:
            return Drift(series, "skill", skill, worse, evidence.skill(skill))
        if off is not None and coverage is not None:
            text = evidence.coverage(coverage, self._nominal)
            return Drift(series, "coverage", coverage - self._nominal, off, text)
        return None

    def _since(self, cause: Cause, reading: float | None, line: float, now: float, explained: bool) -> float | None:
        """Since when ``reading`` is below ``line``, if that is worth a report: for a quarter of a day."""
        if reading is None or not math.isfinite(reading):
            return None
        if reading > line + MARGIN:
            self._bad.pop(cause, None)
            self._active.discard(cause)
        elif reading < line:
            self._bad.setdefault(cause, now)
        since = self._bad.get(cause, now)
        patience = self._reference.season * self._reference.step / 4
        if now - since < patience or explained or cause in self._active:
            return None
        self._active.add(cause)
        return since
