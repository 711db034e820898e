"""The how-to "Your own control plane in 40 lines" does what it says: its script and bootstrap run as they stand."""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from meshctl.demo.ports import Ports
from tests.conftest import ROOT
from tests.support.envoys import HOST, Envoy, running, until
from tests.support.servers import Mesh
from tests.support.traffic import backends, get, load

PAGE = ROOT / "docs" / "how-to" / "your-own-control-plane.md"
TYPES = ("cds", "eds", "lds", "rds")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_script_has_at_most_40_lines() -> None:
    assert len(blocks("python")[0].splitlines()) <= 40


class ControlPlane:
    """The page's script in a process, and what it printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def listen(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode())

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    def printed(self, pattern: str) -> bool:
        return any(re.search(pattern, line) for line in self.lines)


@asynccontextmanager
async def control_plane(folder: Path, ports: dict[str, str]) -> AsyncIterator[ControlPlane]:
    script = folder / "control_plane.py"
    script.write_text(replaced(blocks("python")[0], ports))
    pipe, out = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), stdin=pipe, stdout=pipe, stderr=out, env=environment
    )
    one = ControlPlane(process)
    listening = asyncio.create_task(one.listen())
    try:
        yield one
        one.type("")
        assert await asyncio.wait_for(process.wait(), 10) == 0, "".join(one.lines)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await listening


def replaced(text: str, ports: dict[str, str]) -> str:
    """``text`` with other ports than those of the page."""
    for port, other in ports.items():
        assert port in text or port == "15000" or port == "10000"
        text = text.replace(port, other)
    return text


@pytest.fixture
def ports() -> dict[str, str]:
    free = Ports(HOST, random.Random())
    return {"18000": str(free.take()), "10000": str(free.take()), "15000": "0"}


@pytest.mark.envoy
@pytest.mark.parametrize("variant", ["DELTA_GRPC", "GRPC"])
async def test_the_page_works_as_it_stands(tmp_path: Path, ports: dict[str, str], variant: str) -> None:
    config = yaml.safe_load(replaced(blocks("yaml")[0], ports).replace("DELTA_GRPC", variant))
    web = int(ports["10000"])
    async with backends("blue", "green") as made, control_plane(tmp_path, ports) as plane:
        plane.type(f"blue {made['blue'].port}")
        async with running(tmp_path, config) as envoy:
            await until(lambda: plane.printed("kind='ack'.*type='rds'"), 20)
            assert await get(web) == (200, "blue")
            async with load(web, 100) as traffic:
                plane.type(f"green {made['green'].port}")
                await until(lambda: traffic.answered["green"] > 20)
                plane.type("green 123456")  # no port
                await until(lambda: plane.printed("<text>:.*port_value"))
                plane.type(f"blue {made['blue'].port}")
                await until(lambda: len([line for line in plane.lines if "removed" in line]) >= 2)
                before = traffic.answered["blue"]
                await until(lambda: traffic.answered["blue"] > before + 20)
            assert traffic.failures == []
            await until(lambda: only(envoy, "blue"))


async def only(envoy: Envoy, cluster: str) -> bool:
    return await envoy.clusters() == {"control-plane", cluster}


@pytest.mark.envoy
async def test_the_other_snippets_work(
    tmp_path: Path, ports: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = Mesh()
    await mesh.start()
    config = yaml.safe_load(replaced(blocks("yaml")[0], {**ports, "18000": str(mesh.port)}))
    lease, status = blocks("python")[1:]
    exec(compile(lease, PAGE.name, "exec"), {"server": mesh.server})
    async with running(tmp_path, config) as envoy:
        await until(lambda: holds(envoy, "circuit_breakers.blue.default.max_requests", "50"))
        await until(lambda: mesh.server.status.acks["rtds"])
        exec(compile(status, PAGE.name, "exec"), {"server": mesh.server})
    await mesh.stop()
    assert "my-envoy rtds SYNCED" in capsys.readouterr().out


async def holds(envoy: Envoy, key: str, value: str) -> bool:
    return await envoy.runtime(key) == value
