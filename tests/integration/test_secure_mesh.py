"""The whole control plane with mutual TLS: a real sidecar, its telemetry, and a secret that is shown to nobody else."""

from __future__ import annotations

import asyncio
import base64
import io
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
import pytest_asyncio
import yaml
from click.testing import CliRunner
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as collector

from meshctl import config as config_module
from meshctl.bootstrap import HostPort, document
from meshctl.bootstrap import Node as EnvoyNode
from meshctl.cli.bootstrap import bootstrap as command
from meshctl.demo.ports import Ports
from meshctl.errors import UsageError
from meshctl.model import Replica
from meshctl.server import logs
from meshctl.server.app import ControlPlane, control_plane
from meshctl.sources.otlp import EXPORT
from tests.support import envoys
from tests.support.certificates import Authority
from tests.support.envoys import Envoy, until
from tests.unit.meshctl.test_api import MESH
from xds import _wire_pb2 as wire
from xds.model import Address
from xds.types import SECRET

pytestmark = pytest.mark.timeout(90)

NEEDLE = "n33dle-in-the-haystack"
HOST = "127.0.0.1"
TYPE = "type.googleapis.com/envoy."
DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
CSDS = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"
SECURE = """
  xds:
    port: 0
    tls: {certificate: pki/server.pem, key: pki/server.key, client_ca: pki/ca.pem}
    identities:
      - {spiffe: "spiffe://mesh/ns/shop/sa/*", secrets: [shared, "mine-*"]}
      - {spiffe: "spiffe://mesh/ns/ops/sa/admin", observe: true}
"""
SECRETS = [
    {"@type": f"{TYPE}extensions.transport_sockets.tls.v3.Secret", "name": name, "generic_secret": {"secret": source}}
    for name, source in (
        ("shared", {"inline_string": NEEDLE}),
        ("mine-1", {"inline_bytes": base64.b64encode(NEEDLE.encode()).decode()}),
        ("theirs", {"inline_string": NEEDLE}),
    )
]


@dataclass
class Mesh:
    plane: ControlPlane
    authority: Authority
    folder: Path
    log: io.StringIO

    def channel(self, identity: str) -> grpc.aio.Channel:
        issued = self.authority.issue(f"spiffe://mesh/ns/{identity}")
        credentials = grpc.ssl_channel_credentials(self.authority.pem, issued.key, issued.certificate)
        local = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(f"{HOST}:{self.plane.xds_port}", credentials, local)

    def events(self) -> list[str]:
        return [str(event) for event in self.plane.database.events(limit=1_000)]


@pytest_asyncio.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    authority, pki, log = Authority(), tmp_path / "pki", io.StringIO()
    pki.mkdir()
    (pki / "ca.pem").write_bytes(authority.pem)
    authority.issue(HOST, "localhost").write(pki, "server")
    file = tmp_path / "mesh.yaml"
    file.write_text(
        MESH.replace("\n  xds: {port: 0}\n", SECURE) + "resources: [{file: extra.yaml, groups: [frontend]}]\n"
    )
    (tmp_path / "extra.yaml").write_text(yaml.safe_dump(SECRETS))
    logs.configure("debug", log)
    async with control_plane(file, config_module.load(file)) as plane:
        ports = Ports(HOST, random.Random())
        inbound, outbound, app = (Address(HOST, ports.take()) for _ in range(3))
        plane.loop.replicas = (
            Replica("frontend-0", "frontend", "ready", inbound, outbound, app, None),
            Replica("catalog-0", "catalog", "ready", app, app, app, None),
        )
        plane.loop.published.set()
        plane.loop.reconfigure(plane.loop.config)
        yield Mesh(plane, authority, tmp_path, log)
    logs.configure()


def connected(plane: ControlPlane, node_id: str) -> bool:
    node = plane.xds.status.node(node_id)
    return node is not None and node.connected


@pytest.mark.envoy
async def test_a_sidecar_with_the_products_bootstrap_is_configured_and_heard(mesh: Mesh) -> None:
    plane, pki = mesh.plane, mesh.folder / "pki"
    mesh.authority.issue("spiffe://mesh/ns/shop/sa/frontend").write(pki, "frontend")
    out = mesh.folder / "frontend-0.yaml"
    tls = ["--tls-certificate", pki / "frontend.pem", "--tls-key", pki / "frontend.key", "--tls-ca", pki / "ca.pem"]
    where = ["--xds", f"{HOST}:{plane.xds_port}", "--admin", f"{HOST}:{Ports(HOST, random.Random()).take()}"]
    done = CliRunner().invoke(command, list(map(str, ["frontend-0", *where, *tls, "-o", out])))
    assert done.exit_code == 0, done.output
    async with envoys.running(mesh.folder, yaml.safe_load(out.read_text())) as envoy:
        await until(lambda: connected(plane, "frontend-0"))

        async def configured() -> bool:
            return "catalog" in await envoy.clusters()

        await until(configured)
        await until(lambda: plane.traffic.take().nodes)
    assert plane.traffic.rejected == 0


@pytest.mark.envoy
async def test_a_sidecar_without_tls_gets_nothing(mesh: Mesh) -> None:
    node = EnvoyNode("frontend-0", "frontend", xds=HostPort(HOST, mesh.plane.xds_port))
    config = document("sidecar", node)
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    async with envoys.running(mesh.folder, config) as envoy:
        await until(lambda: tried(envoy))
        assert not connected(mesh.plane, "frontend-0")


async def tried(envoy: Envoy) -> bool:
    return await envoy.counter("cluster.xds_cluster.upstream_cx_total") >= 1


async def test_telemetry_of_others_is_not_believed(mesh: Mesh) -> None:
    def export(service: str, instance: str) -> bytes:
        made = collector.ExportMetricsServiceRequest()
        resource = made.resource_metrics.add()
        for key, value in (("service.name", service), ("service.instance.id", instance)):
            pair = resource.resource.attributes.add()
            pair.key, pair.value.string_value = key, value
        resource.scope_metrics.add().metrics.add(name="orders").gauge.data_points.add(as_double=1e9)
        return made.SerializeToString()

    async with mesh.channel("shop/sa/frontend") as channel:
        method: Any = channel.unary_unary
        call = method(EXPORT)
        answers = [
            collector.ExportMetricsServiceResponse.FromString(await call(export(*who))).partial_success
            for who in (("frontend", "pod-1"), ("catalog", "catalog-0"), ("catalog", ""), ("catalog", "frontend-0"))
        ]
    assert [answer.rejected_data_points for answer in answers] == [0, 1, 1, 1]


async def test_a_secret_goes_to_its_owner_and_is_shown_to_nobody(mesh: Mesh) -> None:
    """A client that echoes the secret when it rejects it, and everything that an operator may look at."""
    plane = mesh.plane
    async with mesh.channel("shop/sa/frontend") as channel:
        method: Any = channel.stream_stream
        stream = method(DELTA)()
        ask = wire.DeltaDiscoveryRequest(
            type_url=SECRET,
            resource_names_subscribe=["shared", "mine-1", "theirs"],
            node=wire.Node(id="frontend-0", cluster="frontend"),
        )
        await stream.write(ask.SerializeToString())
        response = wire.DeltaDiscoveryResponse.FromString(await asyncio.wait_for(stream.read(), 10))
        assert {one.name for one in response.resources} == {"shared", "mine-1"}
        assert all(NEEDLE.encode() in one.resource.value for one in response.resources), "its owner has it"
        no = wire.DeltaDiscoveryRequest(type_url=SECRET, response_nonce=response.nonce)
        no.error_detail.message = f'bad secret: generic_secret {{ secret {{ inline_string: "{NEEDLE}" }} }}'
        await stream.write(no.SerializeToString())
        await until(lambda: plane.xds.status.nacks["sds"] == 1)
        shown = "\n".join([await everything(mesh), mesh.log.getvalue(), *mesh.events()])
        stream.cancel()
    assert "bad secret" in shown, "the words are shown, but for the secret in them"
    assert NEEDLE not in shown
    assert base64.b64encode(NEEDLE.encode()).decode()[:20] not in shown


async def everything(mesh: Mesh) -> str:
    """All that can be asked: the HTTP API, CSDS, and `meshctl proxy`."""
    plane, pages = mesh.plane, []
    async with aiohttp.ClientSession(f"http://{HOST}:{plane.http_port}") as session:
        kinds = ("cluster", "listener", "route", "endpoint", "runtime", "secret")
        paths = [f"/v1/proxies/frontend-0/config/{kind}" for kind in kinds]
        for path in ("/v1/status", "/v1/proxies", "/v1/proxies/frontend-0", "/v1/events", "/metrics", *paths):
            async with session.get(path) as response:
                pages.append(await response.text())
    async with mesh.channel("ops/sa/admin") as channel:
        method: Any = channel.unary_unary
        answer: bytes = await method(CSDS)(b"")
        assert b"mine-1" in answer
        assert b"[redacted]" in answer
        pages.append(answer.decode("utf-8", "replace"))
    for arguments in (["list", "-o", "json"], ["describe", "frontend-0", "-o", "yaml"], ["list", "-o", "wide"]):
        words = ["--server", f"http://{HOST}:{plane.http_port}", "proxy", *arguments]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "meshctl.cli", *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        pages.append((await process.communicate())[0].decode())
    return "\n".join(pages)


async def test_only_an_observer_may_ask_for_everybodys_status(mesh: Mesh) -> None:
    async with mesh.channel("shop/sa/frontend") as channel:
        method: Any = channel.unary_unary
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(CSDS)(b"")
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_refusals_are_counted_and_told(mesh: Mesh) -> None:
    async with mesh.channel("shop/sa/catalog") as channel:
        method: Any = channel.stream_stream
        for _ in range(3):
            stream = method(DELTA)()
            await stream.write(
                wire.DeltaDiscoveryRequest(type_url=SECRET, node=wire.Node(id="frontend-0")).SerializeToString()
            )
            with pytest.raises(grpc.aio.AioRpcError):
                await stream.read()
    assert 'meshctl_xds_refusals_total{reason="node"} 3.0' in mesh.plane.metrics.text().decode()
    told = [event for event in mesh.events() if "security" in event]
    assert len(told) == 1, "one line a minute, however often it tries"
    assert "spiffe://mesh/ns/shop/sa/catalog" in told[0]


async def test_a_changed_policy_takes_effect_without_a_restart(mesh: Mesh) -> None:
    async with mesh.channel("shop/sa/frontend") as channel:
        method: Any = channel.stream_stream
        stream = method(DELTA)()
        await stream.write(
            wire.DeltaDiscoveryRequest(type_url=SECRET, node=wire.Node(id="frontend-0")).SerializeToString()
        )
        await until(lambda: connected(mesh.plane, "frontend-0"))
        text = mesh.plane.file.read_text()
        mesh.plane.file.write_text(text.replace("spiffe://mesh/ns/shop/sa/*", "spiffe://mesh/ns/shop/sa/catalog"))
        mesh.plane.reload()
        assert mesh.plane.config_error is None
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asyncio.wait_for(stream.read(), 10)
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_a_missing_certificate_says_where_it_was_expected(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH.replace("\n  xds: {port: 0}\n", SECURE))
    with pytest.raises(UsageError, match=r"controller\.xds: tls\.certificate: .*pki/server\.pem cannot be read"):
        async with control_plane(file, config_module.load(file)):
            pass
