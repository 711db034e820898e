"""Several processes on one port: who serves whom, what reaches whom, and what the end of each costs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
import pytest_asyncio
from envoy_data_plane.envoy.config.cluster.v3 import Cluster

from meshctl import config as config_module
from meshctl.server.app import control_plane
from meshctl.sources.otlp import EXPORT, Export, OtlpReceiver
from tests.support import envoys
from tests.support.envoys import until
from tests.unit.meshctl.test_api import MESH
from xds import _wire_pb2 as wire
from xds.errors import LeaseError, PortInUse
from xds.model import RuntimeLayer
from xds.server import Settings, ShardedServer, XdsServer
from xds.snapshot import Snapshot, resource, resource_set, snapshot
from xds.status import XdsEvent
from xds.types import CLUSTER

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

HOST = "127.0.0.1"
DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
HEALTH = "/grpc.health.v1.Health/Check"
CSDS = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"


def content(generation: int, count: int = 20) -> Snapshot:
    """Clusters that are the same in every generation but for the first."""
    made = [Cluster(name=f"svc-{number}") for number in range(count)]
    made[0].alt_stat_name = f"generation-{generation}"
    return snapshot(resource_set(CLUSTER, [resource(one.name, one) for one in made]))


class Client:
    """A node that subscribes to all clusters over delta ADS on a connection of its own, and acknowledges everything."""

    def __init__(self, port: int, node_id: str) -> None:
        self.port, self.node_id = port, node_id
        self.versions: dict[str, str] = {}
        self.received: list[list[str]] = []
        self.connects = 0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Reconnects like a sidecar, with the versions that it has."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self._stream()
            await asyncio.sleep(0.05)

    async def _stream(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"{HOST}:{self.port}", options=options) as channel:
            call = channel.stream_stream(DELTA)()  # type: ignore[call-arg]  # they are optional
            first = wire.DeltaDiscoveryRequest(
                node=wire.Node(id=self.node_id), type_url=CLUSTER, initial_resource_versions=self.versions
            )
            await call.write(first.SerializeToString())
            self.connects += 1
            while isinstance(data := await call.read(), bytes):
                response = wire.DeltaDiscoveryResponse.FromString(data)
                self.received.append([one.name for one in response.resources])
                self.versions |= {one.name: one.version for one in response.resources}
                ack = wire.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce=response.nonce)
                await call.write(ack.SerializeToString())

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


class Fleet:
    """A sharded server, its clients, and what it heard."""

    def __init__(self, server: ShardedServer, port: int, events: list[XdsEvent]) -> None:
        self.server, self.port, self.events = server, port, events
        self.clients: list[Client] = []

    def publish(self, wanted: Snapshot) -> None:
        self.server.publish({client.node_id: wanted for client in self.clients})

    async def join(self, count: int) -> None:
        self.clients += [Client(self.port, f"node-{len(self.clients) + number}") for number in range(count)]

    def have(self, wanted: Snapshot) -> bool:
        versions = dict(wanted.sets[CLUSTER].versions)
        return all(client.versions == versions for client in self.clients)

    def synced(self, wanted: Snapshot) -> bool:
        """By the server's own word."""
        version = wanted.sets[CLUSTER].version
        nodes = [self.server.status.node(client.node_id) for client in self.clients]
        return all(
            node is not None
            and node.connected
            and "cds" in node.types
            and (node.types["cds"].state, node.types["cds"].acked) == ("SYNCED", version)
            for node in nodes
        )

    @property
    def shares(self) -> list[int]:
        return [worker.connected for worker in self.server.status.workers]


Make = Callable[..., Awaitable[Fleet]]


@pytest_asyncio.fixture
async def fleet() -> AsyncIterator[Make]:
    made: list[Fleet] = []

    async def make(workers: int = 2, clients: int = 0, handlers: Any = (), **options: Any) -> Fleet:
        events: list[XdsEvent] = []
        server = ShardedServer(workers, on_event=events.append, **options)
        port = await server.start(HOST, 0, handlers)
        made.append(Fleet(server, port, events))
        await made[-1].join(clients)
        return made[-1]

    yield make
    for one in made:
        await asyncio.gather(*(client.stop() for client in one.clients))
        pids = [worker.pid for worker in one.server.status.workers]
        await one.server.stop(0.2)
        assert not any(map(psutil.pid_exists, pids)), "a worker is left behind"


# Who serves whom


async def test_every_worker_has_streams_and_a_publish_reaches_all(fleet: Make) -> None:
    one = await fleet(workers=2, clients=40)
    first, second = content(1), content(2)
    one.publish(first)
    await until(lambda: one.have(first) and one.synced(first))
    assert sum(one.shares) == 40
    assert min(one.shares) > 0, "the kernel gave all connections to one worker"
    one.publish(second)
    await until(lambda: one.have(second) and one.synced(second))
    assert all(client.received == [client.received[0], ["svc-0"]] for client in one.clients), "only what changed"
    status = one.server.status
    assert (status.connects, status.acks["cds"], status.pushes["cds", "acked"]) == (40, 80, 80)
    assert status.push_seconds["cds"].count == 80
    assert status.nacks == {}
    assert {event.kind for event in one.events} == {"connect", "push", "ack"}
    assert sum(event.kind == "ack" for event in one.events) == 80


async def test_what_is_published_before_a_client_comes_is_there(fleet: Make) -> None:
    one = await fleet()
    wanted = content(1)
    one.server.publish({"node-0": wanted, "node-1": wanted})
    assert [(node.node_id, node.connected) for node in one.server.status.nodes()] == [
        ("node-0", False),
        ("node-1", False),
    ]
    await one.join(2)
    await until(lambda: one.have(wanted) and one.synced(wanted))
    await one.clients.pop().stop()
    await until(lambda: one.server.status.connected() == 1)
    one.server.publish({"node-0": wanted})
    assert one.server.status.node("node-1") is None


async def test_settings_and_silence_are_those_of_one_process(fleet: Make) -> None:
    """A node that nobody knows hears nothing; kinds that nobody wants to hear of are not sent."""
    one = await fleet(clients=1, kinds=("connect",))
    one.server.publish({"somebody-else": content(1)})
    await until(lambda: one.server.status.connected() == 1)
    assert one.clients[0].received == []
    assert {event.kind for event in one.events} == {"connect"}


async def test_the_port_is_nobody_elses(fleet: Make) -> None:
    one = await fleet()
    with pytest.raises(PortInUse):
        await ShardedServer(2).start(HOST, one.port)
    with pytest.raises(PortInUse):
        await XdsServer().start(HOST, one.port)
    assert one.server.status.connected() == 0
    alone = XdsServer()
    port = await alone.start(HOST, 0)
    with pytest.raises(PortInUse):
        await ShardedServer(1).start(HOST, port)
    await alone.stop(0)


# Ends


async def test_a_worker_that_dies_costs_one_reconnect_and_nothing_is_sent_again(fleet: Make) -> None:
    one = await fleet(workers=2, clients=24)
    wanted = content(1)
    one.publish(wanted)
    await until(lambda: one.have(wanted) and one.synced(wanted))
    await until(lambda: min(one.shares) > 0)
    status = one.server.status
    lost, kept, acks = one.shares[0], one.shares[1], status.acks["cds"]
    first, second = status.workers
    survivors, killed = second.pid, first.pid
    os.kill(killed, signal.SIGKILL)
    await until(lambda: first.restarts == 1 and first.pid != killed and sum(one.shares) == 24)
    assert second.pid == survivors
    assert sum(client.connects for client in one.clients) == 24 + lost
    assert sum(client.connects == 1 for client in one.clients) == kept
    await until(lambda: one.synced(wanted))
    assert all(len(client.received) == 1 for client in one.clients), "content is its version: nothing was sent again"
    assert status.acks["cds"] >= acks, "counters never fall"
    assert sum(event.message == "its worker ended" for event in one.events) == lost
    changed = content(2)
    one.publish(changed)
    await until(lambda: one.have(changed) and one.synced(changed))


async def test_a_worker_may_die_again_and_again(fleet: Make) -> None:
    one = await fleet(workers=1, clients=4)
    for generation in range(3):
        wanted = content(generation)
        one.publish(wanted)
        os.kill(one.server.status.workers[0].pid, signal.SIGKILL)
        await until(lambda wanted=wanted: one.have(wanted) and one.synced(wanted))
        await until(lambda generation=generation: one.server.status.workers[0].restarts == generation + 1)


PARENT = """
import asyncio
from xds.model import RuntimeLayer
from xds.server import ShardedServer
from xds.snapshot import Snapshot

async def main():
    server = ShardedServer(2)
    port = await server.start("127.0.0.1", 0)
    server.publish({"catalog-0": Snapshot({})})
    server.lease({"catalog-0": [RuntimeLayer("limits", {"a.limit": 7}, 1.5)]})
    print(port, *(worker.pid for worker in server.status.workers), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def parent() -> AsyncIterator[tuple[asyncio.subprocess.Process, int, list[int]]]:
    """A sharded server in a process of its own: the process, its port, its workers' pids."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout is not None
        port, *pids = map(int, (await process.stdout.readline()).split())
        yield process, port, pids
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def gone(pid: int) -> bool:
    """A child of nobody waits for init to bury it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


async def test_workers_do_not_outlive_a_killed_parent() -> None:
    async with parent() as (process, port, pids):
        assert not any(map(gone, pids))
        process.kill()
        await process.wait()
        assert await until(lambda: all(map(gone, pids)) and refused(port)) < 3


@pytest.mark.envoy
async def test_leases_lapse_when_the_parent_is_killed(tmp_path: Path) -> None:
    async with parent() as (process, port, _):
        config = envoys.bootstrap(port, "DELTA_GRPC", ("limits",), node="catalog-0")
        async with envoys.running(tmp_path, config) as envoy:

            async def limit(value: str | None) -> bool:
                return await envoy.runtime("a.limit") == value

            await until(lambda: limit("7"))
            held = time.monotonic() + 2.0
            await until(lambda: time.monotonic() > held)
            assert await limit("7"), "heartbeats of the worker keep it"
            process.kill()
            assert await until(lambda: limit(None)) < 3
            assert envoy.alive


async def test_a_slow_worker_costs_one_difference_and_ends_with_the_newest(fleet: Make) -> None:
    one = await fleet(workers=1, clients=2, settings=Settings(debounce_seconds=0.0))
    one.publish(content(0))
    await until(lambda: one.synced(content(0)))
    (link,) = one.server.links
    pid = one.server.status.workers[0].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        sizes = []
        for generation in range(1, 200):
            one.publish(content(generation, count=500))
            assert link._writer is not None
            sizes.append(link._writer.transport.get_write_buffer_size())
        assert max(sizes) == sizes[0]
    finally:
        os.kill(pid, signal.SIGCONT)
    newest = content(199, count=500)
    await until(lambda: one.have(newest) and one.synced(newest))
    assert all(len(client.received) <= 3 for client in one.clients), "what was overtaken is never sent"


# Leases


async def test_a_lease_is_refused_as_in_one_process(fleet: Make) -> None:
    one = await fleet()
    with pytest.raises(LeaseError, match="no runtime value"):
        one.server.lease({"node-0": [RuntimeLayer("limits", {"a": -1}, 5)]})
    assert one.server.leases == {}


@pytest.mark.envoy
@pytest.mark.parametrize("api_type", ["DELTA_GRPC", "GRPC"])
async def test_leases_deadlines_and_restarts_on_a_real_envoy(fleet: Make, tmp_path: Path, api_type: str) -> None:
    one = await fleet(workers=1)
    one.server.publish({"catalog-0": Snapshot({})})
    one.server.lease({"catalog-0": [RuntimeLayer("limits", {"a.limit": 7}, 2)]})
    config = envoys.bootstrap(one.port, api_type, ("limits",), node="catalog-0")
    async with envoys.running(tmp_path, config) as envoy:

        async def limit(value: str | None) -> bool:
            return await envoy.runtime("a.limit") == value

        await until(lambda: limit("7"))
        await until(lambda: one.server.status.connected() == 1)
        (serving,) = (worker for worker in one.server.status.workers if worker.connected)
        os.kill(serving.pid, signal.SIGKILL)
        await until(lambda: one.server.status.connects >= 2)
        past = time.monotonic() + 2.5
        await until(lambda: time.monotonic() > past)
        assert await limit("7"), "the worker in its place knows its leases"
        deadline = time.time() + 1.0
        one.server.lease({"catalog-0": [RuntimeLayer("limits", {"a.limit": 8}, 5, expires_at=deadline)]})
        await until(lambda: limit("8"))
        await until(lambda: limit(None))
        assert deadline - 0.2 < time.time() < deadline + 1.5
        assert envoy.alive


# What belongs to the owner


async def call(port: int, method: str, request: bytes) -> bytes:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"{HOST}:{port}", options=options) as channel:
        answer: bytes = await channel.unary_unary(method)(request, timeout=5)  # type: ignore[call-arg]
        return answer


async def test_calls_of_the_owners_handlers_reach_it(fleet: Make) -> None:
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as collector

    exports: list[Export] = []

    def accept(export: Export) -> bool:
        exports.append(export)
        return export.service == "catalog"

    one = await fleet(workers=2, handlers=[OtlpReceiver(accept).handler()])
    request = collector.ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add()
    for key, value in (("service.name", "nobody"), ("service.instance.id", "nobody-0")):
        metrics.resource.attributes.add(key=key).value.string_value = value
    point = metrics.scope_metrics.add().metrics.add(name="orders")
    point.sum.data_points.add(as_int=1)
    answers = await asyncio.gather(*(call(one.port, EXPORT, request.SerializeToString()) for _ in range(20)))
    assert {
        collector.ExportMetricsServiceResponse.FromString(one).partial_success.rejected_data_points for one in answers
    } == {1}
    assert len(exports) == 20
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(one.port, "/nobody.Has/This", b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_client_status_is_that_of_all_workers(fleet: Make) -> None:
    from xds import _status_pb2 as status

    one = await fleet(workers=3, clients=30)
    one.publish(content(1))
    await until(lambda: one.synced(content(1)))
    assert sum(count > 0 for count in one.shares) > 1
    answer = status.ClientStatusResponse.FromString(await call(one.port, CSDS, b""))
    assert sorted(each.node.id for each in answer.config) == sorted(client.node_id for client in one.clients)


@pytest.mark.envoy
async def test_the_control_plane_runs_with_workers(tmp_path: Path) -> None:
    """The application's views, with a real Envoy behind one of two workers."""
    import aiohttp
    from grpc_health.v1 import health_pb2

    from meshctl.model import Replica
    from xds.model import Address

    file = tmp_path / "mesh.yaml"
    file.write_text(MESH.replace("xds: {port: 0}", "xds: {port: 0, workers: 2}"))
    async with control_plane(file, config_module.load(file)) as plane:
        assert isinstance(plane.xds, ShardedServer)
        here = Address(HOST, 1)
        plane.loop.replicas = (
            Replica("frontend-0", "frontend", "ready", Address(HOST, 0), Address(HOST, 0), here, None),
        )
        plane.loop.published.set()
        plane.loop.reconfigure(plane.loop.config)
        config = envoys.bootstrap(
            plane.xds_port, "DELTA_GRPC", ("limits", "chaos"), node="frontend-0", group="frontend"
        )
        async with envoys.running(tmp_path, config), aiohttp.ClientSession() as session:

            async def proxies() -> Any:
                async with session.get(f"http://{HOST}:{plane.http_port}/v1/proxies") as response:
                    return (await response.json())["proxies"]

            async def synced() -> bool:
                (proxy,) = await proxies()
                states = {name: one["state"] for name, one in proxy["types"].items()}
                return states == dict.fromkeys(("cds", "eds", "lds", "rds", "rtds"), "SYNCED")

            await until(synced)
            (proxy,) = await proxies()
            assert (proxy["node_id"], proxy["group"], proxy["connected"]) == ("frontend-0", "frontend", True)
            async with session.get(f"http://{HOST}:{plane.http_port}/metrics") as response:
                assert "meshctl_xds_streams 1.0" in await response.text()
            assert plane.status()["pushes"]["cds"] == 1
            health = health_pb2.HealthCheckResponse.FromString(await call(plane.xds_port, HEALTH, b""))
            assert health.status in (health.SERVING, health.NOT_SERVING)
