"""A child process that may use only so much CPU: stopped and continued (SIGSTOP, SIGCONT) by what it has used.

Two rules hold together. A bucket fills with ``share`` seconds of CPU time per second and the child runs while there is
something in it. And over any hour the sum is bounded: beyond it the child stands still until old use has aged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from forecasting.engines import ONE_THREAD
from meshctl.control.trainer import LOG, OUTCOME, PROGRESS
from meshctl.errors import MeshctlError

HOUR = 3600.0
BURST = 0.2
"""Seconds of CPU time that the bucket holds at most: short turns, so that no tick meets a long one."""

INTERVAL = 0.05
"""Seconds between two looks at the child."""


class TrainingFailedError(MeshctlError):
    """The training process ended without a model."""


class Budget:
    """``share`` of one core, and ``hourly`` seconds of CPU time in any hour. It outlives single trainings."""

    def __init__(self, share: float, hourly: float) -> None:
        self._share, self._hourly = share, hourly
        self._level, self._then = BURST, -float("inf")
        self._used: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def spend(self, now: float, seconds: float) -> bool:
        """Account for ``seconds`` of CPU time used until ``now`` (monotonic); whether more may be used."""
        self._level = min(BURST, self._level + self._share * (now - self._then)) - seconds
        self._then = now
        self._sum += seconds
        if seconds > 0.0:
            self._used.append((now, seconds))
        while self._used and self._used[0][0] <= now - HOUR:
            self._sum -= self._used.popleft()[1]
        return self._level > 0.0 and self._sum < self._hourly

    @property
    def used(self) -> float:
        """Seconds of CPU time in the hour before the last look."""
        return max(0.0, self._sum)


class Governed:
    """One child, ``command``, that works in ``folder``."""

    def __init__(self, command: Sequence[str], folder: Path, budget: Budget, most: float) -> None:
        """``most``: seconds of CPU time after which the child is ended in any case."""
        self.seconds = 0.0
        self.pid: int | None = None
        self._command, self._folder, self._budget, self._most = command, folder, budget, most

    async def run(self, clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
        """What the child left as its outcome. Raises TrainingFailedError; no way out leaves a process behind."""
        with (self._folder / LOG).open("wb") as log:
            # A group of its own: Ctrl-C on a terminal is for the control plane, which then ends the child.
            child = subprocess.Popen(  # noqa: ASYNC220 - returns at once; its end is polled for
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **ONE_THREAD},
                process_group=0,
            )
        self.pid = child.pid
        try:
            await self._watch(child, clock)
        finally:
            child.kill()
            child.wait()
            self.pid = None
        return self._outcome(child.returncode)

    async def _watch(self, child: subprocess.Popen[bytes], clock: Callable[[], float]) -> None:
        running = True
        while child.poll() is None:
            used = max(self.seconds, _cpu_seconds(child.pid))
            free = self._budget.spend(clock(), used - self.seconds)
            self.seconds = used
            if used > self._most:
                raise TrainingFailedError(
                    f"training was ended after {self._most:.0f} s of CPU time; lower forecast.train_seconds"
                )
            if free != running:
                child.send_signal(signal.SIGCONT if free else signal.SIGSTOP)
                running = free
            await asyncio.sleep(INTERVAL)

    def progress(self) -> dict[str, Any] | None:
        """What the child said last about how far it is."""
        return _document(self._folder / PROGRESS)

    def _outcome(self, code: int) -> dict[str, Any]:
        found = _document(self._folder / OUTCOME)
        if code == 0 and found is not None:
            return found
        if found is not None and "error" in found:
            raise TrainingFailedError(str(found["error"]))
        why = f"was ended by signal {-code}" if code < 0 else f"ended with {code}: {self._last_words()}"
        raise TrainingFailedError(f"the training process {why}")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self._folder / LOG).read_text(errors="replace").strip().splitlines()
            return lines[-1][:500] if lines else "it said nothing"
        return "it left no log"


def _cpu_seconds(pid: int) -> float:
    """User and system time; 0 of a process that is no more."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _document(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
