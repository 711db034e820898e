"""Proto3 JSON (or the same as YAML) to a message, strictly, with every problem and its place.

The inverse of :mod:`xds._json`. betterproto's own ``from_dict`` knows neither ``consecutive_5xx`` nor places, and
takes ``int("7")`` for whatever a field holds. Field names may be those of the .proto files or their lowerCamelCase;
null is an absent field. https://protobuf.dev/programming-guides/json/
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from betterproto2 import FieldMetadata, Message
from envoy_data_plane.google.protobuf import Any as AnyMessage
from envoy_data_plane.google.protobuf import ListValue, NullValue, Struct, Value

from xds import rules
from xds._encoder import encode
from xds._json import WELL_KNOWN, known_type, metadata, type_url_of
from xds._json_values import (
    RANGES,
    Wrong,
    bool_of,
    bytes_of,
    duration_of,
    float_of,
    integer_of,
    meant,
    shown,
    string_of,
    timestamp_of,
)

#: A place in a document: keys and indices from its root.
Path = tuple[str | int, ...]


class Problem(NamedTuple):
    """What is wrong at ``path``; ``message`` says what was expected and what to do."""

    path: Path
    message: str


def _discreet(problem: Problem) -> Problem:
    """Without what was got."""
    return Problem(problem.path, problem.message.partition(", got ")[0])


Read = Callable[["Reader", Any, Path], Any]


class _Field(NamedTuple):
    name: str
    group: str | None
    optional: bool
    default: Any
    nullable: bool
    read: Read


class Reader:
    """Reads messages and collects what is wrong with them in ``problems``.

    ``constraints`` are those of :mod:`xds.rules`. No message quotes what stands in a field that Envoy's API marks as
    sensitive.
    """

    def __init__(self, *, constraints: bool = True) -> None:
        self.problems: list[Problem] = []
        self._constraints = constraints

    def message(self, message_type: type[Message], data: Any, path: Path) -> Any:
        """The message that ``data`` describes; None if something is wrong with it."""
        if type_url_of(message_type) in WELL_KNOWN:
            return self.guarded(_WELL_KNOWN[message_type.__name__], data, path)
        if not isinstance(data, Mapping):
            return self.wrong(path, f"expected a mapping (field: value), got {shown(data)}")
        before = len(self.problems)
        values = self._values(message_type, data, path)
        if self._constraints:
            self.problems.extend(_broken_rules(message_type, values, data, path))
        return None if len(self.problems) > before else self._built(message_type, values, path)

    def guarded(self, read: Read, data: Any, path: Path) -> Any:
        try:
            return read(self, data, path)
        except Wrong as error:
            return self.wrong(path, str(error))

    def wrong(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, message))

    def _values(self, message_type: type[Message], data: Mapping[str, Any], path: Path) -> dict[str, Any]:
        fields, groups, values = _fields(message_type), dict[str, str](), dict[str, Any]()
        secret = rules.sensitive(type_url_of(message_type))
        for key, value in data.items():
            field = fields.get(key)
            if field is None:
                self.wrong((*path, key), f"unknown field of {message_type.__name__}; {meant(str(key), fields)}")
            elif field.name in values:
                self.wrong((*path, key), f"'{field.name}' is set twice; remove one")
            elif value is not None or field.nullable:
                if field.group and (other := groups.setdefault(field.group, str(key))) != key:
                    self.wrong((*path, key), f"'{other}' is set already and excludes it; remove one of the two")
                before = len(self.problems)
                values[field.name] = self.guarded(field.read, value, (*path, key))
                if field.name in secret:
                    self.problems[before:] = map(_discreet, self.problems[before:])
        return values

    def _built(self, message_type: type[Message], values: dict[str, Any], path: Path) -> Message | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                return message_type(**values)
        except (ValueError, TypeError) as error:
            self.wrong(path, f"not a {message_type.__name__}: {' '.join(str(error).split())}")
            return None


@cache
def _fields(message_type: type[Message]) -> Mapping[str, _Field]:
    """By the name in the .proto file and by its lowerCamelCase."""
    classes = metadata(message_type).cls_by_field
    found: dict[str, _Field] = {}
    for each in dataclasses.fields(message_type):  # type: ignore[arg-type]  # every generated message is a dataclass
        meta = FieldMetadata.get(each)
        default = None if each.default_factory is dataclasses.MISSING else each.default_factory()
        nullable = classes.get(each.name) in (Value, NullValue) and not meta.repeated
        field = _Field(
            each.name, meta.group, bool(meta.optional), default, nullable, _field_reader(meta, each.name, classes)
        )
        found[each.name] = found[_camel(each.name)] = field
    return found


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def _field_reader(meta: FieldMetadata, name: str, classes: Mapping[str, type]) -> Read:
    if meta.map_meta is not None:
        return _map(meta.map_meta[0].proto_type, _value(meta.map_meta[1], classes[f"{name}.value"]))
    item = _value(meta, classes[name])
    return _list(item) if meta.repeated else item


def _list(item: Read) -> Read:
    def read(reader: Reader, data: Any, path: Path) -> list[Any]:
        if not isinstance(data, list):
            raise Wrong(f"expected a list, got {shown(data)}; write [...]")
        return [reader.guarded(item, one, (*path, index)) for index, one in enumerate(data)]

    return read


def _map(key_kind: str, item: Read) -> Read:
    def read(reader: Reader, data: Any, path: Path) -> dict[Any, Any]:
        if not isinstance(data, Mapping):
            raise Wrong(f"expected a mapping (name: value), got {shown(data)}")
        return {_key(key_kind, key): reader.guarded(item, value, (*path, key)) for key, value in data.items()}

    return read


def _key(kind: str, key: str) -> Any:
    if kind == "string":
        return key
    if kind == "bool" and key in ("true", "false"):
        return key == "true"
    return integer_of(kind, key)


def _value(meta: FieldMetadata, cls: type) -> Read:
    if meta.proto_type == "message":
        if meta.unwrap is not None:
            return _wrapped(meta.unwrap())
        return lambda reader, data, path: reader.message(cls, data, path)
    return _scalar(meta.proto_type, cls)


def _scalar(kind: str, cls: type) -> Read:
    if kind == "enum":
        return _enum(cls)
    if kind in RANGES:
        return lambda _, data, __: integer_of(kind, data)
    simple = {"bool": bool_of, "string": string_of, "bytes": bytes_of, "float": float_of, "double": float_of}[kind]
    return lambda _, data, __: simple(data)


def _enum(cls: Any) -> Read:
    values: dict[str, Any] = {one.proto_name or one.name: one for one in cls}

    def read(_: Reader, data: Any, __: Path) -> Any:
        if isinstance(data, int) and not isinstance(data, bool) and -(2**31) <= data < 2**31:
            return cls(data)
        if cls is NullValue and data is None:
            return NullValue.NULL_VALUE
        if not isinstance(data, str) or data not in values:
            raise Wrong(f"expected one of {', '.join(values)}, got {shown(data)}; {meant(str(data), values)}")
        return values[data]

    return read


# Well-known types


def _wrapped(wrapper: type[Message]) -> Read:
    """What betterproto unwraps."""
    if wrapper.__name__ == "Duration":
        return lambda _, data, __: duration_of(data)
    if wrapper.__name__ == "Timestamp":
        return lambda _, data, __: timestamp_of(data)
    return _scalar(metadata(wrapper).meta_by_field_name["value"].proto_type, object)


def _any(reader: Reader, data: Any, path: Path) -> AnyMessage | None:
    if not isinstance(data, Mapping):
        raise Wrong(f"expected a mapping with '@type', got {shown(data)}")
    if not data:
        return AnyMessage()
    inner_type = _type_of(reader, data, path)
    if inner_type is None:
        return None
    url = str(data["@type"])
    if url in WELL_KNOWN:
        inner = reader.message(inner_type, data.get("value"), (*path, "value"))
    else:
        inner = reader.message(inner_type, {key: value for key, value in data.items() if key != "@type"}, path)
    return None if inner is None else AnyMessage(type_url=url, value=encode(inner))


def _type_of(reader: Reader, data: Mapping[str, Any], path: Path) -> type[Message] | None:
    """The class that ``@type`` names; a problem if it names none."""
    url = data.get("@type")
    if url is None:
        reader.wrong(path, "missing '@type'; add the type URL, such as '@type': type.googleapis.com/envoy.[...]")
        return None
    found = known_type(url) if isinstance(url, str) else None
    if found is None:
        expected = "expected type.googleapis.com/ and the full name of a message of Envoy's API"
        reader.wrong((*path, "@type"), f"unknown type {shown(url)}; {expected}")
    return found


def _from_value(wrapper: Callable[[], type[Message]]) -> Read:
    def read(reader: Reader, data: Any, path: Path) -> Any:
        plain = reader.guarded(_wrapped(wrapper()), data, path)
        return None if plain is None else wrapper().from_wrapped(plain)  # type: ignore[attr-defined]

    return read


def _struct(_: Reader, data: Any, __: Path) -> Struct:
    if not isinstance(data, Mapping):
        raise Wrong(f"expected a mapping (name: value), got {shown(data)}")
    return Struct(fields={str(name): loose(value) for name, value in data.items()})


def _list_value(_: Reader, data: Any, __: Path) -> ListValue:
    if not isinstance(data, list):
        raise Wrong(f"expected a list, got {shown(data)}")
    return ListValue(values=[loose(one) for one in data])


def loose(data: Any) -> Value:
    """Any JSON value as google.protobuf.Value."""
    if data is None:
        return Value(null_value=NullValue.NULL_VALUE)
    if isinstance(data, bool):
        return Value(bool_value=data)
    if isinstance(data, int | float):
        return Value(number_value=float(data))
    if isinstance(data, str):
        return Value(string_value=string_of(data))
    if isinstance(data, list):
        return Value(list_value=ListValue(values=[loose(one) for one in data]))
    return Value(struct_value=Struct(fields={str(name): loose(value) for name, value in data.items()}))


def _wrapper(name: str) -> Read:
    def wrapper() -> type[Message]:
        import envoy_data_plane.google.protobuf as well_known  # noqa: PLC0415 - by name

        found: type[Message] = getattr(well_known, name)
        return found

    return _from_value(wrapper)


_WELL_KNOWN: Mapping[str, Read] = {
    "Any": _any,
    "Struct": _struct,
    "ListValue": _list_value,
    "Value": lambda _, data, __: loose(data),
    **{
        name: _wrapper(name)
        for name in (url.rpartition(".")[2] for url in WELL_KNOWN)
        if name.endswith(("Value", "Duration", "Timestamp")) and name not in ("Value", "ListValue")
    },
}


# Constraints


def _broken_rules(message_type: type[Message], values: Mapping[str, Any], data: Any, path: Path) -> Iterator[Problem]:
    """Where the constraints of Envoy's API are not kept."""
    fields, url = _fields(message_type), type_url_of(message_type)
    for name, rule in rules.of(url).items():
        if name.startswith("oneof "):
            yield from _missing_oneof(name.removeprefix("oneof "), fields, values, path)
        elif name in fields:
            yield from _broken_rule(fields[name], rule, values, data, path)


def _missing_oneof(
    group: str, fields: Mapping[str, _Field], values: Mapping[str, Any], path: Path
) -> Iterator[Problem]:
    names = [name for name, field in fields.items() if field.group == group and name == field.name]
    if names and not values.keys() & set(names):
        yield Problem(path, f"missing; add one of {', '.join(names)}")


def _broken_rule(
    field: _Field, rule: rules.Rules, values: Mapping[str, Any], data: Any, path: Path
) -> Iterator[Problem]:
    """Fields with explicit presence are looked at only where they are; others always."""
    explicit = field.optional or field.group is not None
    value = values.get(field.name, None if explicit else field.default)
    if value is None:
        if rules.missing(rule) and field.name not in values and field.group is None:
            yield Problem(path, f"missing; add '{field.name}: ...'")
        return
    if field.name not in values:
        if next(rules.problems(rule, value), None):
            yield Problem(path, f"missing; add '{field.name}: ...' ({next(rules.problems(rule, value))})")
        return
    key = field.name if field.name in data else _camel(field.name)
    for message in rules.problems(rule, value):
        problem = Problem((*path, key), message)
        yield _discreet(problem) if rule.get("sensitive") else problem
    yield from _broken_items(rule, value, (*path, key))


def _broken_items(rule: rules.Rules, value: Any, path: Path) -> Iterator[Problem]:
    items: Iterable[tuple[str | int, Any]] = ()
    checks: rules.Rules = {}
    if isinstance(value, list):
        checks, items = rule.get("repeated", {}).get("items", {}), enumerate(value)
    elif isinstance(value, Mapping):
        checks, items = rule.get("map", {}).get("values", {}), value.items()
        for key in value:
            yield from (Problem((*path, key), m) for m in rules.problems(rule.get("map", {}).get("keys", {}), key))
    for at, item in items:
        if item is not None:
            yield from (Problem((*path, at), message) for message in rules.problems(checks, item))
