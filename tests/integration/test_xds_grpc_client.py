"""gRPC's own xDS client (C core, in the grpcio wheel) against our server: proxyless gRPC.

A foreign implementation with habits of its own: it asks for everything by name, clusters and listeners included, and
learns each name from the resource before it. https://github.com/grpc/proposal/blob/master/A27-xds-global-load-balancing.md
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest_asyncio
from envoy_data_plane.envoy.config.core.v3 import Locality
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.listener.v3 import ApiListener, Listener
from envoy_data_plane.google.protobuf import Any as AnyMessage

from tests.support import grpc_caller
from tests.support.envoys import HOST, until
from tests.support.resources import OUTBOUND, assignment, cluster, manager, routes, weighted_routes
from tests.support.servers import NODE, Mesh
from xds.snapshot import Snapshot, resource, resource_set, snapshot
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE

TARGET = "backend.example"
TYPES = ("cds", "eds", "lds", "rds")
NOTHING = snapshot(*(resource_set(url, []) for url in (CLUSTER, ENDPOINT, LISTENER, ROUTE)))


def content(clusters: Mapping[str, tuple[int, ...]], weights: Mapping[str, int] | None = None) -> Snapshot:
    """Clusters with the ports of their endpoints; all calls go to the first one, or by ``weights``."""
    table = routes(next(iter(clusters))) if weights is None else weighted_routes(weights)
    listener = Listener(name=TARGET, api_listener=ApiListener(api_listener=AnyMessage.pack(manager())))
    return snapshot(
        resource_set(CLUSTER, [resource(name, cluster(name)) for name in clusters]),
        resource_set(ENDPOINT, [resource(name, located(name, *ports)) for name, ports in clusters.items()]),
        resource_set(LISTENER, [resource(TARGET, listener)]),
        resource_set(ROUTE, [resource(OUTBOUND, table)]),
    )


def located(name: str, *ports: int) -> ClusterLoadAssignment:
    """gRPC ignores endpoints of a locality without a name or a weight."""
    made = assignment(name, *ports)
    for one in made.endpoints:
        one.locality, one.load_balancing_weight = Locality(region="here", zone="a"), 1
    return made


@asynccontextmanager
async def grpc_backend(name: str) -> AsyncIterator[int]:
    """A gRPC server that answers with its name; gives its port."""

    async def say(_: bytes, __: object) -> bytes:
        return name.encode()

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("test.Backend", {"Name": grpc.unary_unary_rpc_method_handler(say)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


class Caller:
    """A process that calls the target through gRPC's xDS client, when told to or steadily."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self) -> dict[str, Any]:
        """``{"name": ...}``, or ``{"code": ..., "details": ...}``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        return dict(json.loads(await asyncio.wait_for(self._process.stdout.readline(), 15)))

    async def name(self) -> str:
        answer = await self.call()
        return str(answer.get("name", answer))

    counts = call
    """Of a process that calls steadily: how often it got which answer."""


@asynccontextmanager
async def calling(xds_port: int, folder: Path, *options: str) -> AsyncIterator[Caller]:
    bootstrap = {
        "xds_servers": [
            {
                "server_uri": f"{HOST}:{xds_port}",
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }
        ],
        "node": {"id": NODE, "cluster": "callers"},
    }
    (folder / "bootstrap.json").write_text(json.dumps(bootstrap))
    environment = {**os.environ, "GRPC_XDS_BOOTSTRAP": str(folder / "bootstrap.json"), "GRPC_VERBOSITY": "NONE"}
    command = [sys.executable, str(grpc_caller.__file__), f"xds:///{TARGET}", *options]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
    try:
        yield Caller(process)
    finally:
        process.kill()
        await process.wait()


@pytest_asyncio.fixture
async def mesh() -> AsyncIterator[Mesh]:
    one = Mesh()
    await one.start()
    yield one
    await one.stop()


@pytest_asyncio.fixture
async def caller(mesh: Mesh, tmp_path: Path) -> AsyncIterator[Caller]:
    async with calling(mesh.port, tmp_path) as one:
        yield one


@pytest_asyncio.fixture
async def one() -> AsyncIterator[int]:
    async with grpc_backend("one") as port:
        yield port


@pytest_asyncio.fixture
async def two() -> AsyncIterator[int]:
    async with grpc_backend("two") as port:
        yield port


async def is_answered_by(caller: Caller, name: str) -> None:
    async def answered() -> bool:
        return await caller.name() == name

    await until(answered)


async def test_a_call_reaches_a_backend_that_only_the_server_told_of(mesh: Mesh, caller: Caller, one: int) -> None:
    mesh.server.publish({NODE: content({"first": (one,), "unused": (9,)})})
    assert await caller.name() == "one"
    node = mesh.server.status.node(NODE)
    assert node is not None
    assert node.user_agent_version.startswith("C-core")
    await until(mesh.is_synced(*TYPES))
    assert mesh.pushed() == ["lds", "rds", "cds", "eds"], "each name comes from the resource before it"


async def test_endpoints_move_and_vanish_and_come_back(mesh: Mesh, caller: Caller, one: int, two: int) -> None:
    mesh.server.publish({NODE: content({"first": (one,)})})
    assert await caller.name() == "one"
    mesh.server.publish({NODE: content({"first": (two,)})})
    await is_answered_by(caller, "two")
    mesh.server.publish({NODE: content({"first": ()})})
    await until(lambda: fails(caller))
    mesh.server.publish({NODE: content({"first": (one,)})})
    await is_answered_by(caller, "one")


async def test_what_is_removed_is_unavailable(mesh: Mesh, caller: Caller, one: int) -> None:
    mesh.server.publish({NODE: content({"first": (one,)})})
    assert await caller.name() == "one"
    mesh.server.publish({NODE: NOTHING})
    await until(lambda: fails(caller))
    mesh.server.publish({NODE: content({"first": (one,)})})
    await is_answered_by(caller, "one")


async def fails(caller: Caller) -> bool:
    return (await caller.call()).get("code") == "UNAVAILABLE"


async def test_no_call_fails_while_routes_move_between_clusters(mesh: Mesh, tmp_path: Path, one: int, two: int) -> None:
    """The client asks for a new cluster when its routes name it, and needs the old one until it has that."""
    mesh.server.publish({NODE: content({"c-0": (one,)})})
    async with calling(mesh.port, tmp_path, "--steadily") as caller:
        for number in range(1, 31):
            mesh.server.publish({NODE: content({f"c-{number}": (two if number % 2 else one,)})})
            await gains(caller, "two" if number % 2 else "one")
        assert set(await caller.counts()) == {"one", "two"}


async def gains(caller: Caller, name: str, calls: int = 20) -> None:
    """Wait until this many more calls have been answered by ``name``."""
    before = (await caller.counts()).get(name, 0)

    async def gained() -> bool:
        return bool((await caller.counts()).get(name, 0) >= before + calls)

    await until(gained)


async def test_weights_count(mesh: Mesh, caller: Caller, one: int, two: int) -> None:
    mesh.server.publish({NODE: content({"first": (one,), "second": (two,)}, {"first": 1, "second": 3})})
    names = [await caller.name() for _ in range(200)]
    assert set(names) == {"one", "two"}
    assert 110 <= names.count("two") <= 190  # 150 expected; 6.5 standard deviations


async def test_a_rejected_cluster_costs_only_itself(mesh: Mesh, caller: Caller, one: int) -> None:
    mesh.server.publish({NODE: content({"first": (one,)})})
    assert await caller.name() == "one"
    rejected = resource_set(CLUSTER, [resource("first", without_eds())])
    mesh.server.publish({NODE: Snapshot({**content({"first": (one,)}).sets, CLUSTER: rejected})})
    await until(lambda: mesh.states()["cds"] == "NACKED")
    (nack,) = [event for event in mesh.events if event.kind == "nack"]
    assert "first" in nack.message
    assert await caller.name() == "one"
    mesh.server.publish({NODE: content({"first": (one,)})})
    await until(mesh.is_synced(*TYPES))
    assert await caller.name() == "one"


def without_eds() -> Any:
    made = cluster("first")
    made.eds_cluster_config = None
    return made


async def test_a_restart_of_the_server_disturbs_nobody(mesh: Mesh, caller: Caller, one: int, two: int) -> None:
    mesh.server.publish({NODE: content({"first": (one,)})})
    assert await caller.name() == "one"
    await mesh.stop()
    assert await caller.name() == "one"
    await mesh.start()
    mesh.server.publish({NODE: content({"first": (two,)})})
    await is_answered_by(caller, "two")
