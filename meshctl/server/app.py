"""The composition root: builds every part, wires them, runs them, and takes them down in order.

SIGTERM and SIGINT stop: /readyz turns 503, streams end by our own stop event, the servers stop, the database is
closed; sidecars keep their configuration and what is leased runs out. SIGHUP, or a change of the mesh file, reloads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from watchfiles import awatch

from forecasting.selected import Selected
from meshctl import config as config_module
from meshctl.actuators.xds import XdsPublisher
from meshctl.config import MeshConfig, resources
from meshctl.control import platforms
from meshctl.control.arms import Arms
from meshctl.control.forecasts import Forecasts
from meshctl.control.journal import Journal
from meshctl.control.loop import Loop, Platform
from meshctl.control.past import Past
from meshctl.control.retraining import Retrainer
from meshctl.errors import MeshctlError, UsageError
from meshctl.history.database import Database
from meshctl.model import Observation, Plan
from meshctl.server import api, auth, logs, views
from meshctl.server.health import Health
from meshctl.server.metrics import Metrics
from meshctl.server.watching import KINDS, XdsWatch
from meshctl.server.xds_metrics import XdsCollector
from meshctl.server.xds_settings import speaks_for, xds_policy, xds_preflight, xds_settings, xds_tls
from meshctl.sources.otlp import Export, OtlpReceiver
from meshctl.sources.traffic import Traffic
from xds.errors import PortInUse, PreflightError, TlsError
from xds.preflight import Preflight
from xds.server import ShardedServer, XdsServer, collector, heap

_GRACE = 2.0
_PRUNE_INTERVAL = 3600.0
#: Settings that are read once, at start.
_FIXED = ("controller.xds", "controller.http", "controller.state_dir", "controller.tick", "platform", "forecast")


@dataclass
class ControlPlane:
    """Everything that runs in one process."""

    file: Path
    config: MeshConfig
    loop: Loop
    xds: XdsServer | ShardedServer
    publisher: XdsPublisher
    database: Database
    journal: Journal
    metrics: Metrics
    forecasts: Forecasts
    retrainer: Retrainer
    traffic: Traffic
    arms: Arms
    watch: XdsWatch
    platform: Platform
    started: float
    health: Health = field(init=False)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    config_error: str | None = None
    config_loaded: float = 0.0
    xds_port: int = 0
    http_port: int = 0

    def __post_init__(self) -> None:
        self.health = Health(lambda: all(self.ready().values()))

    def status(self) -> dict[str, Any]:
        """``/v1/status``."""
        loop, board, pulse, model = self.loop, self.xds.status, self.loop.pulse, self.retrainer.model
        nodes = board.nodes()
        return {
            "name": loop.config.name,
            "version": _version(),
            "pid": os.getpid(),
            "started": self.started,
            "tick": {
                "interval": loop.config.controller.tick,
                "count": pulse.ticks,
                "silent": pulse.silent,
                "failed": pulse.failed,
                "last_ms": pulse.durations[-1] * 1e3 if pulse.durations else None,
                "p50_ms": pulse.percentile_ms(0.5),
                "p99_ms": pulse.percentile_ms(0.99),
            },
            "paused": pulse.paused is not None,
            "dry_run": loop.dry_run or loop.config.guardrails.dry_run,
            "policy": loop.config.scaling.policy,
            "proxies": {"connected": sum(node.connected for node in nodes), "expected": len(loop.replicas)},
            "pushes": views.sent(board),
            "acks": dict(sorted(board.acks.items())),
            "nacks": dict(sorted(board.nacks.items())),
            "heartbeats": board.heartbeats,
            "rollouts": [views.rollout(one, time.time()) for one in self.xds.rollouts()],
            "forecasts": self.forecasts.made,
            "decisions": dict(self.watch.decisions),
            "telemetry": {"rejected_points": self.traffic.rejected},
            "model": {
                "state": model.state,
                "detail": model.detail,
                "cached": model.cached,
                "generation": model.generation,
                "training": self.retrainer.progress(),
            },
            "config": {"file": str(self.file), "loaded": self.config_loaded, "error": self.config_error},
        }

    def ready(self) -> dict[str, bool]:
        """``/readyz``: every check must hold."""
        return {
            "serving": not self.stopping.is_set(),
            "snapshot": self.loop.published.is_set(),
            "model": self.retrainer.model.state != "loading",
        }

    def speaks_for(self, context: Any, export: Export) -> bool:
        """Whether the peer of an OTLP call may report for what it names; counts what it may not."""
        allowed = speaks_for(xds_policy(self.loop.config), context, export)
        if not allowed:
            self.traffic.rejected += len(export.points)
        return allowed

    def measure(self, observation: Observation, plan: Plan) -> None:
        """One tick's metrics."""
        metrics = self.metrics
        metrics.observe("meshctl_tick_duration_seconds", self.loop.pulse.durations[-1])
        if self.loop.pulse.delay is not None:
            metrics.observe("meshctl_tick_delay_seconds", self.loop.pulse.delay)
        metrics.add("meshctl_ticks_total", outcome="ok")
        metrics.set("meshctl_xds_groups_held_back", len(self.xds.rollouts()))
        metrics.set("meshctl_faults_active", float(self.loop.faults.active(observation.time) is not None))
        metrics.set("meshctl_telemetry_rejected_points", self.traffic.rejected)
        for name, selected in self.forecasts.selected.items():
            self._measure_forecast(name, selected)
        for name, seen in observation.services.items():
            metrics.set("meshctl_service_demand", seen.demand, service=name)
            metrics.set("meshctl_service_replicas", seen.ready, service=name, state="ready")
            wanted = plan.replicas.get(name, seen.desired)
            metrics.set("meshctl_service_replicas", wanted, service=name, state="desired")
        for outcome, count in self.traffic.load_reports.items():
            metrics.set("meshctl_load_reports", count, outcome=outcome)
        self.watch.flush(views.sent(self.xds.status))

    def _measure_forecast(self, name: str, selected: Selected) -> None:
        metrics = self.metrics
        metrics.add("meshctl_forecasts_total", model=selected.model)
        skill = selected.skill.get(selected.model)
        if skill is not None:
            metrics.set("meshctl_forecast_error_ratio", 1.0 - skill, service=name)
        if selected.coverage is not None:
            metrics.set("meshctl_forecast_coverage", selected.coverage, service=name)
        for gate in selected.gates:
            if gate.skill is not None:
                metrics.set("meshctl_forecast_skill", gate.skill, service=name, steps=gate.steps)

    def reload(self) -> None:
        """Read the mesh file again; a broken one is refused and the one in force stays."""
        try:
            wanted = config_module.load(self.file)
        except MeshctlError as error:
            self.config_error = str(error)
            self.journal.event("config", str(self.file), f"refused, the old one stays in force: {error}")
            return
        self.config_error = None
        if wanted == self.loop.config:
            return
        fixed = [name for name in _FIXED if _fixed(wanted, name) != _fixed(self.loop.config, name)]
        self.config_loaded = time.time()
        self.xds.enforce(xds_policy(wanted))
        self.loop.reconfigure(wanted)
        later = f"; {', '.join(fixed)} take effect at the next start" if fixed else ""
        self.journal.event("config", str(self.file), f"taken into force{later}")


def run(
    file: Path,
    *,
    dry_run: bool = False,
    log_level: str = "info",
    on_ready: Callable[[ControlPlane], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. Raises :class:`~meshctl.errors.MeshctlError` if it cannot start."""
    logs.configure(log_level)
    config = config_module.load(file)
    asyncio.run(_serve(file, config, dry_run, on_ready))


async def _serve(
    file: Path, config: MeshConfig, dry_run: bool, on_ready: Callable[[ControlPlane], None] | None
) -> None:
    async with control_plane(file, config, dry_run=dry_run) as plane:
        _on_signals(plane)
        collector.calm()
        heap.keep()
        if on_ready is not None:
            on_ready(plane)
        await _until_stopped(plane)


async def _until_stopped(plane: ControlPlane) -> None:
    tasks = [
        asyncio.create_task(plane.loop.run(), name="loop"),
        asyncio.create_task(_watch_file(plane), name="watch-file"),
        asyncio.create_task(_prune(plane), name="prune"),
        asyncio.create_task(plane.health.run(), name="health"),
        asyncio.create_task(plane.retrainer.run(), name="model"),
    ]
    stop = asyncio.create_task(plane.stopping.wait(), name="stop")
    waiting: set[asyncio.Task[Any]] = {stop, *tasks}
    try:
        while stop not in (done := (await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED))[0]):
            for task in done:
                task.result()
            waiting -= done
    finally:
        for task in [*tasks, stop]:
            task.cancel()
        await asyncio.gather(*tasks, stop, return_exceptions=True)


@contextlib.asynccontextmanager
async def control_plane(file: Path, config: MeshConfig, *, dry_run: bool = False) -> AsyncIterator[ControlPlane]:
    """A control plane whose servers listen; nothing ticks before :func:`_until_stopped`."""
    state = config.controller.state_dir
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = auth.token(state / "api-token")
    async with contextlib.AsyncExitStack() as stack:
        plane = _build(file, config, state, dry_run)
        stack.callback(plane.metrics.close)
        stack.callback(plane.database.close)
        stack.push_async_callback(plane.platform.close)
        plane.xds_port = await _start_xds(plane)
        stack.push_async_callback(plane.xds.stop, _GRACE)
        plane.http_port = await _start_http(plane, token, stack)
        structlog.get_logger("meshctl").info(
            "serving",
            mesh=config.name,
            xds=f"{config.controller.xds.address}:{plane.xds_port}",
            http=f"http://{config.controller.http.address}:{plane.http_port}",
            token_file=str(state / "api-token"),
            dry_run=dry_run,
        )
        yield plane
        plane.stopping.set()


def _build(file: Path, config: MeshConfig, state: Path, dry_run: bool) -> ControlPlane:
    metrics, arms = Metrics(), Arms()
    database = Database.open(state / "history.db")
    watch = XdsWatch(metrics)
    journal = Journal(database, time.time, watch.on_journal)
    traffic = Traffic()
    xds = _xds(config, watch, traffic)
    metrics.include(XdsCollector(xds.status))
    publisher = XdsPublisher(xds)
    platform = platforms.platform(config)
    forecasts = Forecasts(config, Past(config, database), journal)
    loop = Loop(
        config,
        platform=platform,
        traffic=traffic,
        forecasts=forecasts,
        publisher=publisher,
        journal=journal,
        arms=arms,
        resume_file=state / "resume.json",
        dry_run=dry_run,
    )
    plane = ControlPlane(
        file=file,
        config=config,
        loop=loop,
        xds=xds,
        publisher=publisher,
        database=database,
        journal=journal,
        metrics=metrics,
        forecasts=forecasts,
        retrainer=Retrainer(config, forecasts, journal),
        traffic=traffic,
        arms=arms,
        watch=watch,
        platform=platform,
        started=time.time(),
        config_loaded=time.time(),
    )
    loop.on_tick = plane.measure
    watch.journal = journal
    return plane


def _xds(config: MeshConfig, watch: XdsWatch, traffic: Traffic) -> XdsServer | ShardedServer:
    """In this process, or in as many as the mesh file asks for."""
    workers = config.controller.xds.workers
    wanted: dict[str, Any] = dict(  # noqa: C408 - these are arguments
        on_event=watch.on_xds,
        kinds=KINDS,
        on_load=traffic.accept_load,
        settings=xds_settings(config),
        tls=xds_tls(config),
        policy=xds_policy(config),
        preflight=_preflight(config),
    )
    return XdsServer(**wanted) if workers == 1 else ShardedServer(workers, **wanted)


def _preflight(config: MeshConfig) -> Preflight | None:
    try:
        return xds_preflight(config)
    except PreflightError as error:
        raise UsageError(f"controller.xds.preflight: {error}") from error


async def _start_xds(plane: ControlPlane) -> int:
    listen = plane.config.controller.xds
    otlp = OtlpReceiver(plane.traffic.accept, plane.speaks_for, listen.limits.message_bytes)
    handlers = [otlp.handler(), *plane.health.handlers()]
    try:
        return await plane.xds.start(listen.address, listen.port, handlers=handlers)
    except (PortInUse, TlsError) as error:
        raise UsageError(f"controller.xds: {error}") from error


async def _start_http(plane: ControlPlane, token: str, stack: contextlib.AsyncExitStack) -> int:
    listen = plane.config.controller.http
    context = api.Context(
        loop=plane.loop,
        xds=plane.xds,
        publisher=plane.publisher,
        database=plane.database,
        journal=plane.journal,
        retrainer=plane.retrainer,
        arms=plane.arms,
        metrics=plane.metrics,
        clock=time.time,
        status=plane.status,
        ready=plane.ready,
    )
    application = api.application(context, token, frozenset(listen.names))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_GRACE)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, listen.address, listen.port)
    try:
        await site.start()
    except OSError as error:
        raise UsageError(
            f"controller.http: {listen.address}:{listen.port} cannot be listened on ({error.strerror}); "
            "stop what uses it (ss -ltnp) or choose another controller.http.port"
        ) from error
    return int(runner.addresses[0][1])


def _on_signals(plane: ControlPlane) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, plane.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, plane.reload)


async def _watch_file(plane: ControlPlane) -> None:
    """Reload when the mesh file, or a file that it names, changes. Their folders are watched: editors and mounts
    replace files.
    """
    while not plane.stopping.is_set():
        watched = _watched(plane)
        folders = {path.parent for path in watched if path.parent.is_dir()}
        async for changes in awatch(*folders, stop_event=plane.stopping, recursive=False, rust_timeout=500):
            if any(Path(path) in watched for _, path in changes):
                plane.reload()
                if _watched(plane) != watched:
                    break


def _watched(plane: ControlPlane) -> set[Path]:
    return {plane.file.resolve(), *(path.resolve() for path in resources.files(plane.loop.config))}


async def _prune(plane: ControlPlane) -> None:
    while True:
        await asyncio.to_thread(plane.database.prune, time.time() - plane.loop.config.controller.retention)
        await asyncio.sleep(_PRUNE_INTERVAL)


def _fixed(config: MeshConfig, path: str) -> Any:
    """A section, without what of it takes effect at once."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value.model_copy(update={"identities": (), "trust_domain": None}) if path == "controller.xds" else value


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - reads the disk; only when asked

    return version("meshctl")
