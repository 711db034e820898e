"""Rollouts on real Envoys: one tries a change, and the other one never sees a bad one."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster

from tests.support.envoys import HOST, Envoy, bootstrap, running, until
from tests.support.resources import cluster, content
from xds.canary import Policy
from xds.preflight import Preflight
from xds.server import Settings, ShardedServer, XdsServer
from xds.snapshot import Snapshot
from xds.status import XdsEvent

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]

FIRST, SECOND = "catalog-0", "catalog-1"
GROUPS = {FIRST: "catalog", SECOND: "catalog"}


class Pair:
    """A server and two Envoys of one group, each with a listener of its own."""

    def __init__(self, server: XdsServer | ShardedServer, events: list[XdsEvent], envoys: dict[str, Envoy]) -> None:
        self.server, self.events, self.envoys = server, events, envoys

    def publish(self, *clusters: Cluster, ports: tuple[int, ...] = (9,)) -> None:
        self.server.publish(pair(*clusters, ports=ports), GROUPS)

    def states(self, node_id: str) -> set[str]:
        node = self.server.status.node(node_id)
        return {one.state for one in node.types.values()} if node is not None and node.connected else set()

    def synced(self) -> bool:
        return all(self.states(node_id) == {"SYNCED"} for node_id in self.envoys)

    def told(self, kind: str) -> list[XdsEvent]:
        return [event for event in self.events if event.kind == kind]

    def has(self, kind: str) -> bool:
        return bool(self.told(kind))

    async def timeouts(self, node_id: str) -> dict[str, str]:
        """Connect timeouts of the active clusters."""
        dump = await self.envoys[node_id].get("/config_dump?resource=dynamic_active_clusters")
        found = [one["cluster"] for one in dump.get("configs", [])]
        return {one["name"]: one["connect_timeout"] for one in found}

    async def attempts(self, node_id: str) -> int:
        """Responses with clusters that an Envoy has seen, good or bad."""
        return await self.envoys[node_id].counter("cluster_manager.cds.update_attempt")


def pair(*clusters: Cluster, ports: tuple[int, ...] = (9,)) -> dict[str, Snapshot]:
    return {node_id: content(*clusters, ports=ports, listen=0) for node_id in GROUPS}


def made(workers: int, **wanted: Any) -> XdsServer | ShardedServer:
    return XdsServer(**wanted) if workers == 1 else ShardedServer(workers, **wanted)


@asynccontextmanager
async def started(
    folder: Path, api_type: str, settings: Settings, preflight: Preflight | None = None, workers: int = 1
) -> AsyncIterator[Pair]:
    """Both are connected and have the cluster ``backend`` with a timeout of 1 s."""
    events: list[XdsEvent] = []
    server = made(workers, on_event=events.append, settings=settings, preflight=preflight)
    port = await server.start(HOST, 0)
    envoys: dict[str, Envoy] = {}
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(server.stop, 0.2)
        for node_id in GROUPS:
            (folder / node_id).mkdir()
            config = bootstrap(port, api_type, node=node_id)
            envoys[node_id] = await stack.enter_async_context(running(folder / node_id, config))
        one = Pair(server, events, envoys)
        one.publish(cluster("backend"))
        await until(one.synced)
        yield one


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
async def test_what_the_canary_rejects_reaches_nobody_else(tmp_path: Path, api_type: str) -> None:
    async with started(tmp_path, api_type, Settings(canary=Policy())) as both:
        before = {node_id: await both.attempts(node_id) for node_id in GROUPS}
        both.publish(cluster("backend"), cluster("broken", timeout=0.0))
        await until(lambda: both.has("canary-rolled-back"))
        [rolled_back] = both.told("canary-rolled-back")
        assert rolled_back.node_id == FIRST
        assert "ConnectTimeout" in rolled_back.message, "Envoy's own words"
        await until(both.synced)
        assert await both.attempts(SECOND) == before[SECOND], "it was not even sent"
        assert {event.node_id for event in both.told("nack")} == {FIRST}
        for node_id in GROUPS:
            assert await both.timeouts(node_id) == {"backend": "1s"}
        [status] = both.server.rollouts()
        assert (status.group, status.state, status.canary) == ("catalog", "rolled-back", FIRST)

        both.publish(cluster("backend"), cluster("broken", timeout=2.0))
        await until(lambda: both.has("canary-passed"))
        await until(both.synced)
        for node_id in GROUPS:
            assert await both.timeouts(node_id) == {"backend": "1s", "broken": "2s"}
        assert both.server.rollouts() == []
        seen = [event.node_id for event in both.events if event.kind == "push" and event.type == "cds"]
        assert seen[-2:] == [FIRST, SECOND]


@contextmanager
def frozen(envoy: Envoy) -> Iterator[None]:
    """An Envoy that does nothing, but is there."""
    envoy.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        if envoy.alive:
            envoy.process.send_signal(signal.SIGCONT)


async def test_endpoints_flow_while_a_canary_says_nothing(tmp_path: Path) -> None:
    settings = Settings(canary=Policy(deadline=2.0), debounce_seconds=0.0)
    async with started(tmp_path, "DELTA_GRPC", settings) as both:

        async def scaled() -> bool:
            return await both.envoys[SECOND].counter("cluster.backend.membership_total") == 2

        with frozen(both.envoys[FIRST]):
            began = time.monotonic()
            both.publish(cluster("backend", timeout=3.0))
            both.publish(cluster("backend", timeout=3.0), ports=(9, 10))
            await until(scaled)
            assert time.monotonic() - began < 2.0, "before the deadline of the change"
            assert [one.state for one in both.server.rollouts()] == ["trying"]
            await until(lambda: both.has("canary-rolled-back"))
            assert time.monotonic() - began >= 2.0
            assert "no answer within 2 s" in both.told("canary-rolled-back")[0].message
            assert await both.timeouts(SECOND) == {"backend": "1s"}
        await until(both.synced)
        assert await both.timeouts(FIRST) == {"backend": "1s"}


async def test_a_canary_that_dies_is_replaced(tmp_path: Path) -> None:
    async with started(tmp_path, "DELTA_GRPC", Settings(canary=Policy(deadline=20.0, settle=0.2))) as both:
        with frozen(both.envoys[FIRST]):
            both.publish(cluster("backend", timeout=3.0))
            await until(lambda: both.has("canary-started"))
            both.envoys[FIRST].process.kill()
            await until(lambda: both.has("canary-passed"))
        assert [event.node_id for event in both.told("canary-started")] == [FIRST, SECOND]
        assert await both.timeouts(SECOND) == {"backend": "3s"}


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_preflight_refuses_reaches_nobody(tmp_path: Path, workers: int) -> None:
    async with started(tmp_path, "DELTA_GRPC", Settings(), Preflight(), workers) as both:
        both.publish(cluster("backend"), cluster("broken", timeout=0.0))
        await until(lambda: both.has("preflight-failed"))
        assert "(broken)" in both.told("preflight-failed")[0].message
        assert [one.state for one in both.server.rollouts()] == ["refused"]
        both.publish(cluster("backend"), cluster("broken", timeout=0.0), ports=(9, 10))

        async def scaled() -> bool:
            found = [await envoy.counter("cluster.backend.membership_total") for envoy in both.envoys.values()]
            return found == [2, 2]

        await until(scaled)
        both.publish(cluster("backend", timeout=4.0))
        await until(lambda: not both.server.rollouts())
        await until(both.synced)

        async def taken() -> bool:
            return await both.timeouts(SECOND) == {"backend": "4s"}

        await until(taken)
        assert not both.told("nack")
