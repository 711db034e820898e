"""How many responses are on their way at once, and what becomes of clients that do not read theirs.

A writer takes a slot before it asks the machine what is due, so that a stream that waits holds no response: what it
sends in the end is what is newest then. Requests of all streams are handled between one wave of slots and the next.

A client that does not read keeps its writer waiting. It loses its slot after ``patience`` seconds and goes on without
one, until it has read a response in less than that; so it delays nobody, and costs the memory of one response. After
``deadline`` seconds it counts as gone. https://grpc.io/docs/guides/flow-control/
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from xds.errors import LimitExceeded


class Writer(Protocol):
    """A stream that is written to: whether it has a slot, and whether it goes without because it is slow."""

    holds: bool
    slow: bool


class Slots:
    """``free`` slots are there for whoever takes one by counting it down and setting ``holds``; :meth:`wait` is for
    when there is none.

    ``writing`` maps the writers whose response is on its way to the time (seconds on the event loop's clock) when it
    was handed over.
    """

    __slots__ = ("_deadline", "_patience", "_waiting", "free", "writing")

    def __init__(self, count: int, patience: float, deadline: float) -> None:
        self.free = count
        self.writing: dict[Writer, float] = {}
        self._patience = patience
        self._deadline = deadline
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Return with a slot, when it is one's turn."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give()
            raise

    def give(self) -> None:
        """Give a slot back, to the one that has waited longest if there is one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def drop(self, writer: Writer) -> None:
        """Give back the slot of ``writer``, if it has one."""
        if writer.holds:
            writer.holds = False
            self.give()

    def written(self, writer: Writer, now: float) -> None:
        """The response of ``writer`` is gone, or given up."""
        took = now - self.writing.pop(writer)
        if writer.holds:
            self.drop(writer)
        elif took < self._patience:
            writer.slow = False

    def look(self, now: float) -> list[Writer]:
        """Take the slots of those that are slow; returns the writers that are too late."""
        for writer, since in self.writing.items():
            if now - since >= self._patience:
                writer.slow = True
                self.drop(writer)
        return [writer for writer, since in self.writing.items() if now - since >= self._deadline]

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return sum(1 for turn in self._waiting if not turn.done())


class Unread(LimitExceeded):
    """A client has not taken a response in time. It was reported when that was found."""

    def __init__(self, deadline: float) -> None:
        super().__init__("unread", f"a response was not read within {deadline:g} s; open another stream, read faster")
