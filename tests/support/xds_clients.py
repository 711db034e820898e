"""Clients of xDS, written from the protocol's text and from what Envoy does, not from our server.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol. A client keeps resources over streams, refuses what
is bad, answers when it is told to, and speaks bytes. Requests reach the server at once and responses wait in the
``inbox``, which is every order in which messages can cross.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from tests.support.xds_world import TYPES, Thing, thing_of
from xds import _wire_pb2 as wire
from xds.types import CLUSTER, ENDPOINT, FULL_STATE, LISTENER, RESOURCE, ROUTE, RUNTIME

STAR = "*"


@dataclass
class Interest:
    """What a client wants of one type. ``named``: it has named something on this stream."""

    names: set[str] = field(default_factory=set)
    star: bool = False
    named: bool = False

    def __bool__(self) -> bool:
        return self.star or bool(self.names)

    @property
    def all(self) -> set[str]:
        return self.names | ({STAR} if self.star else set())

    def wants(self, name: str) -> bool:
        return self.star or name in self.names


@dataclass(frozen=True)
class Layer:
    """A runtime layer as a client has it, until ``ends`` (seconds)."""

    version: str
    body: bytes
    ends: float


@dataclass(frozen=True)
class Part:
    """One resource in a response; no body is a heartbeat."""

    name: str
    version: str
    body: bytes | None
    ttl: float | None


@dataclass
class Received:
    """A decoded response of either variant."""

    type_url: str
    version: str
    nonce: str
    parts: list[Part]
    removed: list[str] = field(default_factory=list)

    @property
    def things(self) -> list[Thing]:
        return [thing_of(self.type_url, part.body or b"") for part in self.parts]


@dataclass(frozen=True)
class Manner:
    """How a client refuses: whether it keeps the rest of the response, and whether it says which resource was bad."""

    partial: bool = True
    telling: bool = True

    def tells(self, type_url: str) -> bool:
        """Who keeps the rest of clusters, listeners or scopes always says which was bad (Envoy and gRPC do): otherwise
        nobody could know what it has."""
        return self.telling or (self.partial and type_url in FULL_STATE)


@dataclass(eq=False)
class Answer:
    """What a client will say about a response that it has dealt with; ``held`` until it is told to. ``telling``: an
    error says which resource was bad; ``removed`` is what the response took away."""

    got: Received
    error: str | None
    telling: bool
    removed: Collection[str]
    add: Collection[str] = ()
    drop: Collection[str] = ()
    held: bool = False


class Client(ABC):
    """``follow`` says how interests come about: an "envoy" wants all clusters and listeners, and what those refer to; a
    "grpc" client goes from one listener to its routes, their clusters and those clusters' endpoints; a free one wants
    whatever its driver makes it want. ``told`` is what the server must have understood on this stream, ``asked`` is
    called with the names that were added and dropped, ``answered`` after an answer.
    """

    def __init__(self, follow: str, node: wire.Node) -> None:
        self.follow = follow
        self.node = node
        self.now = 0.0
        self.cache: dict[str, dict[str, Thing]] = {url: {} for url in TYPES}
        self.layers: dict[str, Layer] = {}
        self.warming: set[str] = set()
        self.interest: dict[str, Interest] = {url: Interest() for url in (*TYPES, RUNTIME)}
        self.told: dict[str, Interest] = {}
        self.inbox: list[Received] = []
        self.owed: dict[str, set[str]] = {}
        self.lost: set[str] = set()
        self.answers: list[Answer] = []
        self.accepted: dict[str, str] = {}
        self.asked: Callable[[str, Collection[str], Collection[str]], None] = lambda *_: None
        self.answered: Callable[[Answer], None] = lambda _: None

    def connect(self, serve: Callable[[bytes], object]) -> None:
        """A new stream: nothing of the old one counts, but what the client has."""
        self._serve = serve
        self._introduced = False
        self.told = {}
        self.inbox, self.answers = [], []
        for one in self.interest.values():
            one.named = False

    def disconnect(self) -> None:
        """What the client says from now on is heard by nobody."""
        self._serve = lambda _: None

    @abstractmethod
    def open(self, type_url: str, *, explicit: bool, old_nonce: str = "") -> None:
        """The first request of a type on this stream, with everything that is wanted."""

    @abstractmethod
    def change(self, type_url: str, add: Collection[str], drop: Collection[str], *, nonce: str = "") -> None:
        """Want other names; ``*`` is one."""

    @abstractmethod
    def answer(self, got: Received, error: str | None, add: Collection[str] = (), drop: Collection[str] = ()) -> None:
        """ACK or NACK, perhaps with other names."""

    @abstractmethod
    def repeat(self, type_url: str) -> None:
        """Send an answer that was sent already."""

    @abstractmethod
    def receive(self, data: bytes) -> Received:
        """Decode a response."""

    # What all clients do

    def process(
        self, manner: Manner, add: Collection[str] = (), drop: Collection[str] = (), *, late: bool = False
    ) -> None:
        """Take the oldest response out of the inbox, apply what is good, and answer at once or (``late``) when told."""
        got = self.inbox.pop(0)
        self.owed.get(got.type_url, set()).difference_update((part.name for part in got.parts), got.removed)
        had = set(self.cache.get(got.type_url, ()))
        error = self._apply_layers(got) if got.type_url == RUNTIME else self._apply(got, manner)
        if error is None:
            self.accepted[got.type_url] = got.version
        if got.type_url != RUNTIME:
            self._follow()
        removed = had - self.cache.get(got.type_url, {}).keys()
        self.answers.append(Answer(got, error, manner.tells(got.type_url), removed, add, drop, late))
        self._answer_what_may_be()

    def answer_late(self, which: int | None = None) -> None:
        """Give an answer that was held back; None gives all, in the order of the responses."""
        for one in self.answers if which is None else self.answers[which : which + 1]:
            one.held = False
        self._answer_what_may_be()

    def give_up_warming(self) -> None:
        """Endpoints did not come in time."""
        self.warming.clear()
        self._answer_what_may_be()

    @property
    def quiet(self) -> bool:
        """Whether the client says nothing about clusters. An Envoy answers, and asks, only when all have warmed up
        (ClusterManagerImpl::updateClusterCounts pauses the type)."""
        return self.follow == "envoy" and bool(self.warming)

    def _answer_what_may_be(self) -> None:
        due = [one for one in self.answers if not (one.held or (self.quiet and one.got.type_url == CLUSTER))]
        for one in due:
            self.answers.remove(one)
            self.answer(one.got, one.error, one.add, one.drop)
            self.answered(one)

    def _apply(self, got: Received, manner: Manner) -> str | None:
        bad = [one for one in got.things if one.bad]
        if not bad or manner.partial:
            good = {one.name: one for one in got.things if not one.bad and self.interest[got.type_url].wants(one.name)}
            self._settle(got, good, {one.name for one in bad})
        return _complaint(got, bad, telling=manner.tells(got.type_url)) if bad else None

    def _settle(self, got: Received, good: Mapping[str, Thing], bad: Collection[str]) -> None:
        """Of clusters and listeners a state-of-the-world response is the whole truth."""
        have = self.cache[got.type_url]
        gone = self._gone(got, have.keys() - good.keys() - set(bad))
        self._warm(got, good, gone)
        self.lost -= good.keys() if got.type_url == CLUSTER else set()
        have.update(good)
        for name in gone:
            del have[name]

    @abstractmethod
    def _gone(self, got: Received, others: Iterable[str]) -> set[str]:
        """Which of the names that the response does not bring it takes away."""

    def _warm(self, got: Received, good: Mapping[str, Thing], gone: Collection[str]) -> None:
        """A changed cluster warms until endpoints come for it, be they the same as before.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#xds-protocol-resource-warming
        """
        if got.type_url == CLUSTER:
            changed = {name for name, one in good.items() if one.service and one != self.cache[CLUSTER].get(name)}
            static = {name for name, one in good.items() if not one.service}
            self.warming = (self.warming | changed) - static - set(gone)
        elif got.type_url == ENDPOINT:
            self.warming -= {name for name, one in self.cache[CLUSTER].items() if one.service in good}

    def _apply_layers(self, got: Received) -> str | None:
        for part in got.parts:
            ends = self.now + part.ttl if part.ttl is not None else float("inf")
            if part.body is not None:
                self.layers[part.name] = Layer(part.version, part.body, ends)
            elif (known := self.layer(part.name)) is None or known.version != part.version:
                return f"{part.name} is not here"
            else:
                self.layers[part.name] = Layer(part.version, known.body, ends)
        return None

    def layer(self, name: str) -> Layer | None:
        """What the client has of this layer now."""
        one = self.layers.get(name)
        return one if one is not None and self.now < one.ends else None

    def _follow(self) -> None:
        """Ask for what the resources at hand refer to, and no longer for what none of them does."""
        wanted = self._references()
        for type_url, names in wanted.items():
            have = self.interest[type_url].names
            if names != have:
                self.change(type_url, sorted(names - have), sorted(have - names))

    def _references(self) -> dict[str, set[str]]:
        listeners, routes, clusters = (self.cache[url].values() for url in (LISTENER, ROUTE, CLUSTER))
        rds = {one.route for one in listeners} - {""}
        services = {one.service for one in clusters} - {""}
        if self.follow == "envoy":
            return {ENDPOINT: services, ROUTE: rds}
        if self.follow == "grpc":
            targets = {name for one in (*listeners, *routes) for name in one.clusters}
            return {ROUTE: rds, CLUSTER: targets, ENDPOINT: services}
        return {}

    def lose(self, type_url: str, name: str) -> None:
        """Forget a resource without a reason that anybody else could know; asking for it again helps."""
        if self.cache[type_url].pop(name, None) is not None and type_url == CLUSTER:
            self.lost.add(name)

    def _forget(self, type_url: str, names: Iterable[str]) -> None:
        """Drop what is wanted no longer. Who wants nothing has no version of it either."""
        if not self.interest[type_url]:
            self.accepted.pop(type_url, None)
        for name in names:
            if self.interest[type_url].wants(name):
                continue
            if type_url == RUNTIME:
                self.layers.pop(name, None)
            else:
                self.cache[type_url].pop(name, None)
                self.warming -= {name} if type_url == CLUSTER else set()

    def _want(self, type_url: str, add: Collection[str], drop: Collection[str]) -> None:
        wish = self.interest[type_url]
        wish.named = wish.named or bool(add)
        wish.star = (wish.star or STAR in add) and STAR not in drop
        wish.names = (wish.names | set(add) - {STAR}) - set(drop)
        self._forget(type_url, list(self.cache.get(type_url, ())) if STAR in drop else drop)

    def _identity(self, request: wire.DiscoveryRequest | wire.DeltaDiscoveryRequest) -> None:
        if not self._introduced:
            request.node.CopyFrom(self.node)
            self._introduced = True


class DeltaClient(Client):
    """https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#xds-protocol-delta"""

    def __init__(self, follow: str, node: wire.Node) -> None:
        super().__init__(follow, node)
        self._answers: dict[str, wire.DeltaDiscoveryRequest] = {}

    def connect(self, serve: Callable[[bytes], object]) -> None:
        super().connect(serve)
        self._answers.clear()
        self.owed.clear()

    def open(self, type_url: str, *, explicit: bool, old_nonce: str = "") -> None:
        wish = self.interest[type_url]
        self.owed[type_url] = wish.names - self.cache.get(type_url, {}).keys()
        request = wire.DeltaDiscoveryRequest(type_url=type_url, response_nonce=old_nonce)
        request.resource_names_subscribe.extend(sorted(wish.names))
        if wish.star and (explicit or wish.names):
            request.resource_names_subscribe.append(STAR)
        for name, one in self.cache.get(type_url, {}).items():
            request.initial_resource_versions[name] = one.version
        for name in self.layers if type_url == RUNTIME else ():
            request.initial_resource_versions[name] = self.layers[name].version
        wish.named = bool(request.resource_names_subscribe)
        self._send(request)

    def change(self, type_url: str, add: Collection[str], drop: Collection[str], *, nonce: str = "") -> None:
        self._want(type_url, add, drop)
        self._send(self._changing(type_url, add, drop, nonce))
        self.asked(type_url, add, drop)

    def answer(self, got: Received, error: str | None, add: Collection[str] = (), drop: Collection[str] = ()) -> None:
        self._want(got.type_url, add, drop)
        request = self._changing(got.type_url, add, drop, got.nonce)
        if error is not None:
            request.error_detail.message = error
        self._answers[got.type_url] = wire.DeltaDiscoveryRequest.FromString(request.SerializeToString())
        del self._answers[got.type_url].resource_names_subscribe[:]
        del self._answers[got.type_url].resource_names_unsubscribe[:]
        self._send(request)
        self.asked(got.type_url, add, drop)

    def repeat(self, type_url: str) -> None:
        if type_url in self._answers and type_url in self.told:
            self._send(self._answers[type_url])

    def receive(self, data: bytes) -> Received:
        message = wire.DeltaDiscoveryResponse.FromString(data)
        parts = [_part(one) for one in message.resources]
        removed = list(message.removed_resources)
        return Received(message.type_url, message.system_version_info, message.nonce, parts, removed)

    def _gone(self, got: Received, others: Iterable[str]) -> set[str]:
        return set(others) & set(got.removed)

    def _want(self, type_url: str, add: Collection[str], drop: Collection[str]) -> None:
        """Every name that is asked for is owed an answer, and so is one that is dropped under a wildcard."""
        super()._want(type_url, add, drop)
        owed = self.owed.setdefault(type_url, set())
        owed -= set(drop)
        owed |= set(add) - {STAR}
        if self.interest[type_url].star:
            owed |= set(drop)
        elif STAR in drop:
            owed &= self.interest[type_url].names

    def _changing(
        self, type_url: str, add: Collection[str], drop: Collection[str], nonce: str
    ) -> wire.DeltaDiscoveryRequest:
        return wire.DeltaDiscoveryRequest(
            type_url=type_url,
            resource_names_subscribe=sorted(add),
            resource_names_unsubscribe=sorted(drop),
            response_nonce=nonce,
        )

    def _send(self, request: wire.DeltaDiscoveryRequest) -> None:
        """Changes count whatever the nonce."""
        self.told[request.type_url] = self.interest[request.type_url]
        self._identity(request)
        self._serve(request.SerializeToString())


class SotwClient(Client):
    """https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#four-variants"""

    def __init__(self, follow: str, node: wire.Node) -> None:
        super().__init__(follow, node)
        self._nonces: dict[str, str] = {}
        self._newest: dict[str, str] = {}
        self._explicit: set[str] = set()
        self._errors: dict[str, str | None] = {}

    def connect(self, serve: Callable[[bytes], object]) -> None:
        super().connect(serve)
        self._nonces, self._newest, self._errors = {}, {}, {}
        self._explicit.clear()

    def open(self, type_url: str, *, explicit: bool, old_nonce: str = "") -> None:
        wish = self.interest[type_url]
        if wish.star and (explicit or wish.names):
            self._explicit.add(type_url)
        self._nonces[type_url] = old_nonce
        self._send(type_url, None)

    def change(self, type_url: str, add: Collection[str], drop: Collection[str], *, nonce: str = "") -> None:
        """A nonce other than the newest makes the server ignore the request."""
        self._rename(type_url, add, drop)
        self._send(type_url, None, nonce=nonce)

    def answer(self, got: Received, error: str | None, add: Collection[str] = (), drop: Collection[str] = ()) -> None:
        self._rename(got.type_url, add, drop)
        self._nonces[got.type_url] = got.nonce
        self._errors[got.type_url] = error
        self._send(got.type_url, error)

    def repeat(self, type_url: str) -> None:
        if type_url in self.told:
            self._send(type_url, self._errors.get(type_url))

    def receive(self, data: bytes) -> Received:
        message = wire.DiscoveryResponse.FromString(data)
        parts = []
        for one in message.resources:
            if one.type_url == RESOURCE:
                part = _part(wire.Resource.FromString(one.value))
            elif message.type_url == RUNTIME:
                part = Part(wire.Runtime.FromString(one.value).name, message.version_info, one.value, None)
            else:
                thing = thing_of(message.type_url, one.value)
                part = Part(thing.name, thing.version, one.value, None)
            parts.append(part)
        self._newest[message.type_url] = message.nonce
        return Received(message.type_url, message.version_info, message.nonce, parts)

    def _gone(self, got: Received, others: Iterable[str]) -> set[str]:
        return set(others) if got.type_url in FULL_STATE else set()

    def _forget(self, type_url: str, names: Iterable[str]) -> None:
        """A request may cross with a response and be ignored: nothing is dropped before one counts."""

    def _rename(self, type_url: str, add: Collection[str], drop: Collection[str]) -> None:
        """Whoever names something must name the wildcard, too, to keep it."""
        if add and (self.interest[type_url].star or STAR in add):
            self._explicit.add(type_url)
        self._want(type_url, add, drop)
        if not self.interest[type_url].star:
            self._explicit.discard(type_url)

    def _send(self, type_url: str, error: str | None, nonce: str = "") -> None:
        wish = self.interest[type_url]
        request = wire.DiscoveryRequest(type_url=type_url, version_info=self.accepted.get(type_url, ""))
        request.resource_names.extend([*sorted(wish.names), *([STAR] if type_url in self._explicit else [])])
        request.response_nonce = nonce or self._nonces.get(type_url, "")
        if error is not None:
            request.error_detail.message = error
        if type_url not in self._newest or request.response_nonce == self._newest[type_url]:
            before = self.told.get(type_url)
            now = self.told[type_url] = self._understood(type_url, request.resource_names)
            if before is not None:
                self.asked(type_url, now.all - before.all, before.all - now.all)
            super()._forget(type_url, list(self.layers if type_url == RUNTIME else self.cache[type_url]))
        self._identity(request)
        self._serve(request.SerializeToString())

    def _understood(self, type_url: str, names: Collection[str]) -> Interest:
        """Naming nothing means everything only as long as nothing was ever named."""
        before = self.told.get(type_url, Interest())
        named = before.named or bool(names)
        star = STAR in names or (not named and type_url in FULL_STATE)
        return Interest(set(names) - {STAR}, star, named)


def _part(one: wire.Resource) -> Part:
    body = one.resource.value if one.HasField("resource") else None
    ttl = one.ttl.seconds + one.ttl.nanos / 1e9 if one.HasField("ttl") else None
    return Part(one.name, one.version, body, ttl)


def _complaint(got: Received, bad: Iterable[Thing], *, telling: bool) -> str:
    """In Envoy's words about clusters, in gRPC's about the rest, or in none that help."""
    if not telling:
        return "no"
    if got.type_url == CLUSTER:
        return "Error adding/updating cluster(s) " + ", ".join(f"{one.name}: it is bad" for one in bad)
    entries = "; ".join(f"resource index {n}: {one.name}: it is bad" for n, one in enumerate(bad))
    return f"xDS response validation errors: [{entries}]"
