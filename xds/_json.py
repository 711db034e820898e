"""A resource as JSON, for people: decoded with envoy-data-plane, messages inside ``Any`` included.

Field names are those of the .proto files (``connect_timeout``), as in Envoy's own ``/config_dump``.
https://protobuf.dev/programming-guides/json/
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

import betterproto2
from betterproto2 import Message
from envoy_data_plane.message_pool import default_message_pool

from xds.errors import CodecError
from xds.types import PREFIX

#: A package of lower-case words and a message, nested ones after a dot: what a type URL may name.
_TYPE_URL = re.compile(re.escape(PREFIX) + r"(?P<package>[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*)\.[A-Z]\w*(\.[A-Z]\w*)*")

#: What stands in for an unknown message while everything else is turned into JSON.
_STRING = PREFIX + "google.protobuf.StringValue"


def to_json(type_url: str, body: bytes) -> dict[str, Any]:
    """The JSON object of an encoded message. CodecError if its type is unknown or the bytes are not of it.

    An ``Any`` of an unknown type inside it becomes ``{"@type": ..., "value": base64}``.
    """
    message_type = _known(type_url)
    if message_type is None:
        raise CodecError(f"no message type for {type_url!r}; expected a type URL of Envoy's API")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # deprecated fields are shown like any other
        try:
            message = message_type.parse(body)
        except (ValueError, EOFError, NotImplementedError) as error:
            raise CodecError(f"{len(body)} bytes are not a {type_url}: {error}") from error
        return _object(message)


def _object(message: Message) -> dict[str, Any]:
    """``to_dict`` of the message, after everything inside an Any was put where it fails on what it does not know."""
    unknown: dict[str, tuple[str, bytes]] = {}
    _known(_STRING)
    _hide_unknown(message, unknown)
    plain = message.to_dict(casing=betterproto2.Casing.SNAKE)
    restored = _restore(plain, unknown)
    if not isinstance(restored, dict):
        raise CodecError(f"{type(message).__name__} is not an object in JSON; expected a resource")
    return restored


def _hide_unknown(message: Message, unknown: dict[str, tuple[str, bytes]]) -> None:
    for one in _anys(message):
        inner_type = _known(one.type_url) if one.type_url else None
        if inner_type is not None:
            inner = inner_type.parse(one.value)
            _hide_unknown(inner, unknown)
            one.value = bytes(inner)
        elif one.type_url:
            mark = f"unknown-{len(unknown)}"
            unknown[mark] = (one.type_url, one.value)
            one.type_url, one.value = _STRING, b"\x0a" + bytes([len(mark)]) + mark.encode()


def _restore(value: Any, unknown: dict[str, tuple[str, bytes]]) -> Any:
    if isinstance(value, list):
        return [_restore(item, unknown) for item in value]
    if not isinstance(value, dict):
        return value
    mark = value.get("value")
    if "@type" in value and isinstance(mark, str) and mark in unknown:
        type_url, body = unknown[mark]
        return {"@type": type_url, "value": base64.b64encode(body).decode()}
    return {key: _restore(item, unknown) for key, item in value.items()}


def _anys(message: Message) -> Iterator[Any]:
    """Every ``google.protobuf.Any`` in the message, however deep, but not inside another one."""
    if default_message_pool.type_to_url.get(type(message)) == PREFIX + "google.protobuf.Any":
        yield message
        return
    for field in dataclasses.fields(message):  # type: ignore[arg-type]  # every generated message is a dataclass
        for value in _values(getattr(message, field.name)):
            if isinstance(value, Message):
                yield from _anys(value)


def _values(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return list(value.values()) if isinstance(value, dict) else [value]


def _known(type_url: str) -> type[Message] | None:
    """The class of a type URL; its package is imported when it is first seen."""
    match = _TYPE_URL.fullmatch(type_url)
    if match is None:
        return None
    if type_url not in default_message_pool.url_to_type:
        try:
            importlib.import_module("envoy_data_plane." + match["package"])
        except ImportError:
            return None
    return default_message_pool.url_to_type.get(type_url)
