"""One resource type on one stream: what the client asked for, what it was sent, what it said about it.

Shared by both variants; which requests change it how is the business of :mod:`~xds.protocol.sotw` and
:mod:`~xds.protocol.delta`. What is due follows from comparing ``held`` with the newest set, so there is no queue:
whatever was not sent yet is simply replaced by what is newer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from xds.protocol.collections import by_collection, collection_of, collections_among
from xds.protocol.held import Held
from xds.protocol.quarantine import Quarantine, Rejection, culprits
from xds.snapshot import Difference, Resource, ResourceSet
from xds.types import FULL_STATE

WILDCARD = "*"

#: The version of a resource about which the client's last word was a rejection: it may have the old or the new one.
UNKNOWN = ""


class Flight(NamedTuple):
    """A response on its way: the client has not answered yet. ``sent`` are versions of what is new to it; ``removed``
    resources have version UNKNOWN."""

    nonce: str
    set_version: str
    sent: Mapping[str, str]
    removed: tuple[str, ...] = ()


@dataclass(slots=True)
class Subscription:
    """``held`` maps names to the versions that the client was sent (or said to have when it reconnected);
    ``forced`` names are owed even if held; ``unconfirmed`` ones are held but were never accepted in any version (nor
    was what is ``_new`` in the response in flight); names ``aside`` are on a lease, which is the business of
    :mod:`~xds.protocol.holdings`. ``_settled`` is the last set of which the client had everything but what is forced,
    and ``_nothing_gone`` the last that lacked nothing it has.
    ``late`` names exist, and the client has nothing of them yet, because they must wait for something else.
    ``collections`` are those of ``names`` that stand for many resources. The response in flight ``vacates`` if it takes
    something away that the client had.
    ``current`` is what the client should have; None while that is not loaded.
    ``rejected`` counts where it cannot be told which resource of a response was bad, ``quarantine`` where it can.
    ``brought`` are names that a client may have from an earlier stream or from before they were gone for a while,
    nobody knows in which version.
    ``_replaced`` is what the client had accepted of what the response in flight changes, None where that is not known;
    ``_new`` are names in it of which the client surely had nothing. ``_perhaps`` are names of which it has nothing but
    perhaps the version that came in a response that it rejected for another reason ("": one of several).
    """

    type_url: str
    wildcard: bool = False
    named: bool = False
    names: set[str] = field(default_factory=set)
    collections: set[str] = field(default_factory=set)
    held: Held = field(default_factory=Held)
    forced: set[str] = field(default_factory=set)
    late: set[str] = field(default_factory=set)
    unconfirmed: set[str] = field(default_factory=set)
    current: ResourceSet | None = None
    flight: Flight | None = None
    nonce: str = ""
    rejected: dict[str, str] = field(default_factory=dict)
    rejected_set: str = ""
    error: str = ""
    sent_version: str = ""
    acked_version: str = ""
    changed_at: float | None = None
    aside: set[str] = field(default_factory=set)
    brought: frozenset[str] = frozenset()
    quarantine: Quarantine = field(default_factory=Quarantine)
    vacates: bool = False
    _replaced: Mapping[str, Resource | None] = field(default_factory=dict)
    _new: Set[str] = frozenset()
    _perhaps: dict[str, str] = field(default_factory=dict)
    _settled: ResourceSet | None = None
    _nothing_gone: ResourceSet | None = None

    # What the client wants

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names or (bool(self.collections) and self._collects(name))

    def _collects(self, name: str) -> bool:
        return collection_of(name) in self.collections

    def start_implicit_wildcard(self) -> None:
        """A client that has never named anything wants all clusters or listeners; other types have no wildcard."""
        if not self.named and self.type_url in FULL_STATE:
            self.wildcard = True

    def subscribe(self, names: Iterable[str]) -> None:
        """Add names; each is owed an answer, even if it is held already or was rejected."""
        added = frozenset(names)
        self.named = self.named or bool(added)
        if WILDCARD in added:
            added -= {WILDCARD}
            self._widen()
        known = self.names & added if self.quarantine else frozenset[str]()
        self.names |= added
        self.forced |= added
        self.collections |= collections_among(added)
        for name in added & self.rejected.keys():
            del self.rejected[name]
        if self.quarantine:
            self._ask_again(known)

    def _ask_again(self, known: Collection[str]) -> None:
        """Who rejected something on this stream and asks for it again, gets it. From whoever merely returns it is kept
        back."""
        rejections = self.quarantine.of(self.type_url)
        self.quarantine.pardon(self.type_url, [name for name in known if name in rejections])

    def _widen(self) -> None:
        """From names to everything: all of it is owed, also what was sent before."""
        if not self.wildcard and self.type_url in FULL_STATE:
            self.forced |= self.held.keys()
            self.wildcard = True
        self.held.widen()
        self._settled = None

    def unsubscribe(self, names: Collection[str]) -> None:
        """Remove names and forget what is no longer wanted; phantom names are ignored."""
        for name in names:
            if name == WILDCARD:
                self.wildcard = False
            self.names.discard(name)
        broad = WILDCARD in names or not self.collections.isdisjoint(names)
        self.collections.difference_update(names)
        unwanted = {*self.held, *self.forced} if broad else set(names)
        for name in unwanted:
            if not self.wants(name):
                self.forget(name)
        self.held.tidy()

    def forget(self, name: str) -> None:
        self.held.pop(name)
        self.rejected.pop(name, None)
        self.forced.discard(name)
        self.late.discard(name)
        self.unconfirmed.discard(name)
        self.aside.discard(name)
        self.brought -= {name}

    def force(self, names: Iterable[str]) -> None:
        """Owe these names again, whatever is held."""
        self.forced.update(names)

    def hold_back(self, names: Iterable[str]) -> None:
        """Others of the set go out first. What is known of a client that names what it wants says nothing of those that
        it does not have, so they must be remembered."""
        self.late.update(name for name in names if name not in self.held)

    def set_aside(self, name: str) -> None:
        """Leave this name to its lease."""
        self.aside.add(name)
        self.held.pop(name)
        self.forced.discard(name)
        self.unconfirmed.discard(name)

    def take_back(self, name: str, *, owed: bool) -> None:
        """The lease is over: from now on the set counts, which is ``owed`` if it has this name."""
        if name in self.aside:
            self.aside.remove(name)
            self.held.pop(name)
            if owed:
                self.forced.add(name)

    def adopt(self, versions: Mapping[str, str]) -> None:
        """The client accepted these versions on an earlier stream: they are not owed again."""
        for name, version in versions.items():
            if self.wants(name):
                self.held[name] = version
                self.unconfirmed.discard(name)
                self.forced.discard(name)
        if self.collections:
            self.forced.difference_update(map(collection_of, versions))
        self._settled = self._nothing_gone = None

    def adopt_all(self, current: ResourceSet) -> None:
        """The client has exactly this set from an earlier stream."""
        self.held.replace(current)
        self.unconfirmed.clear()
        self.forced.clear()
        self._settled = self._nothing_gone = None

    def may_have(self, name: str) -> bool:
        """Whether the client has this resource in some version, or may have it from an earlier stream."""
        return name in self.held or name in self.brought or WILDCARD in self.brought

    def confirms(self, name: str) -> bool:
        """Whether the client has accepted this resource in some version."""
        flying = self.flight is not None and name in self._new
        return name not in self.unconfirmed and not flying and name in self.held

    def confirms_all(self, current: ResourceSet) -> bool:
        """Whether the client surely has accepted everything that it wants of this set; cheap, so False may be wrong."""
        clean = not self.rejected and not self.forced and not self.quarantine.of(self.type_url)
        flying = self.flight is not None and self._new
        return clean and self._settled is current and not self.unconfirmed and not flying

    def accepts(self, current: ResourceSet) -> bool:
        """Whether the client has rejected nothing of this set in particular."""
        return not self.quarantine.in_force(current)

    def refused(self, one: Resource) -> bool:
        """Whether the client rejected this version, nothing has changed since, and it gets nothing instead."""
        rejection = self.rejection(one)
        return self.rejected.get(one.name) == one.version or (rejection is not None and rejection.good is None)

    def may_try(self, name: str, current: ResourceSet) -> bool:
        """Whether nothing is held against the version in ``current`` by a response that was rejected as a whole."""
        one = current.resources.get(name)
        return one is None or self.rejected.get(name) != one.version

    def rejection(self, one: Resource) -> Rejection | None:
        """What is held against this version in particular."""
        found = self.quarantine.of(self.type_url).get(one.name)
        return found if found is not None and found.version == one.version else None

    # What is due

    def at_rest(self, current: ResourceSet) -> bool:
        """Whether :meth:`additions` is known to have nothing, and nobody is owed an answer; False may be wrong."""
        owed = self.forced or (not self.nonce and self.unanswered)
        return self._settled is current and not owed

    def lacks_nothing(self, current: ResourceSet) -> bool:
        """Whether :meth:`removals` is known to have nothing; False may be wrong."""
        return self._nothing_gone is current

    @property
    def unanswered(self) -> bool:
        """A wildcard is owed an answer even if there is nothing: the client's start waits for it. Who came with the
        current version has had it."""
        return self.wildcard and not self.nonce and not self.acked_version and not self.held

    def additions(self, current: ResourceSet) -> list[Resource]:
        """Resources that the client wants and does not have in this version, without those that it rejected."""
        self._pardon(current)
        if self._settled is current and not self.forced:
            return []
        if self.collections:
            self._open(current)
        due = self._due(current)
        if not due:
            self._settled = current
        return due

    def step(self, current: ResourceSet) -> Difference | None:
        """The usual change: the client has accepted an earlier set, and lacks what is new since. None where anything at
        all is out of the ordinary: then :meth:`additions` tells."""
        whole = self.held.whole
        if whole is None or not self.nonce or self.unconfirmed or self.forced or self.rejected or self._odd():
            return None
        step = current.since(whole)
        wanted = self.wildcard or (self.type_url not in FULL_STATE and step.changed <= self.names)
        return step if wanted and step.changed and not step.removed else None

    def _odd(self) -> bool:
        return bool(self.aside or self._perhaps or self.quarantine.of(self.type_url))

    def _due(self, current: ResourceSet) -> list[Resource]:
        clean = not self.quarantine.of(self.type_url)
        if clean and not self.held.known and not self.rejected and not self.aside:
            asked = self.names if not self.collections else self.names | self.forced
            return current.ordered if self.wildcard else current.among(asked)
        names = self.held.behind(current)
        if self.wildcard and (beyond := self.held.beyond(current)):
            names = names | beyond
        if self.forced or self.late:
            self.late &= current.resources.keys()
            names = names | self.late | (self.forced & current.resources.keys())
        wanted = [current.resources[name] for name in sorted(names) if self.wants(name)]
        return [one for one in (wanted if clean else self._substituted(wanted)) if self._owes(one)]

    def _substituted(self, wanted: Iterable[Resource]) -> Iterator[Resource]:
        """Without what is in quarantine: who has nothing instead gets the last good version, if there is one."""
        for one in wanted:
            rejection = self.rejection(one)
            if rejection is None:
                yield one
            elif rejection.good is not None and (one.name in self.forced or not self.confirms(one.name)):
                yield rejection.good

    def _open(self, current: ResourceSet) -> None:
        """Who asks for a collection is owed its members; an empty one stays owed, as what does not exist."""
        asked = self.collections & self.forced
        members = by_collection(current.resources) if asked else {}
        for name in asked & members.keys():
            self.forced.discard(name)
            self.forced |= members[name]

    def missing(self, current: ResourceSet) -> list[str]:
        """Names that the client is owed an answer about, that do not exist (for this client at least) and that it does
        not have either: what it has is taken from it in its turn."""
        absent = self.forced - current.resources.keys()
        if self.quarantine:
            absent |= self._kept_back(current)
        return sorted(name for name in absent if name not in self.held)

    def _kept_back(self, current: ResourceSet) -> set[str]:
        """What the client asks for, has rejected, and gets nothing instead of."""
        rejections = self.quarantine.in_force(current).items()
        return {name for name, one in rejections if name in self.forced and one.good is None}

    def removals(self, current: ResourceSet) -> list[str]:
        """Names that the client has and that exist no longer."""
        if self._nothing_gone is current:
            return []
        self._pardon(current)
        gone = self.held.gone(current)
        if not gone:
            self._nothing_gone = current
            return []
        return sorted(name for name in gone if self.rejected.get(name) != UNKNOWN)

    def _owes(self, one: Resource) -> bool:
        if self.rejected.get(one.name) == one.version or one.name in self.aside:
            return False
        return one.name in self.forced or self.held.get(one.name) != one.version

    def _pardon(self, current: ResourceSet) -> None:
        """A rejection counts until the content of the type changes."""
        if self.rejected and self.rejected_set != current.version:
            self.forced.update(name for name in self.rejected if name in current.resources)
            self.rejected.clear()
            self._settled = None

    # What happened

    def sent(self, flight: Flight, current: ResourceSet, now: float) -> None:
        """A response with resources of ``current`` went out."""
        self._compare(flight)  # with what was accepted before it takes off
        self.flight, self.nonce = flight, flight.nonce
        self.sent_version, self.changed_at = flight.set_version, now
        self.held.take(current, flight.sent, flight.removed)
        self._certain(self._new)
        if flight.removed:
            self.unconfirmed.difference_update(flight.removed)
        if self.quarantine.of(self.type_url):  # something else than the set's version may have been sent instead
            for name, version in flight.sent.items():
                self.held[name] = version
        if self.forced:
            self.forced.difference_update(flight.sent, flight.removed)
        if self.late:
            self.late.difference_update(flight.sent, flight.removed)
        whole = self.held.whole is current and not self.rejected
        self._nothing_gone = current if whole else None
        if whole:
            self._settled = current

    def stepped(self, flight: Flight, step: Difference, current: ResourceSet, now: float) -> None:
        """As :meth:`sent`, of what :meth:`step` said."""
        self.flight, self.nonce = flight, flight.nonce
        self.sent_version, self.changed_at = flight.set_version, now
        self._replaced, self._new, self.vacates = step.replaced, step.added, False
        self.held.advance(current)
        self._settled = self._nothing_gone = current

    def _compare(self, flight: Flight) -> None:
        """What the response in flight changes, and what of it is new, where the client has whatever."""
        known = self.held.known
        self.vacates = any(name in self.held for name in flight.removed)
        self._replaced = {}
        if known:
            self._replaced = {name: self.held.resource(name) for name in flight.sent if self.confirms(name)}
        self._new = {name for name in flight.sent if name not in self.held} if known else flight.sent.keys()

    def lost(self, names: Iterable[str]) -> None:
        """The client may have dropped these: if they come back, they are owed."""
        gone = frozenset(names)
        self.brought |= gone
        for name in gone:
            self.held.pop(name)
            self.unconfirmed.discard(name)
        self._settled = None

    def acked(self, now: float) -> None:
        """The client accepted the response in flight."""
        flight = self._land(now)
        if self.unconfirmed:
            self.unconfirmed.difference_update(flight.sent)
        self._certain(flight.sent.keys())
        self.acked_version = flight.set_version
        if not self.rejected:
            self.error = ""
        if self.quarantine:
            rejections = self.quarantine.of(self.type_url)
            better = [n for n, version in flight.sent.items() if n in rejections and rejections[n].refutes(version)]
            self.quarantine.pardon(self.type_url, better)

    def nacked(
        self, message: str, now: float, *, tell_apart: bool = True, accepted: Mapping[str, Resource] | None = None
    ) -> None:
        """The client rejected the response in flight; some of it may be applied, so its versions are unknown.

        Where it can be told which resources were bad (and ``tell_apart`` it may), those go into quarantine and the
        others are owed again. Where not, nothing of it is sent until the content changes. Of a full
        state (``accepted`` is the one before) it must be known what the client has instead of each, if anything.
        """
        flight = self._land(now)
        guilty = culprits(self.type_url, message, flight.sent.keys()) if tell_apart else frozenset[str]()
        fresh = frozenset[str]() if WILDCARD in self.brought else self._new - self.brought
        nothing = {n for n in guilty if n in fresh or self._perhaps.get(n) == flight.sent[n]}
        if accepted is not None and not all(self._good(name, accepted) for name in guilty - nothing):
            guilty = frozenset()
        self._leave_behind({name: version for name, version in flight.sent.items() if name not in guilty})
        self.error = message
        self._settled = self._nothing_gone = None
        for name in filter(self.wants, flight.sent):
            if name in self._new or name not in self.held:  # or it dropped it, and wants it again with this very answer
                self.unconfirmed.add(name)
            self.held[name] = UNKNOWN
        for name in filter(self.wants, flight.removed):  # gone perhaps
            self.unconfirmed.add(name)
            self.held[name] = UNKNOWN
        if not guilty:
            self._reject(flight)
            return
        for name in filter(self.wants, guilty):
            good = None if name in nothing else self._good(name, accepted or {})
            self._convict(name, Rejection(flight.sent[name], message, good, kept=name not in nothing))
        for name in filter(self.wants, flight.removed):
            self._answer_again(name)

    def _reject(self, flight: Flight) -> None:
        versions = (*flight.sent.items(), *((name, UNKNOWN) for name in flight.removed))
        self.rejected.update((name, version) for name, version in versions if self.wants(name))
        self.rejected_set = flight.set_version

    def _certain(self, names: Set[str]) -> None:
        """What the client has under these names is known now."""
        if self._perhaps:
            for name in self._perhaps.keys() & names:
                del self._perhaps[name]

    def _leave_behind(self, versions: Mapping[str, str]) -> None:
        """The client rejected a response, and may have applied these."""
        for name, version in versions.items():
            if name in self._new:
                self._perhaps[name] = version
            elif self._perhaps.get(name, version) != version:
                self._perhaps[name] = ""

    def _convict(self, name: str, rejection: Rejection) -> None:
        """The client keeps what it had: what it accepted before, or nothing. (What an earlier rejected response left
        there is not known.)"""
        if not rejection.kept:
            self._perhaps.pop(name, None)
            self.held.pop(name)
            self.unconfirmed.discard(name)
        self.quarantine.add(self.type_url, name, rejection)

    def _good(self, name: str, accepted: Mapping[str, Resource]) -> Resource | None:
        """What the client accepted before, if it is known; what the snapshot lacked then is in ``accepted`` alone."""
        earlier = self.quarantine.of(self.type_url).get(name)
        return self._replaced.get(name) or (earlier.good if earlier else None) or accepted.get(name)

    def _answer_again(self, name: str) -> None:
        """Whether the client knows that this does not exist (any more) is not known."""
        if name in self.names:
            self.held.pop(name)
            self.forced.add(name)

    def acquit(self, words: str) -> bool:
        """Forget rejections for this reason, so that what was rejected is tried once more; whether there were any."""
        rejections = self.quarantine.of(self.type_url)
        found = self.quarantine.pardon(self.type_url, [n for n, one in rejections.items() if words in one.message])
        if self.rejected and words in self.error:
            self.forced.update(self.rejected)
            self.rejected.clear()
            found = True
        self._settled = None
        return found

    def _land(self, now: float) -> Flight:
        flight, self.flight, self.changed_at = self.flight, None, now
        if flight is None:
            raise AssertionError("an answer without a response in flight is filtered by the stream")
        return flight
