"""Small Envoy resources of the test's own making, so that a test of the server does not lean on the translation."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType, ClusterEdsClusterConfig
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    AggregatedConfigSource,
    ApiVersion,
    ConfigSource,
    SocketAddress,
)
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
    WeightedClusterClusterWeight,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
)
from envoy_data_plane.google.protobuf import Any as AnyMessage

from tests.support.envoys import HOST
from xds.snapshot import Snapshot, resource, resource_set, snapshot
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE

ADS = ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)
OUTBOUND = "outbound"


def address(port: int) -> Address:
    return Address(socket_address=SocketAddress(address=HOST, port_value=port))


def cluster(name: str, timeout: float = 1.0) -> Cluster:
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(eds_config=ADS),
        connect_timeout=datetime.timedelta(seconds=timeout),
    )


def assignment(name: str, *ports: int) -> ClusterLoadAssignment:
    endpoints = [LbEndpoint(endpoint=Endpoint(address=address(port))) for port in ports]
    return ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)])


def routes(target: str) -> RouteConfiguration:
    """Everything to the cluster ``target``."""
    return _routes(RouteAction(cluster=target), OUTBOUND)


def weighted_routes(weights: Mapping[str, int], name: str = OUTBOUND) -> RouteConfiguration:
    """Everything to these clusters, in these parts."""
    clusters = [WeightedClusterClusterWeight(name=target, weight=weight) for target, weight in weights.items()]
    return _routes(RouteAction(weighted_clusters=WeightedCluster(clusters=clusters)), name)


def _routes(action: RouteAction, name: str) -> RouteConfiguration:
    route = Route(match=RouteMatch(prefix="/"), route=action)
    return RouteConfiguration(name=name, virtual_hosts=[VirtualHost(name="all", domains=["*"], routes=[route])])


def manager(stat_prefix: str = OUTBOUND, route: str = OUTBOUND) -> HttpConnectionManager:
    """HTTP with the route configuration ``route`` by RDS."""
    router = HttpFilter(name="envoy.filters.http.router", typed_config=AnyMessage.pack(Router()))
    rds = Rds(config_source=ADS, route_config_name=route)
    return HttpConnectionManager(stat_prefix=stat_prefix, rds=rds, http_filters=[router])


def listener(port: int = 0, stat_prefix: str = OUTBOUND, name: str = OUTBOUND) -> Listener:
    """The listener ``name``, with the route configuration of the same name."""
    http = Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=AnyMessage.pack(manager(stat_prefix, name))
    )
    return Listener(name=name, address=address(port), filter_chains=[FilterChain(filters=[http])])


def content(*clusters: Cluster, target: str = "backend", ports: tuple[int, ...] = (9,), listen: int = 0) -> Snapshot:
    """Clusters that all have the endpoints ``ports``, and a listener that sends everything to ``target``."""
    return snapshot(
        resource_set(CLUSTER, [resource(one.name, one) for one in clusters]),
        resource_set(ENDPOINT, [resource(one.name, assignment(one.name, *ports)) for one in clusters]),
        resource_set(LISTENER, [resource(OUTBOUND, listener(listen))]),
        resource_set(ROUTE, [resource(OUTBOUND, routes(target))]),
    )
