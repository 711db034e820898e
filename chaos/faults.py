"""Faults as data. Where a fault stands decides what it tests.

Ours stand in the *inbound* Envoy of the service under fault and hit only requests of the treatment arm, so they meet
the callers' retries, timeouts, circuit breakers and outlier detection: they test mesh policy together with the
application behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from chaos.errors import ExperimentError

Kind = Literal["abort", "delay"]

#: The longest fault that the control plane accepts (seconds).
MAX_DURATION = 600.0

#: Seconds by which a fault's own deadline outlives its planned end, so that the proof can be read while it is active.
GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of an experiment.

    ``percent`` (1 to 100, whole: Envoy reads 0.5 as 0) of the treatment arm's requests at the service are hit, and
    ``treatment_percent`` of the user requests at the ingress join that arm. ``duration`` is in seconds; ``status`` is
    the answer of an abort; ``delay`` (seconds) is what a delay adds. Raises :class:`ExperimentError`.
    """

    kind: Kind
    percent: int
    treatment_percent: int = 50
    duration: float = 10.0
    status: int = 503
    delay: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("abort", "delay"):
            raise ExperimentError("faults.kind", f"{self.kind!r} is unknown", "use abort or delay")
        _whole("faults.percent", self.percent, 1, 100)
        _whole("faults.treatment_percent", self.treatment_percent, 1, 99)
        _whole("faults.status", self.status, 400, 599)
        _positive("faults.duration", self.duration, MAX_DURATION - GRACE)
        if self.kind == "delay":
            _positive("faults.delay", self.delay, 60.0)

    def request(self, service: str, experiment: int | str | None) -> dict[str, Any]:
        """The body of POST /v1/faults."""
        body: dict[str, Any] = {
            "service": service,
            "kind": self.kind,
            "percent": self.percent,
            "treatment_percent": self.treatment_percent,
            "duration": self.duration + GRACE,
            "experiment": experiment,
        }
        return {**body, "status": self.status} if self.kind == "abort" else {**body, "delay": self.delay}

    def __str__(self) -> str:
        what = f"abort with {self.status}" if self.kind == "abort" else f"delay by {self.delay * 1000:g} ms"
        return f"{what}, {self.percent} % of the treatment arm, {self.duration:g} s"


def injected(fault: Mapping[str, Any], kind: str) -> int:
    """The proof counter of ``kind`` in an answer of GET /v1/faults/{id}; 0 where it is not known."""
    counters = fault.get("injected") or {}
    return int(counters.get("aborts" if kind == "abort" else "delays") or 0)


def _whole(field: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ExperimentError(field, f"{value!r} is not usable", f"use a whole number from {least} to {most}")


def _positive(field: str, value: object, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ExperimentError(field, f"{value!r} is not usable", f"use seconds above 0 and at most {most:g}")
