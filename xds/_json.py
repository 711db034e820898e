"""A resource as proto3 JSON, as Envoy reads it: a walk over betterproto's own field metadata.

Field names are those of the .proto files (``connect_timeout``), as in Envoy's own ``/config_dump``; a message inside
an ``Any`` stands beside its ``@type``. betterproto's own ``to_dict`` renames fields (``consecutive_5xx`` becomes
``consecutive_5_xx``) and validates every level again. The way back is :mod:`xds._from_json`.
https://protobuf.dev/programming-guides/json/
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import importlib
import math
import re
import struct
import warnings
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from betterproto2 import FieldMetadata, Message
from envoy_data_plane.message_pool import default_message_pool

from xds.errors import CodecError
from xds.sensitive import HEADER, HEADER_VALUES, REDACTED, fields, holds_text, telling
from xds.types import PREFIX

Show = Callable[[Any, bool], Any]

#: Stands beside ``@type`` as ``value``, because its JSON is no object of its own fields.
WELL_KNOWN = frozenset(
    PREFIX + "google.protobuf." + name
    for name in (
        *("Any", "Duration", "ListValue", "Struct", "Timestamp", "Value"),
        *("BoolValue", "BytesValue", "DoubleValue", "FloatValue", "Int32Value", "Int64Value", "StringValue"),
        *("UInt32Value", "UInt64Value"),
    )
)

_ANY = PREFIX + "google.protobuf.Any"
_NOTHING = frozenset[str]()
_64_BITS = frozenset({"int64", "uint64", "sint64", "fixed64", "sfixed64"})

#: A package of lower-case words and a message, nested ones after a dot: what a type URL may name.
_TYPE_URL = re.compile(re.escape(PREFIX) + r"(?P<package>[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*)\.[A-Z]\w*(\.[A-Z]\w*)*")


def to_json(type_url: str, body: bytes, *, secrets: bool = False) -> dict[str, Any]:
    """The JSON object of an encoded message. CodecError if its type is unknown or the bytes are not of it.

    What is sensitive (:mod:`xds.sensitive`) is shown as ``[redacted]`` unless ``secrets`` are asked for; only what
    Envoy itself reads should ask. An ``Any`` whose type is unknown may hold anything: it is redacted, or becomes
    ``{"@type": ..., "value": base64}``, which Envoy refuses.
    """
    message_type = known_type(type_url)
    if message_type is None:
        raise CodecError(f"no message type for {type_url!r}; expected a type URL of Envoy's API")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # deprecated fields are shown like any other
        shown = _message(parse(message_type, body), secrets)
    if not isinstance(shown, dict):
        raise CodecError(f"{type_url} is not an object in JSON; expected a resource")
    return shown


def parse(message_type: type[Message], body: bytes) -> Message:
    """``body`` as a message; CodecError if it is none."""
    try:
        return message_type.parse(body)
    except (ValueError, EOFError, NotImplementedError) as error:
        raise CodecError(f"{len(body)} bytes are not a {type_url_of(message_type)}: {error}") from error


def known_type(type_url: str) -> type[Message] | None:
    """The class of a type URL, None if there is none; its package is imported when it is first seen."""
    match = _TYPE_URL.fullmatch(type_url)
    if match is None:
        return None
    if type_url not in default_message_pool.url_to_type:
        try:
            importlib.import_module("envoy_data_plane." + match["package"])
        except ImportError:
            return None
    return default_message_pool.url_to_type.get(type_url)


def type_url_of(message_type: type[Message]) -> str:
    """The type URL of a message class."""
    return default_message_pool.type_to_url[message_type]


def metadata(message_type: Any) -> Any:
    """What betterproto knows about the fields of a message class."""
    return message_type._betterproto


# Messages


def _message(message: Message, secrets: bool) -> Any:
    url = type_url_of(type(message))
    if url in WELL_KNOWN:
        return _well_known(url, message, secrets)
    shown: dict[str, Any] = {}
    credential = HEADER_VALUES if url == HEADER and telling(message.key) else _NOTHING  # type: ignore[attr-defined]
    for name, show, default, secret in _plan(type(message)):
        value = getattr(message, name)
        if value is not None and value != default:
            hidden = not secrets and (secret or name in credential)
            shown[name] = REDACTED if hidden else show(value, secrets)
    return shown


@cache
def _plan(message_type: type[Message]) -> tuple[tuple[str, Show, Any, bool], ...]:
    """Names, how each is shown, the value that is left out, and whether it is secret."""
    classes = metadata(message_type).cls_by_field
    secret = fields(type_url_of(message_type))
    made = []
    for field in dataclasses.fields(message_type):  # type: ignore[arg-type]  # every generated message is a dataclass
        meta = FieldMetadata.get(field)
        show = _field(meta, field.name, classes)
        made.append((field.name, show, _default(meta, field), field.name in secret))
    return tuple(made)


def _default(meta: FieldMetadata, field: dataclasses.Field[Any]) -> Any:
    """Whatever has explicit presence is shown even if it is the default."""
    if meta.optional or meta.group or field.default_factory is dataclasses.MISSING:
        return None
    return field.default_factory()


def _field(meta: FieldMetadata, name: str, classes: Mapping[str, type]) -> Show:
    if meta.map_meta is not None:
        key, value = meta.map_meta[0], _value(meta.map_meta[1], classes[f"{name}.value"])
        return lambda entries, secrets: {
            map_key(key, k): REDACTED if not secrets and _is_credential(k, entries[k]) else value(entries[k], secrets)
            for k in sorted(entries)
        }
    item = _value(meta, classes[name])
    return (lambda items, secrets: [item(one, secrets) for one in items]) if meta.repeated else item


def _is_credential(key: Any, value: Any) -> bool:
    """Whether an entry of a map is text under a name that says what it is."""
    return isinstance(key, str) and isinstance(value, str | bytes) and telling(key)


def _value(meta: FieldMetadata, cls: type) -> Show:
    if meta.proto_type != "message":
        return _scalar(meta.proto_type, cls)
    if meta.unwrap is None:
        return _message
    return _wrapped(meta.unwrap())


def map_key(meta: FieldMetadata, key: Any) -> str:
    """A key of a map; JSON has text only."""
    return str(key).lower() if meta.proto_type == "bool" else str(key)


def _scalar(kind: str, cls: type) -> Show:
    if kind == "enum":
        return _enum(cls)
    if kind in _64_BITS:
        return lambda value, _: str(value)
    if kind == "bytes":
        return lambda value, _: base64.b64encode(value).decode()
    if kind == "double":
        return lambda value, _: _float(value)
    if kind == "float":
        return lambda value, _: _float(_shortest(value))
    return lambda value, _: value


def _enum(cls: type) -> Show:
    """By name; an unknown value by number, and the only value of NullValue as null."""
    if cls.__name__ == "NullValue":
        return lambda value, _: None
    names: dict[int, str] = {int(one): one.proto_name or one.name for one in cls}  # type: ignore[attr-defined]
    return lambda value, _: names.get(int(value), int(value))


def _float(value: float) -> float | int | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _shortest(value: float) -> float:
    """The shortest decimal that is the same single-precision number: 0.1, not 0.10000000149011612."""
    if not math.isfinite(value):
        return value
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", value):
            return short
    return value


# Well-known types


def _wrapped(wrapper: type[Message]) -> Show:
    """What betterproto unwraps: a ``timedelta``, a ``datetime``, the scalar inside ``UInt32Value``."""
    if wrapper.__name__ == "Duration":
        return lambda value, _: _duration(value)
    if wrapper.__name__ == "Timestamp":
        return lambda value, _: _timestamp(value)
    meta = metadata(wrapper).meta_by_field_name["value"]
    return _scalar(meta.proto_type, object)


def _well_known(url: str, message: Any, secrets: bool) -> Any:
    match url.rpartition(".")[2]:
        case "Any":
            return _any(message, secrets)
        case "Struct":
            return _struct(message, secrets)
        case "ListValue":
            return [_loose(one, secrets) for one in message.values]
        case "Value":
            return _loose(message, secrets)
        case _:
            return _wrapped(type(message))(message.to_wrapped(), secrets)


def _any(message: Any, secrets: bool) -> dict[str, Any]:
    """The inner message beside its ``@type``; as base64 where the type is unknown or the bytes are not of it."""
    if not message.type_url:
        return {}
    inner_type = known_type(message.type_url)
    if inner_type is not None:
        with contextlib.suppress(CodecError):
            shown = _message(parse(inner_type, message.value), secrets)
            inner = {"value": shown} if message.type_url in WELL_KNOWN else shown
            return {"@type": message.type_url, **inner}
    return {"@type": message.type_url, "value": base64.b64encode(message.value).decode() if secrets else REDACTED}


def _struct(message: Any, secrets: bool) -> dict[str, Any]:
    return {
        name: REDACTED if not secrets and telling(name) and holds_text(one) else _loose(one, secrets)
        for name, one in sorted(message.fields.items())
    }


def _loose(value: Any, secrets: bool) -> Any:
    """A google.protobuf.Value as the JSON value that it stands for; an empty one as null."""
    if value.struct_value is not None:
        return _struct(value.struct_value, secrets)
    if value.list_value is not None:
        return [_loose(one, secrets) for one in value.list_value.values]
    for one in (value.bool_value, value.string_value):
        if one is not None:
            return one
    number = value.number_value
    return int(number) if number is not None and number.is_integer() and abs(number) < 2**53 else number


def _duration(value: timedelta) -> str:
    """Seconds with zero, three or six decimals."""
    micros = value // timedelta(microseconds=1)
    whole, part = divmod(abs(micros), 1_000_000)
    return ("-" if micros < 0 else "") + str(whole) + _fraction(part) + "s"


def _timestamp(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S") + _fraction(value.microsecond) + "Z"


def _fraction(micros: int) -> str:
    if micros == 0:
        return ""
    return f".{micros // 1000:03d}" if micros % 1000 == 0 else f".{micros:06d}"
