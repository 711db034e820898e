"""Fan-out of independent work: the processes of this machine by default, a Ray cluster where asked for.

Both engines are a ``submit`` that gives a ``concurrent.futures.Future``; everything else is shared. ``task`` and the
items travel by pickle, so ``task`` must be a function of a module (or a ``functools.partial`` of one).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, TypeVar

from forecasting.errors import ForecastingError

T = TypeVar("T")
R = TypeVar("R")

Engine = Literal["local", "ray"]
Submit = Callable[[Callable[[T], R], T], Future[R]]
Finished = Callable[[int, R], None]
"""``finished(index, result)`` is called in the caller's thread as soon as an item is done, in any order."""

ONE_THREAD: Mapping[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
"""What a process must find in its environment before numpy or torch is imported, so that n processes use n cores."""

AHEAD = 2
"""Items given out per process: one at work and one waiting; the rest stays with the caller."""


class EngineError(ForecastingError):
    """The engine does not start, or it lost a process."""


class MissingEngineError(EngineError):
    """The engine's library is not installed; the message says how to."""


def run(
    task: Callable[[T], R],
    items: Sequence[T],
    *,
    engine: Engine = "local",
    jobs: int | None = None,
    finished: Finished[R] = lambda index, result: None,
) -> list[R]:
    """``[task(item) for item in items]`` over at most ``jobs`` processes (default: one per core), in order.

    A single job runs in this process, if the engine is local. The first exception of ``task`` (or Ctrl-C) drops what
    has not begun, ends every local process, and is raised. Raises EngineError where the engine cannot be used.
    """
    jobs = min(jobs or os.cpu_count() or 1, max(1, len(items)))
    results: dict[int, R] = {}

    def keep(index: int, result: R) -> None:
        results[index] = result
        finished(index, result)

    if engine == "local" and jobs == 1:
        for index, item in enumerate(items):
            keep(index, task(item))
    elif items:
        with _engines(engine)(jobs) as submit:
            _fan_out(task, items, submit, AHEAD * jobs, keep)
    return [results[index] for index in range(len(items))]


def _engines(name: Engine) -> Callable[[int], AbstractContextManager[Submit[Any, Any]]]:
    return {"local": _local, "ray": _ray}[name]


def _fan_out(
    task: Callable[[T], R], items: Sequence[T], submit: Submit[T, R], most: int, keep: Callable[[int, R], None]
) -> None:
    """At most ``most`` items are out at any time."""
    pending: dict[Future[R], int] = {}
    waiting = iter(enumerate(items))
    while True:
        while len(pending) < most and (following := next(waiting, None)) is not None:
            pending[submit(task, following[1])] = following[0]
        if not pending:
            return
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            keep(pending.pop(future), future.result())


# -- the processes of this machine --


@contextmanager
def _local(jobs: int) -> Iterator[Submit[Any, Any]]:
    """A pool of fresh interpreters: a forked one would inherit the locks of torch's threads."""
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with _environment(ONE_THREAD):
        pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin)
        try:
            yield pool.submit
            pool.shutdown()
        except BrokenProcessPool as error:
            raise EngineError("a worker process died, perhaps for want of memory; use fewer jobs") from error
        finally:
            _end(pool, before)


def _end(pool: ProcessPoolExecutor, before: set[Any]) -> None:
    """Whatever happened: nobody of the pool lives on, and its thread has seen that."""
    ended = set(multiprocessing.active_children()) - before
    for process in ended:
        process.terminate()
    for process in ended:
        process.join()
    results: Any = getattr(pool, "_result_queue", None)
    if results is not None:
        results._writer.close()  # the thread must not wait for the rest of what an ended process was writing
    pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """In every worker: Ctrl-C is the parent's to answer, and a worker does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# -- Ray --


@contextmanager
def _ray(jobs: int) -> Iterator[Submit[Any, Any]]:
    """The cluster of $RAY_ADDRESS, or one of ``jobs`` cores on this machine that ends with the work.

    A Ray that the caller has initialised is used and left running.
    """
    ray = _import_ray()
    ours = not ray.is_initialized()
    if ours:
        _start_ray(ray, jobs)

    def submit(task: Callable[[Any], Any], item: Any) -> Future[Any]:
        future: Future[Any] = ray.remote(num_cpus=1)(_call).remote(task, item).future()
        return future

    try:
        yield submit
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # the task's own exception, as from a local process
    except ray.exceptions.RayError as error:
        raise EngineError(f"Ray lost the work: {error}; look at the logs of its nodes") from error
    finally:
        if ours:
            ray.shutdown()


def _call(task: Callable[[Any], Any], item: Any) -> Any:
    """Ray needs a plain function; a ``partial`` has no name."""
    return task(item)


def _start_ray(ray: Any, jobs: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unless the user wants it
    cluster = os.environ.get("RAY_ADDRESS")
    where = {"address": cluster} if cluster else {"num_cpus": jobs, "include_dashboard": False}
    try:
        ray.init(**where, runtime_env={"env_vars": dict(ONE_THREAD)}, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise EngineError(f"Ray does not start: {error}; check RAY_ADDRESS, or use the local engine") from error


def _import_ray() -> Any:
    try:
        import ray  # noqa: PLC0415 - an extra that few need
        import ray.exceptions  # noqa: PLC0415
    except ImportError as error:
        raise MissingEngineError("the ray engine needs Ray: pip install 'meshctl[ray]'") from error
    return ray
