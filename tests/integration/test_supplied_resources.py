"""Resources that a user supplies, in a real Envoy, beside those that the control plane makes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from click.testing import CliRunner

from meshctl import config as config_module
from meshctl.bootstrap import HostPort, Node, document
from meshctl.cli import main
from meshctl.demo.ports import Ports
from meshctl.model import Replica
from meshctl.server.app import ControlPlane, control_plane
from tests.support import envoys
from tests.support.envoys import Envoy, until
from tests.unit.meshctl.test_api import MESH
from xds.model import Address

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(90)]

TYPE = "type.googleapis.com/envoy."
ADS = {"ads": {}, "resource_api_version": "V3"}
ROUTER = {"name": "router", "typed_config": {"@type": f"{TYPE}extensions.filters.http.router.v3.Router"}}


def supplied(port: int, elsewhere: int, answer: str = "one") -> list[dict[str, object]]:
    """A listener whose routes go to the mesh's own frontend, to a cluster of ours, and to an answer of Envoy's."""
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "side",
        "rds": {"route_config_name": "side", "config_source": ADS},
        "http_filters": [ROUTER],
    }
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": elsewhere}}}
    assignment = {"cluster_name": "elsewhere", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}
    routes = [
        {"match": {"prefix": "/frontend"}, "route": {"cluster": "frontend"}},
        {"match": {"prefix": "/elsewhere"}, "route": {"cluster": "elsewhere"}},
        {"match": {"prefix": "/answer"}, "direct_response": {"status": 200, "body": {"inline_string": answer}}},
    ]
    return [
        {
            "@type": f"{TYPE}config.listener.v3.Listener",
            "name": "side",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        },
        {
            "@type": f"{TYPE}config.cluster.v3.Cluster",
            "name": "elsewhere",
            "type": "EDS",
            "connect_timeout": "1s",
            "eds_cluster_config": {"eds_config": ADS},
        },
        {"@type": f"{TYPE}config.endpoint.v3.ClusterLoadAssignment", **assignment},
        {
            "@type": f"{TYPE}config.route.v3.RouteConfiguration",
            "name": "side",
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
        },
    ]


class App(BaseHTTPRequestHandler):
    """Answers with its port."""

    def do_GET(self) -> None:
        body = str(self.connection.getsockname()[1]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def apps() -> Iterator[list[int]]:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), App) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
    yield [server.server_port for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@dataclass
class Running:
    """A control plane, an ingress that it configures, and the file that the user supplies resources in."""

    plane: ControlPlane
    envoy: Envoy
    ingress: int
    side: int
    apps: list[int]
    file: Path

    async def get(self, port: int, path: str) -> tuple[int, str]:
        def fetch() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                    return response.status, response.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, ""
            except OSError as error:
                return 0, str(error)

        return await asyncio.to_thread(fetch)

    def supply(self, answer: str) -> None:
        self.file.write_text(yaml.safe_dump(supplied(self.side, self.apps[1], answer)))

    def synced(self) -> bool:
        node = self.plane.xds.status.node("ingress-0")
        return node is not None and len(node.types) == 5 and all(one.state == "SYNCED" for one in node.types.values())


@pytest_asyncio.fixture
async def running(tmp_path: Path, apps: list[int]) -> AsyncIterator[Running]:
    ports = Ports("127.0.0.1", random.Random())
    ingress, side, inbound, outbound, *admins = (Address("127.0.0.1", ports.take()) for _ in range(6))
    file, extra = tmp_path / "mesh.yaml", tmp_path / "extra.yaml"
    file.write_text(MESH + "resources: [{file: extra.yaml, groups: [ingress]}]\n")
    extra.write_text(yaml.safe_dump(supplied(side.port, apps[1])))
    async with control_plane(file, config_module.load(file)) as plane, contextlib.AsyncExitStack() as stack:
        app = Address("127.0.0.1", apps[0])
        plane.loop.replicas = (
            Replica("ingress-0", "ingress", "ready", ingress, None, None, None),
            Replica("frontend-0", "frontend", "ready", inbound, outbound, app, None),
        )
        plane.loop.published.set()
        plane.loop.reconfigure(plane.loop.config)
        started = []
        for node_id, admin in zip(("ingress-0", "frontend-0"), admins, strict=True):
            group = node_id.removesuffix("-0")
            who = Node(node_id, group, HostPort("127.0.0.1", plane.xds_port), HostPort(admin.host, admin.port))
            (tmp_path / group).mkdir()
            bootstrap = document("ingress" if group == "ingress" else "sidecar", who)
            started.append(await stack.enter_async_context(envoys.running(tmp_path / group, bootstrap)))
        made = Running(plane, started[0], ingress.port, side.port, apps, extra)
        await until(made.synced)

        async def serves() -> bool:
            return len(await started[1].listeners()) == 2

        await until(serves)
        yield made


async def test_supplied_resources_work_beside_generated_ones(running: Running) -> None:
    assert await running.get(running.ingress, "/") == (200, str(running.apps[0]))
    assert await running.get(running.side, "/frontend") == (200, str(running.apps[0]))
    assert await running.get(running.side, "/elsewhere") == (200, str(running.apps[1]))
    assert await running.get(running.side, "/answer") == (200, "one")
    assert set(await running.envoy.listeners()) == {"ingress", "side"}


async def test_a_reload_changes_them_without_touching_the_others(running: Running) -> None:
    before = await running.envoy.counter("cluster_manager.cds.update_success")
    running.supply("two")
    running.plane.reload()

    async def changed() -> bool:
        return await running.get(running.side, "/answer") == (200, "two")

    await until(changed)
    assert await running.envoy.counter("cluster_manager.cds.update_success") == before
    running.file.write_text(yaml.safe_dump(supplied(running.side, running.apps[1])[1:2]))
    refused = running.plane.loop.config
    running.plane.reload()  # the cluster's endpoints are gone, so nothing is taken
    assert running.plane.loop.config is refused
    plain = running.plane.file.read_text().partition("resources:")[0]
    running.plane.file.write_text(plain)
    running.plane.reload()

    async def gone() -> bool:
        return set(await running.envoy.listeners()) == {"ingress"} and "elsewhere" not in await running.envoy.clusters()

    await until(gone)
    assert await running.get(running.ingress, "/") == (200, str(running.apps[0]))


async def test_a_bad_one_is_refused_and_the_old_ones_stay(running: Running) -> None:
    running.file.write_text(running.file.read_text().replace("prefix: /answer", "prefixx: /answer"))
    checked = CliRunner().invoke(main, ["config", "check", str(running.plane.file)])
    assert checked.exit_code == 2
    assert "extra.yaml:" in checked.stderr
    assert "match.prefixx: unknown field of RouteMatch; did you mean 'prefix'?" in checked.stderr
    running.plane.reload()
    assert "prefixx" in str(running.plane.config_error)
    assert "prefixx" in json.dumps(running.plane.status()["config"])
    assert await running.get(running.side, "/answer") == (200, "one")
    assert await running.get(running.ingress, "/") == (200, str(running.apps[0]))
    running.supply("three")
    running.plane.reload()
    assert running.plane.config_error is None

    async def changed() -> bool:
        return await running.get(running.side, "/answer") == (200, "three")

    await until(changed)
