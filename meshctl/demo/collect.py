"""What the control plane said during the run: polled from its API, because it may die and start again meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Json = dict[str, Any]
INTERVAL = 1.0


@dataclass(slots=True)
class Record:
    """Everything collected. ``statuses`` has the last status of each incarnation of the control plane, by its start
    time.
    """

    ticks: list[Json] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    statuses: dict[float, Json] = field(default_factory=dict)
    services: list[Json] = field(default_factory=list)
    proxies: list[Json] = field(default_factory=list)
    slo: Json = field(default_factory=dict)

    @property
    def status(self) -> Json:
        """The newest status ({} if there is none)."""
        return self.statuses[max(self.statuses)] if self.statuses else {}


class Collector:
    """Polls ``server`` (base URL). ``on_event`` hears each new event once."""

    def __init__(
        self, server: str, session: aiohttp.ClientSession, on_event: Callable[[Json], None] = lambda event: None
    ) -> None:
        self.record = Record()
        self._server = server
        self._session = session
        self._on_event = on_event
        self._tick = 0
        self._event = 0

    async def get(self, path: str) -> Json | None:
        """The body of a 200, or None."""
        try:
            async with self._session.get(self._server + path) as response:
                body = await response.json(content_type=None) if response.status == 200 else None
                return body if isinstance(body, dict) else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None

    async def ready(self) -> bool:
        """Whether the control plane says so."""
        try:
            async with self._session.get(f"{self._server}/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def watch(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.poll()
            await asyncio.sleep(INTERVAL)

    async def poll(self) -> None:
        """One round: status, new ticks, new events, services."""
        if (status := await self.get("/v1/status")) is None:
            return
        self._note_status(status)
        if timeline := await self.get(f"/v1/timeline?after={self._tick}"):
            self._note_ticks(timeline["ticks"])
        if events := await self.get(f"/v1/events?after={self._event}&limit=500"):
            self._note_events(events["events"])
        if services := await self.get("/v1/services"):
            self.record.services = services["services"]

    async def finish(self, entry: str, window: float) -> None:
        """The last round, with what is only asked for once. ``window`` in seconds."""
        await self.poll()
        if proxies := await self.get("/v1/proxies"):
            self.record.proxies = proxies["proxies"]
        if slo := await self.get(f"/v1/slo/{entry}?window={window:.0f}"):
            self.record.slo = slo

    def _note_status(self, status: Json) -> None:
        started = float(status["started"])
        if started not in self.record.statuses:
            self._tick = 0  # another process counts its ticks anew
        self.record.statuses[started] = status

    def _note_ticks(self, ticks: list[Json]) -> None:
        seen = {tick["time"] for tick in self.record.ticks[-500:]}
        for tick in ticks:
            self._tick = max(self._tick, tick["tick"])
            if tick["time"] not in seen:
                self.record.ticks.append(tick)

    def _note_events(self, events: list[Json]) -> None:
        for event in sorted(events, key=lambda event: int(event["id"])):
            if event["id"] > self._event:
                self._event = event["id"]
                self.record.events.append(event)
                self._on_event(event)
