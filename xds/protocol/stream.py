"""What both variants of a stream share: who the client is, what it should have, and what goes out next.

A machine is fed by :meth:`Stream.receive`, :meth:`Stream.publish` and :meth:`Stream.lease`, and drained by
:meth:`Stream.poll`, one response at a time, whenever the transport can take one. What is due is computed at that
moment from the newest content: a response that was overtaken never existed, so a slow client costs no memory.
At most one response of a type is unanswered at a time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from xds import codec
from xds.errors import RemoteError
from xds.protocol import ordering
from xds.protocol.events import DeltaRequest, Item, Node, Notice, Response, SotwRequest
from xds.protocol.holding import Holding, Send
from xds.protocol.holdings import Holdings
from xds.protocol.leases import KINDS, Leases
from xds.protocol.quarantine import Quarantine, without_secrets
from xds.protocol.responses import ResponseCache
from xds.protocol.states import TypeState, state_of
from xds.protocol.subscription import Flight, Subscription
from xds.protocol.virtual_hosts import OnDemand
from xds.snapshot import Difference, Resource, ResourceSet, Snapshot
from xds.types import CLUSTER, ENDPOINT, ROUTE, RUNTIME, VIRTUAL_HOST

#: More types than exist: a client that asks for more is broken.
MAX_TYPES = 64

_NO_SETS: Mapping[str, ResourceSet] = {}


class Stream(ABC):
    """The server's side of one xDS stream.

    ``nonce_prefix`` should be random: nonces of a dead server must not be taken for ours. ``type_url`` is given for
    a service of a single type, whose requests may leave theirs out. ``idle``: nothing will be due before the next
    call of receive, publish or lease, or the next heartbeat. ``asked`` counts the requests that may have asked for more
    than those before. ``quarantine`` may be shared by the streams of a node; it
    is given before the first request.
    """

    sotw = False

    def __init__(self, nonce_prefix: str, cache: ResponseCache, type_url: str = "") -> None:
        self.node: Node | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.snapshot: Snapshot | None = None
        self.leased: dict[str, Holdings] = {}
        self._leases: Leases = {}
        self.quarantine = Quarantine()
        self.cache = cache
        self._type_url = type_url
        self._nonce_prefix = nonce_prefix
        self._nonces = 0
        self._changed_assignments: set[str] = set()
        self._homes: set[str] = set()
        self._additions_order: list[tuple[Subscription, Holdings | None]] = []
        self._removals_order: list[Subscription] = []
        self._waiting = False
        self._alone: Subscription | None = None
        self.asked = 0
        self.idle = True
        self._idle_since = 0.0
        self.notices: list[Notice] = []

    # In

    def receive(self, request: SotwRequest | DeltaRequest, now: float) -> list[Notice]:
        """Take a request; what it says about an earlier response comes back as notices. RemoteError if it is broken."""
        self._pin(request.node)
        type_url = request.type_url or self._type_url
        if not type_url or (self._type_url and type_url != self._type_url):
            raise RemoteError(f"type_url is {request.type_url!r}; expected {self._type_url or 'the URL of a type'}")
        sub = self._subscription(type_url)
        merely_accepts = self._merely_accepts(sub, request)
        if not merely_accepts:
            self.asked += 1
        if self._waiting or not merely_accepts or type_url in self.leased:
            self.idle, self._alone = False, None
        self._take(sub, request, now)
        return self.take_notices()

    def publish(self, snapshot: Snapshot | None) -> None:
        """Take what the node should have from now on; None while nothing is known about the node."""
        self.snapshot = snapshot
        alone = self._hand_out(snapshot.sets if snapshot is not None else _NO_SETS)
        self._alone = alone if self.idle and not self._waiting else None
        for leased in self.leased.values():
            leased.publish(snapshot)
            if not leased.exclusive:  # it may follow what is published
                self._alone = None
        self.idle = False

    def lease(self, leases: Leases) -> None:
        """Take the leases that should be alive from now on, by type URL and name."""
        self._leases = leases
        for one in self.leased.values():
            one.want(leases)
        self.idle, self._alone = False, None

    def take_notices(self) -> list[Notice]:
        """What happened since the last call."""
        notices, self.notices = self.notices, []
        return notices

    # Out

    def poll(self, now: float) -> Response | None:
        """The next response that is due, or None. Additions in order (of a type first its leases), then removals."""
        if self.idle and self._idle_since <= now < self.wakes_at():  # the clock may jump back
            return None
        response = self._due(now)
        if response is None:
            self.idle, self._idle_since, self._waiting = True, now, self._owes_later()
        return response

    def wakes_at(self) -> float:
        """When :meth:`poll` will have a heartbeat (seconds); infinity if none is scheduled."""
        earliest = math.inf
        for one in self.leased.values():
            earliest = min(earliest, one.wakes_at())
        return earliest

    def states(self, now: float) -> dict[str, TypeState]:
        """Where each type that the client asked for stands."""
        subs = self.subscriptions.items()
        return {url: state_of(sub, sub.current, self.leased.get(url), now) for url, sub in subs}

    def in_sync(self, type_url: str, now: float) -> bool:
        """Whether the client has accepted everything of this type that it should have, and nothing is due."""
        sub = self.subscriptions.get(type_url)
        if sub is not None and sub.flight is not None:
            return False
        current = sub.current if sub is not None else None
        if sub is not None and current is not None and not (_complete(sub, current) and sub.accepts(current)):
            return False
        leased = self.leased.get(type_url)
        return leased is None or not leased.owes(now)

    # For the variants

    @abstractmethod
    def _merely_accepts(self, sub: Subscription, request: SotwRequest | DeltaRequest) -> bool:
        """Whether the request says nothing but yes, or nothing that counts: it makes nothing due that did not wait."""

    @abstractmethod
    def _take(self, sub: Subscription, request: SotwRequest | DeltaRequest, now: float) -> None:
        """Apply a request to the subscription."""

    @abstractmethod
    def _addition(self, sub: Subscription, current: ResourceSet, due: list[Resource], now: float) -> Response | None:
        """The response that brings ``due`` resources; None if there is nothing to say after all."""

    @abstractmethod
    def _usual(
        self, sub: Subscription, current: ResourceSet, step: Difference, nonce: bytes
    ) -> tuple[bytes, tuple[str, ...]]:
        """The response that brings what is new in ``current``, with this ``nonce`` (encoded), and the names in it."""

    @abstractmethod
    def _removal(self, sub: Subscription, current: ResourceSet, gone: list[str], now: float) -> Response | None:
        """The response that takes away what is gone; None if the variant has no way to say it."""

    @abstractmethod
    def _encode_lease(self, version: str, item: Item) -> bytes:
        """A response with one leased resource, without its nonce."""

    def _answered(self, sub: Subscription, nonce: str, error: str | None, now: float) -> None:
        """ACK or NACK. A rejection is the presence of an error, never a comparison of versions.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ack-and-nack-semantics-summary
        """
        error = without_secrets(sub.type_url, error) if error is not None else None
        leased = self.leased.get(sub.type_url)
        one = leased.flying(nonce) if leased is not None else None
        if one is not None:
            send = one.landed(error, now)
            self._note_answer(sub.type_url, send.lease.version, error, now - one.sent_at, quiet=send.heartbeat)
        elif sub.flight is not None and sub.flight.nonce == nonce:
            self._note_answer(sub.type_url, sub.flight.set_version, error, now - (sub.changed_at or now))
            if error is None:
                self._acked(sub, now)
            else:
                self._nacked(sub, error, now)

    def _acked(self, sub: Subscription, now: float) -> None:
        sub.acked(now)
        conflict = ordering.CONFLICTS.get(sub.type_url) if sub.vacates else None
        if conflict is not None and sub.acquit(conflict):
            self.idle = False

    def _nacked(
        self,
        sub: Subscription,
        error: str,
        now: float,
        *,
        tell_apart: bool = True,
        accepted: Mapping[str, Resource] | None = None,
    ) -> None:
        """``tell_apart``: it may be told which resource was bad; ``accepted``: the full state before."""
        sub.nacked(error, now, tell_apart=tell_apart, accepted=accepted)
        current = sub.current
        if current is not None:
            self.quarantine.prune(current)

    def _send(
        self,
        sub: Subscription,
        current: ResourceSet,
        body: bytes | None,
        *,
        sent: Mapping[str, str],
        removed: Sequence[str] = (),
        names: Sequence[str] | None = None,
        now: float,
    ) -> Response:
        """``sent`` is new to the client; ``names`` are all in the response, where it repeats others. Without ``body``
        it is the whole set."""
        nonce, gone = self._next_nonce(), tuple(removed)
        sub.sent(Flight(nonce, current.version, sent, gone), current, now)
        tail = codec.nonce_field(nonce)
        data = self.cache.whole(current, tail) if body is None else body + tail
        return Response(sub.type_url, current.version, nonce, data, tuple(sent if names is None else names), gone)

    def _clusters_changed(self, changed: Sequence[Resource]) -> None:
        """Every change of an EDS cluster is followed by its endpoints, even identical ones: without them the cluster
        never finishes warming. Of clients that do not warm, nothing is owed twice.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-warming
        """
        if self.node is None or not self.node.warms_clusters:
            return
        names = {one.assignment for one in changed if one.assignment is not None}
        endpoints = self.subscriptions.get(ENDPOINT)
        self._changed_assignments |= names
        if endpoints is not None:
            endpoints.force(name for name in names if endpoints.wants(name))

    # Inside

    def _pin(self, node: Node | None) -> None:
        """Only the first message is sure to say who the client is, and that never changes.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#basic-protocol-overview
        """
        if self.node is None:
            if node is None or not node.id:
                raise RemoteError("the first request of a stream has no node.id; set node.id in the bootstrap")
            self.node = node
        elif node is not None and node.id and node.id != self.node.id:
            raise RemoteError(f"node.id changed from {self.node.id!r} to {node.id!r}; open another stream for it")

    def _subscription(self, type_url: str) -> Subscription:
        if type_url not in self.subscriptions:
            if len(self.subscriptions) >= MAX_TYPES:
                raise RemoteError(f"more than {MAX_TYPES} types on one stream; expected the types of xDS")
            kind = OnDemand if type_url == VIRTUAL_HOST else Subscription
            self.subscriptions[type_url] = kind(type_url, quarantine=self.quarantine)
            if type_url in KINDS:
                self.leased[type_url] = self._holdings(type_url)
            subs, types = self.subscriptions, tuple(self.subscriptions)
            self._additions_order = [(subs[url], self.leased.get(url)) for url in ordering.in_order(types)]
            self._removals_order = [subs[url] for url in ordering.removals_in_order(types)]
            subs[type_url].current = self.snapshot.get(type_url) if self.snapshot is not None else None
        return self.subscriptions[type_url]

    def _hand_out(self, sets: Mapping[str, ResourceSet]) -> Subscription | None:
        """Tell every subscription what its client should have. Returns the one that should have something else now;
        None if that are several."""
        changed, alone = 0, None
        for sub in self._removals_order:
            current = sets.get(sub.type_url)
            if current is not sub.current:
                sub.current, alone = current, sub
                changed += 1
        return alone if changed == 1 else None

    def _due(self, now: float) -> Response | None:
        for sub, leased in self._additions_order:
            response, current = self._due_lease(leased, sub, now) if leased is not None else None, sub.current
            if response is None and current is not None and sub.flight is None and not sub.at_rest(current):
                response = self._due_addition(sub, current, now)
            if response is not None:
                return response
        for sub in self._removals_order:
            current = sub.current
            if current is not None and sub.flight is None and not sub.lacks_nothing(current):
                response = self._due_removal(sub, current, now)
                if response is not None:
                    return response
        return None

    def _owes_later(self) -> bool:
        """Whether something waits for an answer of the client: what is in flight, or what must come first."""
        for sub in self._removals_order:
            current = sub.current
            if current is None or (sub.lacks_nothing(current) and sub.at_rest(current)):
                continue
            if _owes(sub) or sub.additions(current) or sub.removals(current):
                return True
        return False

    def _due_addition(self, sub: Subscription, current: ResourceSet, now: float) -> Response | None:
        if sub.type_url == RUNTIME:  # by lease only
            return None
        if sub.type_url not in ordering.NAMES_CLUSTERS and (step := sub.step(current)) is not None:
            return self._step(sub, current, step, now)
        if isinstance(sub, OnDemand):
            self._greet(sub)
        additions = sub.additions(current)
        if not additions and not sub.forced and not sub.unanswered:
            return None
        due = self._unhindered(sub, additions)
        if len(due) < len(additions):
            sub.hold_back({one.name for one in additions}.difference(one.name for one in due))
        homes = self._new_homes(sub, due)
        response = self._addition(sub, current, due, now) if due or sub.forced or sub.unanswered else None
        if response is not None:
            self._followed(sub, due, response, homes)
        return response

    def _step(self, sub: Subscription, current: ResourceSet, step: Difference, now: float) -> Response:
        """The response to the usual change, which all streams of a group have in common but for its nonce."""
        nonce, version = self._next_nonce(), current.version
        data, names = self._usual(sub, current, step, codec.nonce_field(nonce))
        sub.stepped(Flight(nonce, version, step.resources.versions), step, current, now)
        response = Response(sub.type_url, version, nonce, data, names)
        self._followed(sub, step.resources, response, set())
        if sub is self._alone:
            self._rest(now)
        return response

    def _rest(self, now: float) -> None:
        """The only type that changed has been sent, and all others were at rest before: unless something must follow
        it, there is nothing to look for."""
        self._alone = None
        if not any(sub.forced for sub in self._removals_order):
            self.idle, self._idle_since = True, now

    def _followed(self, sub: Subscription, due: Sequence[Resource], response: Response, homes: set[str]) -> None:
        """What must come after a response: endpoints after clusters, virtual hosts after the routes that leave them
        out."""
        if sub.type_url == CLUSTER:
            self._clusters_changed(due)
        elif sub.type_url == ENDPOINT:
            self._changed_assignments.difference_update(response.names, response.removed)
        if homes:
            self._homes |= homes
            hosts = self.subscriptions.get(VIRTUAL_HOST)
            if hosts is not None:
                hosts.force(homes)

    def _new_homes(self, sub: Subscription, due: Sequence[Resource]) -> set[str]:
        """``<route configuration>/*`` for each one that is new to the client and leaves its virtual hosts to VHDS."""
        if sub.type_url not in ordering.LEAVES_OUT_HOSTS:
            return set()
        return {name for one in due if one.homes and one.name not in sub.held for name in one.homes}

    def _greet(self, hosts: OnDemand) -> None:
        """The first answer is about each route configuration that the client has; about all, if it has them from
        elsewhere."""
        if hosts.greeted or self.snapshot is None:
            return
        hosts.greeted = True
        elsewhere = self.subscriptions.keys().isdisjoint(ordering.LEAVES_OUT_HOSTS)
        hosts.force(ordering.homes(self.snapshot) if elsewhere else self._homes)

    def _due_removal(self, sub: Subscription, current: ResourceSet, now: float) -> Response | None:
        gone = sub.removals(current)
        if not gone or not all(self._settled(url) for url in ordering.REMOVE_AFTER.get(sub.type_url, ())):
            return None
        if sub.type_url == CLUSTER and not self._routes_are_served(sub):
            return None
        unused = self._unused(sub.type_url, gone) if self.quarantine else gone
        return self._removal(sub, current, unused, now) if unused else None

    def _due_lease(self, leased: Holdings, sub: Subscription, now: float) -> Response | None:
        if not leased.by_name and not leased.echoing:
            return None
        self.notices.extend(leased.refusals())
        leased.share(sub, now)
        due = leased.due(now) if not (self.sotw and sub.flight) else None
        return self._send_lease(sub, *due, now) if due is not None else None

    def _send_lease(self, sub: Subscription, one: Holding, send: Send, now: float) -> Response:
        nonce, lease = self._next_nonce(), send.lease
        body = lease.resource.body if send.full else None
        data = self._encode_lease(lease.version, Item(sub.type_url, one.name, lease.version, body, send.ttl))
        one.took_off(send, nonce, now)
        sub.nonce = nonce
        data += codec.nonce_field(nonce)
        return Response(sub.type_url, lease.version, nonce, data, (one.name,), heartbeat=send.heartbeat)

    def _holdings(self, type_url: str) -> Holdings:
        able = self.node is not None and self.node.supports_ttl
        made = Holdings(KINDS[type_url], sotw=self.sotw, supports_ttl=able, aggregated=not self._type_url)
        made.want(self._leases)
        made.publish(self.snapshot)
        return made

    def _unhindered(self, sub: Subscription, due: list[Resource]) -> list[Resource]:
        """Without what must wait for clusters."""
        if not due or sub.type_url not in ordering.NAMES_CLUSTERS:
            return due
        known = self.snapshot.get(CLUSTER) if self.snapshot else None
        clusters = self.subscriptions.get(CLUSTER)
        return [one for one in due if not ordering.holds_back(one, sub, clusters, known)]

    def _unused(self, type_url: str, gone: list[str]) -> list[str]:
        """Names without those that the client needs for the last good version of what it rejected."""
        for referrer in ordering.REMOVE_AFTER.get(type_url, ()):
            current = self.snapshot.get(referrer) if self.snapshot else None
            for rejection in self.quarantine.in_force(current).values() if current else ():
                gone = [name for name in gone if not rejection.may_need(type_url, name)]
        return gone

    def _routes_are_served(self, clusters: Subscription) -> bool:
        routes, endpoints = self.subscriptions.get(ROUTE), self.subscriptions.get(ENDPOINT)
        return self.snapshot is None or ordering.served(routes, clusters, endpoints, self.snapshot)

    def _settled(self, type_url: str) -> bool:
        """The client has everything of this type, and nothing more."""
        sub = self.subscriptions.get(type_url)
        current = sub.current if sub else None
        return sub is None or current is None or _complete(sub, current)

    def _next_nonce(self) -> str:
        self._nonces += 1
        return f"{self._nonce_prefix}-{self._nonces}"

    def _note_answer(
        self, type_url: str, version: str, error: str | None, seconds: float, *, quiet: bool = False
    ) -> None:
        """Accepted heartbeats are no news; rejected ones are."""
        if error is not None:
            self.notices.append(Notice("nack", type_url, version, error, seconds))
        elif not quiet:
            self.notices.append(Notice("ack", type_url, version, "", seconds))


def _complete(sub: Subscription, current: ResourceSet) -> bool:
    """The client has all of this set that it wants, and nothing more."""
    busy = sub.flight is not None or bool(sub.rejected)
    return not busy and (sub.at_rest(current) or not sub.additions(current)) and not sub.removals(current)


def _owes(sub: Subscription) -> bool:
    """Whether an answer is owed whatever the content is: to a name that does not exist, too."""
    return bool(sub.forced) or sub.unanswered
