"""Bytes on the wire: equal to Envoy's own messages, in a package of our own."""

from __future__ import annotations

import datetime
import subprocess
import sys

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import BuildVersion, Metadata, Node
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy_data_plane.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from envoy_data_plane.envoy.service.discovery.v3 import Resource as EnvoyResource
from envoy_data_plane.envoy.service.runtime.v3 import Runtime
from envoy_data_plane.envoy.type.v3 import SemanticVersion
from envoy_data_plane.google.protobuf import Any as AnyMessage
from envoy_data_plane.google.protobuf import Struct, Value
from envoy_data_plane.google.rpc import Status

from xds import codec
from xds.errors import CodecError
from xds.protocol.events import Item
from xds.types import CLUSTER, LISTENER, ORDER, RESOURCE, RUNTIME, SHORT_NAMES, short_name

NODE = Node(
    id="n-0",
    cluster="n",
    metadata=Struct(fields={"k": Value(string_value="v")}),
    user_agent_name="envoy",
    user_agent_build_version=BuildVersion(version=SemanticVersion(major_number=1, minor_number=40, patch=2)),
    client_features=["envoy.config.supports-resource-ttl"],
)


def test_a_request_of_envoy_is_understood() -> None:
    data = bytes(
        DiscoveryRequest(version_info="7", node=NODE, resource_names=["a", "b"], type_url=CLUSTER, response_nonce="n1")
    )
    request = codec.decode_sotw_request(data)
    assert (request.type_url, request.version, request.names, request.nonce) == (CLUSTER, "7", ("a", "b"), "n1")
    assert request.error is None
    assert request.node is not None
    assert (request.node.id, request.node.cluster, request.node.user_agent) == ("n-0", "n", "envoy")
    assert request.node.user_agent_version == "1.40.2"
    assert request.node.supports_ttl


def test_a_delta_request_of_envoy_is_understood() -> None:
    data = bytes(
        DeltaDiscoveryRequest(
            type_url=CLUSTER,
            resource_names_subscribe=["a"],
            resource_names_unsubscribe=["b"],
            initial_resource_versions={"c": "1"},
            response_nonce="n1",
            error_detail=Status(code=3, message="bad"),
        )
    )
    request = codec.decode_delta_request(data)
    assert (request.subscribe, request.unsubscribe, request.initial_versions) == (("a",), ("b",), {"c": "1"})
    assert (request.nonce, request.error, request.node) == ("n1", "bad", None)


def test_an_error_without_words_is_an_error() -> None:
    assert codec.decode_sotw_request(bytes(DiscoveryRequest(error_detail=Status(code=13)))).error == "status 13"
    assert codec.decode_sotw_request(bytes(DiscoveryRequest(error_detail=Status()))).error == "status 0"


def test_a_user_agent_may_name_its_version_in_words() -> None:
    request = codec.decode_sotw_request(bytes(DiscoveryRequest(node=Node(id="n", user_agent_version="grpc 1"))))
    assert request.node is not None
    assert request.node.user_agent_version == "grpc 1"


def test_garbage_is_refused() -> None:
    with pytest.raises(CodecError, match="3 bytes are not a DiscoveryRequest"):
        codec.decode_sotw_request(b"\xff\xff\xff")
    with pytest.raises(CodecError, match="DeltaDiscoveryRequest"):
        codec.decode_delta_request(b"\xff\xff\xff")


def test_a_response_is_what_envoy_reads() -> None:
    body = codec.encode(Cluster(name="a"))
    data = codec.sotw_response(CLUSTER, "v1", [Item(CLUSTER, "a", "1", body)]) + codec.nonce_field("n1")
    expected = DiscoveryResponse(
        version_info="v1", type_url=CLUSTER, nonce="n1", resources=[AnyMessage(type_url=CLUSTER, value=body)]
    )
    assert DiscoveryResponse.parse(data) == expected


def test_a_leased_resource_is_wrapped() -> None:
    data = codec.sotw_response(RUNTIME, "v1", [Item(RUNTIME, "a", "1", b"", 1.25)])
    (one,) = DiscoveryResponse.parse(data).resources
    assert one.type_url == RESOURCE
    inner = EnvoyResource.parse(one.value)
    assert (inner.name, inner.version, inner.ttl) == ("a", "1", datetime.timedelta(seconds=1.25))
    assert inner.resource == AnyMessage(type_url=RUNTIME)


def test_a_delta_response_is_what_envoy_reads() -> None:
    items = [Item(CLUSTER, "a", "1", b"x"), Item(CLUSTER, "b", "2", None, 5.0)]
    data = codec.delta_response(CLUSTER, "v1", items, ["c"]) + codec.nonce_field("n1")
    response = DeltaDiscoveryResponse.parse(data)
    assert (response.system_version_info, response.nonce, response.removed_resources) == ("v1", "n1", ["c"])
    full, heartbeat = response.resources
    assert (full.name, full.version, full.ttl) == ("a", "1", None)
    assert full.resource == AnyMessage(type_url=CLUSTER, value=b"x")
    assert (heartbeat.resource, heartbeat.ttl) == (None, datetime.timedelta(seconds=5))


@pytest.mark.parametrize("ttl", [1e-9, 1e-4])
def test_a_ttl_is_never_rounded_to_none(ttl: float) -> None:
    data = codec.delta_response(RUNTIME, "v", [Item(RUNTIME, "a", "1", None, ttl)])
    assert DeltaDiscoveryResponse.parse(data).resources[0].ttl == datetime.timedelta(milliseconds=1)


def test_map_entries_are_sorted() -> None:
    one, other = (
        Metadata(filter_metadata={name: Struct(fields={"k": Value(number_value=1.0)}) for name in names})
        for names in ("ab", "ba")
    )
    assert codec.encode(one) == codec.encode(other) == bytes(one)


def test_unknown_fields_survive() -> None:
    message = Cluster.parse(bytes(Cluster(name="a")) + b"\xa0\x1f\x07")
    assert codec.encode(message) == bytes(message)
    assert codec.encode(message).endswith(b"\xa0\x1f\x07")


def test_a_runtime_layer_keeps_its_dots() -> None:
    body = codec.runtime_body("limits", {"a.b": 3, "c": {"numerator": 5, "denominator": "HUNDRED"}})
    runtime = Runtime.parse(body)
    assert runtime.name == "limits"
    assert runtime.layer is not None
    assert runtime.layer.to_dict() == {"a.b": 3, "c": {"numerator": 5, "denominator": "HUNDRED"}}


def test_an_empty_layer_is_present() -> None:
    assert Runtime.parse(codec.runtime_body("limits", {})).layer == Struct()


def test_a_resource_as_json() -> None:
    assert codec.to_json(CLUSTER, codec.encode(Cluster(name="a", connect_timeout=datetime.timedelta(seconds=1)))) == {
        "name": "a",
        "connect_timeout": "1s",
    }


def test_json_shows_what_is_inside_any_and_keeps_what_it_does_not_know() -> None:
    router = HttpFilter(name="router", typed_config=AnyMessage.pack(Router(suppress_envoy_headers=True)))
    odd = HttpFilter(name="odd", typed_config=AnyMessage(type_url="type.googleapis.com/acme.Odd", value=b"\x01"))
    manager = HttpConnectionManager(http_filters=[router, odd])
    chain = FilterChain(filters=[Filter(name="http", typed_config=AnyMessage.pack(manager))])
    shown = codec.to_json(LISTENER, codec.encode(Listener(filter_chains=[chain])))
    inner = shown["filter_chains"][0]["filters"][0]["typed_config"]
    assert inner["@type"].endswith("HttpConnectionManager")
    assert inner["http_filters"][0]["typed_config"]["suppress_envoy_headers"] is True
    assert inner["http_filters"][1]["typed_config"] == {"@type": "type.googleapis.com/acme.Odd", "value": "[redacted]"}


@pytest.mark.parametrize("type_url", ["", "type.googleapis.com/os.path", "type.googleapis.com/no.such.v3.Thing"])
def test_json_of_an_unknown_type_is_refused(type_url: str) -> None:
    with pytest.raises(CodecError, match="expected a type URL"):
        codec.to_json(type_url, b"")


def test_json_of_garbage_is_refused() -> None:
    with pytest.raises(CodecError, match="3 bytes are not a"):
        codec.to_json(CLUSTER, b"\x0a\x01\xff")


def test_short_names() -> None:
    assert short_name(CLUSTER) == "cds"
    assert short_name("type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint") == "LbEndpoint"


def test_every_type_has_a_place_and_a_short_name() -> None:
    assert set(ORDER) == set(SHORT_NAMES)
    assert sorted(SHORT_NAMES.values()) == ["cds", "ecds", "eds", "lds", "rds", "rtds", "sds", "srds", "vhds"]


def test_our_descriptors_do_not_claim_envoys_names() -> None:
    """Envoy's own protobuf classes (of xds-protos, for example) may be imported beside ours."""
    from xds import _wire_pb2

    assert _wire_pb2.DESCRIPTOR.package == "meshctl.wire.v1"


def test_importing_the_library_starts_nothing_and_keeps_grpc_out() -> None:
    script = "import sys, xds.snapshot, xds.protocol.delta, xds.protocol.sotw; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
