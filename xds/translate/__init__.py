"""Mesh to resources: pure functions, one file per resource type.

:func:`snapshots` composes them: what every proxy of the mesh should hold in the slow lane. Runtime layers, the
fast lane, are leases and not part of a snapshot (:mod:`xds.translate.runtime`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xds import types
from xds.errors import TranslateError
from xds.model import Mesh, Service, Workload
from xds.snapshot import Resource, ResourceSet, Snapshot, resource, resource_set, snapshot
from xds.translate import clusters, endpoints, listeners, routes

__all__ = ["snapshots"]


def snapshots(mesh: Mesh, workloads: Iterable[Workload]) -> dict[str, Snapshot]:
    """The snapshot of every workload, by node id.

    The replicas of one service know only the services that it calls. Sets of the same content are one object, so
    that a server encodes a response once for all nodes that share it.

    Raises :class:`~xds.errors.TranslateError` for a workload, call or route that names what is not in ``mesh``,
    and for a node id that appears twice.
    """
    groups: dict[str, _Group] = {}
    known: dict[tuple[str, str], ResourceSet] = {}
    result: dict[str, Snapshot] = {}
    for workload in sorted(workloads, key=lambda workload: workload.node_id):
        if workload.node_id in result:
            raise TranslateError(f"node id {workload.node_id!r} is used by two workloads: make it unique")
        if workload.group not in groups:
            groups[workload.group] = _group(mesh, workload)
        result[workload.node_id] = snapshot(*_sets(workload, groups[workload.group], mesh, known))
    return result


@dataclass(frozen=True, slots=True)
class _Group:
    """What all workloads of one group share."""

    clusters: tuple[Resource, ...]
    assignments: tuple[Resource, ...]
    routes: tuple[Resource, ...]


def _group(mesh: Mesh, workload: Workload) -> _Group:
    calls = mesh.callees(workload.group)
    callees = [_service(mesh, call.callee, f"call from {workload.group!r}") for call in calls]
    return _Group(
        clusters=tuple(
            resource(callee.name, clusters.outbound(callee, call.base))
            for call, callee in zip(calls, callees, strict=True)
        ),
        assignments=tuple(resource(callee.name, endpoints.assignment(callee)) for callee in callees),
        routes=_ingress_routes(mesh, workload) if workload.is_ingress else _sidecar_routes(callees),
    )


def _sidecar_routes(callees: list[Service]) -> tuple[Resource, ...]:
    return (
        resource(listeners.INBOUND, routes.inbound()),
        resource(listeners.OUTBOUND, routes.outbound(callees)),
    )


def _ingress_routes(mesh: Mesh, workload: Workload) -> tuple[Resource, ...]:
    if workload.group not in mesh.ingresses:
        raise TranslateError(
            f"workload {workload.node_id!r} has no application and its group {workload.group!r} is no ingress"
        )
    called = {call.callee for call in mesh.callees(workload.group)}
    table = mesh.ingresses[workload.group]
    missing = sorted({route.service for route in table} - called)
    if missing:
        raise TranslateError(f"ingress {workload.group!r} routes to {missing[0]!r} without a call to it: add the call")
    return (resource(listeners.INGRESS, routes.ingress(table, mesh.services)),)


def _sets(
    workload: Workload, group: _Group, mesh: Mesh, known: dict[tuple[str, str], ResourceSet]
) -> Iterable[ResourceSet]:
    own_clusters = group.clusters + _app_cluster(workload, mesh)
    content: Mapping[str, tuple[Resource, ...]] = {
        types.CLUSTER: own_clusters,
        types.ENDPOINT: group.assignments,
        types.LISTENER: _listeners(workload),
        types.ROUTE: group.routes,
    }
    for type_url, resources in content.items():
        made = resource_set(type_url, sorted(resources, key=lambda each: each.name))
        yield known.setdefault((type_url, made.version), made)


def _app_cluster(workload: Workload, mesh: Mesh) -> tuple[Resource, ...]:
    if workload.app is None:
        return ()
    service = _service(mesh, workload.group, f"workload {workload.node_id!r}")
    return (resource(clusters.INBOUND_APP, clusters.inbound_app(service, workload.app)),)


def _listeners(workload: Workload) -> tuple[Resource, ...]:
    if workload.is_ingress:
        return (resource(listeners.INGRESS, listeners.ingress(workload.inbound)),)
    own = [resource(listeners.INBOUND, listeners.inbound(workload.inbound))]
    if workload.outbound is not None:
        own.append(resource(listeners.OUTBOUND, listeners.outbound(workload.outbound)))
    return tuple(own)


def _service(mesh: Mesh, name: str, where: str) -> Service:
    if name not in mesh.services:
        known = ", ".join(sorted(mesh.services)) or "none"
        raise TranslateError(f"{where} names the unknown service {name!r}; known: {known}")
    return mesh.services[name]
