"""A governed child: real processes that never leave more than they may, and never stay behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from meshctl.control.governor import BURST, HOUR, Budget, Governed, TrainingFailedError
from meshctl.control.trainer import OUTCOME, put

pytestmark = pytest.mark.slow

BUSY = "while True: pass"
FOLLOWING = (
    "import sys; from meshctl.control.trainer import end_with; end_with(int(sys.argv[1])); print('up', flush=True)\n"
)


def governed(folder: Path, code: str, share: float = 1.0, hourly: float = 60.0, most: float = 60.0) -> Governed:
    return Governed([sys.executable, "-c", code], folder, Budget(share, hourly), most)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30.0):
        while not condition():
            await asyncio.sleep(0.02)


def status(pid: int | None) -> str:
    try:
        return psutil.Process(pid).status() if pid is not None else "none"
    except psutil.NoSuchProcess:
        return "gone"


def ended(pid: int) -> bool:
    return status(pid) in ("gone", psutil.STATUS_ZOMBIE)


# -- the budget ------------------------------------------------------------------------------------------------------


def test_a_bucket_gives_the_share_and_no_more() -> None:
    budget = Budget(share=0.25, hourly=1e9)
    used, now = 0.0, 0.0
    free = budget.spend(now, 0.0)
    for _ in range(2000):
        now += 0.1
        seconds = 0.1 if free else 0.0
        used += seconds
        free = budget.spend(now, seconds)
    assert used == pytest.approx(0.25 * now, rel=0.02)


def test_idle_time_is_not_saved_up() -> None:
    budget = Budget(share=0.5, hourly=1e9)
    budget.spend(0.0, 0.0)
    assert budget.spend(10_000.0, BURST * 0.99)
    assert not budget.spend(10_000.0, BURST * 0.02)


def test_an_hour_has_a_hard_end_and_old_use_ages() -> None:
    budget = Budget(share=1.0, hourly=600.0)
    assert budget.spend(0.0, 0.0)
    free = True
    for second in range(1, 601):
        free = budget.spend(float(second), 1.0)
    assert not free
    assert budget.used == pytest.approx(600.0)
    assert not budget.spend(HOUR, 0.0)  # the first second was used at 1, an hour ago in a second
    assert budget.spend(HOUR + 1.0, 0.0)
    assert budget.used == pytest.approx(599.0)


# -- the process -----------------------------------------------------------------------------------------------------


async def test_a_busy_child_gets_its_share(tmp_path: Path) -> None:
    one = governed(tmp_path, BUSY, share=0.2)
    began = time.monotonic()
    task = asyncio.create_task(one.run())
    await until(lambda: one.seconds > 0.5)
    elapsed = time.monotonic() - began
    assert one.seconds <= 0.2 * elapsed + 2 * BURST
    assert one.pid is not None
    pid = one.pid
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert ended(pid)


async def test_a_child_that_used_up_its_hour_stands_still(tmp_path: Path) -> None:
    one = governed(tmp_path, BUSY, hourly=0.2)
    task = asyncio.create_task(one.run())
    await until(lambda: status(one.pid) == psutil.STATUS_STOPPED)
    pid = one.pid
    assert pid is not None
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert ended(pid)


async def test_a_child_that_takes_far_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailedError, match="after 0 s of CPU time; lower"):
        await governed(tmp_path, BUSY, most=0.1).run()


async def test_a_killed_child_is_a_failure_that_says_so(tmp_path: Path) -> None:
    one = governed(tmp_path, BUSY)
    task = asyncio.create_task(one.run())
    await until(lambda: one.pid is not None)
    assert one.pid is not None
    os.kill(one.pid, signal.SIGKILL)
    with pytest.raises(TrainingFailedError, match="ended by signal 9"):
        await task


async def test_what_a_child_leaves_is_its_outcome(tmp_path: Path) -> None:
    put(tmp_path / OUTCOME, {"generation": 7})
    assert await governed(tmp_path, "pass").run() == {"generation": 7}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('no memory left')", "ended with 1: no memory left"),
        ("raise SystemExit(3)", "ended with 3: it said nothing"),
        ("pass", "ended with 0: it said nothing"),
    ],
)
async def test_a_failure_ends_with_the_last_words(tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(TrainingFailedError, match=words):
        await governed(tmp_path, code).run()


async def test_the_trainer_itself_tells_what_is_wrong_with_its_order(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "meshctl.control.trainer", str(tmp_path), str(os.getpid())]
    with pytest.raises(TrainingFailedError, match="card\\.json: cannot be read"):
        await Governed(command, tmp_path, Budget(1.0, 60.0), 60.0).run()


async def test_an_error_that_the_child_wrote_is_told(tmp_path: Path) -> None:
    put(tmp_path / OUTCOME, {"error": "nothing to train on"})
    with pytest.raises(TrainingFailedError, match="nothing to train on"):
        await governed(tmp_path, "raise SystemExit(1)").run()


PARENT = """
import asyncio, os, sys
from pathlib import Path
from meshctl.control.governor import Budget, Governed
folder, code, hourly = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
one = Governed([sys.executable, "-c", code, str(os.getpid())], folder, Budget(1.0, hourly), 60.0)
async def main():
    task = asyncio.create_task(one.run())
    while one.pid is None:
        await asyncio.sleep(0.01)
    print(one.pid, flush=True)
    await task
asyncio.run(main())
"""


@pytest.mark.parametrize(("number", "hourly"), [(signal.SIGKILL, 60.0), (signal.SIGKILL, 1.0), (signal.SIGINT, 60.0)])
async def test_no_child_outlives_its_parent(tmp_path: Path, number: int, hourly: float) -> None:
    arguments: Sequence[str] = [sys.executable, "-c", PARENT, str(tmp_path), FOLLOWING + BUSY, str(hourly)]
    parent = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if hourly == 1.0:
            await until(lambda: status(pid) == psutil.STATUS_STOPPED)
        else:
            await until(lambda: (tmp_path / "log").read_bytes().startswith(b"up"))
        parent.send_signal(number)
        await until(lambda: ended(pid))
    finally:
        parent.kill()
        parent.wait()
        if parent.stdout is not None:
            parent.stdout.close()


def test_a_document_appears_whole(tmp_path: Path) -> None:
    put(tmp_path / "progress.json", {"done": 1})
    put(tmp_path / "progress.json", {"done": 2})
    assert json.loads((tmp_path / "progress.json").read_text()) == {"done": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]
