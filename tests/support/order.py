"""What a recorded stream proves about order: a pure checker that knows the protocol and nothing of the server.

It decodes every message by itself and keeps what the client has accepted, is being sent and is owed. ``violations``
is empty for a stream that was always made before it was broken.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from betterproto2 import Message
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration

from tests.support.tap import Record
from xds import _wire_pb2 as wire
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, short_name

_CLASSES: Mapping[str, type[Message]] = {
    CLUSTER: Cluster,
    ENDPOINT: ClusterLoadAssignment,
    LISTENER: Listener,
    ROUTE: RouteConfiguration,
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A response: bodies by name, and names that it takes away. ``full``: what is absent is taken away as well."""

    type_url: str
    nonce: str
    bodies: Mapping[str, bytes]
    removed: frozenset[str] = frozenset()
    full: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """A request that answers the response with this nonce; ``error`` is None if it accepts it."""

    type_url: str
    nonce: str
    error: str | None = None


def messages(records: Iterable[Record]) -> Iterator[Sent | Said]:
    """Recorded bytes of one stream, decoded; requests that answer nothing are left out."""
    for one in records:
        if one.sent:
            yield _delta_sent(one.data) if one.delta else _sotw_sent(one.data)
            continue
        request = (wire.DeltaDiscoveryRequest if one.delta else wire.DiscoveryRequest).FromString(one.data)
        if request.response_nonce:
            error = request.error_detail.message if request.HasField("error_detail") else None
            yield Said(request.type_url, request.response_nonce, error)


def _sotw_sent(data: bytes) -> Sent:
    response = wire.DiscoveryResponse.FromString(data)
    bodies = {_name(response.type_url, one.value): one.value for one in response.resources}
    return Sent(response.type_url, response.nonce, bodies, full=response.type_url in (CLUSTER, LISTENER))


def _delta_sent(data: bytes) -> Sent:
    response = wire.DeltaDiscoveryResponse.FromString(data)
    bodies = {one.name: one.resource.value for one in response.resources}
    return Sent(response.type_url, response.nonce, bodies, frozenset(response.removed_resources))


def violations(stream: Iterable[Sent | Said]) -> list[str]:
    """Everything that was wrong about the order, in the order it happened."""
    client = _Client()
    for message in stream:
        if isinstance(message, Sent):
            client.is_sent(message)
        else:
            client.says(message)
    client.ends()
    return client.wrong


@dataclass
class _Client:
    """What the client has accepted and was sent, by type and name, and what is on its way.

    ``owed``: endpoints of clusters that changed; ``cold``: those of clusters that are new and serve nothing yet. A
    changed cluster keeps serving as it was until its endpoints come.
    """

    accepted: dict[str, dict[str, bytes]] = field(default_factory=dict)
    sent: dict[str, dict[str, bytes]] = field(default_factory=dict)
    flights: dict[str, Sent] = field(default_factory=dict)
    owed: set[str] = field(default_factory=set)
    cold: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def is_sent(self, one: Sent) -> None:
        if one.type_url in self.flights:
            self.wrong.append(f"{one.nonce}: a second {short_name(one.type_url)} response is on its way")
        if one.type_url == CLUSTER:
            self._clusters(one)
        elif one.type_url == ENDPOINT:
            self.owed -= one.bodies.keys()
            self.cold -= one.bodies.keys()
        elif one.type_url == ROUTE:
            self._routes(one)
        self.flights[one.type_url] = one
        _apply(one, self.sent.setdefault(one.type_url, {}))

    def says(self, one: Said) -> None:
        flight = self.flights.get(one.type_url)
        if flight is None or flight.nonce != one.nonce:
            return  # names changed; the answer itself came before
        del self.flights[one.type_url]
        if one.error is not None:
            self.wrong.append(f"{one.nonce}: {short_name(one.type_url)} rejected: {one.error}")
            return
        _apply(flight, self.accepted.setdefault(one.type_url, {}))

    def ends(self) -> None:
        self.wrong += [f"{one.nonce}: {short_name(url)} was never answered" for url, one in self.flights.items()]
        self.wrong += [f"{name}: its cluster changed, and no endpoints followed" for name in sorted(self.owed)]

    def _clusters(self, one: Sent) -> None:
        before = self.sent.get(CLUSTER, {})
        for name, body in one.bodies.items():
            if before.get(name) != body and (assignment := _assignment(body)):
                self.owed.add(assignment)
                self.cold |= set() if name in before else {assignment}
        for name in _removed(one, before):
            gone = {_assignment(before[name])} if name in before else set()
            self.owed -= gone
            self.cold -= gone
            users = sorted({route for route, clusters in self._routes_in_use() if name in clusters})
            if users:
                self.wrong.append(f"{one.nonce}: cluster {name} is removed while {', '.join(users)} may use it")

    def _routes(self, one: Sent) -> None:
        there = self.accepted.get(CLUSTER, {}).keys() & self.sent.get(CLUSTER, {}).keys()
        for route, body in one.bodies.items():
            targets = _targets(body)
            if missing := sorted(targets - there):
                self.wrong.append(f"{one.nonce}: {route} names {', '.join(missing)}, not accepted yet")
            if cold := sorted(targets & self.cold):
                self.wrong.append(f"{one.nonce}: {route} names {', '.join(cold)}, whose endpoints were not sent yet")

    def _routes_in_use(self) -> Iterator[tuple[str, frozenset[str]]]:
        """The versions that the client has, and the ones that it may have by now."""
        for versions in (self.accepted.get(ROUTE, {}), self.sent.get(ROUTE, {})):
            yield from ((name, _targets(body)) for name, body in versions.items())


def _apply(one: Sent, resources: dict[str, bytes]) -> None:
    for name in _removed(one, resources):
        resources.pop(name, None)
    resources.update(one.bodies)


def _removed(one: Sent, before: Mapping[str, bytes]) -> frozenset[str]:
    return one.removed | (before.keys() - one.bodies.keys() if one.full else frozenset())


@cache
def _parsed(type_url: str, body: bytes) -> Message:
    return _CLASSES[type_url].parse(body)


def _name(type_url: str, body: bytes) -> str:
    message = _parsed(type_url, body)
    return message.cluster_name if isinstance(message, ClusterLoadAssignment) else str(getattr(message, "name"))  # noqa: B009


def _assignment(body: bytes) -> str:
    """The name of a cluster's endpoints; empty if they do not come by EDS."""
    message = _parsed(CLUSTER, body)
    assert isinstance(message, Cluster)
    if message.type != ClusterDiscoveryType.EDS or message.eds_cluster_config is None:
        return ""
    return message.eds_cluster_config.service_name or message.name


def _targets(body: bytes) -> frozenset[str]:
    message = _parsed(ROUTE, body)
    assert isinstance(message, RouteConfiguration)
    actions = (route.route for host in message.virtual_hosts for route in host.routes if route.route is not None)
    found: set[str] = set()
    for action in actions:
        found |= {action.cluster} if action.cluster else set()
        found |= {weight.name for weight in action.weighted_clusters.clusters} if action.weighted_clusters else set()
    return frozenset(found)
