"""Messages to bytes and back: the only door to protobuf.

Resources are built from envoy-data-plane (typed, validated) and encoded by the compiled walk of
:mod:`xds._encoder`. The envelopes of the streams, encoded and decoded once per sidecar per push, are protobuf
(upb) classes compiled from protos/_wire.proto; :mod:`xds.protocol.events` is what decoded requests look like. For
people, :mod:`xds._json` shows a resource as JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from betterproto2 import Message
from envoy_data_plane.message_pool import default_message_pool
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as WireMessage

from xds import _references, _repeated_names
from xds import _wire_pb2 as wire
from xds._encoder import encode, varint
from xds._json import to_json
from xds.errors import CodecError
from xds.model import RuntimeValue
from xds.protocol.events import DeltaRequest, Item, Node, SotwRequest
from xds.types import LISTENER, RESOURCE

__all__ = [
    "decode_delta_request",
    "decode_sotw_request",
    "delta_response",
    "discovered",
    "domains",
    "encode",
    "host_name",
    "nonce_field",
    "references",
    "runtime_body",
    "sotw_envelope",
    "sotw_part",
    "sotw_response",
    "to_json",
    "type_url",
]

_NONCE_TAG = b"\x2a"  # field 5, a string, in both
_VERSION_TAG, _TYPE_URL_TAG = b"\x0a", b"\x22"  # fields 1 and 4 of a DiscoveryResponse

#: Of a client's reasons (characters); they are searched for names, and kept.
_LONGEST_WORDS = 65_536

_M = TypeVar("_M", bound=WireMessage)


@dataclass(frozen=True, slots=True)
class Discovered:
    """An extension that a listener has configured by ECDS: whether it has a default, and whether it asks on ADS."""

    has_default: bool
    by_ads: bool


def type_url(message: Message) -> str:
    """The type URL of a message of envoy-data-plane."""
    return default_message_pool.type_to_url[type(message)]


# Requests


def decode_sotw_request(data: bytes) -> SotwRequest:
    """A DiscoveryRequest from its bytes; CodecError if they are none."""
    names, rest = _repeated_names.split(data)
    try:
        message = wire.DiscoveryRequest.FromString(rest)
    except DecodeError as error:
        raise _undecodable("DiscoveryRequest", data, error) from error
    if more := message.resource_names:
        names += tuple(more)
    nonce, words, node = message.response_nonce, _error(message), _node(message)
    return SotwRequest(message.type_url, names, message.version_info, nonce, words, node)


def decode_delta_request(data: bytes) -> DeltaRequest:
    """A DeltaDiscoveryRequest from its bytes; CodecError if they are none."""
    message = _parse(wire.DeltaDiscoveryRequest, data)
    subscribe, unsubscribe = tuple(message.resource_names_subscribe), tuple(message.resource_names_unsubscribe)
    versions, nonce = dict(message.initial_resource_versions), message.response_nonce
    return DeltaRequest(message.type_url, subscribe, unsubscribe, versions, nonce, _error(message), _node(message))


def _error(message: wire.DiscoveryRequest | wire.DeltaDiscoveryRequest) -> str | None:
    """A rejection is the presence of ``error_detail``, whatever it says."""
    if not message.HasField("error_detail"):
        return None
    return message.error_detail.message[:_LONGEST_WORDS] or f"status {message.error_detail.code}"


def _node(message: wire.DiscoveryRequest | wire.DeltaDiscoveryRequest) -> Node | None:
    if not message.HasField("node"):
        return None
    node = message.node
    return Node(node.id, node.cluster, _user_agent_version(node), frozenset(node.client_features), node.user_agent_name)


def _user_agent_version(node: wire.Node) -> str:
    if not node.HasField("user_agent_build_version"):
        return node.user_agent_version
    version = node.user_agent_build_version.version
    return f"{version.major_number}.{version.minor_number}.{version.patch}"


# Responses. They are encoded without their nonce, once for all streams; protobuf fields concatenate, so each
# stream appends its own.


def sotw_response(url: str, version: str, items: Iterable[Item]) -> bytes:
    """A DiscoveryResponse without its nonce. A resource with a TTL travels inside a ``Resource``."""
    resources = [_any(RESOURCE, _resource(i).SerializeToString()) if i.ttl else _any(url, i.body or b"") for i in items]
    return wire.DiscoveryResponse(version_info=version, resources=resources, type_url=url).SerializeToString()


def sotw_envelope(url: str, version: str) -> bytes:
    """A DiscoveryResponse without resources and nonce."""
    return _text(_VERSION_TAG, version) + _type_url_field(url)


def sotw_part(url: str, body: bytes) -> bytes:
    """One resource's share of a DiscoveryResponse; shares concatenate."""
    return wire.DiscoveryResponse(resources=[_any(url, body)]).SerializeToString()


def delta_part(url: str, name: str, version: str, body: bytes) -> bytes:
    """One resource's share of a DeltaDiscoveryResponse; shares concatenate."""
    return wire.DeltaDiscoveryResponse(resources=[_resource(Item(url, name, version, body))]).SerializeToString()


def delta_response(url: str, version: str, items: Iterable[Item], removed: Iterable[str] = ()) -> bytes:
    """A DeltaDiscoveryResponse without its nonce. An item without a body is a heartbeat."""
    return wire.DeltaDiscoveryResponse(
        system_version_info=version,
        resources=[_resource(item) for item in items],
        type_url=url,
        removed_resources=list(removed),
    ).SerializeToString()


def nonce_field(nonce: str) -> bytes:
    """The bytes to append to a response of either variant."""
    return _text(_NONCE_TAG, nonce)


@lru_cache(maxsize=64)
def _type_url_field(url: str) -> bytes:
    return _text(_TYPE_URL_TAG, url)


def _text(tag: bytes, value: str) -> bytes:
    text = value.encode()
    return tag + varint(len(text)) + text if text else b""


def _resource(item: Item) -> wire.Resource:
    message = wire.Resource(name=item.name, version=item.version, aliases=item.aliases)
    if item.body is not None:
        message.resource.CopyFrom(_any(item.type_url, item.body))
    if item.ttl is not None:
        message.ttl.CopyFrom(_duration(item.ttl))
    return message


def _any(url: str, value: bytes) -> wire.Any:
    return wire.Any(type_url=url, value=value)


def _duration(seconds: float) -> wire.Duration:
    """At least a millisecond: a TTL of zero would mean none at all."""
    whole, nanos = divmod(max(round(seconds * 1e9), 1_000_000), 1_000_000_000)
    return wire.Duration(seconds=whole, nanos=nanos)


# Runtime layers


def runtime_body(name: str, values: Mapping[str, RuntimeValue]) -> bytes:
    """A deterministic envoy.service.runtime.v3.Runtime: dotted keys stay flat, fractions become structs."""
    message = wire.Runtime(name=name)
    message.layer.SetInParent()
    for key, value in values.items():
        _fill(message.layer.fields[key], value)
    return message.SerializeToString(deterministic=True)


def _fill(target: wire.Value, value: RuntimeValue | str) -> None:
    if isinstance(value, Mapping):
        target.struct_value.SetInParent()
        for key, inner in value.items():
            _fill(target.struct_value.fields[key], inner)
    elif isinstance(value, str):
        target.string_value = value
    else:
        target.number_value = value


# Which resource names which


def references(url: str, body: bytes) -> frozenset[tuple[str, str]]:
    """(type URL, name) of the resources that an encoded resource needs; CodecError if it is not of its type."""
    try:
        return _references.references(url, body)
    except DecodeError as error:
        raise _undecodable(url.rpartition(".")[2], body, error) from error


def domains(body: bytes) -> tuple[str, ...]:
    """The domains of an encoded virtual host; CodecError if it is none."""
    return tuple(_parse(wire.VirtualHost, body).domains)


def host_name(body: bytes) -> str:
    """The name inside an encoded virtual host; CodecError if it is none."""
    return _parse(wire.VirtualHost, body).name


def discovered(url: str, body: bytes) -> Mapping[str, Discovered]:
    """Extensions whose configuration an encoded listener leaves to ECDS, by the name that it asks for.

    A name that several filters share has a default only if each of them has one.
    """
    found: dict[str, Discovered] = {}
    for name, source in _discovering(_parse(wire.Listener, body)) if url == LISTENER else ():
        one = Discovered(source.HasField("default_config"), source.config_source.HasField("ads"))
        known = found.get(name, one)
        found[name] = Discovered(one.has_default and known.has_default, one.by_ads or known.by_ads)
    return found


def _discovering(listener: wire.Listener) -> Iterator[tuple[str, wire.ExtensionConfigSource]]:
    for chain in (*listener.filter_chains, listener.default_filter_chain):
        for one in chain.filters:
            if one.typed_config.type_url == _references.HTTP:
                http = _parse(wire.HttpConnectionManager, one.typed_config.value)
                yield from _sources(http.http_filters)
        yield from _sources(chain.filters)
    yield from _sources(listener.listener_filters)


def _sources(filters: Iterable[Any]) -> Iterator[tuple[str, wire.ExtensionConfigSource]]:
    """Filters of whatever kind: each has a name and may have a source."""
    return ((one.name, one.config_discovery) for one in filters if one.HasField("config_discovery"))


def _parse(message_type: type[_M], data: bytes) -> _M:
    try:
        return message_type.FromString(data)
    except DecodeError as error:
        raise _undecodable(message_type.DESCRIPTOR.name, data, error) from error


def _undecodable(name: str, data: bytes, error: DecodeError) -> CodecError:
    return CodecError(f"{len(data)} bytes are not a {name}: {error}; expected its protobuf encoding")
