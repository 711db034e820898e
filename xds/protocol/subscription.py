"""One resource type on one stream: what the client asked for, what it was sent, what it said about it.

Shared by both variants; which requests change it how is the business of :mod:`~xds.protocol.sotw` and
:mod:`~xds.protocol.delta`. What is due follows from comparing ``held`` with the newest set, so there is no queue:
whatever was not sent yet is simply replaced by what is newer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from xds.snapshot import Resource, ResourceSet
from xds.types import FULL_STATE

WILDCARD = "*"

#: The version of a resource about which the client's last word was a rejection: it may have the old or the new one.
UNKNOWN = ""


@dataclass(frozen=True, slots=True)
class Flight:
    """A response on its way: the client has not answered yet. ``removed`` resources have version UNKNOWN."""

    nonce: str
    set_version: str
    sent: Mapping[str, str]
    removed: tuple[str, ...] = ()


@dataclass(slots=True)
class Subscription:
    """``held`` maps names to the versions that the client was sent (or said to have when it reconnected);
    ``forced`` names are owed even if held; ``confirmed`` names were accepted in some version; names ``aside`` are on a
    lease, which is the business of :mod:`~xds.protocol.holdings`. ``_settled`` is the last
    set of which the client had everything but what is forced: what is due is then found in what changed since, or
    in what was sent since (``_touched``).
    """

    type_url: str
    wildcard: bool = False
    named: bool = False
    names: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    forced: set[str] = field(default_factory=set)
    confirmed: set[str] = field(default_factory=set)
    flight: Flight | None = None
    nonce: str = ""
    rejected: dict[str, str] = field(default_factory=dict)
    rejected_set: str = ""
    error: str = ""
    sent_version: str = ""
    acked_version: str = ""
    changed_at: float | None = None
    aside: set[str] = field(default_factory=set)
    _settled: ResourceSet | None = None
    _touched: set[str] = field(default_factory=set)
    _nothing_gone: ResourceSet | None = None

    # What the client wants

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def start_implicit_wildcard(self) -> None:
        """A client that has never named anything wants all clusters or listeners; other types have no wildcard."""
        if not self.named and self.type_url in FULL_STATE:
            self.wildcard = True

    def subscribe(self, names: Iterable[str]) -> None:
        """Add names; each is owed an answer, even if it is held already or was rejected."""
        for name in names:
            self.named = True
            if name == WILDCARD:
                self.wildcard = self.wildcard or self.type_url in FULL_STATE
                self._settled = None
            else:
                self.names.add(name)
                self.forced.add(name)
                self.rejected.pop(name, None)

    def unsubscribe(self, names: Collection[str]) -> None:
        """Remove names and forget what is no longer wanted; phantom names are ignored."""
        for name in names:
            if name == WILDCARD:
                self.wildcard = False
            self.names.discard(name)
        unwanted = {*self.held, *self.forced} if WILDCARD in names else set(names)
        for name in unwanted:
            if not self.wants(name):
                self.forget(name)

    def forget(self, name: str) -> None:
        self.held.pop(name, None)
        self.rejected.pop(name, None)
        self.forced.discard(name)
        self.confirmed.discard(name)
        self.aside.discard(name)
        self._touched.discard(name)

    def force(self, names: Iterable[str]) -> None:
        """Owe these names again, whatever is held."""
        self.forced.update(names)

    def set_aside(self, name: str) -> None:
        """Leave this name to its lease."""
        self.aside.add(name)
        self.held.pop(name, None)
        self.forced.discard(name)
        self.confirmed.discard(name)

    def take_back(self, name: str, *, owed: bool) -> None:
        """The lease is over: from now on the set counts, which is ``owed`` if it has this name."""
        if name in self.aside:
            self.aside.remove(name)
            self.held.pop(name, None)
            if owed:
                self.forced.add(name)

    def adopt(self, versions: Mapping[str, str]) -> None:
        """The client accepted these versions on an earlier stream: they are not owed again."""
        for name, version in versions.items():
            if self.wants(name):
                self.held[name] = version
                self.confirmed.add(name)
                self.forced.discard(name)
        self._settled = self._nothing_gone = None

    # What is due

    @property
    def unanswered(self) -> bool:
        """A wildcard is owed an answer even if there is nothing: the client's start waits for it."""
        return self.wildcard and not self.nonce and not self.held

    def additions(self, current: ResourceSet) -> list[Resource]:
        """Resources that the client wants and does not have in this version, without those that it rejected."""
        self._pardon(current)
        if self._settled is current and not self.forced:
            return []
        names = self._candidates(current)
        due = [current.resources[name] for name in sorted(names) if self._owes(current.resources[name])]
        if not due:
            self._settled = current
            self._touched.clear()
        return due

    def missing(self, current: ResourceSet) -> list[str]:
        """Names that the client is owed an answer about and that do not exist."""
        return sorted(name for name in self.forced if name not in current.resources)

    def removals(self, current: ResourceSet) -> list[str]:
        """Names that the client has and that exist no longer."""
        if self._nothing_gone is current:
            return []
        self._pardon(current)
        gone = self.held.keys() - current.resources.keys()
        if not gone:
            self._nothing_gone = current
        return sorted(name for name in gone if self.rejected.get(name) != UNKNOWN)

    def _candidates(self, current: ResourceSet) -> set[str]:
        """Names that may be due: since it last had everything, what changed; else whatever it wants."""
        if self._settled is not None:
            changed = self.forced | self._touched
            if self._settled is not current:
                changed |= current.changed_since(self._settled)
            return {name for name in changed if self.wants(name) and name in current.resources}
        return set(current.resources) if self.wildcard else self.names & current.resources.keys()

    def _owes(self, one: Resource) -> bool:
        if self.rejected.get(one.name) == one.version or one.name in self.aside:
            return False
        return one.name in self.forced or self.held.get(one.name) != one.version

    def _pardon(self, current: ResourceSet) -> None:
        """A rejection counts until the content of the type changes."""
        if self.rejected and self.rejected_set != current.version:
            self.rejected.clear()
            self._settled = None

    # What happened

    def sent(self, flight: Flight, now: float) -> None:
        """A response went out."""
        self.flight, self.nonce = flight, flight.nonce
        self.held.update(flight.sent)
        self._nothing_gone = None
        for name in flight.removed:
            self.held.pop(name, None)
        self._touched.update(flight.sent, flight.removed)
        self.forced.difference_update(flight.sent, flight.removed)
        self.sent_version, self.changed_at = flight.set_version, now

    def lost(self, names: Iterable[str]) -> None:
        """The client may have dropped these: if they come back, they are owed."""
        for name in names:
            self.held.pop(name, None)
            self.confirmed.discard(name)
            self._touched.add(name)

    def acked(self, now: float) -> None:
        """The client accepted the response in flight."""
        flight = self._land(now)
        self.confirmed |= flight.sent.keys() & self.held.keys()
        self.confirmed.difference_update(flight.removed)
        self.acked_version = flight.set_version
        if not self.rejected:
            self.error = ""

    def nacked(self, message: str, now: float) -> None:
        """The client rejected the response in flight; some of it may be applied, so its versions are unknown."""
        flight = self._land(now)
        for name, version in (*flight.sent.items(), *((name, UNKNOWN) for name in flight.removed)):
            if self.wants(name):
                self.held[name] = UNKNOWN
                self.rejected[name] = version
        self.rejected_set, self.error = flight.set_version, message
        self._settled = self._nothing_gone = None

    def _land(self, now: float) -> Flight:
        flight, self.flight, self.changed_at = self.flight, None, now
        if flight is None:
            raise AssertionError("an answer without a response in flight is filtered by the stream")
        return flight
