"""The resources of one leasable type on one stream. Each is answered, kept alive and rejected on its own.

On a state-of-the-world stream (``sotw``) a lease is given only while the stream names a single resource of the type:
Envoy tells *every* one of the type on the stream that it is gone when one lease ends. Its runtime layers abort in the
first that is not ("Unexpected removal of unknown RTDS runtime layer"), its extension configs all fall back to their
defaults, leased or not. So layers get empty ones without a lease then, extension configs the snapshot's version, and
a notice says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from xds.protocol.events import TTL_FEATURE, Notice
from xds.protocol.holding import Holding, Send
from xds.protocol.leases import Kind, Leases, no_default
from xds.protocol.subscription import Subscription
from xds.snapshot import Discovery, Snapshot, combined_version
from xds.types import LISTENER

#: Seconds until the client has surely noticed the end of a lease, after that end.
NOTICED = 0.05

_NO_LEASES: Leases = {}


class Holdings:
    """What a client has named, or may hold on a lease, by name.

    A type with a neutral form (``kind``) is wholly ours; of another type only what is leased, and the snapshot has
    the rest. ``aggregated``: the stream serves all types, so it will ask for what its listeners discover.
    """

    def __init__(self, kind: Kind, *, sotw: bool, supports_ttl: bool = True, aggregated: bool = True) -> None:
        self.kind = kind
        self.by_name: dict[str, Holding] = {}
        self._sotw = sotw
        self._aggregated = aggregated
        self._supports_ttl = supports_ttl
        self._named: set[str] = set()
        self._wanted: Leases = _NO_LEASES
        self._noticed: set[str] = set()
        self._snapshot: Snapshot | None = None
        self._echoes: list[float] = []

    # In

    def subscribe(self, names: Iterable[str], known: Iterable[str] = ()) -> None:
        """The client names resources; ``known`` ones it has from an earlier stream."""
        had = frozenset(known)
        for name in names:
            self._named.add(name)
            if name in self.by_name:
                self.by_name[name].forgotten()
            else:
                self._hold(name, name in had)
        self._judge()

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Drop what the client is no longer interested in."""
        for name in names:
            self._named.discard(name)
            holding = self.by_name.pop(name, None)
            if holding is not None:
                self._abandoned(holding)
        self._judge()

    def want(self, leases: Leases) -> None:
        """Take the leases that should be held from now on; what has none is left to lapse, or to the snapshot."""
        self._wanted = leases
        for name, holding in self.by_name.items():
            holding.want(leases.get((self.kind.type_url, name)))
        fresh = [] if self.exclusive else [name for url, name in leases if url == self.kind.type_url]
        fresh = [name for name in fresh if name in self._named and name not in self.by_name]
        for name in fresh:
            self._hold(name, known_before=False)
        if fresh:
            self._judge()

    def publish(self, snapshot: Snapshot | None) -> None:
        """Take the snapshot beside the leases: what may follow them, and which listeners discover what."""
        self._snapshot = snapshot
        if self.by_name and not self.exclusive:
            self._judge()

    def flying(self, nonce: str) -> Holding | None:
        """What is in the response with this nonce, if that is not answered yet."""
        return next((one for one in self.by_name.values() if one.flight and one.nonce == nonce), None)

    # Out

    @property
    def exclusive(self) -> bool:
        """Whether every resource of the type is ours, and none the snapshot's."""
        return self.kind.neutral is not None

    @property
    def echoing(self) -> bool:
        """Whether the end of an abandoned lease will take something else with it."""
        return bool(self._echoes)

    def due(self, now: float) -> tuple[Holding, Send] | None:
        """The next one to send something for. A state-of-the-world client answers only the newest response of a
        type, so there one is in flight at a time."""
        if self._sotw and any(one.flight for one in self.by_name.values()):
            return None
        for one in self.by_name.values():
            send = one.due(now)
            if send is not None:
                return one, send
        return None

    def share(self, sub: Subscription, now: float) -> None:
        """Settle with the snapshot's side who sends what: a lease wins while it is alive."""
        for name, one in list(self.by_name.items()):
            if one.target(now) is not None:
                sub.set_aside(name)
            elif one.flight is None:
                self._release(sub, one)
        if self._echoes and min(self._echoes) <= now:
            self._echoes = [at for at in self._echoes if at > now]
            self._all_dropped(sub)

    def wakes_at(self) -> float:
        """When the next heartbeat or hand-over is due (seconds), infinity without one."""
        earliest = min(self._echoes) if self._echoes else math.inf
        for one in self.by_name.values():
            earliest = min(earliest, one.wakes_at())
        return earliest

    def refusals(self) -> list[Notice]:
        """A notice for each lease that is refused, once."""
        fresh = {one.name: self._refusal(one) for one in self.by_name.values() if one.barred and one.has_values}
        notices = [
            Notice("refused", self.kind.type_url, "", text) for name, text in fresh.items() if name not in self._noticed
        ]
        self._noticed = set(fresh)
        return notices

    def problems(self) -> list[str]:
        """What people should know: the client's words about what it rejected, and leases that cannot be given."""
        holdings = self.by_name.values()
        words = [one.error for one in holdings if one.error]
        return words + [self._refusal(one) for one in holdings if one.barred and one.has_values]

    @property
    def rejected(self) -> bool:
        return any(one.rejected for one in self.by_name.values())

    def owes(self, now: float) -> bool:
        """Whether content is due or on its way."""
        return any(one.stale(now) for one in self.by_name.values())

    def stale(self, now: float) -> bool:
        """Whether the client lacks something: content is due or on its way, or a lease cannot be given."""
        return self.owes(now) or any(one.barred and one.has_values for one in self.by_name.values())

    @property
    def changed_at(self) -> float | None:
        return max((one.changed_at for one in self.by_name.values() if one.changed_at is not None), default=None)

    @property
    def acked(self) -> str:
        """One version for what the client has accepted."""
        return _combined({name: one.acked_version for name, one in self.by_name.items()})

    @property
    def sent(self) -> str:
        """One version for what the client was sent."""
        return _combined({name: one.sent.version if one.sent else "" for name, one in self.by_name.items()})

    def desired(self, now: float) -> str:
        """One version for what the client should have; what is left to lapse counts as it is."""
        targets = {name: one.target(now) or one.sent for name, one in self.by_name.items()}
        return _combined({name: lease.version if lease else "" for name, lease in targets.items()})

    # Inside

    def _hold(self, name: str, known_before: bool) -> None:
        wanted = self._wanted.get((self.kind.type_url, name))
        if wanted is not None or self.exclusive:
            self.by_name[name] = Holding(name, self.kind, self._sotw, known_before, wanted=wanted)

    def _release(self, sub: Subscription, one: Holding) -> None:
        """The snapshot's turn, where it has a version; else what the client has is left to lapse."""
        if self.exclusive:
            return
        sub.take_back(one.name, owed=one.replaceable)
        if not one.replaceable:
            self._abandoned(one)
        one.forgotten()
        if one.wanted is None:
            del self.by_name[one.name]

    def _abandoned(self, one: Holding) -> None:
        """A lease that the client still holds will end, and on this variant take all others with it."""
        if self._sotw and not self.exclusive and one.sent is not None and one.ends_by > -math.inf:
            self._echoes.append(one.ends_by + NOTICED)

    def _all_dropped(self, sub: Subscription) -> None:
        """The client has dropped everything of the type: it is owed again."""
        sub.force(list(sub.held))
        for one in self.by_name.values():
            one.forgotten()

    def _judge(self) -> None:
        """Which leases may be given, and what would follow them."""
        discovered = self._discovered()
        named = self._named | {name for name, one in discovered.items() if one.by_ads and self._aggregated}
        together = self._sotw and len(named) > 1
        current = self._snapshot.get(self.kind.type_url) if self._snapshot else None
        for name, one in self.by_name.items():
            one.barred = self._objection(discovered.get(name), together=together)
            one.replaceable = current is not None and name in current.resources

    def _discovered(self) -> Mapping[str, Discovery]:
        if self.exclusive or self._snapshot is None:
            return {}
        listeners = self._snapshot.get(LISTENER)
        return listeners.discovered if listeners is not None else {}

    def _objection(self, discovery: Discovery | None, *, together: bool) -> str:
        """Why no lease may be given; empty if one may."""
        if not self._supports_ttl:
            return f"the client does not announce {TTL_FEATURE}"
        if discovery is not None and discovery.without_default:
            return no_default(discovery.without_default)
        return self.kind.together if together else ""

    def _refusal(self, one: Holding) -> str:
        return f"{self.kind.noun} {one.name!r} is not leased: {one.barred}"


def _combined(versions: Mapping[str, str]) -> str:
    return combined_version(versions.items()) if versions else ""
