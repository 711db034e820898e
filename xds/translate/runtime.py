"""RTDS: the numbers of one tick, as overrides that Envoy reads live. Nothing is rebuilt when they change.

Envoy acknowledges what it cannot use and keeps armed what it refuses, so values are checked here
(:func:`check_values`) before they are sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from envoy_data_plane.envoy.service.runtime.v3 import Runtime
from envoy_data_plane.google.protobuf import Struct, Value

from xds.errors import TranslateError
from xds.model import Fault, Limits, RuntimeLayer, RuntimeValue
from xds.snapshot import Resource, resource

#: Percent of the ingress's requests that join the treatment arm.
TREATMENT_KEY = "chaos.treatment"

ABORT_PERCENT = "fault.http.abort.abort_percent"
ABORT_STATUS = "fault.http.abort.http_status"
DELAY_PERCENT = "fault.http.delay.fixed_delay_percent"
DELAY_MILLISECONDS = "fault.http.delay.fixed_duration_ms"

#: Seconds; Envoy counts whole milliseconds, and a request that waits longer than this has long been given up.
MIN_DELAY = 0.001
MAX_DELAY = 600.0

MAX_VALUE = 2**31
_CIRCUIT_BREAKERS = "circuit_breakers."
_DENOMINATORS: Mapping[str, int] = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}


def rate_limit_key(service: str) -> str:
    """Percent of the planned rate limit's rejections that are enforced: 100 or, without a lease, 0."""
    return f"rate_limit.{service}.enforced"


def limits_values(limits: Mapping[str, Limits], enforced: Iterable[str] = ()) -> dict[str, RuntimeValue]:
    """The layer ``limits`` of one proxy.

    ``limits`` maps a callee to what this very process may send to it; ``enforced`` names the services whose planned
    rate limit acts at this ingress.
    """
    values: dict[str, RuntimeValue] = {}
    for callee, limit in sorted(limits.items()):
        prefix = f"{_CIRCUIT_BREAKERS}{callee}.default."
        values[f"{prefix}max_connections"] = limit.max_connections
        values[f"{prefix}max_pending_requests"] = limit.max_pending_requests
        values[f"{prefix}max_requests"] = limit.max_requests
        values[f"{prefix}max_retries"] = limit.max_retries
    values.update({rate_limit_key(service): 100 for service in sorted(enforced)})
    return values


def fault_values(fault: Fault) -> dict[str, RuntimeValue]:
    """The layer ``chaos`` of the sidecars of ``fault.service``; the other kind of fault is set to nothing.

    Raises :class:`~xds.errors.TranslateError` for a percentage, status or delay that Envoy would ignore.
    """
    _within("percent", fault.percent, 0, 100)
    if fault.kind == "abort":
        _within("status", fault.status, 200, 599)
        return {ABORT_PERCENT: fault.percent, ABORT_STATUS: fault.status, DELAY_PERCENT: 0}
    if not MIN_DELAY <= fault.delay <= MAX_DELAY:
        raise TranslateError(f"delay is {fault.delay!r}: expected {MIN_DELAY} to {MAX_DELAY:g} seconds")
    milliseconds = round(fault.delay * 1000)
    return {ABORT_PERCENT: 0, DELAY_PERCENT: fault.percent, DELAY_MILLISECONDS: milliseconds}


def treatment_values(fault: Fault) -> dict[str, RuntimeValue]:
    """The layer ``chaos`` of the ingresses: the share of requests that join the treatment arm."""
    _within("treatment_percent", fault.treatment_percent, 0, 100)
    return {TREATMENT_KEY: fault.treatment_percent}


def check_values(values: Mapping[str, RuntimeValue]) -> None:
    """Raise :class:`~xds.errors.TranslateError` unless Envoy would take every value and mean the same by it.

    Envoy accepts and ignores negative numbers, strings and booleans, reads 0.9 as 0, refuses null and lists but
    keeps them armed in the layer. A circuit breaker of 0 would cut a service off, so limits start at 1.
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            _check_fraction(key, value)
        else:
            least = 1 if key.startswith(_CIRCUIT_BREAKERS) else 0
            _within(f"runtime value {key!r}", value, least, MAX_VALUE)


def layer_resource(layer: RuntimeLayer) -> Resource:
    """``layer`` as the RTDS resource of its name; the same values give the same bytes, in whatever order they came.

    Raises :class:`~xds.errors.TranslateError` for a value that Envoy would refuse or misread.
    """
    check_values(layer.values)
    fields = {key: _value(layer.values[key]) for key in sorted(layer.values)}
    return resource(layer.name, Runtime(name=layer.name, layer=Struct(fields=fields)))


def _value(value: RuntimeValue) -> Value:
    if isinstance(value, Mapping):
        parts = {"denominator": value.get("denominator", "HUNDRED"), "numerator": value["numerator"]}
        return Value(struct_value=Struct(fields={name: _scalar(part) for name, part in parts.items()}))
    return _scalar(value)


def _scalar(value: int | str) -> Value:
    return Value(string_value=value) if isinstance(value, str) else Value(number_value=float(value))


def _check_fraction(key: str, value: Mapping[str, int | str]) -> None:
    unknown = sorted(set(value) - {"numerator", "denominator"})
    denominator = value.get("denominator", "HUNDRED")
    if unknown or "numerator" not in value or str(denominator) not in _DENOMINATORS:
        raise TranslateError(
            f"runtime value {key!r} is {dict(value)!r}: expected numerator and denominator, the latter one of "
            + ", ".join(_DENOMINATORS)
        )
    _within(f"numerator of runtime value {key!r}", value["numerator"], 0, _DENOMINATORS[str(denominator)])


def _within(what: str, value: object, least: int, most: int) -> None:
    """``value`` is an ``int`` (a ``bool`` is none) from ``least`` to ``most``, or the error says what it is instead."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise TranslateError(f"{what} is {value!r}: expected an integer from {least} to {most}")
