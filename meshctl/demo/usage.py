"""CPU time and memory of the children, by process and summed up by component.

Processes come and go, so their CPU time is booked in small steps: what a process used since it was last looked at. A
process that ends takes what it used since then with it, at most one interval.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psutil

from .children import Child

#: Components whose processes start others; looking for descendants everywhere would cost more than it finds.
FAMILIES = frozenset({"experiment", "control-plane"})


@dataclass(slots=True)
class Sample:
    """One process (and its descendants) when it was last looked at: CPU seconds so far, cores in use since the look
    before, bytes.
    """

    seconds: float
    at: float
    cores: float = 0.0
    memory: int = 0


@dataclass(slots=True)
class Component:
    """What all processes of one kind used. ``seconds`` of CPU; memory in bytes (the last sum and the largest)."""

    seconds: float = 0.0
    memory: int = 0
    memory_peak: int = 0


@dataclass(slots=True)
class Usage:
    """The books. ``started`` is the monotonic time from which components are counted."""

    started: float = field(default_factory=time.monotonic)
    components: dict[str, Component] = field(default_factory=dict)
    _samples: dict[int, Sample] = field(default_factory=dict)

    def reset(self) -> None:
        """Count components from now on."""
        self.components.clear()
        self.started = time.monotonic()

    def look(self, children: Iterable[Child], own_pid: int) -> None:
        """Book what every child, and the process ``own_pid`` as component ``supervisor``, used since the last look."""
        memory: dict[str, int] = dict.fromkeys(self.components, 0)
        watched = [(child.pid, child.component, child.component in FAMILIES) for child in children]
        for pid, component, whole in [*watched, (own_pid, "supervisor", False)]:
            if (sample := self._measure(pid, whole)) is None:
                continue
            self.components.setdefault(component, Component()).seconds += sample.cores * self._elapsed(pid, sample)
            self._samples[pid] = sample
            memory[component] = memory.get(component, 0) + sample.memory
        self._forget({pid for pid, _, _ in watched} | {own_pid})
        for name, total in memory.items():
            book = self.components[name]
            book.memory, book.memory_peak = total, max(book.memory_peak, total)

    def of(self, pid: int) -> tuple[float, int]:
        """Cores in use and resident bytes of a process when it was last looked at."""
        sample = self._samples.get(pid)
        return (sample.cores, sample.memory) if sample else (0.0, 0)

    def report(self) -> dict[str, Any]:
        """Average cores and memory by component, and the whole as a share of the machine and of two cores."""
        wall = max(time.monotonic() - self.started, 1e-9)
        cores = sum(book.seconds for book in self.components.values()) / wall
        machine = psutil.cpu_count() or 1
        return {
            "seconds": wall,
            "machine_cores": machine,
            "cores": cores,
            "share_of_machine": cores / machine,
            "share_of_two_cores": cores / 2.0,
            "components": {
                name: {
                    "cores": book.seconds / wall,
                    "share_of_two_cores": book.seconds / wall / 2.0,
                    "memory": book.memory,
                    "memory_peak": book.memory_peak,
                }
                for name, book in sorted(self.components.items())
            },
        }

    def _elapsed(self, pid: int, sample: Sample) -> float:
        before = self._samples.get(pid)
        return sample.at - before.at if before else 1.0

    def _measure(self, pid: int, whole: bool) -> Sample | None:
        """None if it is gone. A process seen for the first time is booked with all that it used so far."""
        try:
            process = psutil.Process(pid)
            family = [process, *(process.children(recursive=True) if whole else [])]
            seconds, memory = _sum(family)
        except psutil.Error:
            return None
        now = time.monotonic()
        before = self._samples.get(pid)
        used = max(0.0, seconds - (before.seconds if before else 0.0))
        return Sample(seconds, now, used / max(now - before.at, 1e-6) if before else used, memory)

    def _forget(self, alive: set[int]) -> None:
        self._samples = {pid: sample for pid, sample in self._samples.items() if pid in alive}


def _sum(family: list[psutil.Process]) -> tuple[float, int]:
    seconds, memory = 0.0, 0
    for process in family:
        try:
            with process.oneshot():
                times = process.cpu_times()
                memory += process.memory_info().rss
        except psutil.Error:
            if process is family[0]:
                raise
            continue
        # Children that have ended are in their parent's books.
        seconds += (
            times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        )
    return seconds, memory
