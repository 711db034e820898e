"""Which resource names which, read from encoded resources: what ordering and consistency checks go by.

Only what another resource of the same server can answer counts: a secret or a filter whose configuration comes from a
file, from the bootstrap or with a default of its own is not named here. Routes that choose their cluster when a request
comes (by a header, by a plugin) name none. Filters are looked into where they choose clusters or routes: the HTTP
connection manager and the TCP proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any

from xds import _wire_pb2 as wire
from xds.types import CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, PREFIX, ROUTE, SCOPED_ROUTE, SECRET, VIRTUAL_HOST

Reference = tuple[str, str]

_EDS = 3  # envoy.config.cluster.v3.Cluster.DiscoveryType

_EXTENSIONS = PREFIX + "envoy.extensions."
HTTP = _EXTENSIONS + "filters.network.http_connection_manager.v3.HttpConnectionManager"
_TCP = _EXTENSIONS + "filters.network.tcp_proxy.v3.TcpProxy"
_TLS = frozenset(_EXTENSIONS + f"transport_sockets.tls.v3.{side}streamTlsContext" for side in ("Up", "Down"))
_QUIC = frozenset(_EXTENSIONS + f"transport_sockets.quic.v3.Quic{side}streamTransport" for side in ("Up", "Down"))

_NO_SECRET = wire.SdsSecretConfig()


def references(url: str, body: bytes) -> frozenset[Reference]:
    """(type URL, name) of what an encoded resource needs. DecodeError if the bytes are no such resource."""
    read = _READERS.get(url)
    return frozenset(read(body)) if read else frozenset()


# By type


def _cluster(body: bytes) -> Iterator[Reference]:
    cluster = wire.Cluster.FromString(body)
    if cluster.type == _EDS:
        yield ENDPOINT, cluster.eds_cluster_config.service_name or cluster.name
    yield from _secrets(cluster.transport_socket)
    for match in cluster.transport_socket_matches:
        yield from _secrets(match.transport_socket)


def _listener(body: bytes) -> Iterator[Reference]:
    listener = wire.Listener.FromString(body)
    for filters in (*listener.filter_chains, listener.default_filter_chain):
        yield from _secrets(filters.transport_socket)
        yield from _discovered(filters.filters)
        for one in filters.filters:
            yield from _filter(one.typed_config)
    yield from _discovered(listener.listener_filters)


def _extension(body: bytes) -> Iterator[Reference]:
    return _filter(wire.TypedExtensionConfig.FromString(body).typed_config)


def _scope(body: bytes) -> Iterator[Reference]:
    return _scoped_routes(wire.ScopedRouteConfiguration.FromString(body))


def _routes(body: bytes) -> Iterator[Reference]:
    return _route_configuration(wire.RouteConfiguration.FromString(body))


def _host(body: bytes) -> Iterator[Reference]:
    return _virtual_host(wire.VirtualHost.FromString(body))


_READERS: Mapping[str, Callable[[bytes], Iterable[Reference]]] = MappingProxyType(
    {
        CLUSTER: _cluster,
        LISTENER: _listener,
        EXTENSION_CONFIG: _extension,
        SCOPED_ROUTE: _scope,
        ROUTE: _routes,
        VIRTUAL_HOST: _host,
    }
)

# Parts


def _filter(config: wire.Any) -> Iterator[Reference]:
    if config.type_url == HTTP:
        yield from _http(wire.HttpConnectionManager.FromString(config.value))
    elif config.type_url == _TCP:
        proxy = wire.TcpProxy.FromString(config.value)
        yield from _to_clusters(proxy.cluster, *(one.name for one in proxy.weighted_clusters.clusters))


def _http(http: wire.HttpConnectionManager) -> Iterator[Reference]:
    yield from _discovered(http.http_filters)
    if http.rds.route_config_name:
        yield ROUTE, http.rds.route_config_name
    yield from _route_configuration(http.route_config)
    for scope in http.scoped_routes.scoped_route_configurations_list.scoped_route_configurations:
        yield from _scoped_routes(scope)


def _scoped_routes(scope: wire.ScopedRouteConfiguration) -> Iterator[Reference]:
    if scope.route_configuration_name:
        yield ROUTE, scope.route_configuration_name
    yield from _route_configuration(scope.route_configuration)


def _route_configuration(routes: wire.RouteConfiguration) -> Iterator[Reference]:
    """A route configuration that leaves virtual hosts to VHDS needs ``<its name>/*``: whichever exist."""
    if routes.HasField("vhds"):
        yield VIRTUAL_HOST, f"{routes.name}/*"
    yield from _mirrors(routes.request_mirror_policies)
    yield from chain.from_iterable(map(_virtual_host, routes.virtual_hosts))


def _virtual_host(host: wire.VirtualHost) -> Iterator[Reference]:
    yield from _mirrors(host.request_mirror_policies)
    for route in host.routes:
        action = route.route
        yield from _to_clusters(action.cluster, *(one.name for one in action.weighted_clusters.clusters))
        yield from _mirrors(action.request_mirror_policies)


def _mirrors(policies: Iterable[wire.MirrorPolicy]) -> Iterator[Reference]:
    return _to_clusters(*(one.cluster for one in policies))


def _to_clusters(*names: str) -> Iterator[Reference]:
    return ((CLUSTER, name) for name in names if name)


def _discovered(filters: Iterable[Any]) -> Iterator[Reference]:
    """Filters of whatever kind that wait for ECDS: one with a default works without."""
    for one in filters:
        source = one.config_discovery
        if _is_served(source.config_source) and not source.HasField("default_config"):
            yield EXTENSION_CONFIG, one.name


def _secrets(socket: wire.TransportSocket) -> Iterator[Reference]:
    context = _tls_context(socket.typed_config)
    if context is None:
        return
    common = context.common_tls_context
    configs = (
        *common.tls_certificate_sds_secret_configs,
        common.validation_context_sds_secret_config,
        common.combined_validation_context.validation_context_sds_secret_config,
        context.session_ticket_keys_sds_secret_config,
    )
    yield from ((SECRET, one.name) for one in configs if one != _NO_SECRET and _is_served(one.sds_config))


def _tls_context(config: wire.Any) -> wire.TlsContext | None:
    if config.type_url in _TLS:
        return wire.TlsContext.FromString(config.value)
    return wire.QuicTransport.FromString(config.value).tls_context if config.type_url in _QUIC else None


def _is_served(source: wire.ConfigSource) -> bool:
    """Whether a server is asked: not a file, and not the bootstrap, which is what no source at all means."""
    return any(source.HasField(name) for name in ("ads", "self", "api_config_source"))
