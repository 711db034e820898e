"""The supervisor with real Envoys and real services; a fixed bootstrap stands where a control plane would configure
them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from meshctl import config
from meshctl.config import MeshConfig
from meshctl.demo import commands
from meshctl.demo.commands import HOST, Sockets
from meshctl.demo.platform_api import PlatformApi
from meshctl.demo.ports import Ports
from meshctl.demo.replica import Timing
from meshctl.demo.supervisor import Note, Supervisor

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(90)]

MESH = """
name: small
services:
  payment: {replicas: {min: 1, max: 3}}
  shipping: {replicas: {min: 1, max: 2}}
ingress:
  routes: [{prefix: /, service: payment}]
platform: {kind: processes}
"""
EXTENSIONS = "type.googleapis.com/envoy.extensions"
TIMING = Timing(delay=0.3, drain=0.5, grace=3.0)


def static_bootstrap(_cfg: MeshConfig, group: str, node_id: str, sockets: Sockets) -> str:
    """An Envoy whose inbound listener exists from the start and answers by itself."""
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": node_id}}}
    manager = {
        "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "inbound",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"},
            }
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listener = {"name": "inbound", "address": _address(sockets.inbound), "filter_chains": [chain]}
    return json.dumps(
        {
            "node": {"id": node_id, "cluster": group},
            "admin": {"address": _address(sockets.admin)},
            "static_resources": {"listeners": [listener]},
        }
    )


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


class Running:
    """A supervisor, its API, and what it said."""

    def __init__(self, folder: Path) -> None:
        (folder / "mesh.yaml").write_text(MESH)
        self.notes: list[Note] = []
        self.supervisor = Supervisor(
            config.load(folder / "mesh.yaml"),
            folder,
            chance=random.Random(),
            timing=TIMING,
            envoy=commands.envoy_binary(),
            on_note=self.notes.append,
        )
        self.api = PlatformApi(self.supervisor, "secret")
        self.url = ""

    def phases(self, service: str) -> list[str]:
        return [replica.phase for replica in self.supervisor.replicas() if replica.service == service]

    def pids(self) -> list[int]:
        return [child.pid for child in self.supervisor.nursery.running]


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    monkeypatch.setattr(commands, "bootstrap", static_bootstrap)
    made = Running(tmp_path)
    port = Ports(HOST, random.Random()).take()
    made.url = f"http://{HOST}:{port}"
    await made.api.start(port)
    await made.supervisor.start()
    try:
        await until(made.supervisor.all_ready)
        yield made
    finally:
        pids = made.pids()
        await made.supervisor.stop()
        await made.api.stop()
        assert not [pid for pid in pids if psutil.pid_exists(pid)]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer secret"}) as made:
        yield made


async def test_what_runs_is_described(running: Running, session: aiohttp.ClientSession) -> None:
    running.supervisor.usage.look(running.supervisor.nursery.running, os.getpid())
    async with session.get(f"{running.url}/v1/replicas") as response:
        body = await response.json()
    assert body["desired"] == {"payment": 1, "shipping": 1}
    rows = {row["node_id"]: row for row in body["replicas"]}
    assert sorted(rows) == ["ingress-0", "payment-0", "shipping-0"]
    ingress, payment = rows["ingress-0"], rows["payment-0"]
    assert (ingress["service"], ingress["app"], ingress["outbound"]) == ("ingress", None, None)
    assert payment["phase"] == "ready"
    assert payment["memory"] > 10_000_000
    assert payment["ready_at"] >= payment["started_at"] > 0
    async with session.get(f"http://{payment['inbound']}/") as response:
        assert await response.text() == "payment-0"
    async with session.get(f"http://{payment['app']}/charge") as response:
        assert (await response.json())["instance"] == "payment-0"


async def test_up_after_a_delay_and_down_after_a_drain(running: Running, session: aiohttp.ClientSession) -> None:
    async with session.put(f"{running.url}/v1/desired", json={"services": {"payment": 3}}) as response:
        assert (response.status, await response.json()) == (200, {"desired": {"payment": 3, "shipping": 1}})
    assert running.phases("payment") == ["ready", "pending", "pending"]
    await until(running.supervisor.all_ready)
    ready = next(replica for replica in running.supervisor.replicas() if replica.node_id == "payment-1")
    assert ready.ready_at is not None
    assert ready.ready_at - ready.asked_at >= TIMING.delay
    await (await session.put(f"{running.url}/v1/desired", json={"services": {"payment": 1}})).release()
    await until(lambda: "terminating" in running.phases("payment"))
    draining = next(replica for replica in running.supervisor.replicas() if replica.phase == "terminating")
    async with session.get(f"http://{HOST}:{draining.sockets.inbound}/") as response:
        assert response.status == 200  # it still serves
    await until(lambda: running.phases("payment") == ["ready"])
    assert [replica.node_id for replica in running.supervisor.replicas()][1] == "payment-0"
    assert [(e.previous, e.desired) for e in running.supervisor.scale_events] == [(1, 3), (3, 1)]


async def test_what_never_served_goes_at_once(running: Running) -> None:
    running.supervisor.set_desired({"shipping": 2})
    running.supervisor.set_desired({"shipping": 1})
    await until(lambda: running.phases("shipping") == ["ready"], 5.0)
    assert not [note for note in running.notes if note.subject == "shipping-1"]


@pytest.mark.parametrize("component", ["services", "sidecars"])
async def test_a_crashed_replica_is_replaced(running: Running, component: str) -> None:
    victim = next(c for c in running.supervisor.nursery.running if c.component == component)
    other = [child for r in running.supervisor.replicas() if victim in r.children for child in r.children]
    os.kill(victim.pid, signal.SIGKILL)
    await until(lambda: any(note.message.startswith("failed") for note in running.notes))
    await until(running.supervisor.all_ready)
    assert all(child.returncode is not None for child in other)
    assert any("signal 9" in note.message for note in running.notes)


async def test_a_crashed_ingress_comes_back_at_its_address(running: Running, session: aiohttp.ClientSession) -> None:
    url = running.supervisor.ingress_url
    victim = next(c for c in running.supervisor.nursery.running if c.component == "ingress")
    os.kill(victim.pid, signal.SIGKILL)
    await until(lambda: victim.returncode is not None and not running.supervisor.all_ready())
    await until(running.supervisor.all_ready)
    assert running.supervisor.ingress_url == url
    async with session.get(url) as response:
        assert response.status == 200


WRONG = [
    ({"services": {"payment": 4}}, "from 0 to 3"),
    ({"services": {"payment": -1}}, "from 0 to 3"),
    ({"services": {"payment": True}}, "whole number"),
    ({"services": {"payment": 1.5}}, "whole number"),
    ({"services": {"nobody": 1}}, "unknown service"),
    ({"services": {"ingress": 2}}, "unknown service"),
    ({"services": []}, "expected"),
    ([], "expected"),
]


async def test_wrong_wishes_change_nothing(running: Running, session: aiohttp.ClientSession) -> None:
    for body, part in WRONG:
        async with session.put(f"{running.url}/v1/desired", json=body) as response:
            assert response.status == 400, body
            assert part in (await response.json())["error"]["message"]
    assert running.supervisor.desired == {"payment": 1, "shipping": 1}


CALLERS = [
    ({}, 401),
    ({"Authorization": "Bearer wrong"}, 401),
    ({"Authorization": "Basic secret"}, 401),
    ({"Authorization": "Bearer secret", "Host": "evil.example"}, 403),
    ({"Authorization": "Bearer secret", "Host": "localhost:1"}, 200),
]


async def test_only_who_knows_the_token_and_comes_by_address(running: Running) -> None:
    async with aiohttp.ClientSession() as anybody:
        for headers, status in CALLERS:
            async with anybody.get(f"{running.url}/v1/replicas", headers=headers) as response:
                assert response.status == status, headers
                assert "secret" not in (await response.text())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="parent-death signals are Linux's")
def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib
from tests.integration import test_demo_supervisor as t
t.commands.bootstrap = t.static_bootstrap
async def main():
    made = t.Running(pathlib.Path({str(tmp_path)!r}))
    await made.supervisor.start()
    await t.until(made.supervisor.all_ready)
    print(*made.pids(), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    assert len(pids) == 5
    asyncio.run(until(lambda: not [pid for pid in pids if _lives(pid)]))


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
