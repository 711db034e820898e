"""Load reports of real clients: every request that they send is counted, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from envoy_data_plane.envoy.config.cluster.v3 import CircuitBreakers, CircuitBreakersThresholds, Cluster
from envoy_data_plane.envoy.config.core.v3 import ConfigSource, SelfConfigSource

from meshctl.bootstrap import HostPort, Node, document
from meshctl.sources.otlp import OtlpReceiver
from meshctl.sources.traffic import Traffic
from tests.integration.test_xds_grpc_client import calling, grpc_backend
from tests.integration.test_xds_grpc_client import content as grpc_content
from tests.support.envoys import HOST, NEWEST_AND_OLDEST, Envoy, binary, bootstrap, running, until
from tests.support.resources import OUTBOUND, cluster, content
from tests.support.servers import NODE
from tests.support.traffic import get, read_message
from xds.loads import ClusterLoad, LoadReport
from xds.server import Settings, XdsServer
from xds.snapshot import Snapshot, resource, resource_set
from xds.types import CLUSTER

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]  # the oldest Envoy may have to be downloaded

LOAD_STATS = {
    "load_stats_config": {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds_cluster"}}],
    }
}


@dataclass
class Reports:
    """What was reported about one cluster."""

    loads: list[ClusterLoad] = field(default_factory=list)
    name: str = "backend"
    group: str = "catalog"

    def add(self, report: LoadReport) -> None:
        assert (report.node_id, report.group) == (NODE, self.group)
        self.loads += [load for load in report.clusters if load.cluster == self.name]

    def total(self, what: str) -> int:
        return sum(getattr(load, what) for load in self.loads)


@pytest_asyncio.fixture
async def backend() -> AsyncIterator[int]:
    """Answers every third request with 500; gives its port."""
    served = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        try:
            while True:
                await read_message(reader)
                served += 1
                status = b"500 Oops" if served % 3 == 0 else b"200 OK"
                writer.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def shedding() -> Cluster:
    """Its circuit breaker lets nothing through."""
    made = cluster("backend")
    made.circuit_breakers = CircuitBreakers(thresholds=[CircuitBreakersThresholds(max_requests=0)])
    return made


@dataclass
class Setting:
    server: XdsServer
    envoy: Envoy
    reports: Reports
    port: int

    async def publish(self, *clusters: Cluster) -> None:
        """Wait until the cluster is in a report: load from then on is counted."""
        self.server.publish({NODE: content(*clusters, ports=(self.port,))})
        await until(self.synced)
        seen = len(self.reports.loads)
        await until(lambda: len(self.reports.loads) > seen + 1)

    def synced(self) -> bool:
        node = self.server.status.node(NODE)
        return node is not None and len(node.types) == 4 and all(one.state == "SYNCED" for one in node.types.values())

    async def send(self, count: int) -> list[int]:
        port = (await self.envoy.listeners())[OUTBOUND]
        return [(await get(port))[0] for _ in range(count)]


@pytest_asyncio.fixture(params=NEWEST_AND_OLDEST)
async def setting(request: pytest.FixtureRequest, tmp_path: Path, backend: int) -> AsyncIterator[Setting]:
    path, reports = binary(request.param), Reports()
    server = XdsServer(on_load=reports.add, settings=Settings(load_report_seconds=0.2))
    config = bootstrap(await server.start(HOST, 0), "DELTA_GRPC")
    async with running(tmp_path, {**config, "cluster_manager": LOAD_STATS}, path) as envoy:
        one = Setting(server, envoy, reports, backend)
        yield one
        await one.server.stop(0.2)


async def test_every_request_is_counted_once(setting: Setting) -> None:
    await setting.publish(cluster("backend"))
    statuses = await setting.send(60)
    assert (statuses.count(200), statuses.count(500)) == (40, 20)
    reports = setting.reports
    await until(lambda: reports.total("succeeded") + reports.total("failed") >= 60)
    seen = len(reports.loads)
    await until(lambda: len(reports.loads) > seen + 2)
    assert (reports.total("issued"), reports.total("succeeded"), reports.total("failed")) == (60, 40, 20)
    assert reports.total("dropped") == 0
    assert reports.loads[-1].in_progress == 0
    assert all(0.15 < load.interval < 5.0 for load in reports.loads)


async def test_what_a_circuit_breaker_refuses_is_dropped_and_not_issued(setting: Setting) -> None:
    await setting.publish(shedding())
    assert set(await setting.send(7)) == {503}
    await until(lambda: setting.reports.total("dropped") >= 7)
    seen = len(setting.reports.loads)
    await until(lambda: len(setting.reports.loads) > seen + 2)
    assert (setting.reports.total("issued"), setting.reports.total("dropped")) == (0, 7)


async def test_envoy_reports_again_after_a_restart_of_the_server(setting: Setting) -> None:
    await setting.publish(cluster("backend"))
    port, seen = await _restarted(setting), len(setting.reports.loads)
    assert port
    await until(lambda: len(setting.reports.loads) > seen, timeout=30.0)  # Envoy waits five seconds


async def _restarted(setting: Setting) -> int:
    (address,) = [
        one["host_statuses"][0]["address"]["socket_address"]
        for one in (await setting.envoy.get("/clusters?format=json"))["cluster_statuses"]
        if one["name"] == "xds_cluster"
    ]
    await setting.server.stop(0.2)
    setting.server = XdsServer(on_load=setting.reports.add, settings=Settings(load_report_seconds=0.2))
    return await setting.server.start(HOST, address["port_value"])


async def test_grpcs_own_client_reports_its_calls(tmp_path: Path) -> None:
    """It reports where its cluster says so (``lrs_server``), with our own server as ``self``."""
    reports = Reports(group="callers")
    server = XdsServer(on_load=reports.add, settings=Settings(load_report_seconds=0.5))
    port = await server.start(HOST, 0)
    try:
        async with grpc_backend("one") as backend_port, calling(port, tmp_path) as caller:
            wanted = grpc_content({"backend": (backend_port,)})
            clusters = resource_set(CLUSTER, [resource("backend", reporting())])
            server.publish({NODE: Snapshot({**wanted.sets, CLUSTER: clusters})})
            names = [await caller.name() for _ in range(25)]
            assert names == ["one"] * 25
            await until(lambda: reports.total("succeeded") >= 25)
            assert (reports.total("issued"), reports.total("succeeded"), reports.total("failed")) == (25, 25, 0)
    finally:
        await server.stop(0.2)


def reporting() -> Cluster:
    made = cluster("backend")
    made.lrs_server = ConfigSource(self=SelfConfigSource())
    return made


# The application: two sources, one count


async def run_both(
    tmp_path: Path, backend: int, traffic: Traffic, *, otlp: bool, sent: int, told: Callable[[], Any]
) -> float:
    """Requests per second that the window says, of an Envoy with our own bootstrap, times the time that it covers."""
    server = XdsServer(on_load=traffic.accept_load, settings=Settings(load_report_seconds=0.3))
    port = await server.start(HOST, 0, handlers=[OtlpReceiver(traffic.accept).handler()])
    node = Node(NODE, "catalog", xds=HostPort(HOST, port), admin=HostPort(HOST, 1), load_reports=True)
    config = document("sidecar", node)
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    if not otlp:
        del config["stats_sinks"]
    traffic.know({NODE: "catalog"}, frozenset({"catalog"}))
    server.publish({NODE: content(cluster("backend"), ports=(backend,))})
    total, windows = 0.0, 0

    def told_of(least: float) -> bool:
        nonlocal total, windows
        window = traffic.take().nodes.get(NODE)
        if window is not None:
            total, windows = total + window.clusters["backend"].requests, windows + 1
        return total >= least

    try:
        async with running(tmp_path, config) as envoy:
            await until(told)
            traffic.take()
            listeners = await envoy.listeners()
            for _ in range(sent):
                await get(listeners[OUTBOUND])

            await until(lambda: told_of(sent))
            windows = 0
            await until(lambda: told_of(0) and windows > 3)  # nothing comes twice later
    finally:
        await server.stop(0.2)
    return total


async def test_a_sidecar_without_otlp_is_counted_by_its_load_reports(tmp_path: Path, backend: int) -> None:
    traffic = Traffic()
    told = lambda: traffic.load_reports["used"] > 3  # noqa: E731
    assert await run_both(tmp_path, backend, traffic, otlp=False, sent=30, told=told) == 30


async def test_a_sidecar_with_both_is_counted_once(tmp_path: Path, backend: int) -> None:
    traffic = Traffic()
    told = lambda: traffic.load_reports["redundant"] > 3  # noqa: E731
    assert await run_both(tmp_path, backend, traffic, otlp=True, sent=30, told=told) == 30
    assert traffic.load_reports["redundant"] > 3
