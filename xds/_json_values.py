"""Single values of proto3 JSON, read strictly: each refusal says what was expected and what was got."""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

#: No field of Envoy's API takes a negative one, and betterproto encodes it wrongly.
_DURATION = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9}))?s")
_INTEGER = re.compile(r"-?[0-9]{1,20}")
RANGES = {
    **dict.fromkeys(("int32", "sint32", "sfixed32"), (-(2**31), 2**31 - 1)),
    **dict.fromkeys(("uint32", "fixed32"), (0, 2**32 - 1)),
    **dict.fromkeys(("int64", "sint64", "sfixed64"), (-(2**63), 2**63 - 1)),
    **dict.fromkeys(("uint64", "fixed64"), (0, 2**64 - 1)),
}
_FLOATS = ("NaN", "Infinity", "-Infinity")


class Wrong(Exception):  # noqa: N818 - never leaves the reading of JSON
    """A value that cannot be read; the message says what was expected."""


def integer_of(kind: str, data: Any) -> int:
    low, high = RANGES.get(kind, (0, 0))
    value = int(data) if isinstance(data, str) and _INTEGER.fullmatch(data) else data
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Wrong(f"expected a whole number from {low} to {high}, got {shown(data)}")
    return value


def float_of(data: Any) -> float:
    if isinstance(data, str) and data not in _FLOATS:
        try:
            data = float(data) if re.fullmatch(r"[-+.0-9eE]+", data) else None
        except ValueError:
            data = None
    if isinstance(data, bool) or not isinstance(data, int | float | str):
        raise Wrong(f"expected a number, got {shown(data)}")
    return float(data)


def bool_of(data: Any) -> bool:
    if not isinstance(data, bool):
        raise Wrong(f"expected true or false, got {shown(data)}")
    return data


def string_of(data: Any) -> str:
    if not isinstance(data, str):
        raise Wrong(f"expected text, got {shown(data)}; put it in quotes")
    if any("\ud800" <= character <= "\udfff" for character in data):
        raise Wrong("expected text, got half a surrogate pair, which UTF-8 does not have")
    return data


def bytes_of(data: Any) -> bytes:
    try:
        text = string_of(data).translate(str.maketrans("-_", "+/"))
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Wrong("expected bytes as base64; encode them (base64 -w0)") from None


def duration_of(data: Any) -> timedelta:
    match = _DURATION.fullmatch(data) if isinstance(data, str) else None
    if match is None:
        raise Wrong(f"expected seconds such as '5s' or '0.25s', got {shown(data)}")
    whole, part = match.groups()
    nanos = int((part or "").ljust(9, "0"))
    if nanos % 1000:
        raise Wrong(f"expected whole microseconds, got {shown(data)}; Envoy's timers are no finer than milliseconds")
    return timedelta(seconds=int(whole), microseconds=nanos // 1000)


def timestamp_of(data: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(data)
    except (TypeError, ValueError):
        raise Wrong(f"expected a time such as '2026-01-31T12:00:00Z', got {shown(data)}") from None
    if moment.tzinfo is None:
        raise Wrong(f"expected a time with its zone, got {shown(data)}; add Z for UTC")
    return moment.astimezone(UTC)


def shown(value: Any) -> str:
    """A value as the user wrote it, cut to 60 characters."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def meant(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or what is known."""
    options = [name for name in known if "_" in name or name.islower() or name.isupper()]
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    some = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")
    return f"use one of {some}" if some else "it has no fields"
