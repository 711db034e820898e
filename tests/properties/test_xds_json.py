"""Resources as JSON: ours against protobuf's own json_format over the descriptors that Envoy's binary carries."""

from __future__ import annotations

import importlib
import math
import pkgutil
import random
from functools import cache
from typing import Any

import envoy_data_plane
import pytest
from envoy_data_plane.message_pool import default_message_pool
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import envoy_api
from xds._encoder import encode
from xds._from_json import Reader
from xds._json import known_type, metadata, to_json
from xds.types import PREFIX

pytestmark = pytest.mark.envoy  # its binary is read, not started

PACKAGES = "envoy.", "xds.", "udpa."


@cache
def pool() -> Any:
    return envoy_api.pool()


@cache
def type_names() -> tuple[str, ...]:
    for module in pkgutil.walk_packages(envoy_data_plane.__path__, "envoy_data_plane."):
        importlib.import_module(module.name)
    names = sorted(url.removeprefix(PREFIX) for url in default_message_pool.url_to_type)
    return tuple(name for name in names if name.startswith(PACKAGES) and _known(name))


def _known(name: str) -> bool:
    try:
        return bool(pool().FindMessageTypeByName(name))
    except KeyError:
        return False


class Builder:
    """Messages of protobuf's own classes with random content; a seed is a message."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def message(self, descriptor: Any, depth: int = 3) -> Any:
        if descriptor.full_name.startswith("google.protobuf."):
            return self.well_known(descriptor)
        message = message_factory.GetMessageClass(descriptor)()
        ours = known_type(PREFIX + descriptor.full_name)
        known = set() if ours is None else set(metadata(ours).meta_by_field_name)
        fields = [field for field in descriptor.fields if field.name in known]
        for field in self.random.sample(fields, min(len(fields), self.random.randint(0, 5))):
            oneof = field.containing_oneof
            if oneof is None or message.WhichOneof(oneof.name) is None:
                self.fill(message, field, depth)
        return message

    def fill(self, message: Any, field: Any, depth: int) -> None:
        if field.type == FieldDescriptor.TYPE_MESSAGE and not depth:
            return
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self.fill_map(getattr(message, field.name), field.message_type, depth)
        elif field.is_repeated:
            for _ in range(self.random.randint(0, 3)):
                item = self.value(field, depth)
                getattr(message, field.name).append(item)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(message, field.name).CopyFrom(self.value(field, depth))
        else:
            setattr(message, field.name, self.value(field, depth))

    def fill_map(self, target: Any, entry: Descriptor, depth: int) -> None:
        for _ in range(self.random.randint(0, 3)):
            key = self.value(entry.fields_by_name["key"], depth)
            value = self.value(entry.fields_by_name["value"], depth)
            if isinstance(value, bool | int | float | str | bytes):
                target[key] = value
            else:
                target[key].CopyFrom(value)

    def value(self, field: Any, depth: int) -> Any:
        kind, types = field.type, FieldDescriptor
        if kind == types.TYPE_MESSAGE:
            return self.message(field.message_type, depth - 1)
        if kind == types.TYPE_ENUM:
            return self.random.choice([value.number for value in field.enum_type.values if shared(field, value)])
        if kind in (types.TYPE_STRING, types.TYPE_BYTES):
            text = "".join(self.random.choices("aZ0._-é\N{SNOWMAN}", k=self.random.choice((0, 1, 5, 60))))
            return text if kind == types.TYPE_STRING else text.encode()
        if kind == types.TYPE_BOOL:
            return self.random.random() < 0.5
        if kind in (types.TYPE_DOUBLE, types.TYPE_FLOAT):
            return self.random.choice((0.0, 1.5, -2.25, 0.1, 1e9, 3.4e38, math.inf, -math.inf))
        bits = 32 if field.cpp_type in (types.CPPTYPE_INT32, types.CPPTYPE_UINT32) else 64
        if field.cpp_type in (types.CPPTYPE_UINT32, types.CPPTYPE_UINT64):
            return self.random.choice((0, 1, 127, 128, 2**bits - 1))
        return self.random.choice((0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))))

    def well_known(self, descriptor: Descriptor) -> Any:
        message: Any = message_factory.GetMessageClass(descriptor)()
        name = descriptor.name
        if name == "Any":
            inner = self.message(pool().FindMessageTypeByName(self.random.choice(type_names())), 2)
            message.type_url, message.value = PREFIX + inner.DESCRIPTOR.full_name, inner.SerializeToString()
        elif name == "Duration":
            message.seconds = self.random.choice((0, 1, 3600, 10**8))
            message.nanos = self.random.choice((0, 1_000, 250_000_000, 999_999_000))
        elif name == "Timestamp":
            message.seconds, message.nanos = self.random.randint(0, 10**9), self.random.choice((0, 1_000, 5_000_000))
        elif name in ("Struct", "ListValue", "Value"):
            json_format.ParseDict(
                {"Struct": self.struct, "ListValue": self.items, "Value": self.loose}[name](), message
            )
        elif name != "Empty":
            message.value = self.value(descriptor.fields_by_name["value"], 0)
        return message

    def struct(self, depth: int = 2) -> dict[str, Any]:
        return {key: self.loose(depth) for key in self.random.sample(("a", "b.c", "5xx", "é"), 2)}

    def items(self, depth: int = 2) -> list[Any]:
        return [self.loose(depth) for _ in range(self.random.randint(0, 3))]

    def loose(self, depth: int = 2) -> Any:
        made: list[Any] = [None, True, 0, -1.5, 1e300, "", "5"]
        if depth:
            made += [self.struct(depth - 1), self.items(depth - 1)]
        return self.random.choice(made)


def shared(field: Any, value: Any) -> bool:
    """Whether envoy-data-plane, which is older or younger than the binary, has the enum's value under this name."""
    ours = known_type(PREFIX + field.containing_type.full_name)
    cls: Any = metadata(ours).cls_by_field[field.name] if ours else None
    known = {int(one): one.proto_name or one.name for one in cls} if cls else {0: field.enum_type.values[0].name}
    return bool(known.get(value.number) == value.name)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=600)
def test_json_is_that_of_protobuf(seed: int) -> None:
    builder = Builder(seed)
    name = builder.random.choice(type_names())
    theirs = builder.message(pool().FindMessageTypeByName(name))
    shown = to_json(PREFIX + name, theirs.SerializeToString(), secrets=True)
    expected = json_format.MessageToDict(theirs, preserving_proto_field_name=True, descriptor_pool=pool())
    assert shown == expected


@given(seed=st.integers(0, 2**32))
@settings(max_examples=600)
def test_what_protobuf_writes_is_read(seed: int) -> None:
    """In both spellings of field names, back to the same message; and ours is read by protobuf."""
    builder = Builder(seed)
    name = builder.random.choice(type_names())
    theirs = builder.message(pool().FindMessageTypeByName(name))
    for proto_names in (True, False):
        data = json_format.MessageToDict(theirs, preserving_proto_field_name=proto_names, descriptor_pool=pool())
        reader = Reader(constraints=False)
        message_type = known_type(PREFIX + name)
        assert message_type is not None
        message = reader.message(message_type, data, ())
        assert reader.problems == []
        assert same(type(theirs).FromString(encode(message)), theirs)
    back = json_format.ParseDict(
        to_json(PREFIX + name, theirs.SerializeToString(), secrets=True), type(theirs)(), descriptor_pool=pool()
    )
    assert same(back, theirs)


def same(one: Any, other: Any) -> bool:
    """Bytes inside an Any may differ in the order of map entries."""
    shown = [
        json_format.MessageToDict(each, preserving_proto_field_name=True, descriptor_pool=pool())
        for each in (one, other)
    ]
    return bool(shown[0] == shown[1])


def test_the_rules_are_those_of_the_installed_envoy() -> None:
    assert envoy_api.RULES_FILE.read_text() == envoy_api.rules_text(), "run python protos/envoy_api.py"


def test_most_of_the_api_was_compared() -> None:
    assert len(type_names()) > 1300
