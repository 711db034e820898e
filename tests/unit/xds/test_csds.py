"""CSDS over real gRPC, asked as grpcdebug asks: raw bytes of Envoy's own messages."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from envoy_data_plane.envoy.admin.v3 import ClientResourceStatus
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    Metadata,
    TransportSocket,
)
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    GenericSecret,
    Secret,
    TlsCertificate,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.service.status.v3 import (
    ClientConfig,
    ClientConfigGenericXdsConfig,
    ClientStatusRequest,
    ClientStatusResponse,
    ConfigStatus,
)
from envoy_data_plane.envoy.type.matcher.v3 import NodeMatcher, RegexMatcher, StringMatcher, StructMatcher
from envoy_data_plane.google.protobuf import Any as AnyMessage
from envoy_data_plane.google.protobuf import Struct, Value

from tests.unit.xds.link import make
from xds import _wire_pb2 as wire
from xds import codec, redaction
from xds.model import RuntimeLayer
from xds.protocol.events import TTL_FEATURE
from xds.server import Settings, XdsServer
from xds.snapshot import Snapshot, resource, resource_set, snapshot
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, RUNTIME

DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
SOTW = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
CSDS = "/envoy.service.status.v3.ClientStatusDiscoveryService/"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\n-----END PRIVATE KEY-----"

Row = ClientConfigGenericXdsConfig


class Client:
    """A delta stream that answers as it is told."""

    def __init__(self, channel: Any, node_id: str) -> None:
        self.call = channel.stream_stream(DELTA)()
        self.node = wire.Node(id=node_id, cluster="group", user_agent_name="envoy", client_features=[TTL_FEATURE])

    async def ask(self, type_url: str, *names: str, nonce: str = "", error: str = "") -> None:
        request = wire.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names, response_nonce=nonce)
        request.node.CopyFrom(self.node)
        if error:
            request.error_detail.message = error
        await self.call.write(request.SerializeToString())

    async def get(self) -> wire.DeltaDiscoveryResponse:
        data = await asyncio.wait_for(self.call.read(), 5.0)
        assert isinstance(data, bytes)
        return wire.DeltaDiscoveryResponse.FromString(data)

    async def accept(self, type_url: str, *names: str) -> None:
        await self.ask(type_url, *names)
        got = await self.get()
        await self.ask(type_url, nonce=got.nonce)


async def until(condition: Callable[[], Any], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[XdsServer]:
    one = XdsServer(clock=lambda: 1234.5)
    yield one
    await one.stop(0)


@pytest_asyncio.fixture
async def channel(server: XdsServer) -> AsyncIterator[grpc.aio.Channel]:
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as one:
        yield one


async def fetch(channel: Any, request: ClientStatusRequest | None = None) -> list[ClientConfig]:
    data = await channel.unary_unary(CSDS + "FetchClientStatus")(bytes(request or ClientStatusRequest()))
    return ClientStatusResponse.parse(data).config


def rows(config: ClientConfig) -> dict[tuple[str, str], Row]:
    return {(row.type_url, row.name): row for row in config.generic_xds_configs}


def two(content: int = 0) -> Snapshot:
    return make.snapshot(make.cluster("a", content), make.cluster("b"), make.endpoints("a"))


async def test_every_field_of_a_resource_that_is_in_sync(server: XdsServer, channel: grpc.aio.Channel) -> None:
    server.publish({"n-0": two()})
    client = Client(channel, "n-0")
    await client.accept(CLUSTER)
    await until(lambda: server.status.acks["cds"] == 1)
    (config,) = await fetch(channel)
    assert config.node is not None
    assert (config.node.id, config.node.cluster, config.node.user_agent_name) == ("n-0", "group", "envoy")
    assert config.node.client_features == [TTL_FEATURE]
    assert (config.node.metadata, config.client_scope, config.xds_config) == (None, "", [])
    row = rows(config)[CLUSTER, "a"]
    one = two().sets[CLUSTER].resources["a"]
    assert (row.type_url, row.name, row.version_info) == (CLUSTER, "a", one.version)
    assert (row.config_status, row.client_status) == (ConfigStatus.SYNCED, ClientResourceStatus.ACKED)
    assert row.xds_config is not None
    assert (row.xds_config.type_url, row.xds_config.value) == (CLUSTER, one.body)
    assert row.last_updated is not None
    assert row.last_updated.timestamp() == 1234.5
    assert row.error_state is None
    assert not row.is_static_resource


async def test_a_rejected_resource_carries_the_clients_words(server: XdsServer, channel: grpc.aio.Channel) -> None:
    server.publish({"n-0": two()})
    client = Client(channel, "n-0")
    await client.accept(CLUSTER)
    server.publish({"n-0": two(1)})
    got = await client.get()
    await client.ask(CLUSTER, nonce=got.nonce, error="no such thing")
    await until(lambda: server.status.nacks["cds"] == 1)
    (config,) = await fetch(channel)
    row, other = rows(config)[CLUSTER, "a"], rows(config)[CLUSTER, "b"]
    wanted = two(1).sets[CLUSTER].resources["a"]
    assert (row.config_status, row.client_status) == (ConfigStatus.ERROR, ClientResourceStatus.NACKED)
    assert row.error_state is not None
    assert (row.error_state.details, row.error_state.version_info) == ("no such thing", wanted.version)
    assert row.error_state.last_update_attempt is not None
    assert row.error_state.failed_configuration is not None
    assert row.error_state.failed_configuration.value == wanted.body
    assert row.xds_config is not None
    assert row.xds_config.value == wanted.body, "the rejected one: it is what the server has"
    assert (other.config_status, other.client_status) == (ConfigStatus.SYNCED, ClientResourceStatus.ACKED)
    types = [(one.type_url, one.config_status) for one in config.generic_xds_configs]
    assert types == [(CLUSTER, ConfigStatus.SYNCED), (CLUSTER, ConfigStatus.ERROR)], "the worst comes last"


async def test_what_is_unanswered_unsent_or_does_not_exist(server: XdsServer, channel: grpc.aio.Channel) -> None:
    server.publish({"n-0": snapshot(make.set(CLUSTER, make.cluster("a")), make.set(ENDPOINT))})
    client = Client(channel, "n-0")
    await client.ask(CLUSTER)
    await client.get()
    await client.accept(ENDPOINT, "nowhere")
    await client.ask(ROUTE, "later")
    await client.ask(LISTENER)
    await until(lambda: len(server.status.nodes()[0].types) == 4 and server.status.acks["eds"])
    (config,) = await fetch(channel)
    found = {key: (row.config_status, row.client_status) for key, row in rows(config).items()}
    assert found == {
        (CLUSTER, "a"): (ConfigStatus.STALE, ClientResourceStatus.REQUESTED),
        (ENDPOINT, "nowhere"): (ConfigStatus.SYNCED, ClientResourceStatus.DOES_NOT_EXIST),
        (ROUTE, "later"): (ConfigStatus.NOT_SENT, ClientResourceStatus.REQUESTED),
        (LISTENER, ""): (ConfigStatus.NOT_SENT, ClientResourceStatus.REQUESTED),
    }


async def test_runtime_layers_are_shown(server: XdsServer, channel: grpc.aio.Channel) -> None:
    server.publish({"n-0": two()})
    server.lease({"n-0": [RuntimeLayer("limits", {"a.b": 7}, 15.0)]})
    await Client(channel, "n-0").accept(RUNTIME, "limits")
    await until(lambda: server.status.acks["rtds"] == 1)
    (config,) = await fetch(channel)
    row = rows(config)[RUNTIME, "limits"]
    assert (row.config_status, row.client_status) == (ConfigStatus.SYNCED, ClientResourceStatus.ACKED)
    assert row.xds_config is not None
    assert b"a.b" in row.xds_config.value


async def test_state_of_the_world_has_one_version_per_type(server: XdsServer, channel: Any) -> None:
    server.publish({"n-0": two()})
    call = channel.stream_stream(SOTW)()
    request = wire.DiscoveryRequest(type_url=CLUSTER, node=wire.Node(id="n-0"))
    await call.write(request.SerializeToString())
    got = wire.DiscoveryResponse.FromString(await asyncio.wait_for(call.read(), 5.0))
    await call.write(
        wire.DiscoveryRequest(
            type_url=CLUSTER, version_info=got.version_info, response_nonce=got.nonce
        ).SerializeToString()
    )
    await until(lambda: server.status.acks["cds"] == 1)
    (config,) = await fetch(channel)
    assert {row.version_info for row in config.generic_xds_configs} == {got.version_info}
    call.cancel()


async def test_several_streams_of_a_node_are_one_client(server: XdsServer, channel: grpc.aio.Channel) -> None:
    """The worse state of a resource counts."""
    server.publish({"n-0": two()})
    good, slow = Client(channel, "n-0"), Client(channel, "n-0")
    await good.accept(CLUSTER)
    await slow.ask(CLUSTER)
    await slow.get()
    await until(lambda: server.status.acks["cds"] == 1)
    (config,) = await fetch(channel)
    assert {row.config_status for row in config.generic_xds_configs} == {ConfigStatus.STALE}
    assert len(config.generic_xds_configs) == 2


async def test_contents_can_be_left_out(server: XdsServer, channel: grpc.aio.Channel) -> None:
    server.publish({"n-0": two()})
    await Client(channel, "n-0").accept(CLUSTER)
    (config,) = await fetch(channel, ClientStatusRequest(exclude_resource_contents=True))
    assert [(row.name, row.xds_config) for row in config.generic_xds_configs] == [("a", None), ("b", None)]


@pytest.mark.parametrize(
    ("matchers", "expected"),
    [
        ([], ["cart-0", "catalog-0", "catalog-1"]),
        ([NodeMatcher()], ["cart-0", "catalog-0", "catalog-1"]),
        ([NodeMatcher(node_id=StringMatcher(exact="catalog-1"))], ["catalog-1"]),
        ([NodeMatcher(node_id=StringMatcher(prefix="Cat", ignore_case=True))], ["catalog-0", "catalog-1"]),
        ([NodeMatcher(node_id=StringMatcher(suffix="-0"))], ["cart-0", "catalog-0"]),
        ([NodeMatcher(node_id=StringMatcher(safe_regex=RegexMatcher(regex=r"ca\w+-0")))], ["cart-0", "catalog-0"]),
        ([NodeMatcher(node_id=StringMatcher(exact=name)) for name in ("cart-0", "nobody")], ["cart-0"]),
    ],
)
async def test_matchers_choose_the_nodes(
    server: XdsServer, channel: grpc.aio.Channel, matchers: list[NodeMatcher], expected: list[str]
) -> None:
    clients = [Client(channel, name) for name in ("catalog-1", "cart-0", "catalog-0")]
    for client in clients:
        await client.ask(CLUSTER)
    await until(lambda: server.status.connected() == 3)
    found = await fetch(channel, ClientStatusRequest(node_matchers=matchers))
    assert [config.node.id for config in found if config.node] == expected


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (bytes(ClientStatusRequest(node_matchers=[NodeMatcher(node_metadatas=[StructMatcher()])])), "node_metadatas"),
        (bytes(ClientStatusRequest(node_matchers=[NodeMatcher(node_id=StringMatcher(prefix=""))])), "prefix is empty"),
        (bytes(ClientStatusRequest(node_matchers=[NodeMatcher(node_id=StringMatcher())])), "expected one of"),
        (b"\xff\xff\xff", "are not a ClientStatusRequest"),
    ],
)
async def test_what_cannot_be_answered_is_refused(channel: Any, request_: bytes, words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await channel.unary_unary(CSDS + "FetchClientStatus")(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_answers_each_request_and_ends_with_the_server(server: XdsServer, channel: Any) -> None:
    call = channel.stream_stream(CSDS + "StreamClientStatus")()
    await call.write(bytes(ClientStatusRequest()))
    assert ClientStatusResponse.parse(await asyncio.wait_for(call.read(), 5.0)).config == []
    await Client(channel, "n-0").ask(CLUSTER)
    await until(lambda: server.status.connected() == 1)
    await call.write(bytes(ClientStatusRequest()))
    assert len(ClientStatusResponse.parse(await asyncio.wait_for(call.read(), 5.0)).config) == 1
    await asyncio.wait_for(server.stop(5.0), 3.0)


async def test_an_answer_that_most_clients_could_not_take_is_refused_with_the_remedy() -> None:
    server = XdsServer(settings=Settings(client_status_max_bytes=500))
    port = await server.start("127.0.0.1", 0)
    server.publish({"n-0": make.snapshot(*(make.cluster(f"cluster-{n}") for n in range(20)))})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await Client(channel, "n-0").accept(CLUSTER)
        with pytest.raises(grpc.aio.AioRpcError, match="exclude_resource_contents") as caught:
            await fetch(channel)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await server.stop(0)


async def test_it_can_be_switched_off() -> None:
    server = XdsServer(settings=Settings(client_status=False))
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await fetch(channel)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0)


# Secrets


def with_key() -> Cluster:
    certificate = TlsCertificate(
        certificate_chain=DataSource(inline_string="CHAIN"), private_key=DataSource(inline_string=KEY)
    )
    tls = UpstreamTlsContext(common_tls_context=CommonTlsContext(tls_certificates=[certificate]), sni="shop")
    return Cluster(name="a", transport_socket=TransportSocket(name="tls", typed_config=AnyMessage.pack(tls)))


async def test_no_key_is_shown_wherever_it_stands(server: XdsServer, channel: grpc.aio.Channel) -> None:
    server.publish({"n-0": snapshot(resource_set(CLUSTER, [resource("a", with_key())]))})
    await Client(channel, "n-0").accept(CLUSTER)
    (config,) = await fetch(channel)
    (row,) = config.generic_xds_configs
    assert row.xds_config is not None
    assert b"PRIVATE KEY" not in bytes(config)
    socket = Cluster.parse(row.xds_config.value).transport_socket
    assert socket is not None
    assert socket.typed_config is not None
    tls = UpstreamTlsContext.parse(socket.typed_config.value)
    assert tls.sni == "shop"
    assert tls.common_tls_context is not None
    (certificate,) = tls.common_tls_context.tls_certificates
    assert certificate.private_key == DataSource(inline_string="[redacted]")
    assert certificate.certificate_chain == DataSource(inline_string="CHAIN")


@pytest.mark.parametrize(
    "secret",
    [
        Secret(name="s", tls_certificate=TlsCertificate(private_key=DataSource(inline_bytes=b"hidden"))),
        Secret(name="s", generic_secret=GenericSecret(secret=DataSource(inline_string="hidden"))),
        Secret(name="s", generic_secret=GenericSecret(secrets={"one": DataSource(inline_string="hidden")})),
    ],
)
def test_a_secret_is_known_by_its_name_only(secret: Secret) -> None:
    one = resource("s", secret)
    shown = redaction.Redactor()(one)
    assert shown is not None
    assert b"hidden" in one.body
    assert b"hidden" not in shown
    assert Secret.parse(shown).name == "s"


def test_headers_and_structs_tell_by_their_names() -> None:
    def header(key: str) -> HeaderValueOption:
        return HeaderValueOption(header=HeaderValue(key=key, value="hidden"))

    metadata = Struct(
        fields={
            "password": Value(string_value="hidden"),
            "max_tokens": Value(number_value=7),
            "deep": Value(struct_value=Struct(fields={"api-key": Value(string_value="hidden")})),
        }
    )
    route = RouteConfiguration(
        name="r",
        request_headers_to_add=[header("authorization"), header("x-shown")],
        metadata=Metadata(filter_metadata={"acme": metadata}),
    )
    shown = redaction.Redactor()(resource("r", route))
    assert shown is not None
    assert shown.count(b"hidden") == 1
    found = RouteConfiguration.parse(shown)
    assert [one.header and one.header.value for one in found.request_headers_to_add] == ["[redacted]", "hidden"]
    assert codec.to_json(ROUTE, shown) == codec.to_json(ROUTE, bytes(route)), "as where it is shown as JSON"


def test_what_cannot_be_read_is_left_out_if_it_may_hide_something() -> None:
    unknown = AnyMessage(type_url="type.googleapis.com/acme.transport_sockets.Tls", value=b"hidden")
    cluster = Cluster(name="a", transport_socket=TransportSocket(name="tls", typed_config=unknown))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert redaction.Redactor()(resource("a", cluster)) is None


def test_what_holds_no_secret_is_shown_as_it_is() -> None:
    tls = UpstreamTlsContext(sni="shop")
    cluster = Cluster(name="a", transport_socket=TransportSocket(name="tls", typed_config=AnyMessage.pack(tls)))
    for one in (resource("a", cluster), resource("b", Cluster(name="b"))):
        assert redaction.Redactor()(one) is one.body
