"""What a request may say: query, body and path become values, or a :class:`RequestError` that names the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from meshctl.errors import MeshctlError

MAX_ROWS = 10_000


class RequestError(MeshctlError):
    """The request cannot be meant; ``status`` and ``code`` go into the answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


async def body(request: web.Request) -> dict[str, Any]:
    if not request.can_read_body:
        return {}
    try:
        body = await request.json()
    except ValueError as error:
        raise RequestError(400, "invalid", f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RequestError(400, "invalid", "the body must be a JSON object")
    return body


def text(body: Mapping[str, Any], field_name: str) -> str:
    value = body.get(field_name)
    if not isinstance(value, str) or not value:
        raise RequestError(400, "invalid", f"{field_name}: expected a non-empty string, got {value!r}")
    return value


def within(body: Mapping[str, Any], field_name: str, default: float, least: float, most: float) -> float:
    value = body.get(field_name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise RequestError(400, "invalid", f"{field_name}: expected a number from {least:g} to {most:g}, got {value!r}")
    return float(value)


def integer(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.removeprefix("-").isdecimal():
        raise RequestError(400, "invalid", f"{name}: expected an integer, got {text!r}")
    return int(text) if name == "after" else max(0, min(int(text), MAX_ROWS))


def number(query: Mapping[str, str], name: str, default: float) -> float:
    text = query.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RequestError(400, "invalid", f"{name}: expected a number of seconds, got {text!r}")
    return value


def identity(request: web.Request) -> int:
    text = request.match_info["id"]
    if not text.isdecimal():
        raise RequestError(404, "not_found", f"no record {text!r}: an id is a number")
    return int(text)


def found(record: Mapping[str, Any] | None, message: str) -> Mapping[str, Any]:
    if record is None:
        raise RequestError(404, "not_found", message)
    return record
