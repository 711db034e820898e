"""The compiled encoder equals ``bytes(message)`` for every type of envoy-data-plane, and protobuf reads the same.

Every type is visited in every run with random content, of another seed each time (``-p "randomly_seed=..."`` repeats
one); ``HYPOTHESIS_PROFILE=thorough`` goes round fifty times.
"""

from __future__ import annotations

import datetime
import importlib
import pkgutil
import random
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

import envoy_data_plane
import pytest
from betterproto2 import FieldMetadata, Message
from envoy_data_plane.google.protobuf import Any as AnyMessage
from envoy_data_plane.message_pool import default_message_pool
from google.protobuf import message_factory, struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import envoy_api
from tests.conftest import examples
from xds import codec
from xds.model import RuntimeValue
from xds.types import PREFIX

pytestmark = pytest.mark.slow


@cache
def message_types() -> tuple[tuple[str, type[Message]], ...]:
    """All types of the registry by their full name."""
    for module in pkgutil.walk_packages(envoy_data_plane.__path__, "envoy_data_plane."):
        importlib.import_module(module.name)
    return tuple((url.removeprefix(PREFIX), one) for url, one in sorted(default_message_pool.url_to_type.items()))


def metadata(message_type: Any) -> Any:
    """What betterproto knows about a message's fields."""
    return message_type._betterproto


class Builder:
    """Builds messages of any type with random content; a seed is a message, and ``backwards`` is the same one with its
    maps filled in the opposite order. ``met`` counts what kinds of fields were filled; fields of types in ``without``
    are not."""

    def __init__(self, seed: int, *, backwards: bool = False, without: Collection[type] = ()) -> None:
        self.random = random.Random(seed)
        self.backwards = backwards
        self.without = without
        self.met: Counter[str] = Counter()

    def message(self, message_type: type[Message], depth: int = 3) -> Any:
        if message_type is AnyMessage and depth:
            return self.any(depth)
        fields = list(metadata(message_type).meta_by_field_name.items())
        chosen: dict[str, Any] = {}
        groups: set[str] = set()
        for name, meta in self.random.sample(fields, min(len(fields), self.random.randint(0, 6))):
            if meta.group in groups:
                continue
            value = self.field(message_type, name, meta, depth)
            if value is not None:
                chosen[name] = value
                groups.update([meta.group] if meta.group else [])
                self.met["oneof" if meta.group else "optional" if meta.optional else "plain"] += 1
        return message_type(**chosen)

    def any(self, depth: int) -> Any:
        """A message in a box."""
        self.met["any"] += 1
        name, inner = self.random.choice(message_types())
        return AnyMessage(type_url=PREFIX + name, value=codec.encode(self.message(inner, depth - 1)))

    def field(self, message_type: type[Message], name: str, meta: FieldMetadata, depth: int) -> Any:
        classes = metadata(message_type).cls_by_field
        if meta.map_meta is not None:
            key, value = meta.map_meta
            return self.map(key, value, classes[f"{name}.value"], depth)
        if meta.repeated:
            self.met["repeated"] += 1
            items = [self.value(meta, classes[name], depth) for _ in range(self.random.randint(0, 3))]
            return [inner for inner in items if inner is not None]
        return self.value(meta, classes[name], depth)

    def map(self, key: FieldMetadata, value: FieldMetadata, cls: type, depth: int) -> Any:
        self.met["map"] += 1
        keys = sorted({self.scalar(key, str) for _ in range(self.random.randint(0, 3))})
        made = {one: self.value(value, cls, depth) for one in keys}
        entries = [(one, inner) for one, inner in made.items() if inner is not None]
        return dict(reversed(entries) if self.backwards else entries)

    def value(self, meta: FieldMetadata, cls: type, depth: int) -> Any:
        if meta.proto_type != "message":
            return self.scalar(meta, cls)
        if meta.unwrap is not None:
            self.met["wrapper"] += 1
            return self.wrapped(meta.unwrap())
        self.met["nested"] += 1
        return self.message(cls, depth - 1) if depth and cls not in self.without else None

    def wrapped(self, wrapper: type[Message]) -> Any:
        if wrapper.__name__ == "Duration":
            return datetime.timedelta(microseconds=self.random.randint(0, 10**10))  # below zero, betterproto errs
        if wrapper.__name__ == "Timestamp":
            return datetime.datetime.fromtimestamp(self.random.randint(0, 10**9), datetime.UTC)
        return self.scalar(metadata(wrapper).meta_by_field_name["value"], str)

    def scalar(self, meta: FieldMetadata, cls: type) -> Any:
        kind = meta.proto_type
        self.met[kind] += 1
        bits = 32 if kind.endswith("32") else 64
        if kind == "enum":
            return self.random.choice(list(cls))  # type: ignore[call-overload]
        if kind in {"string", "bytes"}:
            text = "".join(self.random.choices("aZ0.é\N{SNOWMAN}", k=self.random.choice((0, 1, 5, 200))))
            return text if kind == "string" else text.encode()
        if kind == "bool":
            return self.random.random() < 0.5
        if kind in {"double", "float"}:
            return self.random.choice((0.0, -0.0, 1.5, -2.25, 1e9))
        if kind.startswith(("uint", "fixed")):
            return self.random.choice((0, 1, 127, 128, 2**bits - 1))
        return self.random.choice((0, 1, -1, 127, 128, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))))


#: What the API has: every kind must have been met in a run, or the run says nothing about it.
KINDS = frozenset(
    {"any", "bool", "bytes", "double", "enum", "int64", "map", "nested", "oneof", "optional", "plain", "repeated"}
    | {"string", "uint32", "uint64", "wrapper"}
)


@pytest.fixture(autouse=True)
def _deprecated_fields_are_set_as_well() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_every_type_is_encoded_like_the_slow_way() -> None:
    met: Counter[str] = Counter()
    for _ in range(examples(1)):
        for name, message_type in message_types():
            seed = random.getrandbits(32)
            builder = Builder(seed)
            message = builder.message(message_type)
            assert codec.encode(message) == bytes(message), f"{name}, seed {seed}"
            met += builder.met
    assert met.keys() >= KINDS


def test_every_type_can_be_encoded_without_content() -> None:
    assert len(message_types()) > 2000
    for name, message_type in message_types():
        assert codec.encode(message_type()) == b"", name


def test_the_order_in_which_maps_were_filled_does_not_matter() -> None:
    for _ in range(examples(1)):
        for name, message_type in _with_maps():
            seed = random.getrandbits(32)
            one, other = (Builder(seed, backwards=backwards).message(message_type) for backwards in (False, True))
            assert codec.encode(one) == codec.encode(other), f"{name}, seed {seed}"


def _with_maps() -> list[tuple[str, type[Message]]]:
    """Types with maps, and what holds them."""
    found = [
        (name, one)
        for name, one in message_types()
        if any(meta.map_meta is not None for meta in metadata(one).meta_by_field_name.values())
    ]
    assert len(found) > 50
    return found


@pytest.mark.envoy
def test_protobuf_reads_what_was_written() -> None:
    """A foreign implementation, over the descriptors in Envoy's own binary: every field has its value."""
    compared, skewed = 0, {one for name, one in message_types() if name in SKEWED}
    for _ in range(examples(1)):
        for name, message_type in message_types():
            theirs = _theirs(name)
            if theirs is None or message_type in skewed:
                continue
            seed = random.getrandbits(32)
            message = Builder(seed, without=skewed).message(message_type)
            data = codec.encode(message)
            read = theirs.FromString(data)
            assert len(read.SerializeToString()) == len(data), f"{name}, seed {seed}"
            _compare(message, read, f"{name}, seed {seed}")
            compared += 1
    assert compared >= 1300 * examples(1)


#: Work in progress of Envoy: the field changed its type between the two versions of the API.
SKEWED = frozenset({"envoy.extensions.filters.http.mcp_json_rest_bridge.v3.ServerInfo"})


#: Written in proto2, which knows more about the presence of fields than betterproto does. They never travel.
PROTO2 = frozenset({"google/protobuf/descriptor.proto", "validate/validate.proto"})


@cache
def _pool() -> Any:
    return envoy_api.pool()


@cache
def _theirs(name: str) -> Any:
    """Protobuf's class of this name; None if the binary does not have it, or if it belongs to the language itself."""
    try:
        descriptor = _pool().FindMessageTypeByName(name)
    except KeyError:
        return None
    return None if descriptor.file.name in PROTO2 else message_factory.GetMessageClass(descriptor)


def _compare(ours: Any, theirs: Any, where: str) -> None:
    """Every field that both know has the same value, and the same presence."""
    for name, meta in metadata(type(ours)).meta_by_field_name.items():
        field = theirs.DESCRIPTOR.fields_by_number.get(meta.number)
        if field is None:
            continue
        value, read, place = getattr(ours, name), getattr(theirs, field.name), f"{where}: {field.full_name}"
        if meta.map_meta is not None:
            assert value.keys() == read.keys(), place
            for key in value:
                _same(meta.map_meta[1], value[key], read[key], place)
        elif meta.repeated:
            assert len(value) == len(read), place
            for one, other in zip(value, read, strict=True):
                _same(meta, one, other, place)
        elif value is None:
            assert not theirs.HasField(field.name), place
        else:
            assert not field.has_presence or theirs.HasField(field.name), place
            _same(meta, value, read, place)


def _same(meta: FieldMetadata, value: Any, read: Any, place: str) -> None:
    if isinstance(value, datetime.timedelta):
        assert value == datetime.timedelta(seconds=read.seconds, microseconds=read.nanos / 1000), place
    elif isinstance(value, datetime.datetime):
        assert (value.timestamp(), 0) == (read.seconds, read.nanos), place
    elif meta.proto_type == "message" and meta.unwrap is not None:
        assert value == read.value, place
    elif meta.proto_type == "message":
        _compare(value, read, place)
    else:
        assert value == read, place


@given(values=st.dictionaries(st.text(min_size=1), st.integers(0, 2**32 - 1)), seed=st.integers())
@settings(max_examples=examples(100))
def test_runtime_layers_are_deterministic_and_readable(values: dict[str, RuntimeValue], seed: int) -> None:
    shuffled = list(values.items())
    random.Random(seed).shuffle(shuffled)
    body = codec.runtime_body("limits", dict(shuffled))
    assert body == codec.runtime_body("limits", values)
    assert _fields(body) == values


def _fields(body: bytes) -> Mapping[str, Any]:
    """The layer as protobuf's own Struct reads it: field 2 of the message."""
    from xds import _wire_pb2 as wire

    runtime = wire.Runtime.FromString(body)
    struct_read = struct_pb2.Struct.FromString(runtime.layer.SerializeToString())
    return {key: value.number_value for key, value in struct_read.fields.items()}
