"""The scalar types of a mesh file: each reads one value strictly and says in full what it expected.

A refused value raises ``PydanticCustomError`` of type ``expected`` whose message is complete ("expected an integer of
at least 1, got 0"); :mod:`meshctl.config.problems` only adds where it stood and what to do.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"


def refuse(expected: str, value: object) -> PydanticCustomError:
    """The error that says ``expected X, got Y``. Braces would be read as a template, so both travel as context."""
    return PydanticCustomError("expected", "expected {expected}, got {got}", {"expected": expected, "got": show(value)})


def show(value: object) -> str:
    """``value`` as a mesh file writes it, cut to 60 characters."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case str():
            return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}...'"
        case _:
            return str(value)


def parse_duration(value: object) -> float:
    """Seconds of ``500ms``, ``5s``, ``1h30m`` or a plain number of seconds.

    Raises ValueError for anything else, negative and non-finite numbers included.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value) and value >= 0:
            return float(value)
    elif isinstance(value, str) and re.fullmatch(DURATION_PATTERN, value):
        return math.fsum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(value))
    raise ValueError(
        f"expected a duration such as 500ms, 5s, 2m, 1h or 30d (or a number of seconds), got {show(value)}"
    )


def format_duration(seconds: float) -> str:
    """The shortest exact way to write ``seconds``: ``90`` is ``90s``, ``3600`` is ``1h``, ``0.5`` is ``500ms``."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _UNITS[unit] and (seconds / _UNITS[unit]).is_integer():
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds:g}s" if seconds >= 1 or seconds == 0 else f"{seconds * 1000:g}ms"


def _duration(low: float, high: float) -> Callable[[Any], float]:
    expected = f"a duration from {format_duration(low)} to {format_duration(high)} (such as 500ms, 5s, 2m, 1h or 30d)"

    def read(value: Any) -> float:
        try:
            seconds = parse_duration(value)
        except ValueError:
            raise refuse(expected, value) from None
        if not low <= seconds <= high:
            raise refuse(expected, value)
        return seconds

    return read


def duration(low: float, high: float) -> Any:
    """A duration type; values are float seconds, and are written back as text such as ``5s``."""
    text = {"type": "string", "pattern": DURATION_PATTERN}
    number = {"type": "number", "minimum": low, "maximum": high}
    return (
        PlainValidator(_duration(low, high)),
        WithJsonSchema({"anyOf": [text, number]}),
        PlainSerializer(format_duration, when_used="json"),
    )


def _within(noun: str, value: float, low: float, high: float | None, *, above: bool = False) -> None:
    if value < low or (above and value == low):
        raise refuse(f"{noun} {'above' if above else 'of at least'} {low:.10g}", value)
    if high is not None and value > high:
        raise refuse(f"{noun} of at most {high:.10g}", value)


def integer(low: int, high: int | None = None) -> Any:
    """A whole number within bounds; text, booleans and fractions are refused."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise refuse(f"an integer of at least {low}", value)
        _within("an integer", value, low, high)
        return value

    schema: dict[str, Any] = {"type": "integer", "minimum": low}
    return PlainValidator(read), WithJsonSchema(schema if high is None else schema | {"maximum": high})


def number(low: float, high: float | None = None, *, above: bool = False) -> Any:
    """A finite number from ``low`` (or ``above`` it) to ``high``; text and booleans are refused."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise refuse(f"a number {'above' if above else 'of at least'} {low:.10g}", value)
        _within("a number", value, low, high, above=above)
        return float(value)

    schema: dict[str, Any] = {"type": "number", "exclusiveMinimum" if above else "minimum": low}
    return PlainValidator(read), WithJsonSchema(schema if high is None else schema | {"maximum": high})


def one_of(*choices: float) -> Any:
    """One of a few numbers."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or value not in choices:
            raise refuse(f"one of {', '.join(f'{choice:g}' for choice in choices)}", value)
        return float(value)

    return PlainValidator(read), WithJsonSchema({"type": "number", "enum": list(choices)})


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise refuse("true or false", value)
    return value


def _label(value: Any) -> str:
    if not isinstance(value, str) or not _LABEL.fullmatch(value):
        raise refuse("a DNS label (at most 63 of a-z, 0-9 and '-', with a letter or digit at both ends)", value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise refuse("text", value)
    return value


def _prefix(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[^\s?#]*", value):
        raise refuse("a path that starts with '/' (without spaces, '?' and '#')", value)
    return value


def _ip(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(_text(value)))
    except ValueError:
        raise refuse("an IP address such as 127.0.0.1", value) from None


def _url(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        raise refuse("a URL such as http://127.0.0.1:18090", value)
    return value.rstrip("/")


def _spiffe(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(_SPIFFE, value):
        raise refuse("a SPIFFE id such as spiffe://mesh/ns/*/sa/frontend ('*' in path segments only)", value)
    return value


def _trust_domain(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(_DOMAIN, value):
        raise refuse("a trust domain such as mesh.example (a-z, 0-9, '.', '-' and '_', without spiffe://)", value)
    return value


def _pattern(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > _LONGEST_PATTERN or value.count("*") > _MOST_STARS:
        raise refuse(f"a name, of at most {_LONGEST_PATTERN} characters with at most {_MOST_STARS} '*'", value)
    return value


def _path(value: Any, info: ValidationInfo) -> Path:
    base: Path = (info.context or {}).get("base", Path())
    return base / (value if isinstance(value, Path) else Path(_text(value)).expanduser())


#: Many wildcards in one pattern would make it expensive to match.
_LONGEST_PATTERN, _MOST_STARS = 512, 4
_DOMAIN = r"[a-z0-9._-]{1,255}"
_SPIFFE = rf"spiffe://{_DOMAIN}(/[a-zA-Z0-9._*-]+)+"

_STRING = {"type": "string", "minLength": 1}

Flag = Annotated[bool, PlainValidator(_flag), WithJsonSchema({"type": "boolean"})]
Label = Annotated[str, PlainValidator(_label), WithJsonSchema({"type": "string", "pattern": f"^{_LABEL.pattern}$"})]
Text = Annotated[str, PlainValidator(_text), WithJsonSchema(_STRING)]
Prefix = Annotated[str, PlainValidator(_prefix), WithJsonSchema({"type": "string", "pattern": r"^/[^\s?#]*$"})]
IpAddress = Annotated[str, PlainValidator(_ip), WithJsonSchema(_STRING)]
Url = Annotated[str, PlainValidator(_url), WithJsonSchema({"type": "string", "pattern": r"^https?://[^\s/]+(/\S*)?$"})]
SpiffePattern = Annotated[str, PlainValidator(_spiffe), WithJsonSchema({"type": "string", "pattern": f"^{_SPIFFE}$"})]
TrustDomain = Annotated[
    str, PlainValidator(_trust_domain), WithJsonSchema({"type": "string", "pattern": f"^{_DOMAIN}$"})
]
#: A name in which ``*`` stands for any text.
Pattern = Annotated[
    str,
    PlainValidator(_pattern),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _LONGEST_PATTERN}),
]
#: A path; relative ones start at the folder of the mesh file (validation context ``base``).
FilePath = Annotated[Path, PlainValidator(_path), WithJsonSchema(_STRING), PlainSerializer(str)]
