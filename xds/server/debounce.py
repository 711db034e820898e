"""Many changes in a short time become few: the first goes out at once, the others wait for a pause.

:class:`Debounce` decides, without a clock; :class:`Debounced` runs it on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Debounce:
    """After ``quiet`` seconds without a change the next one passes at once (leading edge). What follows is held until
    it has been quiet again, but never for longer than ``cap`` seconds. ``quiet`` 0 lets everything pass.
    """

    def __init__(self, quiet: float, cap: float) -> None:
        self._quiet = quiet
        self._cap = max(cap, quiet)
        self._last = -math.inf
        self._held_since: float | None = None

    def passes(self, now: float) -> bool:
        """A change arrives at ``now`` (seconds): whether it may go out at once. If not, it is held."""
        calm = now - self._last >= self._quiet and self._held_since is None
        self._last = now
        if not calm and self._held_since is None:
            self._held_since = now
        return calm

    def due_at(self) -> float:
        """When what is held goes out; infinity if nothing is held."""
        if self._held_since is None:
            return math.inf
        return min(self._last + self._quiet, self._held_since + self._cap)

    def release(self, now: float) -> None:
        """What was held goes out, or is given up, at ``now``; the next change has to wait for quiet after it."""
        self._last, self._held_since = now, None


class Debounced(Generic[_T]):
    """Hands the newest value to ``deliver``, at once or later. Outside of an event loop always at once.

    What ``deliver`` raises reaches the caller of :meth:`submit` if the value passes at once, and the log if not.
    """

    def __init__(self, deliver: Callable[[_T], None], quiet: float, cap: float) -> None:
        self._deliver = deliver
        self._core = Debounce(quiet, cap)
        self._newest: tuple[_T] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, value: _T) -> None:
        """Returns at once, whether the value was delivered or not."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._deliver(value)
            return
        if self._core.passes(loop.time()):
            self._deliver(value)
            return
        self._newest = (value,)
        if self._timer is None:
            self._timer = loop.call_at(self._core.due_at(), self._ring)

    def cancel(self) -> None:
        """Forget what is held."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer, self._newest = None, None
        self._core.release(asyncio.get_running_loop().time())

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        due = self._core.due_at()
        if loop.time() < due:  # more came meanwhile
            self._timer = loop.call_at(due, self._ring)
            return
        newest = self._newest
        self.cancel()
        try:
            if newest is not None:
                self._deliver(newest[0])
        except Exception:
            log.exception("what was held back for a moment could not be published; what was there before stays")
