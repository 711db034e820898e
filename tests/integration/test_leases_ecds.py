"""Leased extension configs on real Envoys, newest and oldest, by both variants: what their end does, and what follows.

Requests tell which configuration a filter has: the leased one aborts with 418, the snapshot's with 419, the default
does nothing, and without one Envoy answers 500. A process that is alive at the end is the one that was started.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from envoy_data_plane.envoy.config.core.v3 import (
    ApiConfigSource,
    ApiConfigSourceApiType,
    ApiVersion,
    ConfigSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
)

from tests.support.envoys import NEWEST_AND_OLDEST, Envoy, binary, bootstrap, running, until
from tests.support.extensions import BASE, DEFAULT, IN, LEASED, OTHER, discovering, extension
from tests.support.servers import NODE, Mesh
from tests.support.traffic import get
from xds.errors import LeaseError
from xds.model import LeasedResource, RuntimeLayer
from xds.snapshot import Resource, Snapshot, resource_set, snapshot
from xds.types import CLUSTER, EXTENSION_CONFIG, LISTENER

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]  # the oldest Envoy may have to be downloaded


def leased(name: str, status: int = LEASED, ttl: float = 1.0, expires_at: float | None = None) -> LeasedResource:
    return LeasedResource(extension(name, status), ttl, expires_at)


def own_stream(api_type: str) -> ConfigSource:
    """A stream of ExtensionConfigDiscoveryService for one filter alone."""
    kind = ApiConfigSourceApiType.DELTA_GRPC if api_type == "DELTA_GRPC" else ApiConfigSourceApiType.GRPC
    grpc = GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name="xds_cluster"))
    api = ApiConfigSource(api_type=kind, transport_api_version=ApiVersion.V3, grpc_services=[grpc])
    return ConfigSource(api_config_source=api, resource_api_version=ApiVersion.V3)


def content(listener: Resource, *extensions: Resource) -> Snapshot:
    sets = [resource_set(CLUSTER, []), resource_set(LISTENER, [listener])]
    return snapshot(*sets, resource_set(EXTENSION_CONFIG, extensions))


@dataclass
class Watch:
    """A client that never stops asking; ``seen`` are the answers, each once in a row."""

    port: int
    seen: list[int] = field(default_factory=list)
    ended: bool = False

    async def ask(self) -> int:
        status = (await get(self.port))[0]
        if not self.seen or self.seen[-1] != status:
            self.seen.append(status)
        return status

    async def run(self) -> None:
        while not self.ended:
            await self.ask()
            await asyncio.sleep(0.005)


@dataclass
class Setting:
    mesh: Mesh
    path: Path
    folder: Path
    api_type: str
    stack: contextlib.AsyncExitStack

    async def boot(self, layers: tuple[str, ...] = ()) -> Envoy:
        config = bootstrap(self.mesh.port, self.api_type, layers, node=NODE)
        envoy = await self.stack.enter_async_context(running(self.folder, config, self.path))
        await until(envoy.listeners)
        return envoy

    async def watch(self, envoy: Envoy) -> Watch:
        watch = Watch((await envoy.listeners())[IN])
        task = asyncio.create_task(watch.run())

        async def end() -> None:
            watch.ended = True
            await task

        self.stack.push_async_callback(end)
        await until(lambda: watch.seen)
        return watch

    def beats(self, count: int) -> Callable[[], bool]:
        enough = self.mesh.server.status.heartbeats + count
        return lambda: self.mesh.server.status.heartbeats >= enough


@pytest_asyncio.fixture(params=["GRPC", "DELTA_GRPC"], ids=["sotw", "delta"])
async def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(params=NEWEST_AND_OLDEST)
async def setting(request: pytest.FixtureRequest, tmp_path: Path, variant: str) -> AsyncIterator[Setting]:
    path, mesh = binary(request.param), Mesh()
    await mesh.start()
    async with contextlib.AsyncExitStack() as stack:
        yield Setting(mesh, path, tmp_path, variant, stack)
        await mesh.stop()


async def test_when_the_server_is_gone_the_default_applies(setting: Setting) -> None:
    """Heartbeats keep the lease past its TTL; at its end traffic goes on, in the same process."""
    mesh = setting.mesh
    mesh.server.publish({NODE: content(discovering(["fault"]))})
    mesh.server.lease({NODE: [leased("fault")]})
    envoy = await setting.boot()
    watch = await setting.watch(envoy)
    await until(setting.beats(5))
    assert watch.seen == [LEASED]
    assert mesh.synced("lds", "ecds")
    assert mesh.pushed().count("ecds") == 1
    await mesh.stop()
    await until(lambda: watch.seen[-1] == DEFAULT, 3)
    assert watch.seen == [LEASED, DEFAULT]
    assert envoy.alive


async def test_the_snapshots_version_follows_a_lease(setting: Setting) -> None:
    """The lease wins while it lives. Whether it is withdrawn or its deadline comes, there is no default in between."""
    mesh = setting.mesh
    mesh.server.publish({NODE: content(discovering(["fault"]), extension("fault", BASE))})
    envoy = await setting.boot()
    watch = await setting.watch(envoy)
    await until(lambda: watch.seen == [BASE])
    mesh.server.lease({NODE: [leased("fault")]})
    await until(lambda: watch.seen[-1] == LEASED)
    mesh.server.lease({NODE: []})
    await until(lambda: watch.seen[-1] == BASE)
    deadline = time.time() + 1.5
    mesh.server.lease({NODE: [leased("fault", expires_at=deadline)]})
    await until(lambda: watch.seen[-1] == LEASED)
    await until(lambda: watch.seen[-1] == BASE)
    assert deadline - 0.5 < time.time() < deadline + 0.5
    await until(lambda: time.time() > deadline + 0.5)  # the lease that was replaced ends nothing
    assert watch.seen == [BASE, LEASED, BASE, LEASED, BASE]
    assert mesh.synced("ecds")
    assert envoy.alive


async def test_after_a_restart_a_lease_is_armed_again(setting: Setting) -> None:
    """While the server is away the default applies, not the snapshot's version: Envoy does not remember that."""
    mesh, wanted = setting.mesh, content(discovering(["fault"]), extension("fault", BASE))
    mesh.server.publish({NODE: wanted})
    mesh.server.lease({NODE: [leased("fault")]})
    envoy = await setting.boot()
    watch = await setting.watch(envoy)
    await mesh.stop()
    await until(lambda: watch.seen[-1] == DEFAULT, 3)
    await mesh.start()
    mesh.server.publish({NODE: wanted})
    mesh.server.lease({NODE: [leased("fault")]})
    await until(lambda: watch.seen[-1] == LEASED)
    await until(setting.beats(4))
    assert watch.seen == [LEASED, DEFAULT, LEASED]
    assert envoy.alive


async def test_a_lease_and_a_layer_end_apart(setting: Setting) -> None:
    """Both types leased on one stream, whichever the variant."""
    mesh = setting.mesh
    mesh.server.publish({NODE: content(discovering(["fault"]))})
    mesh.server.lease({NODE: [leased("fault"), RuntimeLayer("limits", {"a.limit": 7}, 2)]})
    envoy = await setting.boot(("limits",))
    watch = await setting.watch(envoy)
    await until(setting.beats(6))
    assert await envoy.runtime("a.limit") == "7"
    assert watch.seen == [LEASED]
    await mesh.stop()
    await until(lambda: watch.seen[-1] == DEFAULT, 3)
    assert await envoy.runtime("a.limit") == "7"

    async def ended() -> bool:
        return await envoy.runtime("a.limit") is None

    await until(ended, 4)
    assert watch.seen == [LEASED, DEFAULT]
    assert envoy.alive


@pytest.mark.parametrize("variant", ["DELTA_GRPC"])
async def test_incremental_leases_end_one_by_one(setting: Setting) -> None:
    """The one without a lease has no default either, and is not touched."""
    names, mesh = ["fault", "other", "base"], setting.mesh
    listener = discovering(names, without_default=["base"])
    mesh.server.publish({NODE: content(listener, extension("base", BASE))})
    mesh.server.lease({NODE: [leased("fault"), leased("other", OTHER, ttl=2)]})
    envoy = await setting.boot()
    watch = await setting.watch(envoy)
    await until(setting.beats(4))
    await mesh.stop()
    await until(lambda: watch.seen[-1] == BASE)
    assert watch.seen == [LEASED, OTHER, BASE]
    assert envoy.alive


@pytest.mark.parametrize("variant", ["GRPC"])
async def test_no_lease_where_a_state_of_the_world_stream_names_two(setting: Setting) -> None:
    """The end of one would drop both. Nobody is harmed when the server goes; 2 s are longer than the TTL."""
    mesh, listener = setting.mesh, discovering(["fault", "base"], without_default=["base"])
    mesh.server.publish({NODE: content(listener, extension("base", BASE), extension("fault", DEFAULT))})
    mesh.server.lease({NODE: [leased("fault")]})
    envoy = await setting.boot()
    watch = await setting.watch(envoy)
    await until(lambda: [one.type for one in mesh.events if one.kind == "refused"] == ["ecds"])
    assert watch.seen == [BASE]
    node = mesh.server.status.node(NODE)
    assert node is not None
    assert node.types["ecds"].state == "STALE"
    assert "several extension configs" in node.types["ecds"].error
    await mesh.stop()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(envoy.process.wait(), 2)
    assert watch.seen == [BASE]


async def test_on_streams_of_their_own_any_number_is_leased(setting: Setting) -> None:
    """ExtensionConfigDiscoveryService, in either variant."""
    mesh, source = setting.mesh, own_stream(setting.api_type)
    mesh.server.publish({NODE: content(discovering(["fault", "other"], source=source))})
    mesh.server.lease({NODE: [leased("fault"), leased("other", OTHER, ttl=2)]})
    envoy = await setting.boot()
    watch = await setting.watch(envoy)
    await until(setting.beats(6))
    assert watch.seen == [LEASED]
    await mesh.stop()
    await until(lambda: watch.seen[-1] == DEFAULT)
    assert watch.seen == [LEASED, OTHER, DEFAULT]
    assert envoy.alive


@pytest.mark.parametrize("variant", ["GRPC"])
async def test_what_an_abandoned_lease_drops_comes_back(setting: Setting) -> None:
    """A new listener replaces the leased filter by another one. Envoy drops that one's config when the lease ends."""
    mesh = setting.mesh
    mesh.server.publish({NODE: content(discovering(["fault"]), extension("base", BASE))})
    mesh.server.lease({NODE: [leased("fault")]})
    envoy = await setting.boot()
    watch = await setting.watch(envoy)
    await until(setting.beats(1))
    mesh.server.publish({NODE: content(discovering(["base"]), extension("base", BASE))})
    await until(lambda: watch.seen[-1] == BASE)
    await until(lambda: watch.seen[-2:] == [DEFAULT, BASE])
    assert watch.seen == [LEASED, BASE, DEFAULT, BASE]
    assert envoy.alive


async def test_a_lease_without_a_default_is_refused(setting: Setting) -> None:
    mesh = setting.mesh
    mesh.server.publish({NODE: content(discovering(["fault"], without_default=["fault"]), extension("fault", BASE))})
    with pytest.raises(LeaseError, match=r"'fault'.*'in'.*default_config"):
        mesh.server.lease({NODE: [leased("fault")]})
    envoy = await setting.boot()
    watch = await setting.watch(envoy)
    assert watch.seen == [BASE]
