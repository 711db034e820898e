"""Small resources and a fake client of each variant, joined to the machine by nothing but its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xds import _wire_pb2 as wire
from xds.model import LeasedResource, RuntimeLayer, RuntimeValue
from xds.protocol.delta import DeltaStream
from xds.protocol.events import TTL_FEATURE, DeltaRequest, Node, Notice, SotwRequest
from xds.protocol.leases import Key, Lease, lease_of
from xds.protocol.responses import ResponseCache
from xds.protocol.sotw import SotwStream
from xds.snapshot import Resource, ResourceSet, Snapshot, encoded, resource_set, snapshot
from xds.types import (
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    ORDER,
    ROUTE,
    RUNTIME,
    SCOPED_ROUTE,
    SECRET,
    VIRTUAL_HOST,
)

DOWNSTREAM_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
HTTP_CONNECTION_MANAGER = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)

NODE = Node("catalog-0", "catalog", "1.40.0", frozenset({TTL_FEATURE}), "envoy")


class make:  # noqa: N801  # a namespace, read as a verb: make.cluster(...)
    """Builders of tiny resources: real enough for the server, which reads names and references only."""

    @staticmethod
    def cluster(name: str, content: int = 0, *, eds: bool = True) -> Resource:
        body = wire.Cluster(name=name, type=3 if eds else 0).SerializeToString()
        return encoded(CLUSTER, name, body + _pad(content))

    @staticmethod
    def endpoints(name: str, content: int = 0) -> Resource:
        return encoded(ENDPOINT, name, name.encode() + _pad(content))

    @staticmethod
    def listener(name: str, content: int = 0, *clusters: str) -> Resource:
        """With routes of its own to ``clusters``, if there are any."""
        http, body = wire.HttpConnectionManager(), wire.Listener()
        for cluster in clusters:
            http.route_config.virtual_hosts.add().routes.add().route.cluster = cluster
        if clusters:
            config = body.filter_chains.add().filters.add().typed_config
            config.type_url, config.value = HTTP_CONNECTION_MANAGER, http.SerializeToString()
        return encoded(LISTENER, name, body.SerializeToString() + _pad(content))

    @staticmethod
    def route(name: str, *clusters: str) -> Resource:
        one = wire.RouteConfiguration()
        for cluster in clusters:
            one.virtual_hosts.add().routes.add().route.cluster = cluster
        return encoded(ROUTE, name, one.SerializeToString())

    @staticmethod
    def set(type_url: str, *resources: Resource) -> ResourceSet:
        return resource_set(type_url, resources)

    @staticmethod
    def snapshot(*resources: Resource) -> Snapshot:
        """A snapshot in which all four types are loaded."""
        types = (CLUSTER, ENDPOINT, LISTENER, ROUTE)
        return snapshot(*(resource_set(url, (one for one in resources if one.type_url == url)) for url in types))

    @staticmethod
    def lease(
        name: str, values: dict[str, RuntimeValue], ttl: float = 15.0, expires_at: float | None = None
    ) -> dict[Key, Lease]:
        return {(RUNTIME, name): lease_of(RuntimeLayer(name, values, ttl, expires_at))}

    @staticmethod
    def extension(name: str, content: int = 0) -> Resource:
        body = wire.TypedExtensionConfig(typed_config=wire.Any(type_url=name)).SerializeToString()
        return encoded(EXTENSION_CONFIG, name, body + _pad(content))

    @staticmethod
    def secret(name: str, content: int = 0) -> Resource:
        return encoded(SECRET, name, _pad(content) or b"")

    @staticmethod
    def scope(name: str, route: str, content: int = 0) -> Resource:
        body = wire.ScopedRouteConfiguration(route_configuration_name=route).SerializeToString()
        return encoded(SCOPED_ROUTE, name, body + _pad(content))

    @staticmethod
    def home(name: str, *clusters: str, content: int = 0) -> Resource:
        """A route configuration that leaves virtual hosts to VHDS."""
        one = wire.RouteConfiguration(name=name)
        one.vhds.SetInParent()
        for cluster in clusters:
            one.virtual_hosts.add().routes.add().route.cluster = cluster
        return encoded(ROUTE, name, one.SerializeToString() + _pad(content))

    @staticmethod
    def host(name: str, *domains: str, cluster: str = "", content: int = 0) -> Resource:
        """A virtual host with a route to ``cluster``."""
        one = wire.VirtualHost(name=name, domains=domains)
        one.routes.add().route.cluster = cluster
        return encoded(VIRTUAL_HOST, name, one.SerializeToString() + _pad(content))

    @staticmethod
    def routing(listener: str, *clusters: str, content: int = 0) -> Resource:
        """A listener with routes of its own."""
        http = wire.HttpConnectionManager()
        for cluster in clusters:
            http.route_config.virtual_hosts.add().routes.add().route.cluster = cluster
        one = wire.Listener()
        one.filter_chains.add().filters.add().typed_config.CopyFrom(
            wire.Any(type_url=HTTP_CONNECTION_MANAGER, value=http.SerializeToString())
        )
        return encoded(LISTENER, listener, one.SerializeToString() + _pad(content))

    @staticmethod
    def tls(listener: str, *secrets: str) -> Resource:
        """A listener with certificates by SDS."""
        context = wire.TlsContext()
        for name in secrets:
            config = context.common_tls_context.tls_certificate_sds_secret_configs.add(name=name)
            config.sds_config.ads.SetInParent()
        one = wire.Listener()
        one.filter_chains.add().transport_socket.typed_config.CopyFrom(
            wire.Any(type_url=DOWNSTREAM_TLS, value=context.SerializeToString())
        )
        return encoded(LISTENER, listener, one.SerializeToString())

    @staticmethod
    def everything(*resources: Resource) -> Snapshot:
        """A snapshot in which all types are loaded."""
        types = (url for url in ORDER if url != RUNTIME)
        return snapshot(*(resource_set(url, (one for one in resources if one.type_url == url)) for url in types))

    @staticmethod
    def leased(name: str, content: int = 1, ttl: float = 15.0, expires_at: float | None = None) -> dict[Key, Lease]:
        """A leased extension config."""
        one = LeasedResource(make.extension(name, content), ttl, expires_at)
        return {(EXTENSION_CONFIG, name): lease_of(one)}

    @staticmethod
    def discovering(listener: str, **defaults: bool) -> Resource:
        """A listener whose HTTP filters are configured by ECDS on ADS; the values say which have a default."""
        http = wire.HttpConnectionManager()
        for name, has_default in defaults.items():
            source = http.http_filters.add(name=name).config_discovery
            source.config_source.ads.SetInParent()
            if has_default:
                source.default_config.SetInParent()
        one = wire.Listener()
        one.filter_chains.add().filters.add().typed_config.CopyFrom(
            wire.Any(type_url=HTTP_CONNECTION_MANAGER, value=http.SerializeToString())
        )
        return encoded(LISTENER, listener, one.SerializeToString())


def _pad(content: int) -> bytes:
    """An unknown field (number 100) that makes the content another one; nothing for 0."""
    return b"" if content == 0 else b"\xa0\x06" + bytes([content])


@dataclass
class Got:
    """A decoded response. ``bodies`` of heartbeats are None; ``ttls`` only holds resources with one."""

    type_url: str
    version: str
    nonce: str
    names: list[str]
    removed: list[str] = field(default_factory=list)
    bodies: dict[str, bytes | None] = field(default_factory=dict)
    ttls: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)


class DeltaClient:
    """A client that asks, receives and answers, and does nothing by itself."""

    def __init__(self, prefix: str = "abcd", node: Node = NODE, cache: ResponseCache | None = None) -> None:
        self.machine = DeltaStream(prefix, cache or ResponseCache())
        self.node: Node | None = node
        self.now = 0.0

    def ask(
        self,
        type_url: str,
        *subscribe: str,
        unsubscribe: tuple[str, ...] = (),
        known: Mapping[str, str] | None = None,
        nonce: str = "",
        error: str | None = None,
    ) -> list[Notice]:
        request = DeltaRequest(type_url, subscribe, unsubscribe, known or {}, nonce, error, self.node)
        return self.machine.receive(request, self.now)

    def get(self) -> Got | None:
        response = self.machine.poll(self.now)
        if response is None:
            return None
        message = wire.DeltaDiscoveryResponse.FromString(response.data)
        got = Got(message.type_url, message.system_version_info, message.nonce, [r.name for r in message.resources])
        got.removed = list(message.removed_resources)
        for one in message.resources:
            got.versions[one.name] = one.version
            got.aliases[one.name] = list(one.aliases)
            got.bodies[one.name] = one.resource.value if one.HasField("resource") else None
            if one.HasField("ttl"):
                got.ttls[one.name] = one.ttl.seconds + one.ttl.nanos / 1e9
        return got

    def ack(self, got: Got) -> list[Notice]:
        return self.ask(got.type_url, nonce=got.nonce)

    def nack(self, got: Got, error: str = "bad") -> list[Notice]:
        return self.ask(got.type_url, nonce=got.nonce, error=error)

    def settle(self) -> list[Got]:
        """Receive and accept everything that is due."""
        received = []
        while (got := self.get()) is not None:
            self.ack(got)
            received.append(got)
        return received


class SotwClient:
    """The same for state of the world; it repeats its names in every request."""

    def __init__(self, prefix: str = "abcd", node: Node = NODE, cache: ResponseCache | None = None) -> None:
        self.machine = SotwStream(prefix, cache or ResponseCache())
        self.node: Node | None = node
        self.now = 0.0
        self.names: dict[str, tuple[str, ...]] = {}
        self.accepted: dict[str, str] = {}
        self.nonces: dict[str, str] = {}

    def ask(
        self,
        type_url: str,
        *names: str,
        version: str | None = None,
        nonce: str | None = None,
        error: str | None = None,
    ) -> list[Notice]:
        self.names[type_url] = names
        request = SotwRequest(
            type_url,
            names,
            self.accepted.get(type_url, "") if version is None else version,
            self.nonces.get(type_url, "") if nonce is None else nonce,
            error,
            self.node,
        )
        return self.machine.receive(request, self.now)

    def get(self) -> Got | None:
        response = self.machine.poll(self.now)
        if response is None:
            return None
        message = wire.DiscoveryResponse.FromString(response.data)
        got = Got(message.type_url, message.version_info, message.nonce, list(response.names))
        self.nonces[got.type_url] = got.nonce
        for name, one in zip(response.names, message.resources, strict=True):
            got.bodies[name] = one.value
            if one.type_url.endswith("discovery.v3.Resource"):
                inner = wire.Resource.FromString(one.value)
                assert inner.name == name
                got.bodies[name] = inner.resource.value if inner.HasField("resource") else None
                got.ttls[name] = inner.ttl.seconds + inner.ttl.nanos / 1e9
        return got

    def ack(self, got: Got) -> list[Notice]:
        self.accepted[got.type_url] = got.version
        return self.ask(got.type_url, *self.names[got.type_url], nonce=got.nonce)

    def nack(self, got: Got, error: str = "bad") -> list[Notice]:
        return self.ask(got.type_url, *self.names[got.type_url], nonce=got.nonce, error=error)

    def settle(self) -> list[Got]:
        received = []
        while (got := self.get()) is not None:
            self.ack(got)
            received.append(got)
        return received
