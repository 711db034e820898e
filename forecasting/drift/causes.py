"""What a series can have drifted in, and what is reported of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cause = Literal["level", "season", "variance", "telemetry hole", "skill", "coverage"]


@dataclass(frozen=True, slots=True)
class Drift:
    """One shift of one series.

    ``size`` depends on the cause. level, variance: now / before - 1. season: the correlation lost. telemetry hole: the
    share missing. skill: the skill. coverage: coverage - nominal. ``since`` is the estimated onset in seconds since
    the epoch; ``evidence`` is a sentence for people.
    """

    series: str
    cause: Cause
    size: float
    since: float
    evidence: str
