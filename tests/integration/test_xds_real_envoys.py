"""The newest and the oldest Envoy of the package index, by both variants of ADS: the whole life of a sidecar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from envoy_data_plane.envoy.config.cluster.v3 import Cluster

from tests.support.envoys import NEWEST_AND_OLDEST, Envoy, binary, bootstrap, running, until
from tests.support.resources import OUTBOUND, assignment, cluster, listener, weighted_routes
from tests.support.servers import NODE, Mesh
from tests.support.traffic import Backend, backends, get
from xds.snapshot import Snapshot, resource, resource_set, snapshot
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]  # the oldest Envoy may have to be downloaded

TYPES = ("cds", "eds", "lds", "rds")

#: What Envoy counts when it takes something that is new to it.
RELOADS = (
    "cluster_manager.(cluster_added|cluster_modified|cluster_removed|cds.update_success)|"
    "listener_manager.(listener_added|listener_modified|listener_removed)|"
    "http.outbound.rds.outbound.config_reload|cluster.backend.membership_change"
)


def content(endpoints: dict[str, Backend], *extra: Cluster, port: int = 0) -> Snapshot:
    """One cluster for each of ``endpoints``, with equal parts of the traffic, and ``extra`` ones without any."""
    clusters = [*(cluster(name) for name in endpoints), *extra]
    assignments = [assignment(name, one.port) for name, one in endpoints.items()]
    return snapshot(
        resource_set(CLUSTER, [resource(one.name, one) for one in clusters]),
        resource_set(ENDPOINT, [resource(one.cluster_name, one) for one in assignments]),
        resource_set(LISTENER, [resource(OUTBOUND, listener(port))]),
        resource_set(ROUTE, [resource(OUTBOUND, weighted_routes(dict.fromkeys(endpoints, 1)))]),
    )


@dataclass
class Setting:
    """A server, an Envoy that boots from it, and two backends ``a`` and ``b``."""

    mesh: Mesh
    envoy: Envoy
    a: Backend
    b: Backend
    delta: bool

    async def publish(self, wanted: Snapshot) -> None:
        self.mesh.server.publish({NODE: wanted})
        await until(self.mesh.is_synced(*TYPES))

    async def answers(self) -> set[str]:
        """Who answers 8 requests in a row."""
        port = (await self.envoy.listeners())[OUTBOUND]
        found = [await get(port) for _ in range(8)]
        return {body if status == 200 else str(status) for status, body in found}

    async def is_answered_by(self, *names: str) -> None:
        """Workers learn of a change a moment after the main thread has accepted it."""

        async def only() -> bool:
            return await self.answers() <= set(names)

        await until(only)

    async def is_answered_by_all(self, *names: str) -> None:
        """Envoy draws who answers: eight requests may all go to the same one."""
        found: set[str] = set()

        async def all_of_them() -> bool:
            found.update(await self.answers())
            return found == set(names)

        await until(all_of_them)


@pytest_asyncio.fixture(params=["GRPC", "DELTA_GRPC"], ids=["sotw", "delta"])
async def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(params=NEWEST_AND_OLDEST)
async def setting(request: pytest.FixtureRequest, tmp_path: Path, variant: str) -> AsyncIterator[Setting]:
    path, mesh = binary(request.param), Mesh()
    await mesh.start()
    try:
        async with backends("a", "b") as made:
            mesh.server.publish({NODE: content({"backend": made["a"]})})
            async with running(tmp_path, bootstrap(mesh.port, variant, node=NODE), path) as envoy:
                await until(mesh.is_synced(*TYPES))
                yield Setting(mesh, envoy, made["a"], made["b"], variant == "DELTA_GRPC")
                assert envoy.alive
    finally:
        await mesh.stop()


async def test_it_boots_and_serves(setting: Setting) -> None:
    node = setting.mesh.server.status.node(NODE)
    assert node is not None
    version = (await setting.envoy.get("/server_info"))["version"]
    assert f"/{node.user_agent_version}/" in version, "the server knows which Envoy it talks to"
    await setting.is_answered_by("a")
    assert setting.mesh.pushed() == ["cds", "eds", "lds", "rds"]


async def test_clusters_come_and_go_and_routes_follow(setting: Setting) -> None:
    await setting.publish(content({"backend": setting.a, "second": setting.b}))
    await until(lambda: _has(setting, {"backend", "second"}))
    await setting.is_answered_by_all("a", "b")
    await setting.publish(content({"second": setting.b}))
    await until(lambda: _has(setting, {"second"}))
    assert await setting.answers() == {"b"}


async def _has(setting: Setting, clusters: set[str]) -> bool:
    return await setting.envoy.clusters() - {"xds_cluster"} == clusters


async def test_endpoints_move(setting: Setting) -> None:
    setting.mesh.events.clear()
    await setting.publish(content({"backend": setting.b}))
    await setting.is_answered_by("b")
    assert setting.mesh.pushed() == ["eds"]


async def test_a_bad_cluster_is_rejected_and_the_good_ones_stay(setting: Setting) -> None:
    broken = cluster("broken", timeout=0.0)  # the API says: greater than 0
    setting.mesh.server.publish({NODE: content({"backend": setting.b}, broken)})
    await until(lambda: setting.mesh.states()["cds"] == "NACKED")
    (nack,) = [event for event in setting.mesh.events if event.kind == "nack"]
    assert "broken" in nack.message or "ConnectTimeout" in nack.message
    await setting.is_answered_by("b")
    assert "broken" not in await setting.envoy.clusters()
    await setting.publish(content({"backend": setting.a}))
    await setting.is_answered_by("a")


async def test_a_restart_of_the_server_changes_nothing(setting: Setting) -> None:
    """The content is the same. By delta a client says what it has, so nothing is sent at all; a state-of-the-world
    request names one version for all it has, and that proves something for clusters and listeners only."""
    before = await setting.envoy.counters(RELOADS)
    wanted = content({"backend": setting.a})
    await setting.mesh.stop()
    setting.mesh.events.clear()
    await setting.mesh.start()
    await setting.publish(wanted)
    assert setting.mesh.pushed() == ([] if setting.delta else ["eds", "rds"])
    assert await setting.envoy.counters(RELOADS) == before
    await setting.is_answered_by("a")
    await setting.publish(content({"backend": setting.b}))
    await setting.is_answered_by("b")
