"""Filters that are configured by ECDS, and what each configuration does: a request tells which one is in force.

Each aborts every request with a status of its own; the default leaves them alone, and then the listener says 200.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy_data_plane.envoy.config.core.v3 import ConfigSource, ExtensionConfigSource, TypedExtensionConfig
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.fault.v3 import FaultAbort, HttpFault
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy_data_plane.envoy.type.v3 import FractionalPercent
from envoy_data_plane.google.protobuf import Any as AnyMessage

from tests.support.resources import ADS, address
from xds.snapshot import Resource, resource

LEASED, BASE, OTHER, DEFAULT = 418, 419, 420, 200
IN = "in"


def fault(status: int) -> HttpFault:
    """Every request is answered with this status; DEFAULT leaves them alone."""
    always = FractionalPercent(numerator=100)
    return HttpFault(abort=FaultAbort(http_status=status, percentage=always)) if status != DEFAULT else HttpFault()


def extension(name: str, status: int) -> Resource:
    return resource(name, TypedExtensionConfig(name=name, typed_config=AnyMessage.pack(fault(status))))


def discovering(names: Iterable[str], without_default: Iterable[str] = (), source: ConfigSource = ADS) -> Resource:
    """A listener that answers everything with 200, behind fault filters that are configured by ECDS."""

    def one(name: str) -> HttpFilter:
        default = None if name in without_default else AnyMessage.pack(HttpFault())
        urls = ["type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"]
        found = ExtensionConfigSource(config_source=source, default_config=default, type_urls=urls)
        return HttpFilter(name=name, config_discovery=found)

    router = HttpFilter(name="envoy.filters.http.router", typed_config=AnyMessage.pack(Router()))
    route = Route(match=RouteMatch(prefix="/"), direct_response=DirectResponseAction(status=DEFAULT))
    routes = RouteConfiguration(name="all", virtual_hosts=[VirtualHost(name="all", domains=["*"], routes=[route])])
    manager = HttpConnectionManager(
        stat_prefix=IN, route_config=routes, http_filters=[*(one(name) for name in names), router]
    )
    http = Filter(name="envoy.filters.network.http_connection_manager", typed_config=AnyMessage.pack(manager))
    listener = Listener(name=IN, address=address(0), filter_chains=[FilterChain(filters=[http])])
    return resource(IN, listener)
