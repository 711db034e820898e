"""One run of the demo, from nothing to a report: :meth:`Demo.run` reads top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console

from meshctl import config
from meshctl.config import MeshConfig

from . import commands, records, setup
from .children import Child
from .collect import Collector
from .errors import DemoError, StoppedError
from .keeper import Keeper
from .platform_api import PlatformApi
from .replica import Timing
from .setup import Folder, Options
from .supervisor import Note, Supervisor
from .table import Screen
from .topology import ENTRY
from .traces import Replay

Json = dict[str, Any]
#: What a replica's processes take from their start until they serve, on an idle machine (seconds). The rest of
#: ``scaling.startup`` is spent pending, as a pod's would be on scheduling and pulling.
PROCESS_START = 1.0
#: How long the mesh may take to come up, the training of the forecaster not counted (seconds).
START_DEADLINE = 60.0
EXPERIMENT_ON = "catalog"
#: What an experiment takes (two faults, the time between them and the verdict), and the traffic that comes first
#: (seconds).
EXPERIMENT_TIME = 60.0
EXPERIMENT_EARLIEST = 15.0


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a run consists of."""

    supervisor: Supervisor
    collector: Collector
    keeper: Keeper
    cfg: MeshConfig
    folder: Folder
    shown: Replay


class Demo:
    """Owns the run's folder and every process. ``say`` hears phases and what the control plane says about itself."""

    def __init__(self, options: Options, console: Console, say: Callable[[str], None]) -> None:
        self.options = options
        self._console = console
        self._say = say
        self._stop = asyncio.Event()
        self._notes: list[Note] = []
        self._screen: Screen | None = None
        self._running = False
        self._supervisor: Supervisor | None = None

    def interrupt(self) -> None:
        """Stop; a second call kills what is left at once."""
        if self._stop.is_set() and self._supervisor is not None:
            self._supervisor.kill()
        self._stop.set()

    @property
    def interrupted(self) -> bool:
        return self._stop.is_set()

    async def run(self) -> Json:
        """The run as plain data, for :mod:`.report`. Raises :class:`DemoError` if it could not be run."""
        self._say("preparing: trace, ports, mesh file")
        envoy = commands.envoy_binary()
        shown = await asyncio.to_thread(setup.plan_replay, self.options)
        with run_folder(self.options.keep_state) as folder:
            supervisor, api, cfg = self._prepare(folder, shown, envoy)
            try:
                await api.start(_port(cfg.platform.url))
                return await self._with_control_plane(supervisor, cfg, folder, shown)
            finally:
                await supervisor.stop()
                await api.stop()

    def _prepare(self, folder: Folder, shown: Replay, envoy: Path) -> tuple[Supervisor, PlatformApi, MeshConfig]:
        chance = random.Random()  # noqa: S311 - where to look for free ports
        token = setup.write(folder, self.options, shown, setup.free_ports(chance))
        cfg = config.load(folder.mesh_file)
        timing = Timing(delay=max(0.0, cfg.scaling.startup - PROCESS_START))
        supervisor = Supervisor(cfg, folder.path, chance=chance, timing=timing, envoy=envoy, on_note=self._note)
        self._supervisor = supervisor
        return supervisor, PlatformApi(supervisor, token), cfg

    async def _with_control_plane(self, supervisor: Supervisor, cfg: MeshConfig, folder: Folder, shown: Replay) -> Json:
        server = f"http://{cfg.controller.http.address}:{cfg.controller.http.port}"
        keeper = Keeper(supervisor.nursery, folder.mesh_file, self._note, self._hear)
        timeout = aiohttp.ClientTimeout(total=3.0)
        async with aiohttp.ClientSession(timeout=timeout) as session, _background() as background:
            parts = _Parts(supervisor, Collector(server, session, self._event), keeper, cfg, folder, shown)
            keeping = background(keeper.keep())
            background(supervisor.watch_usage())
            await supervisor.start()
            await self._until_ready(parts, keeping)
            return await self._replay(parts)

    # Coming up

    async def _until_ready(self, parts: _Parts, keeping: asyncio.Task[None]) -> None:
        keeper, supervisor = parts.keeper, parts.supervisor
        self._say("starting control plane: it learns from the past meanwhile")
        deadline = time.monotonic() + START_DEADLINE
        await self._until(parts.collector.ready, keeping, deadline, lambda: f"no control plane: {_end(keeper)}")
        keeper.ready()
        self._say("starting mesh: sidecars get their configuration")

        async def mesh_ready() -> bool:
            return supervisor.all_ready()

        deadline = time.monotonic() + START_DEADLINE
        await self._until(mesh_ready, keeping, deadline, lambda: _unready(supervisor))

    async def _until(
        self,
        condition: Callable[[], Coroutine[Any, Any, bool]],
        keeping: asyncio.Task[None],
        deadline: float,
        complaint: Callable[[], str],
    ) -> None:
        """Raises :class:`DemoError` when interrupted, at the deadline, or if the control plane cannot start."""
        while not await condition():
            if keeping.done():
                keeping.result()
            if self.interrupted:
                raise StoppedError("interrupted before the load began")
            if time.monotonic() > deadline:
                raise DemoError(complaint())
            await asyncio.sleep(0.25)

    # The replay

    async def _replay(self, parts: _Parts) -> Json:
        self._say(f"running: {self.options.duration:g} s of load, mean {self.options.rate:g} requests per second")
        supervisor, collector = parts.supervisor, parts.collector
        self._running = True
        supervisor.usage.reset()
        began = time.time()
        load = await self._start_load(supervisor, parts.folder)
        async with _background() as background:
            background(collector.watch())
            start = experiment_start(self.options)
            if self.options.chaos and start is None:
                self._say(f"no experiment: it takes {EXPERIMENT_TIME:g} s, and the load is too short for it")
            experiment = None if start is None else background(self._experiment(parts, start))
            with Screen(self._console, self.options.duration) as self._screen:
                await self._show_until_end(load, collector, began)
                result = await _result_of(experiment, self.interrupted)
            self._screen = None
        usage = supervisor.usage.report()
        await collector.finish(ENTRY, time.time() - began)
        return records.of_run(self.options, parts.shown, parts.cfg, supervisor, collector.record) | {
            "began": began,
            "interrupted": self.interrupted,
            "notes": [asdict(note) for note in self._notes],
            "control_plane_starts": parts.keeper.starts,
            "usage": usage,
            "load": records.read_json(parts.folder.load_summary),
            "load_lines": records.read_lines(parts.folder.load_lines),
            "experiment": result,
        }

    async def _start_load(self, supervisor: Supervisor, folder: Folder) -> Child:
        extra = ["--seed", str(self.options.seed), "--arrivals", "even" if self.options.even else "poisson"]
        argv = commands.load(supervisor.ingress_url, folder.rates, folder.load_lines, folder.load_summary, extra)
        return await supervisor.nursery.spawn("load", "load", argv)

    async def _show_until_end(self, load: Child, collector: Collector, began: float) -> None:
        assert self._screen is not None
        while load.returncode is None and not self.interrupted:
            self._screen.show(collector.record.services, time.time() - began, collector.record.status)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 1.0)
        if self.interrupted:
            await load.stop(12.0)

    async def _experiment(self, parts: _Parts, start: float) -> Json:
        await asyncio.sleep(start)
        listen, token = parts.cfg.controller.http, parts.cfg.controller.state_dir / "api-token"
        argv = commands.experiment(f"http://{listen.address}:{listen.port}", token, EXPERIMENT_ON, ENTRY)
        printed = parts.folder.path / "experiment.json"
        began = time.time()
        child = await parts.supervisor.nursery.spawn("experiment", "experiment", argv, stdout=printed)
        try:
            code = await child.wait()
        finally:
            if child.returncode is None:
                await child.stop(5.0)
        found = records.read_json(printed) or {"error": child.obituary()}
        return {**found, "exit_code": code, "began": began, "ended": time.time()}

    # Hearing things

    def _note(self, note: Note) -> None:
        self._notes.append(note)
        self._event({"time": note.time, "kind": "process", "subject": note.subject, "message": note.message})

    def _event(self, event: Json) -> None:
        if self._screen is not None:
            self._screen.event(event)

    def _hear(self, line: str) -> None:
        """What the control plane says while the mesh comes up; later it is in its log and in the events."""
        if not self._running and line:
            self._say(f"  {line}")


def experiment_start(options: Options) -> float | None:
    """Seconds after the load began: as asked for, or so much earlier that it ends in time; None if there is no room."""
    start = min(options.duration * options.chaos_at, options.duration - EXPERIMENT_TIME)
    return start if options.chaos and start >= EXPERIMENT_EARLIEST else None


async def _result_of(experiment: asyncio.Task[Json] | None, interrupted: bool) -> Json | None:
    """What the experiment found (None: there was none). It is not waited for: without load it would find nothing."""
    if experiment is None:
        return None
    if not experiment.done():
        experiment.cancel()
        await asyncio.gather(experiment, return_exceptions=True)
        return {"error": "interrupted" if interrupted else "it had not finished when the load ended"}
    return experiment.result()


def _end(keeper: Keeper) -> str:
    child = keeper.child
    return "it did not start" if child is None else f"the end of {child.log}:\n{child.tail()}"


def _unready(supervisor: Supervisor) -> str:
    waiting = [replica for replica in supervisor.replicas() if replica.phase != "ready"]
    names = ", ".join(f"{replica.node_id} ({replica.phase})" for replica in waiting)
    logs = "\n".join(f"{child.log}:\n{child.tail(5)}" for child in (waiting[0].children if waiting else []))
    return f"not ready after {START_DEADLINE:g} s: {names}\n{logs}"


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1].rstrip("/"))


@contextlib.contextmanager
def run_folder(kept: Path | None) -> Iterator[Folder]:
    """A folder for the run: temporary, or ``kept`` with what an earlier run left removed (trained models stay)."""
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="meshctl-demo-", ignore_cleanup_errors=True) as made:
            yield Folder(Path(made))
        return
    kept.mkdir(parents=True, exist_ok=True)
    if any(kept.iterdir()) and not (kept / "mesh.yaml").is_file():
        raise DemoError(f"{kept}: not empty, and not the folder of an earlier demo; name another one")
    for path in [*kept.iterdir(), *(kept / "state").glob("*")]:
        if path.name == "models" or path == kept / "state":
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    yield Folder(kept.resolve())


@contextlib.asynccontextmanager
async def _background() -> AsyncIterator[Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]]:
    """Tasks that end with the block."""
    tasks: list[asyncio.Task[Any]] = []

    def start(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        tasks.append(asyncio.create_task(work))
        return tasks[-1]

    try:
        yield start
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
