"""Mutual TLS with a real Envoy: who is let in, who is not, and certificates that change while everything runs."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from cryptography import x509

from meshctl.bootstrap import ClientTls, HostPort, Node, document, secrets
from tests.support.certificates import Authority, Issued
from tests.support.envoys import HOST, Envoy, running, until
from tests.support.resources import cluster, content
from xds import _wire_pb2 as wire
from xds.server import Settings, XdsServer
from xds.server.identity import Policy, Rule
from xds.server.settings import Limits
from xds.server.tls import TlsFiles
from xds.snapshot import Snapshot, encoded, resource_set, snapshot
from xds.status import XdsEvent
from xds.types import CLUSTER, SECRET

pytestmark = pytest.mark.slow

CATALOG = "spiffe://mesh/ns/shop/sa/catalog"
SERVER = "spiffe://mesh/ns/meshctl/sa/control-plane"
NODE = "catalog-0"


class Port:
    """A server with mutual TLS, and what it heard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.events: list[XdsEvent] = []
        (folder / "ca.pem").write_bytes(self.authority.pem)
        certificate, key = self.certify().write(folder, "server")
        self.files = TlsFiles(certificate, key, folder / "ca.pem")
        self.port = 0

    def certify(self) -> Issued:
        return self.authority.issue(SERVER, HOST, "localhost")

    async def start(self, policy: Policy | None = None, limits: Limits | None = None) -> XdsServer:
        settings = Settings(limits=limits or Limits())
        server = XdsServer(on_event=self.events.append, tls=self.files, policy=policy, settings=settings)
        self.port = await server.start(HOST, self.port)
        return server

    def heard(self, kind: str) -> list[XdsEvent]:
        return [event for event in self.events if event.kind == kind]


@pytest_asyncio.fixture
async def port(tmp_path: Path) -> Port:
    (tmp_path / "server").mkdir()
    return Port(tmp_path / "server")


@asynccontextmanager
async def serving(
    port: Port, policy: Policy | None = None, limits: Limits | None = None, wanted: Snapshot | None = None
) -> AsyncIterator[XdsServer]:
    server = await port.start(policy, limits)
    server.publish({NODE: wanted or content(cluster("backend"))})
    try:
        yield server
    finally:
        await server.stop(0.2)


def envoy(
    port: Port, folder: Path, issued: Issued, node: str = NODE, *, name: str = SERVER, ca: bytes | None = None
) -> AbstractAsyncContextManager[Envoy]:
    """A real Envoy with the product's own bootstrap, and a short way back after a failure."""
    folder.mkdir(exist_ok=True)
    (folder / "ca.pem").write_bytes(ca or port.authority.pem)
    certificate, key = issued.write(folder, "envoy")
    tls = ClientTls(certificate, key, folder / "ca.pem", name, folder / "catalog")
    for path, text in secrets(tls).items():
        path.write_text(text)
    wanted = Node(node, "catalog", xds=HostPort(HOST, port.port), tls=tls)
    config: dict[str, Any] = document("sidecar", wanted)
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    (service,) = config["dynamic_resources"]["ads_config"]["grpc_services"]
    back_off = {"retry_back_off": {"base_interval": "0.1s", "max_interval": "0.2s"}}
    service["envoy_grpc"]["retry_policy"] = back_off
    return running(folder, json.loads(json.dumps(config)))


def connected(server: XdsServer, node: str = NODE) -> bool:
    status = server.status.node(node)
    return status is not None and status.connected


def synced(server: XdsServer) -> bool:
    status = server.status.node(NODE)
    cds = status.types.get("cds") if status is not None and status.connected else None
    return cds is not None and cds.state == "SYNCED"


# A real Envoy


@pytest.mark.envoy
async def test_the_right_identity_is_let_in(port: Port, tmp_path: Path) -> None:
    async with serving(port) as server, envoy(port, tmp_path / "envoy", port.authority.issue(CATALOG)) as one:
        await until(lambda: synced(server))
        assert "backend" in await one.clusters()
    assert port.heard("denied") == []


@pytest.mark.envoy
async def test_the_wrong_identity_is_denied_and_gets_nothing(port: Port, tmp_path: Path) -> None:
    payments = port.authority.issue("spiffe://mesh/ns/shop/sa/payments")
    async with serving(port) as server, envoy(port, tmp_path / "envoy", payments) as one:
        await until(lambda: len(port.heard("denied")) >= 2)
        assert not connected(server)
        assert "backend" not in await one.clusters()
        assert server.gate.admission.refused["node"] >= 2
    event = port.heard("denied")[0]
    assert (event.node_id, event.version) == (NODE, "node")
    assert "sa/payments is neither node 'catalog-0'" in event.message
    assert "PermissionDenied" in one.log.read_text() or "this peer may not be this node" in one.log.read_text()


@pytest.mark.envoy
async def test_who_cannot_prove_anything_does_not_get_past_the_handshake(port: Port, tmp_path: Path) -> None:
    stranger = Authority("another CA").issue(CATALOG)
    async with serving(port) as server, envoy(port, tmp_path / "envoy", stranger) as one:
        await until(lambda: failures(one))
        assert not connected(server)
    assert port.events == []


@pytest.mark.envoy
async def test_an_envoy_does_not_take_a_sidecar_for_the_control_plane(port: Port, tmp_path: Path) -> None:
    """It has a certificate of the same CA, and another name."""
    port.authority.issue(CATALOG, HOST).write(port.folder, "server")
    async with serving(port) as server, envoy(port, tmp_path / "envoy", port.authority.issue(CATALOG)) as one:
        await until(lambda: verification_errors(one))
        assert not connected(server)


async def failures(one: Envoy) -> int:
    return await one.counter("cluster.xds_cluster.upstream_cx_connect_fail") or await one.counter(
        "cluster.xds_cluster.upstream_cx_destroy_remote"
    )


async def verification_errors(one: Envoy) -> int:
    return await one.counter("cluster.xds_cluster.upstream_cx_connect_fail")


@pytest.mark.envoy
async def test_the_servers_certificate_is_rotated_while_an_envoy_is_connected(port: Port, tmp_path: Path) -> None:
    async with serving(port) as server, envoy(port, tmp_path / "envoy", port.authority.issue(CATALOG)):
        await until(lambda: synced(server))
        fresh = port.certify()
        fresh.write(port.folder, "server")
        await until(lambda: port.heard("certificate"))
        assert await serial_shown(port) == fresh.serial
        assert len(port.heard("connect")) == 1, "the stream that exists stays"
        (port.folder / "server.pem").write_text("broken")
        await until(lambda: len(port.heard("certificate")) == 2)
        assert port.heard("certificate")[-1].version == "refused"
        assert await serial_shown(port) == fresh.serial, "what was in force stays in force"
        server.publish({NODE: content(cluster("backend"), cluster("second"))})
        await until(lambda: synced(server))


async def serial_shown(port: Port) -> int:
    """The serial number of the certificate that a new connection sees."""
    context = ssl.create_default_context(cadata=port.authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(*port.authority.issue(CATALOG).write(port.folder, "probe"))
    _, writer = await asyncio.open_connection(HOST, port.port, ssl=context, server_hostname=HOST)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


@pytest.mark.envoy
async def test_an_envoys_certificate_is_rotated_before_it_ends(port: Port, tmp_path: Path) -> None:
    """Its stream lives as long as the certificate that opened it, and the next one shows the new certificate."""
    limits, folder = Limits(connection_age_seconds=1.0), tmp_path / "envoy"
    short = port.authority.issue(CATALOG, life=timedelta(seconds=6))
    async with serving(port, limits=limits) as server, envoy(port, folder, short) as one:
        await until(lambda: synced(server))
        port.authority.issue(CATALOG).write(folder, "envoy")
        await until(lambda: port.heard("disconnect"), timeout=15)
        assert "expired" in port.heard("disconnect")[0].message
        await until(lambda: len(port.heard("connect")) == 2 and synced(server))
        assert port.heard("denied") == [], "the old certificate was not shown again"
        assert await one.counter("cluster.xds_cluster.upstream_cx_connect_fail") == 0


# Secrets


def call(port: Port, variant: str, spiffe: str = CATALOG) -> tuple[grpc.aio.Channel, Any]:
    issued = port.authority.issue(spiffe)
    credentials = grpc.ssl_channel_credentials(port.authority.pem, issued.key, issued.certificate)
    channel = grpc.aio.secure_channel(f"{HOST}:{port.port}", credentials, [("grpc.use_local_subchannel_pool", 1)])
    method: Any = channel.stream_stream
    return channel, method(f"/envoy.service.discovery.v3.AggregatedDiscoveryService/{variant}")()


WITH_SECRETS = snapshot(
    resource_set(CLUSTER, []),
    resource_set(SECRET, [encoded(SECRET, name, name.encode()) for name in ("catalog-tls", "payments-tls")]),
)
NAMES = ["catalog-tls", "payments-tls"]
ONLY_ITS_OWN = Policy([Rule("spiffe://mesh/ns/*/sa/catalog", secrets=("catalog-*",))])


async def test_a_secret_of_others_does_not_exist_to_delta(port: Port) -> None:
    async with serving(port, ONLY_ITS_OWN, wanted=WITH_SECRETS):
        channel, stream = call(port, "DeltaAggregatedResources")
        request = wire.DeltaDiscoveryRequest(type_url=SECRET, resource_names_subscribe=NAMES, node=wire.Node(id=NODE))
        await stream.write(request.SerializeToString())
        got: set[str] = set()
        gone: set[str] = set()
        while len(got | gone) < 2:
            response = wire.DeltaDiscoveryResponse.FromString(await stream.read())
            got |= {one.name for one in response.resources}
            gone |= set(response.removed_resources)
            ack = wire.DeltaDiscoveryRequest(type_url=SECRET, response_nonce=response.nonce)
            await stream.write(ack.SerializeToString())
        await channel.close(None)
    assert (got, gone) == ({"catalog-tls"}, {"payments-tls"})


async def test_a_secret_of_others_is_not_sent_to_the_state_of_the_world(port: Port) -> None:
    async with serving(port, ONLY_ITS_OWN, wanted=WITH_SECRETS):
        channel, stream = call(port, "StreamAggregatedResources")
        request = wire.DiscoveryRequest(type_url=SECRET, resource_names=NAMES, node=wire.Node(id=NODE))
        await stream.write(request.SerializeToString())
        response = wire.DiscoveryResponse.FromString(await stream.read())
        assert [one.value for one in response.resources] == [b"catalog-tls"]
        await channel.close(None)


# What the peer learns


async def denied(port: Port, spiffe: str, node: wire.Node) -> grpc.aio.AioRpcError:
    channel, stream = call(port, "DeltaAggregatedResources", spiffe)
    await stream.write(wire.DeltaDiscoveryRequest(type_url=CLUSTER, node=node).SerializeToString())
    refusal = await end(stream)
    await channel.close(None)
    return refusal


async def end(stream: Any) -> grpc.aio.AioRpcError:
    """The error with which the server ends the stream."""
    try:
        async with asyncio.timeout(10):
            while isinstance(await stream.read(), bytes):
                pass
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the stream ended without an error")


async def test_a_refusal_tells_nothing_about_the_rules(port: Port) -> None:
    policy = Policy(
        [Rule("spiffe://mesh/ns/*/sa/catalog", nodes=("catalog-*",)), Rule("spiffe://mesh/x", secrets=("s",))]
    )
    async with serving(port, policy):
        known = await denied(port, "spiffe://mesh/ns/shop/sa/other", wire.Node(id=NODE))
        unknown = await denied(port, "spiffe://mesh/ns/shop/sa/other", wire.Node(id="nobody-0"))
        assert known.code() == unknown.code() == grpc.StatusCode.PERMISSION_DENIED
        assert known.details() == unknown.details() == "this peer may not be this node; see the control plane's events"


async def test_a_node_is_pinned_to_what_was_checked(port: Port) -> None:
    async with serving(port) as server:
        channel, stream = call(port, "DeltaAggregatedResources")
        request = wire.DeltaDiscoveryRequest(type_url=CLUSTER, node=wire.Node(id=NODE))
        await stream.write(request.SerializeToString())
        await stream.read()
        request.node.id = "payments-0"
        await stream.write(request.SerializeToString())
        assert "node.id changed" in str((await end(stream)).details())
        assert not connected(server, "payments-0")
        await channel.close(None)


async def test_a_policy_that_changes_ends_streams_that_it_no_longer_allows(port: Port) -> None:
    async with serving(port, replace_rules := Policy([Rule(CATALOG)])) as server:
        channel, stream = call(port, "DeltaAggregatedResources")
        await stream.write(wire.DeltaDiscoveryRequest(type_url=CLUSTER, node=wire.Node(id=NODE)).SerializeToString())
        await stream.read()
        server.enforce(replace_rules)
        assert connected(server)
        server.enforce(Policy([Rule("spiffe://mesh/ns/shop/sa/other")]))
        assert (await end(stream)).code() == grpc.StatusCode.PERMISSION_DENIED
        await channel.close(None)


async def test_an_expired_certificate_on_an_open_connection_is_no_longer_one(port: Port) -> None:
    limits = replace(Limits(), connection_age_seconds=0.0)
    async with serving(port, limits=limits) as server:
        issued = port.authority.issue(CATALOG, life=timedelta(seconds=2))
        credentials = grpc.ssl_channel_credentials(port.authority.pem, issued.key, issued.certificate)
        async with grpc.aio.secure_channel(f"{HOST}:{port.port}", credentials) as channel:
            method: Any = channel.stream_stream
            request = wire.DeltaDiscoveryRequest(type_url=CLUSTER, node=wire.Node(id=NODE)).SerializeToString()
            codes = []
            for _ in range(2):
                stream = method("/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")()
                with suppress(grpc.aio.AioRpcError):  # a stream may have been refused before its first request is out
                    await stream.write(request)
                codes.append((await end(stream)).code())
        assert codes == [grpc.StatusCode.UNAUTHENTICATED] * 2
        assert server.gate.admission.streams == 0
