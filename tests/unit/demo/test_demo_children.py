"""Ports, child processes and their books."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from meshctl.demo.children import Child, Nursery, tail
from meshctl.demo.errors import DemoError
from meshctl.demo.ports import Ports
from meshctl.demo.usage import Usage

SLEEP = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(600)",
]


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def printed(child: Child) -> Callable[[], bool]:
    return lambda: "here" in child.tail()


def test_ports_are_free_distinct_and_not_ephemeral() -> None:
    ports = Ports("127.0.0.1", random.Random(1))
    taken = [ports.take() for _ in range(20)]
    assert len(set(taken)) == 20
    assert all(10_000 <= port < 32_768 for port in taken)


def test_a_port_in_use_is_passed_over() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(DemoError, match="no free port"):
            _only(port).take()


def _only(port: int) -> Ports:
    """Ports with one candidate."""
    ports = Ports("127.0.0.1", random.Random(1))
    ports._low, ports._high, ports._next = port, port + 1, port
    return ports


def test_released_ports_come_back_last() -> None:
    ports = Ports("127.0.0.1", random.Random(1))
    first = ports.take()
    ports.release(first)
    assert ports.take() != first


async def test_output_goes_to_the_log_and_its_end_is_known(tmp_path: Path) -> None:
    nursery = Nursery(tmp_path)
    child = await nursery.spawn("c", "x", [sys.executable, "-c", "print('one'); raise SystemExit(3)"])
    assert await child.wait() == 3
    await until(lambda: not nursery.running)
    assert "exited with 3" in child.obituary()
    assert "one" in child.obituary()


async def test_what_it_prints_may_go_elsewhere(tmp_path: Path) -> None:
    code = "import sys; print('data'); print('talk', file=sys.stderr)"
    child = await Nursery(tmp_path).spawn("c", "x", [sys.executable, "-c", code], stdout=tmp_path / "out")
    await child.wait()
    assert (tmp_path / "out").read_text() == "data\n"
    assert child.tail() == "    talk"


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="cannot start /no/such"):
        await Nursery(tmp_path).spawn("c", "x", ["/no/such"])


async def test_stopping_asks_first_and_kills_who_does_not_listen(tmp_path: Path) -> None:
    nursery = Nursery(tmp_path)
    polite, stubborn = await nursery.spawn("p", "x", SLEEP), await nursery.spawn("s", "x", STUBBORN)
    await until(lambda: printed(polite)() and printed(stubborn)())
    await nursery.stop_all(grace=0.5)
    assert (polite.returncode, stubborn.returncode) == (-signal.SIGTERM, -signal.SIGKILL)
    assert nursery.running == ()
    assert "signal 9" in stubborn.obituary()


async def test_what_is_being_started_meanwhile_is_not_waited_for_but_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is made while the others are told to end is nobody's: it must not be waited for until it ends."""
    nursery, begun, stopping = Nursery(tmp_path), asyncio.Event(), asyncio.Event()
    child = await nursery.spawn("first", "x", SLEEP)
    make, stop = asyncio.create_subprocess_exec, Child.stop

    async def made_late(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        begun.set()
        await stopping.wait()
        return await make(*argv, **options)

    async def stopped_later(one: Child, grace: float) -> int:
        stopping.set()
        with pytest.raises(DemoError, match="late: ended as soon as it was started"):
            await late
        return await stop(one, grace)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", made_late)
    late = asyncio.create_task(nursery.spawn("late", "x", SLEEP))
    await begun.wait()
    with monkeypatch.context() as patch:
        patch.setattr(Child, "stop", stopped_later)
        async with asyncio.timeout(20):
            await nursery.stop_all(grace=5.0)
    assert child.returncode == -signal.SIGTERM
    async with asyncio.timeout(20):
        await nursery.stop_all(grace=5.0)
    assert nursery.running == ()


async def test_once_all_is_stopped_nothing_is_started(tmp_path: Path) -> None:
    nursery = Nursery(tmp_path)
    await nursery.stop_all(grace=1.0)
    with pytest.raises(DemoError, match="c: not started, since everything is being stopped"):
        await nursery.spawn("c", "x", SLEEP)
    assert nursery.running == ()


async def test_a_childs_own_children_end_with_it(tmp_path: Path) -> None:
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    nursery = Nursery(tmp_path)
    child = await nursery.spawn("c", "x", [sys.executable, "-c", code])
    await until(lambda: child.tail().strip().isdigit())
    grandchild = int(child.tail())
    await child.stop(5.0)
    await until(lambda: gone(grandchild))


async def test_kill_all_is_at_once(tmp_path: Path) -> None:
    nursery = Nursery(tmp_path)
    child = await nursery.spawn("s", "x", STUBBORN)
    nursery.kill_all()
    assert await child.wait() == -signal.SIGKILL
    await until(lambda: not nursery.running)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="parent-death signals are Linux's")
def test_children_die_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib
from meshctl.demo.children import Nursery
async def main():
    child = await Nursery(pathlib.Path({str(tmp_path)!r})).spawn("c", "x", ["sleep", "600"])
    print(child.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    asyncio.run(until(lambda: gone(pid)))


def test_the_tail_of_nothing(tmp_path: Path) -> None:
    assert tail(tmp_path / "none") == "    (empty)"


async def test_usage_books_by_component_and_keeps_what_ended(tmp_path: Path) -> None:
    code = "end = time.process_time() + 0.4\nwhile time.process_time() < end: pass\n"
    code = f"import time\n{code}print('here', flush=True)\ntime.sleep(600)"
    nursery, usage = Nursery(tmp_path), Usage()
    child = await nursery.spawn("c", "services", [sys.executable, "-c", code])
    await until(printed(child))
    usage.look(nursery.running, os.getpid())
    assert usage.of(child.pid)[1] > 1_000_000
    await child.stop(5.0)
    usage.look((), os.getpid())
    report = usage.report()
    assert 0.35 <= usage.components["services"].seconds < 3.0
    assert report["components"]["services"]["memory"] == 0
    assert report["components"]["services"]["memory_peak"] > 1_000_000
    assert report["share_of_two_cores"] == pytest.approx(report["cores"] / 2)
    assert "supervisor" in report["components"]
    usage.reset()
    assert usage.components == {}
