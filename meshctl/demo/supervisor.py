"""The small kubelet: how many replicas are desired goes in, processes come out.

It owns every replica, the ingress and their ports. The control plane only ever talks to it through
:mod:`.platform_api`; when the control plane dies, everything here goes on as it is.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from meshctl.config import MeshConfig

from . import commands
from .children import Nursery
from .commands import HOST, Sockets
from .errors import DemoError
from .ports import Ports
from .replica import Replica, Timing
from .usage import Usage

#: A replica of a service that keeps failing waits this long (seconds) more at each failure, up to the limit.
BACKOFF = 1.0
BACKOFF_LIMIT = 15.0


@dataclass(frozen=True, slots=True)
class ScaleEvent:
    """The desired number of ``service`` changed at ``time`` (seconds since the epoch)."""

    time: float
    service: str
    previous: int
    desired: int


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened to a process: for the event log."""

    time: float
    subject: str
    message: str


class Supervisor:
    """Keeps as many replicas as desired, and the ingress, alive. ``folder`` takes bootstraps and logs."""

    def __init__(
        self,
        cfg: MeshConfig,
        folder: Path,
        *,
        chance: random.Random,
        timing: Timing,
        envoy: Path | None,
        on_note: Callable[[Note], None] = lambda note: None,
    ) -> None:
        self.cfg = cfg
        self.usage = Usage()
        self.nursery = Nursery(folder)
        self.scale_events: list[ScaleEvent] = []
        self.finished: list[Replica] = []
        self.desired = {name: spec.replicas.min for name, spec in cfg.services.items()}
        self._folder = folder
        self._chance = chance
        self._timing = timing
        self._envoy = envoy
        self._on_note = on_note
        self._ports = Ports(HOST, chance)
        self._replicas: dict[str, Replica] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self._failures: dict[str, int] = {}
        self._session: aiohttp.ClientSession | None = None
        self._stopping = False
        self._ingress_sockets = Sockets(self._ports.take(), self._ports.take())

    # What others ask

    @property
    def ingress_url(self) -> str:
        return f"http://{HOST}:{self._ingress_sockets.inbound}"

    def replicas(self) -> tuple[Replica, ...]:
        """All that exist, the ingress included, by node id."""
        return tuple(self._replicas[node_id] for node_id in sorted(self._replicas))

    def describe(self) -> dict[str, Any]:
        """The body of ``GET /v1/replicas``."""
        shown = [replica.as_json(*self._use(replica)) for replica in self.replicas()]
        return {"replicas": shown, "desired": dict(self.desired)}

    def set_desired(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """Change desired numbers. Raises ValueError, and changes nothing, if one is unknown or out of bounds."""
        for name, count in wanted.items():
            self._check(name, count)
        for name, count in wanted.items():
            if count != self.desired[name]:
                self.scale_events.append(ScaleEvent(time.time(), name, self.desired[name], count))
                self.desired[name] = count
        self._reconcile()
        return dict(self.desired)

    def all_ready(self) -> bool:
        """Whether every desired replica, and the ingress, is ready."""
        ready = [replica.service for replica in self.replicas() if replica.phase == "ready"]
        wanted = {**self.desired, self.cfg.ingress.name: 1}
        return all(ready.count(name) >= count for name, count in wanted.items())

    # Life

    async def start(self) -> None:
        """Start the ingress and the minimum of replicas, without the start-up delay."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1.0))
        immediate = replace(self._timing, delay=0.0)
        self._add(self.cfg.ingress.name, immediate, self._ingress_sockets)
        for name, count in self.desired.items():
            for _ in range(count):
                self._add(name, immediate)

    async def watch_usage(self, interval: float = 1.0) -> None:
        """Book CPU and memory until cancelled."""
        while True:
            self.usage.look(self.nursery.running, os.getpid())
            await asyncio.sleep(interval)

    async def stop(self, grace: float = 3.0) -> None:
        """End every child: replicas, and whatever else was started from the nursery. None is started meanwhile.

        Processes end before the lives of their replicas, so that all have the same ``grace`` at the same time.
        """
        self._stopping = True
        await self.nursery.stop_all(grace)
        for life in tuple(self._lives):
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)
        await self.nursery.stop_all(0.1)  # what was being started, and killed for it, is gone
        if self._session is not None:
            await self._session.close()

    def kill(self) -> None:
        """SIGKILL for every child, at once."""
        self._stopping = True
        self.nursery.kill_all()

    def _use(self, replica: Replica) -> tuple[float, int]:
        used = [self.usage.of(child.pid) for child in replica.children]
        return sum(cores for cores, _ in used), sum(memory for _, memory in used)

    def _check(self, name: str, count: int) -> None:
        if name not in self.cfg.services:
            raise ValueError(f"unknown service {name!r}; known: {', '.join(sorted(self.cfg.services))}")
        bounds = self.cfg.services[name].replicas
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= bounds.max:
            raise ValueError(f"{name}: expected a whole number of replicas from 0 to {bounds.max}, got {count!r}")

    def _reconcile(self) -> None:
        if self._stopping:
            return
        for name, count in self.desired.items():
            there = [replica for replica in self.replicas() if replica.service == name and replica.wanted]
            for _ in range(count - len(there)):
                self._add(name, self._patient(name, self._timing.delay))
            for replica in sorted(there, key=_expendable)[: max(0, len(there) - count)]:
                replica.drain()
        if self.cfg.ingress.name not in {replica.service for replica in self.replicas()}:
            self._add(self.cfg.ingress.name, self._patient(self.cfg.ingress.name, 0.0), self._ingress_sockets)

    def _patient(self, name: str, delay: float) -> Timing:
        """The delay, longer for what keeps failing."""
        failures = self._failures.get(name, 0)
        extra = min(BACKOFF_LIMIT, BACKOFF * (2.0**failures - 1.0)) if failures else 0.0
        return replace(self._timing, delay=delay + extra)

    def _add(self, name: str, timing: Timing, sockets: Sockets | None = None) -> None:
        number = next(n for n in range(10_000) if f"{name}-{n}" not in self._replicas)
        if sockets is None:
            sockets = Sockets(*(self._ports.take() for _ in range(4)))
        replica = Replica(f"{name}-{number}", name, sockets, timing)
        self._replicas[replica.node_id] = replica
        life = asyncio.create_task(self._live(replica))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)

    async def _live(self, replica: Replica) -> None:
        assert self._session is not None
        try:
            await replica.live(self._launch, self._session, self._phase_changed)
        finally:
            del self._replicas[replica.node_id]
            self.finished.append(replica)
            if replica.service != self.cfg.ingress.name:
                self._ports.release(*replica.sockets.all())
            self._reconcile()

    def _phase_changed(self, replica: Replica, phase: str) -> None:
        if self._stopping:
            return
        if phase == "failed":
            self._failures[replica.service] = self._failures.get(replica.service, 0) + 1
        elif phase == "ready":
            self._failures.pop(replica.service, None)
        message = f"{phase}: {replica.reason}" if replica.reason else phase
        self._on_note(Note(time.time(), replica.node_id, message))

    async def _launch(self, replica: Replica) -> None:
        if self._envoy is None:
            raise DemoError("no Envoy to start sidecars with")
        text = await asyncio.to_thread(commands.bootstrap, self.cfg, replica.service, replica.node_id, replica.sockets)
        file = self._folder / f"{replica.node_id}.yaml"
        file.write_text(text)
        if replica.sockets.app is not None:
            seed = self._chance.randrange(2**31)
            argv = commands.service(self.cfg, replica.service, replica.node_id, replica.sockets, seed)
            replica.children.append(await self.nursery.spawn(replica.node_id, "services", argv))
        component = "sidecars" if replica.sockets.app is not None else "ingress"
        argv = commands.envoy(self._envoy, file)
        replica.children.append(await self.nursery.spawn(f"{replica.node_id}.envoy", component, argv))


def _expendable(replica: Replica) -> tuple[bool, float]:
    """Sorts what to let go first: what does not serve yet, then the youngest."""
    return (replica.phase == "ready", -replica.asked_at)
