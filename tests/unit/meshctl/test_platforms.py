"""Platforms: a supervisor over HTTP, names over DNS; and the progress bar."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from meshctl import config as config_module
from meshctl.actuators.processes import ProcessPlatform
from meshctl.errors import PlatformError
from meshctl.server.progress import Progress
from meshctl.sources.dns import INBOUND_PORT, DnsPlatform

REPLICA = {
    "node_id": "catalog-0",
    "service": "catalog",
    "phase": "ready",
    "inbound": "127.0.0.1:1",
    "outbound": "127.0.0.1:2",
    "app": "127.0.0.1:3",
    "admin": "127.0.0.1:4",
    "cpu": 0.1,
    "memory": 5,
    "started_at": 1.0,
    "ready_at": None,
}


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[tuple[dict[str, Any], ProcessPlatform]]:
    """A server that says what ``said`` holds, and a client of it."""
    said: dict[str, Any] = {"replicas": [REPLICA], "desired": None}
    (tmp_path / "token").write_text("secret\n")

    async def replicas(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer secret":
            return web.Response(status=401, text="no")
        return web.json_response({"replicas": said["replicas"]})

    async def desired(request: web.Request) -> web.Response:
        said["desired"] = (await request.json())["services"]
        return web.json_response({})

    app = web.Application()
    app.add_routes([web.get("/v1/replicas", replicas), web.put("/v1/desired", desired)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = ProcessPlatform(f"http://127.0.0.1:{runner.addresses[0][1]}", tmp_path / "token")
    yield said, client
    await client.close()
    await runner.cleanup()


async def test_replicas_are_read_and_orders_are_given(supervisor: tuple[dict[str, Any], ProcessPlatform]) -> None:
    said, client = supervisor
    (replica,) = await client.replicas()
    assert (replica.node_id, replica.phase, str(replica.inbound)) == ("catalog-0", "ready", "127.0.0.1:1")
    await client.scale({"catalog": 2})
    assert said["desired"] == {"catalog": 2}


async def test_what_cannot_be_read_is_an_error(supervisor: tuple[dict[str, Any], ProcessPlatform]) -> None:
    said, client = supervisor
    said["replicas"] = [{"node_id": "catalog-0"}]
    with pytest.raises(PlatformError, match="cannot be read"):
        await client.replicas()


async def test_a_wrong_token_and_an_absent_supervisor(
    supervisor: tuple[dict[str, Any], ProcessPlatform], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("wrong")
    with pytest.raises(PlatformError, match="401"):
        await supervisor[1].replicas()
    absent = ProcessPlatform("http://127.0.0.1:1", tmp_path / "token")
    with pytest.raises(PlatformError, match="is the supervisor running"):
        await absent.replicas()
    await absent.close()
    unreadable = ProcessPlatform("http://127.0.0.1:1", tmp_path / "no-token")
    with pytest.raises(PlatformError, match="token_file"):
        await unreadable.replicas()
    await unreadable.close()


async def test_names_become_replicas(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("name: shop\nservices: {localhost: {}, no-such-name: {}}\nplatform: {kind: dns}\n")
    found = {replica.node_id: replica for replica in await DnsPlatform(config_module.load(file)).replicas()}
    here = found["localhost-0"]
    assert (here.phase, here.inbound.host, here.inbound.port) == ("ready", "127.0.0.1", INBOUND_PORT)
    assert here.workload().inbound.host == "0.0.0.0"
    assert found["no-such-name-0"].phase == "starting"
    assert found["ingress-0"].workload().is_ingress


def test_progress_off_a_terminal_is_a_line_per_tenth() -> None:
    stream = io.StringIO()
    progress = Progress("training", stream)
    for done in range(101):
        progress(done, 100, "loss")
    assert len(stream.getvalue().splitlines()) == 11


def test_progress_on_a_terminal_is_one_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress("training", stream)
    for done in (0, 50, 100):
        progress(done, 100, "loss")
    assert stream.getvalue().count("\r") == 3
    assert stream.getvalue().endswith("\n")
