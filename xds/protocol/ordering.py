"""What must wait for what, so that traffic never meets half of a change: make before break.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from xds.protocol.subscription import Subscription
from xds.snapshot import Resource, ResourceSet, Snapshot
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
    clusters are not ours (they come from its bootstrap), is not waited for; nor is one that asks for clusters by name,
    as gRPC does, about a cluster that it did not ask for: it learns the name from this very route configuration.
    Where the clusters were *rejected*, a client that has the route configuration in an older version keeps that; one
    that has none gets the new one, because routes to most clusters are better than no routes at all.
    """
    if clusters is None or known is None or clusters.confirms_all(known):
        return False
    wanted = route.clusters if clusters.wildcard else route.clusters & clusters.names
    missing = any(name in known.resources and not clusters.confirms(name) for name in wanted)
    return missing and not (clusters.rejected and route.name not in routes.held)


def served(routes: Subscription | None, clusters: Subscription, endpoints: Subscription | None, now: Snapshot) -> bool:
    """Whether the client has what its routes lead to: their clusters, and those clusters' endpoints.

    A wildcard client had it before it got the routes. One that asks for clusters by name asks after it got them, and
    goes on using the old cluster until the answers are there: until then that must not be removed. (When it no
    longer uses the old one it unsubscribes by itself.)
    """
    if clusters.wildcard or routes is None:
        return True
    for name in filter(routes.confirms, routes.held):
        route = now.find(ROUTE, name)
        for cluster in route.clusters if route else ():
            one = now.find(CLUSTER, cluster)
            if one is not None and not _has(one, clusters, endpoints, now):
                return False
    return True


def _has(cluster: Resource, clusters: Subscription, endpoints: Subscription | None, now: Snapshot) -> bool:
    if not clusters.confirms(cluster.name):
        return False
    assignment = cluster.assignment
    if assignment is None or endpoints is None or now.find(ENDPOINT, assignment) is None:
        return True
    return endpoints.confirms(assignment)
