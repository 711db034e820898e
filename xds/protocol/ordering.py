"""What must wait for what, so that traffic never meets half of a change: make before break.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from xds.protocol.subscription import Subscription
from xds.snapshot import Resource, ResourceSet, Snapshot
from xds.types import CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ORDER, ROUTE, SCOPED_ROUTE, SECRET, VIRTUAL_HOST

#: Removals come last, from what refers to what is referred to. A type's removals wait until these types are settled.
REMOVE_AFTER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        EXTENSION_CONFIG: (LISTENER,),
        SCOPED_ROUTE: (LISTENER,),
        ROUTE: (LISTENER, EXTENSION_CONFIG, SCOPED_ROUTE),
        VIRTUAL_HOST: (LISTENER, SCOPED_ROUTE, ROUTE),
        CLUSTER: (LISTENER, EXTENSION_CONFIG, SCOPED_ROUTE, ROUTE, VIRTUAL_HOST),
        ENDPOINT: (CLUSTER,),
        SECRET: (LISTENER, CLUSTER),
    }
)
REMOVAL_ORDER = (LISTENER, EXTENSION_CONFIG, SCOPED_ROUTE, ROUTE, VIRTUAL_HOST, CLUSTER, ENDPOINT, SECRET)

#: What sends traffic to clusters by name, and waits until the client has accepted them.
NAMES_CLUSTERS = frozenset({LISTENER, EXTENSION_CONFIG, SCOPED_ROUTE, ROUTE, VIRTUAL_HOST})

#: What may hold a route configuration that leaves its virtual hosts to VHDS.
LEAVES_OUT_HOSTS = frozenset({LISTENER, SCOPED_ROUTE, ROUTE})

#: Where two resources exclude each other (listeners with one address, scopes with one key), the successor is rejected
#: with these words, because additions come first. Once its predecessor is gone it gets another chance.
CONFLICTS: Mapping[str, str] = MappingProxyType({LISTENER: "duplicate address", SCOPED_ROUTE: "scope key conflict"})


_ADDITION_RANK = {url: rank for rank, url in enumerate(ORDER)}
_REMOVAL_RANK = {url: rank for rank, url in enumerate(REMOVAL_ORDER)}
_LAST = max(len(ORDER), len(REMOVAL_ORDER))


@lru_cache(maxsize=256)
def in_order(types: tuple[str, ...]) -> tuple[str, ...]:
    """Additions: as :data:`~xds.types.ORDER` has it, then whatever else in the order of its URL."""
    return tuple(sorted(types, key=lambda url: (_ADDITION_RANK.get(url, _LAST), url)))


@lru_cache(maxsize=256)
def removals_in_order(types: tuple[str, ...]) -> tuple[str, ...]:
    """Removals: as :data:`REMOVAL_ORDER` has it, then whatever else in the order of its URL."""
    return tuple(sorted(types, key=lambda url: (_REMOVAL_RANK.get(url, _LAST), url)))


def holds_back(one: Resource, sub: Subscription, clusters: Subscription | None, known: ResourceSet | None) -> bool:
    """Whether a resource (a route configuration, a listener with routes of its own) must wait for clusters it names.

    It waits while this stream has not accepted one of them in any version. A client that subscribes to no clusters
    here, or whose clusters are not ours (they come from its bootstrap), is not waited for; nor is one that asks for
    clusters by name, as gRPC does, about a cluster that it did not ask for: it learns the name from this very resource.
    Where what is missing was *rejected*, a client that may have the resource in an older version keeps that; one that
    has none gets the new one, because routes to most clusters are better than no routes at all.
    """
    if clusters is None or known is None or clusters.confirms_all(known):
        return False
    wanted = one.clusters if clusters.wildcard else filter(clusters.wants, one.clusters)
    missing = [known.resources[name] for name in wanted if name in known.resources and not clusters.confirms(name)]
    return bool(missing) and (sub.may_have(one.name) or not all(map(clusters.refused, missing)))


def homes(now: Snapshot) -> set[str]:
    """``<route configuration>/*`` for each one that leaves its virtual hosts to VHDS."""
    sets = filter(None, map(now.get, LEAVES_OUT_HOSTS))
    resources = (one for one_set in sets for one in one_set.resources.values())
    return {name for one in resources for name in one.homes}


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
