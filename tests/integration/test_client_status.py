"""What CSDS says of a real Envoy is what this Envoy says of itself on its admin page (``/config_dump``)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from envoy_data_plane.envoy.admin.v3 import ClientResourceStatus
from envoy_data_plane.envoy.config.core.v3 import TrafficDirection
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.service.status.v3 import ClientConfigGenericXdsConfig as Row
from envoy_data_plane.envoy.service.status.v3 import ClientStatusRequest, ClientStatusResponse, ConfigStatus

from tests.support.envoys import HOST, NEWEST_AND_OLDEST, Envoy, binary, bootstrap, running, until
from tests.support.resources import OUTBOUND, address, cluster, content
from tests.support.servers import NODE, Mesh
from xds import codec
from xds.model import RuntimeLayer
from xds.snapshot import Snapshot, resource, resource_set
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, RUNTIME

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]  # the oldest Envoy may have to be downloaded

TYPES = ("cds", "eds", "lds", "rds")
FETCH = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"


@dataclass
class Setting:
    """A server, an Envoy that boots from it, and somebody who asks."""

    mesh: Mesh
    envoy: Envoy
    channel: Any

    async def rows(self) -> dict[tuple[str, str], Row]:
        data = await self.channel.unary_unary(FETCH)(bytes(ClientStatusRequest()))
        (config,) = ClientStatusResponse.parse(data).config
        assert config.node is not None
        assert (config.node.id, config.node.user_agent_name) == (NODE, "envoy")
        return {(row.type_url, row.name): row for row in config.generic_xds_configs}

    async def dump(self) -> dict[tuple[str, str], tuple[str, dict[str, Any]]]:
        """Version and resource by type and name, as Envoy has them in force."""
        configs = (await self.envoy.get("/config_dump?include_eds"))["configs"]
        parts = {one["@type"].rpartition(".")[2]: one for one in configs}
        found: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
        for one in parts["ClustersConfigDump"].get("dynamic_active_clusters", []):
            found[CLUSTER, one["cluster"]["name"]] = (one["version_info"], one["cluster"])
        for one in parts["ListenersConfigDump"].get("dynamic_listeners", []):
            if active := one.get("active_state"):
                found[LISTENER, one["name"]] = (active["version_info"], active["listener"])
        for one in parts["RoutesConfigDump"].get("dynamic_route_configs", []):
            found[ROUTE, one["route_config"]["name"]] = (one["version_info"], one["route_config"])
        return found

    async def serves(self, keys: set[tuple[str, str]]) -> bool:
        """Whether all of these, and no others, are in force: what Envoy has accepted may still be warming."""
        return (await self.dump()).keys() == keys


@pytest_asyncio.fixture(params=["GRPC", "DELTA_GRPC"], ids=["sotw", "delta"])
async def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(params=NEWEST_AND_OLDEST)
async def setting(request: pytest.FixtureRequest, tmp_path: Path, variant: str) -> AsyncIterator[Setting]:
    path, mesh = binary(request.param), Mesh()
    await mesh.start()
    mesh.server.publish({NODE: content(cluster("backend"), cluster("other"))})
    mesh.server.lease({NODE: [RuntimeLayer("limits", {"a.b": 7}, 60.0)]})
    try:
        async with (
            running(tmp_path, bootstrap(mesh.port, variant, ("limits",)), path) as envoy,
            grpc.aio.insecure_channel(f"{HOST}:{mesh.port}") as channel,
        ):
            await until(mesh.is_synced(*TYPES, "rtds"))
            yield Setting(mesh, envoy, channel)
    finally:
        await mesh.stop()


def as_json(row: Row) -> dict[str, Any]:
    assert row.xds_config is not None
    return codec.to_json(row.xds_config.type_url, row.xds_config.value)


async def test_both_sides_tell_the_same(setting: Setting) -> None:
    rows = await setting.rows()
    await until(lambda: setting.serves({key for key in rows if key[0] not in (ENDPOINT, RUNTIME)}))
    dump = await setting.dump()
    assert {name for url, name in rows if url == ENDPOINT} == {"backend", "other"}
    for key, (version, found) in dump.items():
        assert rows[key].version_info == version, key
        found.pop("@type")
        assert as_json(rows[key]) == found, key
    assert {row.config_status for row in rows.values()} == {ConfigStatus.SYNCED}
    assert {row.client_status for row in rows.values()} == {ClientResourceStatus.ACKED}
    assert as_json(rows[RUNTIME, "limits"])["layer"] == {"a.b": 7}
    assert await setting.envoy.runtime("a.b") == "7"


def rejected() -> Listener:
    """Envoy knows no such filter."""
    chain = FilterChain(filters=[Filter(name="acme.no_such_filter")])
    return Listener(
        name=OUTBOUND, address=address(0), filter_chains=[chain], traffic_direction=TrafficDirection.OUTBOUND
    )


async def test_a_rejection_is_told_in_envoys_words(setting: Setting) -> None:
    await until(
        lambda: setting.serves({(CLUSTER, "backend"), (CLUSTER, "other"), (LISTENER, OUTBOUND), (ROUTE, OUTBOUND)})
    )
    before = await setting.dump()
    good = content(cluster("backend"), cluster("other"))
    bad = resource_set(LISTENER, [resource(OUTBOUND, rejected())])
    setting.mesh.server.publish({NODE: Snapshot({**good.sets, LISTENER: bad})})
    await until(lambda: setting.mesh.states()["lds"] == "NACKED")
    row = (await setting.rows())[LISTENER, OUTBOUND]
    assert (row.config_status, row.client_status) == (ConfigStatus.ERROR, ClientResourceStatus.NACKED)
    assert row.error_state is not None
    configs = (await setting.envoy.get("/config_dump"))["configs"]
    listeners = [one for config in configs for one in config.get("dynamic_listeners", [])]
    errors = {one["error_state"]["details"] for one in listeners if "error_state" in one}
    assert len(errors) == 1
    assert errors.pop() in row.error_state.details
    assert "acme.no_such_filter" in row.error_state.details
    assert row.error_state.version_info == bad.resources[OUTBOUND].version
    assert (await setting.dump())[LISTENER, OUTBOUND] == before[LISTENER, OUTBOUND], "Envoy goes on with the old one"
