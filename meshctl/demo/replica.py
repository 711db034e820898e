"""One replica: an application and its Envoy (or an ingress: an Envoy alone), from pending to gone.

::

    pending --start-up delay--> starting --serves--> ready --drain()--> terminating --3 s--> gone
                                    |                  |
                                    +---a process ends-+--> failed --> gone

A replica is ready when its sidecar says so on /ready, its application on /healthz, and its inbound listener exists,
which takes a control plane. Whoever is ``terminating`` still serves: the control plane takes it out of EDS first.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from meshctl.model import Phase

from .children import Child
from .commands import HOST, Sockets

#: Seconds between two looks at a starting replica.
PROBE_INTERVAL = 0.25


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. ``delay``: pending before processes start. ``drain``: from terminating to SIGTERM. ``grace``: from
    SIGTERM to SIGKILL. Who does not get ready is left waiting, as a kubelet does; who dies is replaced.
    """

    delay: float
    drain: float = 3.0
    grace: float = 5.0


class Launcher(Protocol):
    """Starts the processes of a replica and adds them to its ``children``, in the order in which they are to be
    stopped.
    """

    async def __call__(self, replica: Replica) -> None: ...


Report = Callable[["Replica", str], None]


@dataclass(slots=True, eq=False)
class Replica:
    """A replica and its life. ``asked_at`` and ``ready_at`` are seconds since the epoch; ``reason`` says why it
    failed.
    """

    node_id: str
    service: str
    sockets: Sockets
    timing: Timing
    phase: Phase = "pending"
    asked_at: float = field(default_factory=time.time)
    started_at: float = 0.0
    ready_at: float | None = None
    reason: str = ""
    children: list[Child] = field(default_factory=list)
    _draining: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def wanted(self) -> bool:
        """Whether it counts towards the desired number."""
        return self.phase not in ("terminating", "failed")

    def drain(self) -> None:
        """Let it go: at once if it never served, else after the drain time."""
        self._draining.set()

    async def live(self, launch: Launcher, session: aiohttp.ClientSession, report: Report) -> None:
        """From pending to gone; returns when its processes have ended. ``report`` hears of every change of phase."""
        try:
            if not await self._sleep(self.timing.delay):
                await self._serve(launch, session, report)
        except Exception as error:
            self._fail(str(error), report)
        finally:
            await self._stop()

    async def _serve(self, launch: Launcher, session: aiohttp.ClientSession, report: Report) -> None:
        self._enter("starting", report)
        self.started_at = time.time()
        await launch(self)
        draining = asyncio.ensure_future(self._draining.wait())
        ends = [asyncio.ensure_future(child.wait()) for child in self.children]
        probing = asyncio.ensure_future(self._until_ready(session, report))
        try:
            await asyncio.wait([draining, *ends], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (probing, draining, *ends):
                task.cancel()
            await asyncio.gather(probing, draining, *ends, return_exceptions=True)
        await self._end(report)

    async def _end(self, report: Report) -> None:
        if self._draining.is_set():
            served = self.phase == "ready"
            self._enter("terminating", report)
            await asyncio.sleep(self.timing.drain if served else 0.0)
            return
        dead = next(child for child in self.children if child.returncode is not None)
        self._fail(dead.obituary(), report)

    async def _until_ready(self, session: aiohttp.ClientSession, report: Report) -> None:
        while not await serves(session, self.sockets):  # noqa: ASYNC110 - other processes cannot set our events
            await asyncio.sleep(PROBE_INTERVAL)
        self.ready_at = time.time()
        self._enter("ready", report)

    async def _sleep(self, seconds: float) -> bool:
        """True if it was drained meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        return self._draining.is_set()

    async def _stop(self) -> None:
        """The application first: what it still has to answer may need its sidecar."""
        for child in self.children:
            await child.stop(self.timing.grace)

    def _fail(self, reason: str, report: Report) -> None:
        self.reason = reason
        self._enter("failed", report)

    def _enter(self, phase: Phase, report: Report) -> None:
        self.phase = phase
        report(self, phase)

    def as_json(self, cpu: float, memory: int) -> dict[str, Any]:
        """As the platform's API shows it."""
        return {
            "node_id": self.node_id,
            "service": self.service,
            "phase": self.phase,
            "inbound": f"{HOST}:{self.sockets.inbound}",
            "outbound": _address(self.sockets.outbound),
            "app": _address(self.sockets.app),
            "admin": f"{HOST}:{self.sockets.admin}",
            "cpu": cpu,
            "memory": memory,
            "started_at": self.started_at,
            "ready_at": self.ready_at,
        }


async def serves(session: aiohttp.ClientSession, sockets: Sockets) -> bool:
    """Whether the Envoy is ready and has its inbound listener, and the application (if any) is healthy."""
    admin = f"http://{HOST}:{sockets.admin}"
    if sockets.app is not None and await _get(session, f"http://{HOST}:{sockets.app}/healthz") is None:
        return False
    if await _get(session, f"{admin}/ready") is None:
        return False
    listeners = await _get(session, f"{admin}/listeners")
    return listeners is not None and f":{sockets.inbound}" in listeners


async def _get(session: aiohttp.ClientSession, url: str) -> str | None:
    """The body of a 200, or None."""
    try:
        async with session.get(url) as response:
            return await response.text() if response.status == 200 else None
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


def _address(port: int | None) -> str | None:
    return None if port is None else f"{HOST}:{port}"
