"""Real Envoys that have nothing but the files of ``meshctl translate --output-dir``."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from click.testing import CliRunner

from meshctl.cli import main
from tests.support import envoys
from tests.support.envoys import Envoy, until

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]

MESH: dict[str, Any] = {
    "name": "shop",
    "services": {
        "frontend": {"calls": ["catalog"]},
        "catalog": {"replicas": {"min": 2}},
    },
    "ingress": {"port": 8000, "routes": [{"prefix": "/", "service": "frontend"}]},
}
NODES = ("ingress-0", "catalog-0", "catalog-1", "frontend-0")


class App(BaseHTTPRequestHandler):
    """Answers with the address that it listens on."""

    def do_GET(self) -> None:
        body = str(self.connection.getsockname()[0]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


class Exported:
    """A mesh file and the folder that it was exported to; node number n has the n-th address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder / "out", folder / "mesh.yaml"
        self.prefix = f"127.{random.randint(2, 250)}.{random.randint(0, 250)}"

    def export(self, mesh: dict[str, Any]) -> None:
        self.file.write_text(yaml.safe_dump(mesh))
        arguments = ["translate", "-f", self.file, "--output-dir", self.folder, "--first-address", f"{self.prefix}.1"]
        result = CliRunner().invoke(main, list(map(str, arguments)))
        assert result.exit_code == 0, result.stderr

    def address(self, node: str) -> str:
        return f"{self.prefix}.{NODES.index(node) + 1}"

    def get(self, node: str, port: int, path: str = "/", host: str = "any") -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.address(node), port, timeout=5)
        try:
            connection.request("GET", path, headers={"host": host})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


@pytest.fixture
def exported(tmp_path: Path) -> Exported:
    made = Exported(tmp_path)
    made.export(MESH)
    return made


@pytest.fixture
def apps(exported: Exported) -> Iterator[None]:
    servers = [ThreadingHTTPServer((exported.address(node), 8080), App) for node in NODES[1:]]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
    yield
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest_asyncio.fixture
async def mesh(exported: Exported, apps: None, tmp_path: Path) -> AsyncIterator[dict[str, Envoy]]:
    async with contextlib.AsyncExitStack() as stack:
        started = {}
        for node in NODES:
            folder = tmp_path / "run" / node
            folder.mkdir(parents=True)
            bootstrap = json.loads((exported.folder / node / "bootstrap.json").read_text())
            started[node] = await stack.enter_async_context(envoys.running(folder, bootstrap))
        for node, count in (("ingress-0", 1), ("frontend-0", 2), ("catalog-0", 2), ("catalog-1", 2)):
            envoy = started[node]
            await until(lambda envoy=envoy, count=count: listening(envoy, count))
        yield started


async def listening(envoy: Envoy, count: int) -> bool:
    return len(await envoy.listeners()) == count


def test_envoy_validates_every_bootstrap(exported: Exported) -> None:
    for node in NODES:
        command = [
            envoys.installed(),
            "--mode",
            "validate",
            "-l",
            "warn",
            "-c",
            exported.folder / node / "bootstrap.json",
        ]
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30, check=False)
        assert result.returncode == 0, result.stderr


async def test_the_files_serve_traffic(exported: Exported, mesh: dict[str, Envoy]) -> None:
    answer = await asyncio.to_thread(exported.get, "ingress-0", 8000)
    assert answer == (200, exported.address("frontend-0"))
    answers = {await asyncio.to_thread(exported.get, "frontend-0", 15001, "/", "catalog") for _ in range(30)}
    assert answers == {(200, exported.address(node)) for node in ("catalog-0", "catalog-1")}
    for envoy in mesh.values():
        rejected = await envoy.counters(".*update_rejected$")
        assert sum(rejected.values()) == 0, rejected


async def test_a_new_export_is_taken_into_force_without_a_restart(exported: Exported, mesh: dict[str, Envoy]) -> None:
    assert await asyncio.to_thread(exported.get, "ingress-0", 8000, "/c") == (200, exported.address("frontend-0"))
    routes = [{"prefix": "/c", "service": "catalog"}, {"prefix": "/", "service": "frontend"}]
    exported.export({**MESH, "ingress": {"port": 8000, "routes": routes}})

    async def served() -> bool:
        status, who = await asyncio.to_thread(exported.get, "ingress-0", 8000, "/c")
        return status == 200 and who.startswith(exported.prefix) and who != exported.address("frontend-0")

    await until(served)
    assert all(envoy.alive for envoy in mesh.values())
