"""What must wait for what, so that traffic never meets half of a change: make before break.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from xds.protocol.subscription import Subscription
from xds.snapshot import Resource, ResourceSet
from xds.types import CLUSTER, ENDPOINT, LISTENER, ORDER, ROUTE

#: Removals come last, from what refers to what is referred to. A type's removals wait until these types are settled.
REMOVE_AFTER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {CLUSTER: (LISTENER, ROUTE), ENDPOINT: (CLUSTER,), ROUTE: (LISTENER,)}
)
REMOVAL_ORDER = (LISTENER, ROUTE, CLUSTER, ENDPOINT)


def in_order(types: Iterable[str]) -> list[str]:
    """Additions: clusters, endpoints, listeners, routes, runtime, then whatever else in the order of its URL."""
    return sorted(types, key=lambda url: (ORDER.index(url) if url in ORDER else len(ORDER), url))


def removals_in_order(types: Iterable[str]) -> list[str]:
    """Removals: listeners, routes, clusters, endpoints, then whatever else in the order of its URL."""
    last = len(REMOVAL_ORDER)
    return sorted(types, key=lambda url: (REMOVAL_ORDER.index(url) if url in REMOVAL_ORDER else last, url))


def holds_back(route: Resource, routes: Subscription, clusters: Subscription | None, known: ResourceSet | None) -> bool:
    """Whether a route configuration must wait for clusters that it names.

    It waits while this stream has not accepted one of them. A client that subscribes to no clusters here, or whose
    clusters are not ours (they come from its bootstrap), is not waited for. Where the clusters were *rejected*, a
    client that has the route configuration in an older version keeps that; one that has none gets the new one,
    because routes to most clusters are better than no routes at all.
    """
    if clusters is None or known is None:
        return False
    unconfirmed = (route.clusters & known.resources.keys()) - clusters.confirmed
    return bool(unconfirmed) and not (clusters.rejected and route.name not in routes.held)
