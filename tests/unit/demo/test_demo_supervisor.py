"""The supervisor ends, whatever its replicas are doing. Sleeping processes stand for services and sidecars."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from meshctl import config
from meshctl.demo import commands
from meshctl.demo.children import Child
from meshctl.demo.replica import Timing
from meshctl.demo.supervisor import Note, Supervisor

MESH = """
name: small
services: {payment: {replicas: {min: 1, max: 3}}}
ingress: {routes: [{prefix: /, service: payment}]}
platform: {kind: processes}
"""
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
LATE = "payment-1"


@pytest.fixture
def notes() -> list[Note]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, notes: list[Note], monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    monkeypatch.setattr(commands, "bootstrap", lambda *_: "")
    monkeypatch.setattr(commands, "service", lambda *_: SLEEP)
    monkeypatch.setattr(commands, "envoy", lambda *_: SLEEP)
    (tmp_path / "mesh.yaml").write_text(MESH)
    return Supervisor(
        config.load(tmp_path / "mesh.yaml"),
        tmp_path,
        chance=random.Random(1),
        timing=Timing(delay=0.0),
        envoy=Path("envoy"),
        on_note=notes.append,
    )


class Doorkeeper:
    """Lets the process called ``late`` begin only when others are already told to end, and lets these end only when it
    has begun.
    """

    def __init__(self, late: str, patch: pytest.MonkeyPatch) -> None:
        self.begun, self.stopping, self.made = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.process: asyncio.subprocess.Process | None = None
        make, stop = asyncio.create_subprocess_exec, Child.stop

        async def made(*argv: str, **options: Any) -> asyncio.subprocess.Process:
            if not options["stdout"].name.endswith(f"/{late}.log"):
                return await make(*argv, **options)
            self.begun.set()
            await self.stopping.wait()
            self.process = await make(*argv, **options)
            self.made.set()
            return self.process

        async def stopped(child: Child, grace: float) -> int:
            self.stopping.set()
            await self.made.wait()
            return await stop(child, grace)

        patch.setattr(asyncio, "create_subprocess_exec", made)
        patch.setattr(Child, "stop", stopped)


@pytest.mark.parametrize(("late", "others"), [(LATE, 3), (f"{LATE}.envoy", 4)])
async def test_it_ends_while_a_replica_is_being_launched(
    late: str, others: int, supervisor: Supervisor, notes: list[Note], monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Doorkeeper(late, monkeypatch)
    async with asyncio.timeout(30):
        await supervisor.start()
        supervisor.set_desired({"payment": 2})
        await door.begun.wait()
        while len(supervisor.nursery.running) < others:
            await asyncio.sleep(0.02)
        await supervisor.stop(grace=5.0)
    assert door.process is not None
    assert door.process.returncode is not None
    assert supervisor.nursery.running == ()
    assert supervisor.replicas() == ()
    assert "failed" not in {note.message for note in notes}  # that they end is no failure of theirs


async def test_it_ends_while_a_replica_has_yet_to_begin(supervisor: Supervisor) -> None:
    async with asyncio.timeout(30):
        await supervisor.start()
        await asyncio.sleep(0)  # their lives have begun
        await supervisor.stop(grace=5.0)
    assert supervisor.nursery.running == ()
    assert supervisor.replicas() == ()


async def test_what_is_desired_of_one_that_has_ended_starts_nothing(supervisor: Supervisor) -> None:
    async with asyncio.timeout(30):
        await supervisor.start()
        await supervisor.stop(grace=5.0)
    supervisor.set_desired({"payment": 3})
    assert not [replica for replica in supervisor.replicas() if replica.node_id == "payment-2"]
    assert supervisor.nursery.running == ()
