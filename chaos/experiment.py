"""Experiments as data, and the Chaos Toolkit document that one becomes.

An experiment injects its faults one after the other into one service, for a random part of the user requests, and
watches the entry service: the treatment arm is compared with the control arm *of the same seconds*. The hypothesis is
the entry service's SLO. It gates the start and is checked again after recovery by Chaos Toolkit; the verdict on the
seconds of the fault is ours (:mod:`chaos.verdict`), because a comparison of before and after mistakes a change of
load for an effect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from chaos.client import ApiConfig
from chaos.errors import ExperimentError
from chaos.faults import Fault

ACTIONS = "chaos.actions"
PROBES = "chaos.probes"

T = TypeVar("T", "Experiment", Fault)

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)?")
_UNITS: Mapping[str, float] = {"ms": 0.001, "s": 1.0, "m": 60.0}
_DURATIONS = frozenset({"pause", "recovery", "window", "objective", "duration", "delay"})


@dataclass(frozen=True, slots=True)
class Experiment:
    """Faults in ``service`` as users of ``entry`` feel them.

    ``pause`` (seconds) separates two faults; ``recovery`` (seconds) is watched after the last one; ``window``
    (seconds) is the span of the steady-state probe, so ``recovery`` should exceed it; ``objective`` (seconds) is the
    time in which the service should recover. Raises :class:`ExperimentError`.
    """

    title: str
    service: str
    entry: str
    faults: tuple[Fault, ...]
    pause: float = 8.0
    recovery: float = 20.0
    window: float = 10.0
    objective: float = 30.0

    def __post_init__(self) -> None:
        for name in ("title", "service", "entry"):
            _text(name, getattr(self, name))
        for name in ("pause", "recovery", "window", "objective"):
            _seconds(name, getattr(self, name))
        if not self.faults:
            raise ExperimentError("faults", "there is none", "name at least one, such as {kind: abort, percent: 30}")

    @property
    def length(self) -> float:
        """Seconds that the method takes when nothing goes wrong."""
        return sum(fault.duration for fault in self.faults) + self.pause * (len(self.faults) - 1) + self.recovery

    def document(self) -> dict[str, Any]:
        """The experiment as JSON; :func:`from_mapping` reads it back."""
        return {**asdict(self), "faults": [asdict(fault) for fault in self.faults]}


def parse_duration(text: str) -> float:
    """Seconds of ``400ms``, ``10s``, ``2m`` or a bare number of seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write 400ms, 10s or 2m")
    return float(match[1]) * _UNITS[match[2] or "s"]


def standard(
    service: str, entry: str, *, percent: int, treatment_percent: int, duration: float, delay: float
) -> Experiment:
    """The standard experiment: abort, then delay, each for ``duration`` seconds."""
    return Experiment(
        title=f"{entry} stays within its SLO while {service} fails and slows down",
        service=service,
        entry=entry,
        faults=(
            Fault("abort", percent, treatment_percent, duration),
            Fault("delay", percent, treatment_percent, duration, delay=delay),
        ),
    )


def from_mapping(document: object) -> Experiment:
    """An experiment from parsed YAML or JSON; durations are seconds or texts such as 400ms. Raises
    :class:`ExperimentError` naming the field.
    """
    values = dict(_known("", document, Experiment))
    faults = values.pop("faults", ())
    if not isinstance(faults, Sequence) or isinstance(faults, str):
        raise ExperimentError("faults", f"{faults!r} is no list", "write a list of faults")
    parsed = tuple(_fault(f"faults[{index}]", fault) for index, fault in enumerate(faults))
    return _build("", {**values, "faults": parsed}, Experiment)


def to_chaostoolkit(experiment: Experiment, api: ApiConfig, experiment_id: int | str | None = None) -> dict[str, Any]:
    """The experiment for ``chaos run``. It names the file of the API token, never the token itself."""
    faults = experiment.faults
    method = [activity for index in range(len(faults)) for activity in _fault_activities(experiment, index)]
    return {
        "title": experiment.title,
        "description": f"Faults in {experiment.service}: " + "; then ".join(map(str, faults)),
        "tags": ["meshctl", experiment.service],
        "configuration": _configuration(api, experiment_id),
        "runtime": {"rollbacks": {"strategy": "always"}},
        "steady-state-hypothesis": _hypothesis(experiment),
        "method": method,
        "rollbacks": [_python("action", "delete-faults", ACTIONS, "end")],
    }


def _configuration(api: ApiConfig, experiment_id: int | str | None) -> dict[str, Any]:
    return {
        "meshctl_url": api.url,
        "meshctl_token_file": api.token_file,
        "meshctl_timeout": api.timeout,
        "meshctl_experiment": experiment_id,
    }


def _hypothesis(experiment: Experiment) -> dict[str, Any]:
    arguments = {"service": experiment.entry, "window": experiment.window}
    probe = _python("probe", "slo-holds", PROBES, "slo_holds", arguments)
    return {"title": f"{experiment.entry} meets its SLO", "probes": [{**probe, "tolerance": True}]}


def _fault_activities(experiment: Experiment, index: int) -> list[dict[str, Any]]:
    """Inject, hold, prove, end, and let the mesh settle. Names carry the fault's index: the journal is read by them."""
    fault = experiment.faults[index]
    last = index == len(experiment.faults) - 1
    arguments = {"service": experiment.service, "kind": fault.kind, **_settings(fault)}
    proof = _python("probe", f"proof-{index}", PROBES, "injected", {"kind": fault.kind})
    settled = _python("probe", f"settled-{index}", PROBES, "good_percent", {"service": experiment.entry, "window": 5.0})
    return [
        _python("action", f"inject-{index}", ACTIONS, "inject", arguments),
        {**proof, "pauses": {"before": fault.duration}},
        _python("action", f"end-{index}", ACTIONS, "end"),
        {**settled, "pauses": {"before": experiment.recovery if last else experiment.pause}},
    ]


def _settings(fault: Fault) -> dict[str, Any]:
    names = ("percent", "treatment_percent", "duration", "status" if fault.kind == "abort" else "delay")
    return {name: getattr(fault, name) for name in names}


def _python(
    kind: str, name: str, module: str, function: str, arguments: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    provider = {"type": "python", "module": module, "func": function, "arguments": dict(arguments or {})}
    return {"type": kind, "name": name, "provider": provider}


def _known(where: str, document: object, target: type[Experiment] | type[Fault]) -> Mapping[str, Any]:
    names = [field.name for field in fields(target)]
    if not isinstance(document, Mapping):
        raise ExperimentError(where or "file", f"{document!r} is no mapping", f"write {', '.join(names)}")
    for name in document:
        if name not in names:
            raise ExperimentError(_join(where, str(name)), "is unknown", f"use one of {', '.join(names)}")
    return {name: _value(_join(where, name), name, value) for name, value in document.items()}


def _value(where: str, name: str, value: object) -> object:
    if name not in _DURATIONS or not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ExperimentError(where, *str(error).split("; ", 1)) from None


def _fault(where: str, document: object) -> Fault:
    return _build(where, _known(where, document, Fault), Fault)


def _build(where: str, values: Mapping[str, Any], target: type[T]) -> T:
    try:
        return target(**values)
    except TypeError as error:
        raise ExperimentError(where or "file", str(error).split("() ")[-1], "add what is missing") from None


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _text(field: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ExperimentError(field, f"{value!r} is no text", "write a name")


def _seconds(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 3600:
        raise ExperimentError(field, f"{value!r} is not usable", "use seconds above 0 and at most 3600")
