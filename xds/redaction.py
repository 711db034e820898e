"""Encoded resources without what is secret in them, for people who may see configuration but no keys.

What is secret says :mod:`xds.sensitive`: what Envoy replaces in its own ``/config_dump``, and more.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any
from weakref import WeakKeyDictionary

from betterproto2 import Message

from xds._encoder import encode
from xds._json import known_type, parse, type_url_of
from xds.errors import CodecError
from xds.sensitive import HEADER, HEADER_VALUES, REDACTED, fields, holds_text, telling
from xds.sensitive_signs import may_hold
from xds.snapshot import Resource
from xds.types import PREFIX

_ANY = PREFIX + "google.protobuf.Any"

_STRUCT = PREFIX + "google.protobuf.Struct"


class Redactor:
    """Redacts each resource once, for as long as it exists."""

    def __init__(self) -> None:
        self._bodies: WeakKeyDictionary[Resource, bytes | None] = WeakKeyDictionary()

    def __call__(self, resource: Resource) -> bytes | None:
        """The body without its secrets; None if it cannot be told what of it is secret."""
        if not may_hold(resource.type_url, resource.body):
            return resource.body
        if resource not in self._bodies:
            self._bodies[resource] = redacted(resource.type_url, resource.body)
        return self._bodies[resource]


def redacted(type_url: str, body: bytes) -> bytes | None:
    """``body`` without its secrets, and unchanged where there are none. None if it, or a part of it, is of no known
    type."""
    message_type = known_type(type_url)
    if message_type is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # deprecated fields are redacted like any other
        try:
            message = parse(message_type, body)
            return encode(message) if _redact(message) else body
        except CodecError:
            return None


def _redact(message: Any) -> bool:
    """Whether there was something secret. CodecError where that cannot be told."""
    url = type_url_of(type(message))
    if url == _ANY:
        return _redact_any(message)
    secret, found = fields(url), False
    if url == HEADER and telling(message.key):
        secret = secret | HEADER_VALUES
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if field.name in secret:
            if value:
                setattr(message, field.name, _instead(value))
                found = True
            continue
        if isinstance(value, dict):
            found = _redact_entries(value, every=url == _STRUCT) or found
        for one in _inside(value):
            found = _redact(one) or found
    return found


def _redact_entries(entries: dict[Any, Any], *, every: bool) -> bool:
    """Text under a telling name; ``every`` value of a struct."""
    telltale = [key for key in entries if isinstance(key, str) and telling(key)]
    found = [key for key in telltale if isinstance(entries[key], str | bytes) or (every and holds_text(entries[key]))]
    for key in found:
        entries[key] = _instead(entries[key])
    return bool(found)


def _redact_any(message: Any) -> bool:
    if not message.type_url:
        return False
    inner = redacted(message.type_url, message.value)
    if inner is None:
        raise CodecError(f"{message.type_url} is not known")
    found = bool(inner != message.value)
    message.value = inner
    return found


def _instead(value: Any) -> Any:
    """What stands where ``value`` stood: of the same kind, and with nothing of it."""
    if isinstance(value, str | bytes):
        return REDACTED if isinstance(value, str) else REDACTED.encode()
    if isinstance(value, list | dict):
        return type(value)()
    one = type(value)()
    for text in ("inline_string", "string_value"):  # a DataSource, a Value
        if hasattr(one, text):
            setattr(one, text, REDACTED)
    return one


def _inside(value: Any) -> list[Any]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, Message)]
