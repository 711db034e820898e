"""LDS: where a proxy listens.

A sidecar has two listeners: *inbound* for the mesh (with the fault filter, so that a fault meets the retries,
timeouts and circuit breakers of the callers) and *outbound* for its own application. An ingress has one, with
two rate limits. All routes come by RDS: a changed route costs no connection, a changed listener drains them.
"""

from __future__ import annotations

import betterproto2
from envoy_data_plane.envoy.config.core.v3 import Http2ProtocolOptions, HttpProtocolOptions, TrafficDirection
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.extensions.filters.common.fault.v3 import FaultDelay
from envoy_data_plane.envoy.extensions.filters.http.fault.v3 import FaultAbort, HttpFault
from envoy_data_plane.envoy.extensions.filters.http.local_ratelimit.v3 import LocalRateLimit
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerInternalAddressConfig as InternalAddresses,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerPathWithEscapedSlashesAction as EscapedSlashes,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerServerHeaderTransformation as ServerHeader,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from xds.model import CHAOS_GROUP_HEADER, TREATMENT, Address
from xds.translate.messages import ads, packed, percent, seconds, socket_address

INBOUND = "inbound"
OUTBOUND = "outbound"
INGRESS = "ingress"

RATE_LIMIT_BASE = "ratelimit_base"
RATE_LIMIT_PLAN = "ratelimit_plan"

_FAULT = "envoy.filters.http.fault"
_ROUTER = "envoy.filters.http.router"
_MANAGER = "envoy.filters.network.http_connection_manager"

#: Bytes; what Envoy's own advice for edge proxies says. https://www.envoyproxy.io/docs/envoy/latest/configuration/best_practices/edge
_EDGE_BUFFER = 32 * 1024


def inbound(address: Address) -> Listener:
    """Listener ``inbound``: from the mesh to the application, through the fault filter."""
    manager = _manager(INBOUND, [_filter(_FAULT, fault())])
    return _listener(INBOUND, address, manager, TrafficDirection.INBOUND)


def outbound(address: Address) -> Listener:
    """Listener ``outbound``: from the application to the services that it calls."""
    return _listener(OUTBOUND, address, _manager(OUTBOUND, []), TrafficDirection.OUTBOUND)


def ingress(address: Address) -> Listener:
    """Listener ``ingress``: from outside into the mesh; trusts nothing that a client says about itself."""
    limits = [_filter(name, LocalRateLimit(stat_prefix=name)) for name in (RATE_LIMIT_BASE, RATE_LIMIT_PLAN)]
    manager = _edge(_manager(INGRESS, limits))
    listener = _listener(INGRESS, address, manager, TrafficDirection.INBOUND)
    listener.per_connection_buffer_limit_bytes = _EDGE_BUFFER
    return listener


def fault() -> HttpFault:
    """Abort and delay at 0 percent, for the treatment arm only; runtime keys raise them.

    Both blocks must be there: an empty filter ignores its runtime keys.
    """
    arm = HeaderMatcher(name=CHAOS_GROUP_HEADER, string_match=StringMatcher(exact=TREATMENT))
    return HttpFault(
        abort=FaultAbort(http_status=503, percentage=percent(0)),
        delay=FaultDelay(fixed_delay=seconds(0.1), percentage=percent(0)),
        headers=[arm],
        disable_downstream_cluster_stats=True,
    )


def _manager(name: str, filters: list[HttpFilter]) -> HttpConnectionManager:
    """HTTP/1.1 and HTTP/2, routes ``name`` by RDS, ``filters`` and then the router."""
    return HttpConnectionManager(
        stat_prefix=name,
        rds=Rds(config_source=ads(), route_config_name=name),
        http_filters=[*filters, _filter(_ROUTER, Router())],
        server_header_transformation=ServerHeader.PASS_THROUGH,
        normalize_path=True,
        merge_slashes=True,
        drain_timeout=seconds(1),
        stream_idle_timeout=seconds(300),
    )


def _edge(manager: HttpConnectionManager) -> HttpConnectionManager:
    """``manager`` hardened for clients from outside: no private headers from them, bounded streams and windows.

    With an empty list of internal addresses every client is external: ``x-request-id`` is made anew, and
    ``x-envoy-*`` headers, which would override retries and timeouts, are taken away.
    """
    manager.use_remote_address = True
    manager.internal_address_config = InternalAddresses()
    manager.server_header_transformation = ServerHeader.OVERWRITE
    manager.path_with_escaped_slashes_action = EscapedSlashes.UNESCAPE_AND_REDIRECT
    manager.common_http_protocol_options = HttpProtocolOptions(idle_timeout=seconds(3600))
    manager.http2_protocol_options = Http2ProtocolOptions(
        max_concurrent_streams=100,
        initial_stream_window_size=64 * 1024,
        initial_connection_window_size=1024 * 1024,
    )
    manager.request_headers_timeout = seconds(10)
    return manager


def _listener(name: str, address: Address, manager: HttpConnectionManager, direction: TrafficDirection) -> Listener:
    return Listener(
        name=name,
        address=socket_address(address),
        filter_chains=[FilterChain(filters=[Filter(name=_MANAGER, typed_config=packed(manager))])],
        traffic_direction=direction,
    )


def _filter(name: str, config: betterproto2.Message) -> HttpFilter:
    return HttpFilter(name=name, typed_config=packed(config))
