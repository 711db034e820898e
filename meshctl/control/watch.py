"""Drift of every service, watched tick by tick: one :class:`~forecasting.drift.Detector` per service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forecasting.drift import Detector, Drift, DriftError, Reference, reference
from forecasting.selected import Selected
from forecasting.series import Series

NOMINAL = 0.95
"""``Selected.coverage`` is the share of values at or below this quantile."""

FEW = 32
"""Newest values that a detector is shown: it skips those that it knows, and what lies before them is missing anyway."""


class DriftWatch:
    """The detectors, and what each found last."""

    def __init__(self) -> None:
        self.found: dict[str, Drift] = {}
        self._detectors: dict[str, Detector] = {}
        self._begun: set[str] = set()

    def begin(self, references: Mapping[str, Reference]) -> None:
        """Watch against what series were like when the models in use were trained; forget what was found before."""
        self._detectors = {name: Detector(one, NOMINAL) for name, one in references.items()}
        self._begun, self.found = set(), {}

    def add(self, one: Reference) -> None:
        """Watch one more series."""
        self._detectors[one.series] = Detector(one, NOMINAL)
        self._begun.discard(one.series)

    def observe(self, series: Sequence[Series], selected: Sequence[Selected]) -> list[Drift]:
        """Take in a tick; what has drifted since the last one."""
        drifts = [self._one(one, chosen) for one, chosen in zip(series, selected, strict=True)]
        new = [drift for drift in drifts if drift is not None]
        self.found = self.found | {drift.series: drift for drift in new}
        return new

    def _one(self, series: Series, selected: Selected) -> Drift | None:
        detector = self._detectors.get(series.name)
        if detector is None:
            return None
        count = FEW if series.name in self._begun else series.season
        self._begun.add(series.name)
        return detector.observe(series.tail(count), mixture_skill(selected), selected.coverage)


def mixture_skill(selected: Selected) -> float:
    """As ``selected.skill["mixture"]``, NaN where it is unknown; alone, since it is asked every tick."""
    return float(selected.standing.figures.skill[selected.row, -1].mean())


def references(series: Sequence[Series]) -> dict[str, Reference]:
    """What each of ``series`` is like, without those that are too short to tell."""
    found = {}
    for one in series:
        try:
            found[one.name] = reference(one)
        except DriftError:
            continue
    return found


def stored_references(card: Mapping[str, Any], step: float, season: int) -> dict[str, Reference]:
    """Those in a model's card that fit to series of ``step`` seconds and ``season`` steps a day."""
    found = {}
    for name, told in (card.get("drift") or {}).items():
        try:
            one = Reference.from_dict(told)
        except DriftError:
            continue
        if (one.step, one.season) == (step, season):
            found[str(name)] = one
    return found
