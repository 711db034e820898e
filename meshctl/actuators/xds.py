"""Publishing: what every sidecar shall know, and the leases on top of it.

The slow lane is translated only when the mesh or the set of workloads changed. The fast lane goes out as
leased runtime layers, one set of values per group, because a group's replicas share its share of a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xds.codec import to_json
from xds.model import Mesh, RuntimeLayer, Workload
from xds.resources import Extra, merged
from xds.server import ShardedServer, XdsServer
from xds.snapshot import Resource, Snapshot, combined_version
from xds.translate import snapshots
from xds.translate.runtime import layer_resource
from xds.types import RUNTIME, short_name


class XdsPublisher:
    """Hands snapshots and leases to the xDS server; does nothing when nothing changed."""

    def __init__(self, server: XdsServer | ShardedServer) -> None:
        self._server = server
        self._published: tuple[Mesh, frozenset[Workload], tuple[Extra, ...]] | None = None
        self._supplied: frozenset[str] = frozenset()
        self._snapshots: Mapping[str, Snapshot] = {}
        self._layers: dict[str, Sequence[RuntimeLayer]] = {}

    def publish(self, mesh: Mesh, workloads: Iterable[Workload], extras: Sequence[Extra] = ()) -> bool:
        """Publish the slow lane, users' own resources in it; True if its input changed since the last call.

        A type that a user ever supplied stays in the snapshots, so that sidecars hear of its last resource's end.
        """
        wanted = (mesh, frozenset(workloads), tuple(extras))
        if wanted == self._published:
            return False
        self._supplied |= {one.type_url for extra in wanted[2] for one in extra.resources}
        made, groups = snapshots(mesh, wanted[1]), {one.node_id: one.group for one in wanted[1]}
        self._snapshots = merged(made, groups, wanted[2], self._supplied) if self._supplied else made
        self._server.publish(self._snapshots, groups)
        self._published = wanted
        self._layers = {node: layers for node, layers in self._layers.items() if node in self._snapshots}
        return True

    def lease(self, layers: Mapping[str, Sequence[RuntimeLayer]]) -> None:
        """Renew the leased layers of each node named."""
        self._server.lease(layers)
        self._layers.update(layers)

    def sizes(self) -> dict[str, int]:
        """Bytes of the largest resource set published, by short type name."""
        found: dict[str, int] = {}
        for snapshot in self._snapshots.values():
            for url, one in snapshot.sets.items():
                size = sum(len(each.body) for each in one.resources.values())
                found[short_name(url)] = max(found.get(short_name(url), 0), size)
        return found

    def snapshot(self, node_id: str) -> Snapshot | None:
        """What was last published for a node."""
        return self._snapshots.get(node_id)

    def describe(self, node_id: str, kind: str) -> dict[str, Any] | None:
        """What ``node_id`` should hold of one type (``cds``, ..., ``rtds``), as JSON values; None for an unknown
        node.
        """
        if node_id not in self._snapshots:
            return None
        if kind == short_name(RUNTIME):
            layers = self._layers.get(node_id, ())
            resources = [(layer_resource(layer), layer.ttl) for layer in layers]
            return _described(combined_version((one.name, one.version) for one, _ in resources), resources)
        found = next((s for url, s in self._snapshots[node_id].sets.items() if short_name(url) == kind), None)
        if found is None:
            return _described("", [])
        return _described(found.version, [(found.resources[name], None) for name in sorted(found.resources)])


def _described(version: str, resources: Iterable[tuple[Resource, float | None]]) -> dict[str, Any]:
    rows = [
        {"name": one.name, "version": one.version, "ttl": ttl, "resource": to_json(one.type_url, one.body)}
        for one, ttl in resources
    ]
    return {"version": version, "resources": rows}
