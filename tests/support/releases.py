"""Snapshots for tests of rollouts: shared clusters, routes and endpoints, and a listener of the node's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from envoy_data_plane.envoy.config.listener.v3 import Listener

from tests.support import resources as made
from xds.snapshot import Resource, Snapshot, resource, resource_set, snapshot
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE


@cache
def cluster(name: str, version: int) -> Resource:
    return resource(name, made.cluster(name, timeout=1.0 + version))


@cache
def endpoints(name: str, ports: tuple[int, ...]) -> Resource:
    return resource(name, made.assignment(name, *ports))


@cache
def routes(target: str) -> Resource:
    return resource("outbound", made.routes(target))


@cache
def listener(port: int) -> Resource:
    return resource("inbound", Listener(name="inbound", address=made.address(port)))


def content(
    version: int = 1, names: Iterable[str] = ("backend",), ports: tuple[int, ...] = (9,), own_port: int = 1
) -> Snapshot:
    """Clusters ``names`` in ``version`` with endpoints on ``ports``, routes to the last one, a listener."""
    every = sorted(names)
    return snapshot(
        resource_set(CLUSTER, [cluster(name, version) for name in every]),
        resource_set(ENDPOINT, [endpoints(name, ports) for name in every]),
        resource_set(LISTENER, [listener(own_port)]),
        resource_set(ROUTE, [routes(every[-1])] if every else []),
    )


def group(size: int, version: int = 1, **more: object) -> dict[str, Snapshot]:
    """The nodes ``n0``, ``n1``, ... each with a listener of its own."""
    return {f"n{i}": content(version, own_port=i + 1, **more) for i in range(size)}  # type: ignore[arg-type]


def timeout_version(one: Snapshot, name: str = "backend") -> int | None:
    """Which version of the cluster a snapshot has."""
    clusters = one.get(CLUSTER)
    found = clusters.resources.get(name) if clusters else None
    return next((v for v in range(100) if found is not None and found.version == cluster(name, v).version), None)


def versions(effective: Mapping[str, Snapshot]) -> dict[str, int | None]:
    return {node_id: timeout_version(one) for node_id, one in sorted(effective.items())}


def assigned(one: Snapshot) -> set[str]:
    """Names of the clusters that have endpoints."""
    found = one.get(ENDPOINT)
    return set(found.resources) if found else set()
