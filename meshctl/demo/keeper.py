"""Keeps the control plane alive: starts it, starts it again when it dies, and passes on what it says about training."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from . import commands
from .children import Child, Nursery
from .errors import DemoError
from .supervisor import Note

#: Seconds until a control plane that died is started again; doubled at each failure in a row, up to the limit.
BACKOFF = 1.0
BACKOFF_LIMIT = 15.0
#: It counts as sound after this many seconds.
SOUND = 30.0


class Keeper:
    """Runs ``meshctl serve -f mesh_file`` for as long as :meth:`keep` runs. ``on_line`` hears its standard error."""

    def __init__(
        self, nursery: Nursery, mesh_file: Path, on_note: Callable[[Note], None], on_line: Callable[[str], None]
    ) -> None:
        self._nursery = nursery
        self._mesh_file = mesh_file
        self._on_note = on_note
        self._on_line = on_line
        self.starts = 0
        self.child: Child | None = None

    async def keep(self) -> None:
        """Until cancelled. Raises :class:`DemoError` if the very first one ends before it was sound."""
        failures = 0
        while True:
            began = time.monotonic()
            self.child = await self._start()
            await self._relay(self.child)
            await self.child.wait()
            failures = 0 if time.monotonic() - began > SOUND else failures + 1
            if failures and self.starts == 1 and not self._was_ready:
                raise DemoError(self.child.obituary())
            self._on_note(Note(time.time(), "control-plane", f"died ({self.child.returncode}); starting it again"))
            await asyncio.sleep(min(BACKOFF_LIMIT, BACKOFF * 2.0 ** max(0, failures - 1)))

    _was_ready = False

    def ready(self) -> None:
        """It was seen ready: from now on its death is an accident, not a mistake in its settings."""
        self._was_ready = True

    async def _start(self) -> Child:
        self.starts += 1
        argv = commands.control_plane(self._mesh_file)
        return await self._nursery.spawn("control-plane", "control-plane", argv, pipe_errors=True)

    async def _relay(self, child: Child) -> None:
        """Copy its standard error to its log, line by line, until it ends."""
        assert child.stderr is not None
        with child.log.open("ab", buffering=0) as log:
            while True:
                with suppress(ValueError):  # a line beyond the reader's limit: dropped
                    if not (line := await child.stderr.readline()):
                        return
                    log.write(line)
                    self._on_line(readable(line.decode(errors="replace").rstrip()))


def readable(line: str) -> str:
    """A line of a JSON log as a person reads it; other lines as they are."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict) or "event" not in record:
        return line
    rest = " ".join(f"{key}={value}" for key, value in record.items() if key not in ("event", "level", "timestamp"))
    return f"{record['event']} {rest}".rstrip()
