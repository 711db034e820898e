"""The xDS server against a real Envoy: what the protocol's paragraphs mean in practice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.envoys import Envoy, bootstrap, running, until
from tests.support.resources import cluster, content
from tests.support.servers import NODE, Mesh
from xds.model import RuntimeLayer
from xds.snapshot import snapshot

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

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
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            api_type: str = "DELTA_GRPC", layers: tuple[str, ...] = ("limits", "chaos"), *, companion: bool = False
        ) -> Envoy:
            config = bootstrap(mesh.port, api_type, layers, companion=companion, node=NODE)
            return await stack.enter_async_context(running(tmp_path, config))

        yield start


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
