"""Encoded resources without what is secret in them, for people who may see configuration but no keys.

What is secret is what Envoy's API marks as sensitive (:func:`xds.rules.sensitive`), wherever it stands. Envoy
replaces the same in its own ``/config_dump``.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any
from weakref import WeakKeyDictionary

from betterproto2 import Message

from xds._encoder import encode
from xds._json import REDACTED, known_type, parse, type_url_of
from xds.errors import CodecError
from xds.rules import sensitive
from xds.snapshot import Resource
from xds.types import PREFIX

_ANY = PREFIX + "google.protobuf.Any"

#: A resource without any of these holds nothing sensitive: all that is stands in a message of one of these packages,
#: whose type URL says so, or is a key in PEM. Everything else is not even decoded.
_SIGNS = (b"transport_sockets", b"_auth", b"redis_proxy", b"aws", b"credential", b"config.trace", b"PRIVATE KEY")


class Redactor:
    """Redacts each resource once, for as long as it exists."""

    def __init__(self) -> None:
        self._bodies: WeakKeyDictionary[Resource, bytes | None] = WeakKeyDictionary()

    def __call__(self, resource: Resource) -> bytes | None:
        """The body without its secrets; None if it cannot be told what of it is secret."""
        if not any(sign in resource.body or sign in resource.type_url.encode() for sign in _SIGNS):
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
    if type_url_of(type(message)) == _ANY:
        return _redact_any(message)
    secret, found = sensitive(type_url_of(type(message))), False
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if field.name in secret:
            if value:
                setattr(message, field.name, _instead(value))
                found = True
            continue
        for one in _inside(value):
            found = _redact(one) or found
    return found


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
    if hasattr(one, "inline_string"):
        one.inline_string = REDACTED
    return one


def _inside(value: Any) -> list[Any]:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, Message)]
