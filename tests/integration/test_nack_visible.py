"""A sidecar that rejects a cluster: seen in `meshctl proxy list`, not asked again, and still on its last good one."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster

from meshctl import config as config_module
from meshctl.bootstrap import HostPort, Node, render
from meshctl.demo import commands
from meshctl.demo.ports import Ports
from meshctl.model import Replica
from meshctl.server.app import ControlPlane, control_plane
from tests.unit.meshctl.test_api import MESH
from xds.model import Address
from xds.snapshot import Snapshot, resource, resource_set
from xds.types import CLUSTER

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(90)]


async def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := condition()):
            await asyncio.sleep(0.05)
    return found


@asynccontextmanager
async def sidecar(folder: Path, plane: ControlPlane) -> AsyncIterator[str]:
    """A real Envoy for ``frontend-0``; gives the URL of its admin endpoint."""
    ports = Ports("127.0.0.1", random.Random())
    inbound, outbound, app, admin = (Address("127.0.0.1", ports.take()) for _ in range(4))
    plane.loop.replicas = (Replica("frontend-0", "frontend", "ready", inbound, outbound, app, admin),)
    plane.loop.reconfigure(plane.loop.config)
    node = Node("frontend-0", "frontend", xds=HostPort("127.0.0.1", plane.xds_port), admin=HostPort(*_pair(admin)))
    (folder / "envoy.yaml").write_text(render("sidecar", node))
    argv = commands.envoy(commands.envoy_binary(), folder / "envoy.yaml")
    process = await asyncio.create_subprocess_exec(*argv, stderr=subprocess.DEVNULL)
    try:
        yield f"http://{admin}"
    finally:
        process.terminate()
        await process.wait()


def _pair(address: Address) -> tuple[str, int]:
    return address.host, address.port


def broken(snapshot: Snapshot) -> Snapshot:
    """The same snapshot with a cluster that no Envoy takes: it has no connect timeout above zero."""
    found = snapshot.sets[CLUSTER]
    bad = resource("catalog", Cluster.from_dict({"name": "catalog", "connectTimeout": "0s"}))
    changed = resource_set(CLUSTER, [bad, *(one for name, one in found.resources.items() if name != "catalog")])
    return Snapshot({**snapshot.sets, CLUSTER: changed})


async def proxy_list(plane: ControlPlane, *options: str) -> tuple[int, str]:
    command = ("--server", f"http://127.0.0.1:{plane.http_port}", "proxy", "list", *options)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshctl.cli", *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


async def test_a_rejected_cluster_is_visible_and_costs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH)
    async with control_plane(file, config_module.load(file)) as plane:
        plane.loop.published.set()
        async with sidecar(tmp_path, plane) as admin, aiohttp.ClientSession() as session:
            board = plane.xds.status
            await until(
                lambda: _state(plane, "cds") == "SYNCED" and _state(plane, "rds") == "SYNCED", "the sidecar has all"
            )
            good = plane.publisher.snapshot("frontend-0")
            assert good is not None
            plane.xds.publish({"frontend-0": broken(good)})
            await until(lambda: board.nacks["cds"], "Envoy rejects the cluster")
            sent = board.pushes["cds", "sent"]
            for _ in range(5):  # the same content again is no reason to ask again
                plane.xds.publish({"frontend-0": broken(good)})
            _, table = await proxy_list(plane)
            assert "NACKED" in table
            proxy = json.loads((await proxy_list(plane, "-o", "json"))[1])["proxies"][0]["types"]["cds"]
            assert "ConnectTimeout" in proxy["error"] or "connect_timeout" in proxy["error"].lower()
            assert proxy["acked"] == good.sets[CLUSTER].version != proxy["desired"]
            assert (board.pushes["cds", "sent"], board.nacks["cds"]) == (sent, 1)
            async with session.get(f"{admin}/clusters") as response:
                assert "catalog::" in await response.text()
            plane.xds.publish({"frontend-0": good})
            await until(lambda: _state(plane, "cds") == "SYNCED", "the good one is back")
            events = [event for event in plane.database.events() if event["kind"] == "nack"]
            assert len(events) == 1
            assert events[0]["subject"] == "frontend-0"


def _state(plane: ControlPlane, kind: str) -> str | None:
    node = plane.xds.status.node("frontend-0")
    return node.types[kind].state if node is not None and kind in node.types else None
