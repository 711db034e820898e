"""Child processes: each in a session of its own, logging to a file, and never outliving its parent.

A child gets a session (so that Ctrl-C on the terminal reaches the supervisor alone, and a child's own children end
with it) and, on
Linux, a parent-death signal: when the supervisor is killed with SIGKILL, the kernel kills its children.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .errors import DemoError

_PR_SET_PDEATHSIG = 1
#: Lines of a log that an error message shows.
TAIL_LINES = 15


def _death_with_parent() -> Callable[[], None] | None:
    """What a new process does before it becomes the child: ask for SIGKILL when its parent dies (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


class Child:
    """A running process. ``component`` says under what its CPU time is booked."""

    def __init__(self, name: str, component: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.component = component
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.returncode

    @property
    def stderr(self) -> asyncio.StreamReader | None:
        """Its standard error, if it was piped."""
        return self._process.stderr

    async def wait(self) -> int:
        """Wait for its end; the exit code (negative: the signal)."""
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to its session (nothing if it is gone)."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def stop(self, grace: float) -> int:
        """SIGTERM, and SIGKILL for the whole session after ``grace`` seconds."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), grace)
        self.send(signal.SIGKILL)
        return await self.wait()

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The end of its log."""
        return tail(self.log, lines)

    def obituary(self) -> str:
        """How it ended, and the end of its log, for an error message."""
        code = self.returncode
        ending = f"was ended by signal {-code}" if code is not None and code < 0 else f"exited with {code}"
        return f"{self.name} {ending}; the end of {self.log}:\n{self.tail()}"


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a text file, indented ("(empty)" if there are none)."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            found = file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        found = []
    return "\n".join(f"    {line}" for line in found or ["(empty)"])


class Nursery:
    """Starts children and knows all that run. ``folder`` takes their logs."""

    def __init__(self, folder: Path, on_end: Callable[[Child], None] | None = None) -> None:
        self._folder = folder
        self._death = _death_with_parent()
        self._children: dict[int, Child] = {}
        self._waits: dict[Child, asyncio.Task[None]] = {}
        self._on_end = on_end
        self._closed = asyncio.Event()

    @property
    def running(self) -> tuple[Child, ...]:
        return tuple(self._children.values())

    async def spawn(
        self,
        name: str,
        component: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdout: Path | None = None,
        pipe_errors: bool = False,
    ) -> Child:
        """Start ``argv``. Its output is appended to ``<folder>/<name>.log``, or what it prints to the file ``stdout``.

        With ``pipe_errors`` the caller reads its standard error.
        Raises :class:`DemoError` if the program cannot be started, and once ``stop_all`` was asked for.
        """
        if self._closed.is_set():
            raise DemoError(f"{name}: not started, since everything is being stopped")
        log = self._folder / f"{name}.log"
        with log.open("ab") as file, (stdout or log).open("ab") as printed:
            try:
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=printed,
                    stderr=asyncio.subprocess.PIPE if pipe_errors else file,
                    env={**os.environ, **(env or {})},
                    start_new_session=True,
                    preexec_fn=self._death,
                )
            except OSError as error:
                raise DemoError(f"{name}: cannot start {argv[0]} ({error.strerror}); is it installed?") from error
        child = self._register(Child(name, component, process, log))
        if self._closed.is_set():  # while the process was made: whoever stops all has not seen it
            child.send(signal.SIGKILL)
            raise DemoError(f"{name}: ended as soon as it was started, since everything is being stopped")
        return child

    def _register(self, child: Child) -> Child:
        self._children[child.pid] = child
        self._waits[child] = asyncio.create_task(self._forget_at_end(child))
        self._waits[child].add_done_callback(lambda _: self._waits.pop(child))
        return child

    async def _forget_at_end(self, child: Child) -> None:
        await child.wait()
        self._children.pop(child.pid, None)
        if self._on_end is not None:
            self._on_end(child)

    async def stop_all(self, grace: float) -> None:
        """End every child: SIGTERM, then SIGKILL after ``grace`` seconds. From now on none is started.

        Only those are waited for that run now: one whose process is just being made is killed by who makes it.
        """
        self._closed.set()
        there = dict(self._waits)
        await asyncio.gather(*(child.stop(grace) for child in there))
        await asyncio.gather(*there.values())

    def kill_all(self) -> None:
        """SIGKILL for every child, at once."""
        for child in self.running:
            child.send(signal.SIGKILL)
