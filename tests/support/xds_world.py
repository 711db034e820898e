"""What a mesh in a test has: clusters, their endpoints, routes, listeners; changed at will, and always consistent.

Every resource is found again by its bytes, so that a client in a test reads them without any help of the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from xds import _wire_pb2 as wire
from xds.snapshot import Resource, Snapshot, encoded, resource_set, snapshot
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE

HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

TYPES = (CLUSTER, ENDPOINT, LISTENER, ROUTE)

#: Contents from here on are what every client in a test refuses.
BAD = 7


@dataclass(frozen=True)
class Thing:
    """A resource as its author sees it. ``clusters`` it sends traffic to, the ``route`` configuration that a listener
    asks for, the ``service`` whose endpoints a cluster asks for."""

    resource: Resource
    content: int
    clusters: frozenset[str] = frozenset()
    route: str = ""
    service: str = ""

    @property
    def name(self) -> str:
        return self.resource.name

    @property
    def version(self) -> str:
        return self.resource.version

    @property
    def bad(self) -> bool:
        return self.content >= BAD


_BY_BODY: dict[tuple[str, bytes], Thing] = {}


def thing_of(type_url: str, body: bytes) -> Thing:
    """The resource with these bytes; KeyError if nobody made it."""
    return _BY_BODY[type_url, body]


@cache
def cluster(name: str, content: int, eds: bool) -> Thing:
    body = wire.Cluster(name=name)
    if eds:
        body.type = 3
        body.eds_cluster_config.service_name = service(name)
    return _made(CLUSTER, name, body.SerializeToString(), content, service=service(name) if eds else "")


@cache
def endpoints(name: str, content: int) -> Thing:
    return _made(ENDPOINT, name, b"\x0a" + bytes([len(name)]) + name.encode(), content)


@cache
def route(name: str, content: int, clusters: frozenset[str]) -> Thing:
    body = wire.RouteConfiguration(name=name)
    for one in sorted(clusters):
        body.virtual_hosts.add().routes.add().route.cluster = one
    return _made(ROUTE, name, body.SerializeToString(), content, clusters=clusters)


@cache
def listener(name: str, content: int, rds: str, clusters: frozenset[str]) -> Thing:
    """A listener that asks for a route configuration or, where ``rds`` is empty, has routes of its own."""
    http = wire.HttpConnectionManager()
    if rds:
        http.rds.route_config_name = rds
    for one in sorted(clusters):
        http.route_config.virtual_hosts.add().routes.add().route.cluster = one
    body = wire.Listener()
    config = body.filter_chains.add().filters.add().typed_config
    config.type_url, config.value = HTTP, http.SerializeToString()
    name_field = b"\x0a" + bytes([len(name)]) + name.encode()
    return _made(LISTENER, name, name_field + body.SerializeToString(), content, clusters=clusters, route=rds)


def service(name: str) -> str:
    """The name by which a cluster asks for its endpoints: not its own."""
    return f"of-{name}"


def _made(
    type_url: str,
    name: str,
    body: bytes,
    content: int,
    *,
    clusters: frozenset[str] = frozenset(),
    route: str = "",
    service: str = "",
) -> Thing:
    """``content`` becomes a field that nobody knows (number 100)."""
    one = encoded(type_url, name, body + b"\xa0\x06" + bytes([content]))
    return _BY_BODY.setdefault((type_url, one.body), Thing(one, content, clusters, route, service))


@dataclass
class World:
    """Contents by name. A route configuration exists if a listener asks for it; clusters that do not exist are left
    out of routes."""

    clusters: dict[str, tuple[int, bool]] = field(default_factory=dict)
    endpoints: dict[str, int] = field(default_factory=dict)
    routes: dict[str, tuple[int, frozenset[str]]] = field(default_factory=dict)
    listeners: dict[str, tuple[int, str, frozenset[str]]] = field(default_factory=dict)

    def things(self) -> dict[str, dict[str, Thing]]:
        """All resources by type and name."""
        known = frozenset(self.clusters)
        listeners = [
            listener(n, c, rds, to & known if not rds else frozenset()) for n, (c, rds, to) in self.listeners.items()
        ]
        asked = sorted({one.route for one in listeners} - {""})
        plans = {name: self.routes.get(name, (0, frozenset[str]())) for name in asked}
        services = [service(name) for name, (_, eds) in self.clusters.items() if eds]
        return {
            CLUSTER: _by_name(cluster(name, content, eds) for name, (content, eds) in self.clusters.items()),
            ENDPOINT: _by_name(endpoints(name, self.endpoints.get(name, 0)) for name in services),
            LISTENER: _by_name(listeners),
            ROUTE: _by_name(route(name, content, to & known) for name, (content, to) in plans.items()),
        }

    def replace(self, old: str, new: str) -> None:
        """One cluster takes the place of another everywhere."""
        if old != new and old in self.clusters:
            self.clusters[new] = self.clusters.pop(old)
            for name, (content, to) in self.routes.items():
                self.routes[name] = content, frozenset(new if one == old else one for one in to)
            for name, (content, rds, to) in self.listeners.items():
                self.listeners[name] = content, rds, frozenset(new if one == old else one for one in to)

    def heal(self) -> None:
        """Replace what clients refuse."""
        self.clusters = {name: (content % BAD, eds) for name, (content, eds) in self.clusters.items()}
        self.endpoints = {name: content % BAD for name, content in self.endpoints.items()}
        self.routes = {name: (content % BAD, to) for name, (content, to) in self.routes.items()}
        self.listeners = {name: (content % BAD, rds, to) for name, (content, rds, to) in self.listeners.items()}


def published(things: Mapping[str, Mapping[str, Thing]], loaded: Iterable[str] = TYPES) -> Snapshot:
    """A snapshot of what exists, of the types that are loaded: new objects each time."""
    return snapshot(*(resource_set(url, (one.resource for one in things[url].values())) for url in loaded))


def _by_name(things: Iterable[Thing]) -> dict[str, Thing]:
    return {one.name: one for one in things}
