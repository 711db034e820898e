"""How long a change takes to reach everybody: from the moment it was published to the last ACK of it.

A change of one type is a :class:`Wave`. Every open stream that subscribes to the type and whose set changed is owed
it, until the stream has everything of the type, and nothing more, and has accepted all of it. What is overtaken by a
newer change is owed no longer: the newer one counts. A stream that rejects keeps its wave open, because the change
has not reached everybody; a stream that ends leaves it.

Work per ACK is constant: one look-up, and a look at the types that this one stream is still owed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from xds.snapshot import Snapshot


class Follower(Protocol):
    """What is needed of a stream."""

    def in_sync(self, type_url: str, now: float) -> bool:
        """Whether the client has accepted everything of this type that it should have, and nothing is due."""


@dataclass(frozen=True, slots=True)
class Converged:
    """A change that reached everybody: ``seconds`` from its publication to the last of ``acks``."""

    type_url: str
    seconds: float
    acks: int


@dataclass(slots=True)
class Wave:
    """One change of one type. ``waiting`` counts the streams that are still owed it."""

    type_url: str
    started: float
    waiting: int = 0
    acks: int = 0
    acked_at: float = 0.0


@dataclass(slots=True)
class Change:
    """One publication: its waves by type URL, made as streams turn out to be owed them."""

    started: float
    waves: dict[str, Wave] = field(default_factory=dict)
    _differing: dict[tuple[int, int], tuple[object, object, tuple[str, ...]]] = field(default_factory=dict)

    def differing(self, before: Snapshot, after: Snapshot) -> tuple[str, ...]:
        """The types of which ``after`` has another set; found once for all streams that go from one to the other."""
        key = (id(before), id(after))
        known = self._differing.get(key)  # holds on to both, so that no other snapshot gets their ids
        if known is None:
            old, new = before.sets, after.sets
            urls = [url for url, one in new.items() if one is not (was := old.get(url)) and one != was]
            urls += [url for url in old if url not in new]
            known = self._differing[key] = (before, after, tuple(urls))
        return known[2]


class _Debt(NamedTuple):
    """What one stream is owed of one type, and since when (seconds) it has not been in sync."""

    wave: Wave
    since: float


class Convergence:
    """Follows changes to their last ACK, and tells ``on_converged``.

    A change that needed no answer of anybody (nobody subscribes to what changed) is not told of.
    """

    def __init__(self, clock: Callable[[], float], on_converged: Callable[[Converged], None]) -> None:
        self._clock = clock
        self._on_converged = on_converged
        self._debts: dict[Follower, dict[str, _Debt]] = {}

    def begin(self, started: float | None = None) -> Change:
        """A change that is being published now, or was at ``started`` (seconds on the server's clock)."""
        return Change(self._clock() if started is None else started)

    def owe(self, change: Change, stream: Follower, type_url: str) -> None:
        """From now on the stream should have the change; what it was owed before is overtaken."""
        wave = change.waves.get(type_url)
        if wave is None:
            wave = change.waves[type_url] = Wave(type_url, change.started)
        debts = self._debts.setdefault(stream, {})
        before = debts.get(type_url)
        wave.waiting += 1
        debts[type_url] = _Debt(wave, change.started if before is None else before.since)
        if before is not None:
            self._leave(before.wave)

    def acked(self, stream: Follower, type_url: str) -> None:
        """The stream accepted a response of this type."""
        debts = self._debts.get(stream)
        debt = debts.get(type_url) if debts else None
        if debt is not None:
            debt.wave.acks += 1
            debt.wave.acked_at = self._clock()

    def idle(self, stream: Follower) -> None:
        """The stream has nothing to send now: it may have arrived."""
        debts = self._debts.get(stream)
        if debts is None:
            return
        now = self._clock()
        for type_url in tuple(debts):
            if stream.in_sync(type_url, now):
                self._leave(debts.pop(type_url).wave)
        if not debts:
            del self._debts[stream]

    def closed(self, stream: Follower) -> None:
        """The stream ended: nobody waits for it."""
        for debt in self._debts.pop(stream, {}).values():
            self._leave(debt.wave)

    def behind_since(self, stream: Follower, type_url: str) -> float | None:
        """Since when (seconds) the stream lacks a change of this type; None if it lacks none."""
        debt = self._debts.get(stream, {}).get(type_url)
        return None if debt is None else debt.since

    def behind(self) -> dict[str, int]:
        """How many streams lack a change, by type URL."""
        counts: dict[str, int] = {}
        for debts in self._debts.values():
            for type_url in debts:
                counts[type_url] = counts.get(type_url, 0) + 1
        return counts

    def _leave(self, wave: Wave) -> None:
        wave.waiting -= 1
        if wave.waiting == 0 and wave.acks:
            self._on_converged(Converged(wave.type_url, wave.acked_at - wave.started, wave.acks))
