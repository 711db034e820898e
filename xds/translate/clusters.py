"""CDS: where requests go.

An *outbound* cluster is a callee as one of its callers sees it; *inbound_app* is the application behind a
sidecar. The thresholds here are the base that a lease falls back to, so they are right at the peak too;
what changes every tick overrides them by runtime (:mod:`xds.translate.runtime`), because a changed cluster
is rebuilt and drops its pooled connections.
"""

from __future__ import annotations

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    ClusterLbPolicy,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    KeepaliveSettings,
    RoutingPriority,
)
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions as UpstreamOptions,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsExplicitHttpConfig as ExplicitHttp,
)

from xds.model import Address, Limits, Protocol, Service
from xds.translate.endpoints import localities
from xds.translate.messages import ads, packed, seconds

INBOUND_APP = "inbound_app"

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

#: Seconds. A TCP handshake inside a mesh takes milliseconds; a lost SYN is repeated after one second.
CONNECT_TIMEOUT = 1.0
#: Seconds. Shorter than the keep-alive of common HTTP/1.1 servers (5 s), which would otherwise close a pooled
#: connection under a request that is already on its way.
APP_IDLE_TIMEOUT = 4.0


def outbound(callee: Service, base: Limits) -> Cluster:
    """Cluster ``callee.name``: its ready replicas by EDS, HTTP/2 to their inbound listeners."""
    return Cluster(
        name=callee.name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(eds_config=ads()),
        connect_timeout=seconds(CONNECT_TIMEOUT),
        lb_policy=ClusterLbPolicy.LEAST_REQUEST,
        circuit_breakers=thresholds(base),
        outlier_detection=outlier_detection(),
        typed_extension_protocol_options={_HTTP_OPTIONS: packed(UpstreamOptions(explicit_http_config=_http2()))},
    )


def inbound_app(service: Service, app: Address) -> Cluster:
    """Cluster :data:`INBOUND_APP`: the application of this very replica, limited to its own capacity."""
    return Cluster(
        name=INBOUND_APP,
        type=ClusterDiscoveryType.STATIC,
        load_assignment=ClusterLoadAssignment(cluster_name=INBOUND_APP, endpoints=localities((app,))),
        connect_timeout=seconds(CONNECT_TIMEOUT),
        circuit_breakers=thresholds(service.inbound),
        typed_extension_protocol_options={_HTTP_OPTIONS: packed(_app_options(service.protocol))},
    )


def thresholds(limits: Limits) -> CircuitBreakers:
    """``limits`` for the default priority; what remains of them is reported as gauges."""
    threshold = CircuitBreakersThresholds(
        priority=RoutingPriority.DEFAULT,
        max_connections=limits.max_connections,
        max_pending_requests=limits.max_pending_requests,
        max_requests=limits.max_requests,
        max_retries=limits.max_retries,
        track_remaining=True,
    )
    return CircuitBreakers(thresholds=[threshold])


def outlier_detection() -> OutlierDetection:
    """Ejects a replica that is gone, and not one that merely answers with errors.

    - An application's own 500s say nothing about its replica, and ejecting replicas under load makes load worse:
      ``consecutive_5xx`` is not enforced.
    - Injected faults are 503s in one arm of the traffic: 20 gateway failures in a row are one chance in a million
      when half of the requests are hit, while a replica that fails every request reaches them at once.
    - A refused connection is local to the caller and never injected, so five are enough. Every request that gets a
      connection resets this count, so slow replicas (timeouts are local as well) do not reach it.
    - At most half of the replicas are ejected, hence never the only one; Envoy's panic threshold is half as well.

    See https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier
    """
    return OutlierDetection(
        interval=seconds(5),
        base_ejection_time=seconds(10),
        max_ejection_time=seconds(30),
        max_ejection_percent=50,
        enforcing_consecutive_5xx=0,
        enforcing_success_rate=0,
        consecutive_gateway_failure=20,
        enforcing_consecutive_gateway_failure=100,
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=5,
        enforcing_consecutive_local_origin_failure=100,
        enforcing_local_origin_success_rate=0,
    )


def _http2() -> ExplicitHttp:
    keepalive = KeepaliveSettings(interval=seconds(10), timeout=seconds(5))
    return ExplicitHttp(http2_protocol_options=Http2ProtocolOptions(connection_keepalive=keepalive))


def _app_options(protocol: Protocol) -> UpstreamOptions:
    """HTTP/1.1 unless the application says that it speaks HTTP/2 (gRPC does)."""
    if protocol in ("http2", "grpc"):
        return UpstreamOptions(explicit_http_config=_http2())
    return UpstreamOptions(
        common_http_protocol_options=HttpProtocolOptions(idle_timeout=seconds(APP_IDLE_TIMEOUT)),
        explicit_http_config=ExplicitHttp(http_protocol_options=Http1ProtocolOptions()),
    )
