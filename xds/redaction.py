"""Encoded resources without what is secret in them, for people who may see configuration but no keys.

What is secret is said by :mod:`xds.sensitive`, as where a resource is shown as JSON; here it stays a resource that
tools can decode.
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
from xds.snapshot import Resource
from xds.types import PREFIX, RUNTIME

_ANY = PREFIX + "google.protobuf.Any"
_STRUCT = PREFIX + "google.protobuf.Struct"

#: Numbers and fractions under names that are no secret: not worth a look.
_HARMLESS = frozenset({RUNTIME})


class Redactor:
    """Redacts each resource once, for as long as it exists. That costs about a millisecond."""

    def __init__(self) -> None:
        self._bodies: WeakKeyDictionary[Resource, bytes | None] = WeakKeyDictionary()

    def knows(self, resource: Resource) -> bool:
        """Whether the answer is at hand."""
        return resource.type_url in _HARMLESS or resource in self._bodies

    def __call__(self, resource: Resource) -> bytes | None:
        """The body without its secrets; None if it cannot be told what of it is secret."""
        if resource.type_url in _HARMLESS:
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
    if url == _STRUCT:
        return _redact_map(message.fields)
    secret = fields(url) | (HEADER_VALUES if url == HEADER and telling(message.key) else frozenset())
    found = False
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if field.name in secret and value:
            setattr(message, field.name, _instead(value))
            found = True
        else:
            found = _redact_inside(value) or found
    return found


def _redact_inside(value: Any) -> bool:
    if isinstance(value, Message):
        return _redact(value)
    if isinstance(value, dict):
        return _redact_map(value)
    found = False
    for one in value if isinstance(value, list) else ():
        found = _redact_inside(one) or found
    return found


def _redact_map(entries: dict[Any, Any]) -> bool:
    """Of a map and of a struct the names of the entries tell."""
    found = False
    for name, one in entries.items():
        if isinstance(name, str) and telling(name) and _may_be_credential(one):
            entries[name] = _instead(one)
            found = True
        else:
            found = _redact_inside(one) or found
    return found


def _may_be_credential(value: Any) -> bool:
    """Text may be; of messages only a struct's value, unless it is a number or a truth value."""
    return isinstance(value, str | bytes) or (hasattr(value, "struct_value") and holds_text(value))


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
    for text in ("inline_string", "string_value"):
        if hasattr(one, text):
            setattr(one, text, REDACTED)
    return one
