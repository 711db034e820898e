"""What the user sees while the demo runs: a live table on a terminal, a compact block every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]
#: Seconds between two blocks where there is no terminal.
BLOCK_INTERVAL = 10.0
COLUMNS = ("SERVICE", "RPS", "FORECAST", "P95", "REPLICAS", "LIMIT", "P99", "ERRORS")
#: Kinds of events that are told line by line; pushes are too many.
TOLD = frozenset({"scale", "fault", "nack", "config", "model", "drift", "experiment", "process", "control"})


def row(service: Json) -> tuple[str, ...]:
    """One service as cells (without spaces, so that blocks can be split into columns)."""
    forecast = service.get("forecast") or {}
    mark = "" if forecast.get("skilled") else "*"
    return (
        service["name"],
        _number(service["demand"]),
        _number(forecast.get("expected")) + (mark if forecast else ""),
        _number(forecast.get("upper")),
        f"{service['ready']}/{service['desired']}",
        _number(service.get("limit"), 0),
        "-" if service.get("p99") is None else f"{service['p99'] * 1000:.0f}ms",
        _number(service["errors"]),
    )


def event_line(event: Json) -> str:
    """``12:00:01 scale frontend 2 -> 3 replicas``"""
    clock = datetime.fromtimestamp(event["time"]).strftime("%H:%M:%S")
    subject, message = event["subject"], event["message"]
    named = message if message.startswith(subject) else f"{subject} {message}"
    return f"{clock} {event['kind']} {named}"


def title(elapsed: float, duration: float, status: Json) -> str:
    """The line over the table."""
    proxies = status.get("proxies") or {}
    tick = status.get("tick") or {}
    last = tick.get("last_ms")
    return (
        f"{elapsed:.0f}s of {duration:.0f}s, policy {status.get('policy', '?')},"
        f" sidecars {proxies.get('connected', 0)}/{proxies.get('expected', 0)},"
        f" tick {tick.get('count', 0)}{'' if last is None else f' ({last:.0f} ms)'}"
    )


def block(services: Sequence[Json], headline: str) -> str:
    """The table as plain text."""
    rows = [COLUMNS, *(row(service) for service in services)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows]
    return "\n".join([f"-- {headline}", *lines])


class Screen:
    """Shows tables and event lines on ``console``; a context manager."""

    def __init__(self, console: Console, duration: float) -> None:
        self._console = console
        self._duration = duration
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        self._shown = 0.0

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def event(self, event: Json) -> None:
        """Tell of an event, if it is worth a line."""
        if event["kind"] in TOLD:
            self._console.print(Text(event_line(event)), soft_wrap=True)

    def show(self, services: Sequence[Json], elapsed: float, status: Json) -> None:
        """Show the newest numbers."""
        headline = title(elapsed, self._duration, status)
        if self._live is not None:
            self._live.update(_table(services, headline), refresh=True)
        elif time.monotonic() - self._shown >= BLOCK_INTERVAL:
            self._shown = time.monotonic()
            self._console.print(Text(block(services, headline)), soft_wrap=True)


def _table(services: Sequence[Json], headline: str) -> Table:
    table = Table(
        title=headline, title_justify="left", expand=False, box=None, caption="* no skill yet: reactive rules act"
    )
    for index, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for service in services:
        style = "red" if service["errors"] > 0 else "yellow" if service["ready"] < service["desired"] else ""
        table.add_row(*row(service), style=style)
    return table


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
