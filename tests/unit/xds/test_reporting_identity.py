"""Client status and load reports under mutual TLS: the certificate decides who may ask, and who may report for whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterStats
from envoy_data_plane.envoy.service.load_stats.v3 import LoadStatsRequest
from envoy_data_plane.envoy.service.status.v3 import ClientStatusRequest, ClientStatusResponse
from envoy_data_plane.google.protobuf import Duration

from tests.support.certificates import Authority
from xds.loads import LoadReport
from xds.server import XdsServer
from xds.server.identity import Policy, Rule
from xds.server.tls import TlsFiles
from xds.status import XdsEvent

CSDS = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"
LRS = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
ADMIN, CART = "spiffe://mesh/sa/admin", "spiffe://mesh/sa/cart"

Connect = Callable[[str], Any]


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def told() -> list[LoadReport | XdsEvent]:
    return []


@pytest_asyncio.fixture
async def connect(authority: Authority, tmp_path: Path, told: list[LoadReport | XdsEvent]) -> AsyncIterator[Connect]:
    """A channel of the peer with this SPIFFE id."""
    certificate, key = authority.issue("127.0.0.1").write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    policy = Policy([Rule(ADMIN, observe=True), Rule(CART, nodes=("cart-*",))])
    files = TlsFiles(certificate, key, tmp_path / "ca.pem")
    server = XdsServer(on_load=told.append, on_event=told.append, tls=files, policy=policy)
    port = await server.start("127.0.0.1", 0)
    channels: list[grpc.aio.Channel] = []

    def open_(spiffe: str) -> grpc.aio.Channel:
        issued = authority.issue(spiffe)
        credentials = grpc.ssl_channel_credentials(authority.pem, issued.key, issued.certificate)
        channels.append(grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials))
        return channels[-1]

    yield open_
    for channel in channels:
        await channel.close(None)
    await server.stop(0)


async def test_an_identity_that_may_observe_reads_the_status_of_clients(connect: Connect) -> None:
    data = await connect(ADMIN).unary_unary(CSDS)(bytes(ClientStatusRequest()))
    assert ClientStatusResponse.parse(data).config == []


async def test_a_sidecar_may_not_read_what_others_have(connect: Connect, told: list[LoadReport | XdsEvent]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await connect(CART).unary_unary(CSDS)(bytes(ClientStatusRequest()))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert [one.kind for one in told if isinstance(one, XdsEvent)] == ["denied"]


def report(node_id: str) -> bytes:
    stats = ClusterStats(cluster_name="c", load_report_interval=Duration(seconds=10).to_wrapped())
    return bytes(LoadStatsRequest(node=Node(id=node_id, cluster="cart"), cluster_stats=[stats]))


async def test_load_is_reported_by_the_node_itself(connect: Connect, told: list[LoadReport | XdsEvent]) -> None:
    call = connect(CART).stream_stream(LRS)()
    await call.write(report("cart-0"))
    await asyncio.wait_for(call.read(), 5.0)
    await call.write(report("cart-0"))
    async with asyncio.timeout(5.0):
        while not told:
            await asyncio.sleep(0.005)
    (one,) = told
    assert isinstance(one, LoadReport)
    assert one.node_id == "cart-0"
    call.cancel()


async def test_nobody_reports_load_for_others(connect: Connect, told: list[LoadReport | XdsEvent]) -> None:
    call = connect(CART).stream_stream(LRS)()
    await call.write(report("catalog-0"))
    assert await asyncio.wait_for(call.code(), 5.0) is grpc.StatusCode.PERMISSION_DENIED
    assert [one.kind for one in told if isinstance(one, XdsEvent)] == ["denied"]
    assert not any(isinstance(one, LoadReport) for one in told)
