"""The compiled encoder equals ``bytes(message)`` for whatever message of Envoy's API."""

from __future__ import annotations

import datetime
import importlib
import random
import warnings
from collections.abc import Mapping
from typing import Any

import pytest
from betterproto2 import FieldMetadata, Message
from envoy_data_plane.message_pool import default_message_pool
from google.protobuf import struct_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xds import codec
from xds.model import RuntimeValue

PACKAGES = (
    "envoy.config.cluster.v3",
    "envoy.config.core.v3",
    "envoy.config.endpoint.v3",
    "envoy.config.listener.v3",
    "envoy.config.route.v3",
    "envoy.extensions.filters.http.fault.v3",
    "envoy.extensions.filters.http.local_ratelimit.v3",
    "envoy.extensions.filters.network.http_connection_manager.v3",
    "envoy.extensions.upstreams.http.v3",
    "envoy.service.runtime.v3",
    "google.protobuf",
)
#: Descriptors describe messages; no resource holds one, and some need fields that others forbid.
SKIPPED = "google.protobuf.", "envoy.config.core.v3.Metadata"


def message_types() -> list[type[Message]]:
    for package in PACKAGES:
        importlib.import_module(f"envoy_data_plane.{package}")
    names = tuple(f"type.googleapis.com/{skipped}" for skipped in SKIPPED)
    return [one for url, one in sorted(default_message_pool.url_to_type.items()) if not url.startswith(names)]


def metadata(message_type: Any) -> Any:
    """What betterproto knows about a message's fields."""
    return message_type._betterproto


class Builder:
    """Builds messages of any type with random content; a seed is a message."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def message(self, message_type: type[Message], depth: int = 3) -> Any:
        fields = list(metadata(message_type).meta_by_field_name.items())
        chosen: dict[str, Any] = {}
        groups: set[str] = set()
        for name, meta in self.random.sample(fields, min(len(fields), self.random.randint(0, 6))):
            if meta.group and (meta.group in groups or groups.add(meta.group)):  # type: ignore[func-returns-value]
                continue
            value = self.field(message_type, name, meta, depth)
            if value is not None:
                chosen[name] = value
        return message_type(**chosen)

    def field(self, message_type: type[Message], name: str, meta: FieldMetadata, depth: int) -> Any:
        classes = metadata(message_type).cls_by_field
        if meta.map_meta is not None:
            key, value = meta.map_meta
            keys = sorted({self.scalar(key, str) for _ in range(self.random.randint(0, 3))})
            made = {one: self.value(value, classes[f"{name}.value"], depth) for one in keys}
            return {one: inner for one, inner in made.items() if inner is not None}
        if meta.repeated:
            items = [self.value(meta, classes[name], depth) for _ in range(self.random.randint(0, 3))]
            return [inner for inner in items if inner is not None]
        return self.value(meta, classes[name], depth)

    def value(self, meta: FieldMetadata, cls: type, depth: int) -> Any:
        if meta.proto_type != "message":
            return self.scalar(meta, cls)
        if meta.unwrap is not None:
            return self.wrapped(meta.unwrap())
        return self.message(cls, depth - 1) if depth else None

    def wrapped(self, wrapper: type[Message]) -> Any:
        if wrapper.__name__ == "Duration":
            return datetime.timedelta(milliseconds=self.random.randint(0, 10**7))
        if wrapper.__name__ == "Timestamp":
            return datetime.datetime.fromtimestamp(self.random.randint(0, 10**9), datetime.UTC)
        return self.scalar(metadata(wrapper).meta_by_field_name["value"], str)

    def scalar(self, meta: FieldMetadata, cls: type) -> Any:
        kind = meta.proto_type
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


@pytest.fixture(scope="module")
def types() -> list[type[Message]]:
    return message_types()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_encoding_equals_the_slow_one(types: list[type[Message]], seed: int) -> None:
    builder = Builder(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated fields are set as well
        message = builder.message(builder.random.choice(types))
        assert codec.encode(message) == bytes(message)


def test_every_message_type_can_be_compiled(types: list[type[Message]]) -> None:
    assert len(types) > 300
    for message_type in types:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert codec.encode(message_type()) == b""


@given(values=st.dictionaries(st.text(min_size=1), st.integers(0, 2**32 - 1)), seed=st.integers())
@settings(max_examples=100, deadline=None)
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
    struct = struct_pb2.Struct.FromString(runtime.layer.SerializeToString())
    return {key: value.number_value for key, value in struct.fields.items()}
