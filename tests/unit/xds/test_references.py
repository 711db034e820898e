"""Which resource names which: every place of Envoy's API that ordering and checks must know.

The messages are built with envoy-data-plane, so field names and numbers are Envoy's own.
"""

from __future__ import annotations

import pytest
from betterproto2 import Message
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterTransportSocketMatch
from envoy_data_plane.envoy.config.core.v3 import (
    AggregatedConfigSource,
    ApiConfigSource,
    ApiConfigSourceApiType,
    ConfigSource,
    ExtensionConfigSource,
    PathConfigSource,
    TransportSocket,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener, ListenerFilter
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteAction,
    RouteActionRequestMirrorPolicy,
    RouteConfiguration,
    ScopedRouteConfiguration,
    Vhds,
    VirtualHost,
    WeightedCluster,
    WeightedClusterClusterWeight,
)
from envoy_data_plane.envoy.extensions.filters.http.fault.v3 import HttpFault
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
    ScopedRds,
    ScopedRouteConfigurationsList,
    ScopedRoutes,
)
from envoy_data_plane.envoy.extensions.filters.network.tcp_proxy.v3 import (
    TcpProxy,
    TcpProxyWeightedCluster,
    TcpProxyWeightedClusterClusterWeight,
)
from envoy_data_plane.envoy.extensions.transport_sockets.quic.v3 import QuicDownstreamTransport, QuicUpstreamTransport
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    CommonTlsContextCombinedCertificateValidationContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    UpstreamTlsContext,
)
from envoy_data_plane.google.protobuf import Any as AnyMessage

from xds.errors import CodecError, SnapshotError
from xds.snapshot import Resource, check, encoded, resource, resource_set, snapshot
from xds.types import CLUSTER, EXTENSION_CONFIG, LISTENER, ROUTE, SCOPED_ROUTE, SECRET, VIRTUAL_HOST

ADS = ConfigSource(ads=AggregatedConfigSource())
GRPC = ConfigSource(api_config_source=ApiConfigSource(api_type=ApiConfigSourceApiType.DELTA_GRPC))
FILE = ConfigSource(path_config_source=PathConfigSource(path="/etc/secret.yaml"))


def socket(context: Message) -> TransportSocket:
    return TransportSocket(name="tls", typed_config=AnyMessage.pack(context))


def common(*certificates: str, source: ConfigSource | None = ADS) -> CommonTlsContext:
    configs = [SdsSecretConfig(name=name, sds_config=source) for name in certificates]
    return CommonTlsContext(tls_certificate_sds_secret_configs=configs)


def listener(*configs: Message, sock: TransportSocket | None = None) -> Listener:
    filters = [Filter(name=str(number), typed_config=AnyMessage.pack(one)) for number, one in enumerate(configs)]
    return Listener(name="l", filter_chains=[FilterChain(filters=filters, transport_socket=sock)])


def to(*clusters: str) -> list[VirtualHost]:
    routes = [Route(route=RouteAction(cluster=name)) for name in clusters]
    return [VirtualHost(name="h", domains=["*"], routes=routes)]


def named(message: Message, type_url: str) -> set[str]:
    return {name for url, name in resource("x", message).references if url == type_url}


@pytest.mark.parametrize("up", [True, False])
def test_secrets_of_tls_and_quic_sockets(up: bool) -> None:
    context = (UpstreamTlsContext if up else DownstreamTlsContext)(common_tls_context=common("a", "b"))
    quic = (
        QuicUpstreamTransport(upstream_tls_context=UpstreamTlsContext(common_tls_context=common("c")))
        if up
        else QuicDownstreamTransport(downstream_tls_context=DownstreamTlsContext(common_tls_context=common("c")))
    )
    for wrapped, names in ((context, {"a", "b"}), (quic, {"c"})):
        assert named(Cluster(name="x", transport_socket=socket(wrapped)), SECRET) == names
        assert named(listener(sock=socket(wrapped)), SECRET) == names


def test_secrets_of_every_kind() -> None:
    tls = common("certificate")
    tls.combined_validation_context = CommonTlsContextCombinedCertificateValidationContext(
        validation_context_sds_secret_config=SdsSecretConfig(name="combined", sds_config=ADS)
    )
    keys = SdsSecretConfig(name="keys", sds_config=GRPC)
    context = DownstreamTlsContext(common_tls_context=tls, session_ticket_keys_sds_secret_config=keys)
    assert named(listener(sock=socket(context)), SECRET) == {"certificate", "combined", "keys"}
    alone = CommonTlsContext(validation_context_sds_secret_config=SdsSecretConfig(name="roots", sds_config=ADS))
    matched = ClusterTransportSocketMatch(
        name="m", transport_socket=socket(UpstreamTlsContext(common_tls_context=alone))
    )
    assert named(Cluster(name="x", transport_socket_matches=[matched]), SECRET) == {"roots"}


@pytest.mark.parametrize("source", [None, FILE])
def test_a_secret_of_the_bootstrap_or_of_a_file_is_not_ours(source: ConfigSource | None) -> None:
    context = DownstreamTlsContext(common_tls_context=common("a", source=source))
    assert named(listener(sock=socket(context)), SECRET) == set()


def test_a_listener_needs_the_filters_that_have_no_default() -> None:
    needed, optional = (
        ExtensionConfigSource(config_source=ADS, default_config=default)
        for default in (None, AnyMessage.pack(HttpFault()))
    )
    http = HttpConnectionManager(
        http_filters=[
            HttpFilter(name="http", config_discovery=needed),
            HttpFilter(name="optional", config_discovery=optional),
            HttpFilter(name="of a file", config_discovery=ExtensionConfigSource(config_source=FILE)),
        ]
    )
    one = listener(http)
    one.filter_chains[0].filters.append(Filter(name="network", config_discovery=needed))
    one.listener_filters.append(ListenerFilter(name="accept", config_discovery=needed))
    assert named(one, EXTENSION_CONFIG) == {"http", "network", "accept"}


def test_clusters_of_a_tcp_proxy() -> None:
    weights = [TcpProxyWeightedClusterClusterWeight(name=name, weight=1) for name in ("b", "c")]
    weighted = TcpProxy(weighted_clusters=TcpProxyWeightedCluster(clusters=weights))
    one = listener(TcpProxy(cluster="a"), weighted)
    assert named(one, CLUSTER) == {"a", "b", "c"}
    by_ecds = TypedExtensionConfig(name="t", typed_config=AnyMessage.pack(TcpProxy(cluster="d")))
    assert named(by_ecds, CLUSTER) == {"d"}


def test_clusters_of_a_listeners_own_routes() -> None:
    mirrored = RouteConfiguration(
        name="r", virtual_hosts=to("a"), request_mirror_policies=[RouteActionRequestMirrorPolicy(cluster="b")]
    )
    scope = ScopedRouteConfiguration(name="s", route_configuration=RouteConfiguration(virtual_hosts=to("c")))
    scopes = ScopedRouteConfigurationsList(scoped_route_configurations=[scope])
    one = listener(
        HttpConnectionManager(route_config=mirrored),
        HttpConnectionManager(scoped_routes=ScopedRoutes(scoped_route_configurations_list=scopes)),
    )
    assert named(one, CLUSTER) == {"a", "b", "c"}


def test_routes_of_listeners_and_scopes() -> None:
    by_scope = HttpConnectionManager(scoped_routes=ScopedRoutes(scoped_rds=ScopedRds(scoped_rds_config_source=ADS)))
    one = listener(HttpConnectionManager(rds=Rds(route_config_name="r")), by_scope)
    assert resource("l", one).references == {(ROUTE, "r")}
    assert named(ScopedRouteConfiguration(name="s", route_configuration_name="q"), ROUTE) == {"q"}
    own = RouteConfiguration(virtual_hosts=to("c"))
    assert named(ScopedRouteConfiguration(name="s", route_configuration=own), CLUSTER) == {"c"}


def test_clusters_of_a_virtual_host_and_who_leaves_virtual_hosts_out() -> None:
    weights = [WeightedClusterClusterWeight(name="b")]
    host = to("a")[0]
    host.routes.append(Route(route=RouteAction(weighted_clusters=WeightedCluster(clusters=weights))))
    host.request_mirror_policies.append(RouteActionRequestMirrorPolicy(cluster="c"))
    assert named(host, CLUSTER) == {"a", "b", "c"}
    assert named(RouteConfiguration(name="r", vhds=Vhds(config_source=ADS)), VIRTUAL_HOST) == {"r/*"}


def test_what_is_not_of_its_type_is_no_reference() -> None:
    with pytest.raises(CodecError, match="2 bytes are not a RouteConfiguration"):
        assert encoded(ROUTE, "r", b"\x12\xff").references


# check


def a_host(name: str, inside: str) -> Resource:
    return resource(name, VirtualHost(name=inside, domains=["a"]))


def test_new_contradictions_are_named() -> None:
    tls = socket(DownstreamTlsContext(common_tls_context=common("s")))
    discovery = ExtensionConfigSource(config_source=ADS)
    http = HttpConnectionManager(http_filters=[HttpFilter(name="e", config_discovery=discovery)])
    candidate = snapshot(
        resource_set(CLUSTER, []),
        resource_set(SECRET, []),
        resource_set(EXTENSION_CONFIG, []),
        resource_set(ROUTE, [resource("r", RouteConfiguration(name="r"))]),
        resource_set(LISTENER, [resource("l", listener(http, TcpProxy(cluster="c"), sock=tls))]),
        resource_set(SCOPED_ROUTE, [resource("s", ScopedRouteConfiguration(name="s", route_configuration_name="q"))]),
        resource_set(VIRTUAL_HOST, [a_host("r/a", "r/a"), a_host("r/b", "b")]),
    )
    with pytest.raises(SnapshotError) as refused:
        check(candidate)
    for words in (
        "lds 'l' names sds 's', which is missing",
        "lds 'l' names ecds 'e', which is missing",
        "lds 'l' names cds 'c', which is missing",
        "srds 's' names rds 'q', which is missing",
        "vhds 'r/a' belongs to no route configuration: none named 'r' has the field vhds",
        "vhds 'r/b' holds a virtual host named 'b'; give both the same name",
    ):
        assert words in str(refused.value)


def test_virtual_hosts_of_a_route_configuration_or_of_a_listener_are_at_home() -> None:
    routes = [RouteConfiguration(name=name, vhds=Vhds(config_source=ADS)) for name in ("a/b", "c")]
    check(
        snapshot(
            resource_set(ROUTE, [resource("a/b", routes[0])]),
            resource_set(LISTENER, [resource("l", listener(HttpConnectionManager(route_config=routes[1])))]),
            resource_set(VIRTUAL_HOST, [a_host("a/b/x", "a/b/x"), a_host("c/y", "c/y")]),
        )
    )
