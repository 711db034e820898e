"""Fan-out over processes and over Ray: order, bounds, errors, and nobody left behind."""

from __future__ import annotations

import importlib
import math
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from forecasting import engines
from forecasting.engines import AHEAD, Engine, EngineError, MissingEngineError, run

pytestmark = pytest.mark.slow

ENGINES = ["local", pytest.param("ray", marks=pytest.mark.extras("ray"))]

#: Two workers write their process ids to stdout and wait for ever; the parent is the first line.
SLEEPERS = """
import os, signal, sys
from forecasting.engines import run

def wait(name):
    os.write(1, f"{os.getpid()}\\n".encode())
    while True:
        signal.pause()

if __name__ == "__main__":
    run(wait, ["a", "b", "c", "d"], jobs=2)
"""


def apart(check: Callable[[Engine], None], engine: Engine) -> None:
    """Ray's checks in a process of their own: Ray leaves signal handlers and unawaited processes behind."""
    if engine == "local":
        check(engine)
        return
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(check, engine).result()


@pytest.mark.parametrize("engine", ENGINES)
def test_results_come_in_order_and_each_is_announced(engine: Engine) -> None:
    apart(_in_order, engine)


def _in_order(engine: Engine) -> None:
    seen: dict[int, int] = {}
    items = [5, 3, 4, 6, 2, 1, 0]
    results = run(math.factorial, items, engine=engine, jobs=2, finished=seen.__setitem__)
    assert results == [120, 6, 24, 720, 2, 1, 1]
    assert seen == dict(enumerate(results))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("engine", ENGINES)
def test_the_exception_of_a_task_is_raised_and_the_rest_dropped(engine: Engine) -> None:
    apart(_raises, engine)


def _raises(engine: Engine) -> None:
    with pytest.raises(ValueError, match="negative") as caught:
        run(math.factorial, [3, -1, *range(50)], engine=engine, jobs=2)
    assert type(caught.value) is ValueError
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("engine", ENGINES)
def test_every_process_has_one_thread(engine: Engine) -> None:
    apart(_one_thread, engine)


def _one_thread(engine: Engine) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    assert run(os.getenv, list(engines.ONE_THREAD), engine=engine, jobs=2) == ["1"] * len(engines.ONE_THREAD)
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_one_job_stays_in_this_process() -> None:
    assert run(_pid, [1, 2, 3], jobs=1) == [os.getpid()] * 3
    assert run(_pid, [1]) == [os.getpid()]


def test_jobs_are_other_processes() -> None:
    found = run(os.path.realpath, ["/proc/self", "/proc/self"], jobs=2)
    assert f"/proc/{os.getpid()}" not in found


def test_nothing_to_do_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_engines", lambda name: pytest.fail("an engine was started"))
    assert run(_pid, [], jobs=4) == []
    assert run(_pid, [], engine="ray") == []


def test_no_more_is_given_out_than_the_processes_can_take(monkeypatch: pytest.MonkeyPatch) -> None:
    out: list[Future[int]] = []
    most = 0

    def submit(task: Callable[[int], int], item: int) -> Future[int]:
        nonlocal most
        future: Future[int] = Future()
        out.append(future)
        most = max(most, sum(not one.done() for one in out))
        if len([one for one in out if not one.done()]) == AHEAD * 3 or item >= 14:
            for one in out:
                if not one.done():
                    one.set_result(item)
        return future

    @contextmanager
    def engine(jobs: int) -> Iterator[Any]:
        yield submit

    monkeypatch.setattr(engines, "_engines", lambda name: engine)
    assert len(run(_pid, list(range(20)), jobs=3)) == 20
    assert most <= AHEAD * 3


def test_a_worker_that_dies_is_an_error_with_a_remedy() -> None:
    with pytest.raises(EngineError, match=r"a worker process died.*use fewer jobs"):
        run(os._exit, [3, 3], jobs=2)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_an_interrupted_run(end: signal.Signals, tmp_path: Any) -> None:
    """The pipe closes when the last process that holds it is gone: the read below ends, or the test times out."""
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        workers = {int(process.stdout.readline()) for _ in range(2)}
        assert len(workers - {process.pid}) == 2
        if end == signal.SIGINT:
            os.killpg(process.pid, end)  # as a terminal does: to everyone
        else:
            process.send_signal(end)
        assert process.stdout.read() == b""
        assert process.wait() == -end


def test_a_missing_ray_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingEngineError, match=r"pip install 'meshctl\[ray\]'"):
        run(_pid, [1, 2], engine="ray")


def test_importing_the_module_imports_neither_numpy_nor_ray() -> None:
    script = "import sys, forecasting.engines; print({'numpy', 'ray', 'torch'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout == "set()\n"


@pytest.mark.extras("ray")
def test_a_ray_that_runs_already_is_used_and_left_running() -> None:
    apart(_used, "ray")


def _used(engine: Engine) -> None:
    ray = importlib.import_module("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert run(math.factorial, [3, 4], engine=engine, jobs=2) == [6, 24]
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def _pid(item: int) -> int:
    return os.getpid()
