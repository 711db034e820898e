"""What a control plane would serve before its first tick, made from the mesh file and a list of replicas. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from meshctl import bootstrap
from meshctl.config import MeshConfig, resources
from meshctl.control import mesh
from meshctl.model import Replica
from meshctl.sources.dns import ADMIN_PORT
from xds import export
from xds.model import CHAOS_LAYER, LIMITS_LAYER, RuntimeLayer
from xds.resources import merged
from xds.snapshot import Snapshot, resource_set, snapshot
from xds.translate import snapshots
from xds.translate.runtime import layer_resource
from xds.types import RUNTIME


@dataclass(frozen=True, slots=True)
class Node:
    """One Envoy and what it would be told."""

    node_id: str
    group: str
    role: bootstrap.Role
    admin: bootstrap.HostPort
    latencies: tuple[float, ...]
    snapshot: Snapshot

    def document(self) -> dict[str, Any]:
        """Who it is, and a DiscoveryResponse per type; secrets are not shown."""
        types = export.responses(self.snapshot)
        return {"node_id": self.node_id, "group": self.group, "role": self.role, "types": types}

    def files(self, folder: PurePosixPath) -> dict[str, dict[str, Any]]:
        """What an Envoy needs below ``folder``, bootstrap last."""
        who = bootstrap.Node(self.node_id, self.group, admin=self.admin, latencies=self.latencies)
        start = bootstrap.offline(self.role, who, str(folder))
        return {**export.files(self.snapshot, str(folder)), "bootstrap.json": start}


def nodes(config: MeshConfig, replicas: Sequence[Replica]) -> list[Node]:
    """Every node by id. Runtime layers are empty: what they hold is a plan's, and no plan was made."""
    workloads = mesh.workloads(replicas)
    groups = {one.node_id: one.group for one in workloads}
    made = merged(snapshots(mesh.build(config, replicas, {}), workloads), groups, resources.extras(config))
    layers = resource_set(
        RUNTIME, [layer_resource(RuntimeLayer(name, {}, 1.0)) for name in (CHAOS_LAYER, LIMITS_LAYER)]
    )
    latencies = tuple(sorted({service.slo.latency for service in config.services.values()}))
    by_id = {replica.node_id: replica for replica in replicas}
    return [
        _node(config, by_id[node_id], latencies, snapshot(*one.sets.values(), layers)) for node_id, one in made.items()
    ]


def _node(config: MeshConfig, replica: Replica, latencies: tuple[float, ...], content: Snapshot) -> Node:
    role: bootstrap.Role = "ingress" if replica.service == config.ingress.name else "sidecar"
    admin = replica.admin
    listen = (
        bootstrap.HostPort("127.0.0.1", ADMIN_PORT) if admin is None else bootstrap.HostPort(admin.host, admin.port)
    )
    return Node(replica.node_id, replica.service, role, listen, latencies, content)
