"""Clients that do not read, and clients that are not there any more: bounded, found, and nobody else's trouble."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import psutil
import pytest

from tests.support.envoys import HOST, until
from xds import _wire_pb2 as wire
from xds.server import Settings, XdsServer
from xds.snapshot import Snapshot, encoded, resource_set, snapshot
from xds.status import XdsEvent
from xds.types import CLUSTER, LISTENER

pytestmark = pytest.mark.slow

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
SIZE = 2_000_000
#: A window of 64 KiB that does not grow, so that a client that does not read is soon full.
CHANNEL = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 65536),
]


def large(version: int) -> Snapshot:
    """Clusters of SIZE bytes altogether, all of which change, and a listener, which does not."""
    names = [f"c{i}" for i in range(20)]
    padding = f"{version:04d}" * (SIZE // len(names) // 4)
    bodies = {name: wire.Cluster(name=name + padding).SerializeToString() for name in names}
    clusters = resource_set(CLUSTER, [encoded(CLUSTER, name, body) for name, body in bodies.items()])
    return snapshot(clusters, resource_set(LISTENER, [encoded(LISTENER, "in", b"")]))


class Client:
    """A stream of state-of-the-world ADS that reads when it is told to."""

    def __init__(self, port: int, node_id: str) -> None:
        self.node_id = node_id
        self._channel = grpc.aio.insecure_channel(f"{HOST}:{port}", options=CHANNEL)
        self.call = self._channel.stream_stream(ADS, None, None)(None)

    async def ask(self, type_url: str = CLUSTER, nonce: str = "", version: str = "") -> None:
        node = wire.Node(id=self.node_id)
        request = wire.DiscoveryRequest(node=node, type_url=type_url, response_nonce=nonce, version_info=version)
        await self.call.write(request.SerializeToString())

    async def get(self) -> wire.DiscoveryResponse:
        data = await asyncio.wait_for(self.call.read(), 30)
        assert isinstance(data, bytes)
        return wire.DiscoveryResponse.FromString(data)

    async def follow(self) -> None:
        """Read and accept for ever."""
        while True:
            got = await self.get()
            await self.ask(got.type_url, got.nonce, got.version_info)

    async def close(self) -> None:
        self.call.cancel()
        await self._channel.close(None)


class World:
    """A server, its clients, and what it said."""

    def __init__(self, server: XdsServer, events: list[XdsEvent], port: int) -> None:
        self.server, self.events, self.port = server, events, port
        self.nodes: list[str] = []
        self.stack = contextlib.AsyncExitStack()

    async def client(self, node_id: str, port: int | None = None) -> Client:
        one = Client(port or self.port, node_id)
        self.stack.push_async_callback(one.close)
        await one.ask()
        return one

    async def follower(self, node_id: str) -> None:
        one = await self.client(node_id)
        task = asyncio.create_task(one.follow())
        self.stack.push_async_callback(asyncio.wait, [task])
        self.stack.callback(task.cancel)

    def publish(self, version: int) -> None:
        shared = large(version)
        self.server.publish(dict.fromkeys(self.nodes, shared))

    def pushes(self, type_name: str = "cds") -> Counter[str]:
        return Counter(event.node_id for event in self.events if event.kind == "push" and event.type == type_name)

    def connected(self, node_id: str) -> bool:
        node = self.server.status.node(node_id)
        return node is not None and node.connected

    def told(self, kind: str, node_id: str) -> list[XdsEvent]:
        return [event for event in self.events if (event.kind, event.node_id) == (kind, node_id)]


@asynccontextmanager
async def world(settings: Settings) -> AsyncIterator[World]:
    events: list[XdsEvent] = []
    server = XdsServer(on_event=events.append, settings=settings)
    one = World(server, events, await server.start(HOST, 0))
    try:
        async with one.stack:
            yield one
    finally:
        await server.stop(0.2)


def many(condition: Callable[[], int], count: int) -> Callable[[], bool]:
    return lambda: condition() >= count


async def test_who_does_not_read_costs_one_response_and_delays_nobody() -> None:
    """With a single slot, so that whoever keeps it stops everybody."""
    others, stalled, changes = 50, 20, 20
    settings = Settings(concurrent_pushes=1, slow_write_seconds=0.2, debounce_seconds=0.0)
    async with world(settings) as one:
        followers = [f"follower-{i}" for i in range(others)]
        idlers = [f"idler-{i}" for i in range(stalled)]
        one.nodes = followers + idlers
        for node_id in followers:
            await one.follower(node_id)
        one.publish(0)
        await until(many(lambda: one.server.status.acks["cds"], others), 30)
        for node_id in idlers:
            await one.client(node_id)
        await until(lambda: all(one.pushes()[node_id] for node_id in idlers), 30)
        before, took = 0, []
        for version in range(1, changes + 1):
            began = time.monotonic()
            before = before if version > 2 else psutil.Process().memory_info().rss
            one.publish(version)
            await until(many(lambda: one.server.status.acks["cds"], others * (version + 1)), 30)
            took.append(time.monotonic() - began)
        grown = psutil.Process().memory_info().rss - before
        assert {one.pushes()[node_id] for node_id in idlers} == {1}, "no second response while one is on its way"
        assert sorted(took)[-2] < 4.0, took
        assert grown < stalled * changes * SIZE / 4, f"{grown / 1e6:.0f} MB more, for what would be 800 MB in queues"


async def test_requests_are_handled_while_pushes_wait() -> None:
    settings = Settings(concurrent_pushes=1, slow_write_seconds=2.0, debounce_seconds=0.0)
    async with world(settings) as one:
        one.nodes = ["idler", "busy"]
        busy = await one.client("busy")
        one.publish(0)
        got = await busy.get()
        await one.client("idler")
        await until(lambda: one.pushes()["idler"] == 1)
        began = time.monotonic()
        await busy.ask(CLUSTER, got.nonce, got.version_info)
        await busy.ask(LISTENER)
        await until(lambda: one.server.status.acks["cds"] == 1)
        assert time.monotonic() - began < 1.0
        assert one.pushes("lds")["busy"] == 0, "its turn has not come"
        assert (await busy.get()).type_url == LISTENER
        assert time.monotonic() - began > 0.5, "it came when the idler lost its slot"


async def test_who_never_reads_loses_its_stream() -> None:
    settings = Settings(slow_write_seconds=0.1, write_deadline_seconds=0.5)
    async with world(settings) as one:
        one.nodes = ["idler"]
        one.publish(0)
        idler = await one.client("idler")
        await until(lambda: one.told("disconnect", "idler"))
        assert not one.connected("idler")
        assert "not read within 0.5 s" in one.told("disconnect", "idler")[0].message
        [limited] = [event for event in one.events if event.kind == "limited"]
        assert limited.version == "unread"
        await idler.get()
        assert await asyncio.wait_for(idler.call.code(), 10) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_server_stops_although_somebody_does_not_read() -> None:
    async with world(Settings()) as one:
        one.nodes = [f"idler-{i}" for i in range(5)]
        one.publish(0)
        for node_id in one.nodes:
            await one.client(node_id)
        await until(lambda: sum(one.pushes().values()) == 5)
        began = time.monotonic()
        await one.server.stop(1.0)
        assert time.monotonic() - began < 2.0
        assert one.server.status.connected() == 0


# Half-open connections


class Proxy:
    """A TCP proxy that can turn into a black hole: connections stay open, and nothing gets through any more."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    def swallow(self) -> None:
        self._open.clear()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._accept, HOST, 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in self._writers:
                writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, self._target)
        self._writers += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._open.wait()
            sink.write(data)


@pytest.mark.parametrize("keepalive", [1.0, 2.0])
async def test_a_connection_into_a_black_hole_is_found(keepalive: float) -> None:
    settings = Settings(keepalive_seconds=keepalive, keepalive_timeout_seconds=1.0)
    async with world(settings) as one:
        proxy = Proxy(one.port)
        port = await one.stack.enter_async_context(proxy.running())
        one.nodes = ["here", "lost"]
        await one.follower("here")
        lost = await one.client("lost", port)
        one.publish(0)
        await lost.get()
        assert one.connected("lost")
        proxy.swallow()
        began = time.monotonic()
        await until(lambda: not one.connected("lost"), keepalive + 1.0 + 4.0)
        assert time.monotonic() - began > 0.9, "not before its time to answer was over"
        assert one.connected("here")


async def test_a_black_hole_costs_nobody_else_anything() -> None:
    """Responses into it leave the server without an error; what is published goes on."""
    async with world(Settings(keepalive_seconds=1.0, keepalive_timeout_seconds=1.0, debounce_seconds=0.0)) as one:
        proxy = Proxy(one.port)
        port = await one.stack.enter_async_context(proxy.running())
        one.nodes = ["here", "lost"]
        await one.follower("here")
        await one.client("lost", port)
        one.publish(0)
        await until(lambda: one.server.status.acks["cds"] == 1)
        proxy.swallow()
        for version in range(1, 4):
            one.publish(version)
            await until(many(lambda: one.server.status.acks["cds"], version + 1), 5)
        await until(lambda: not one.connected("lost"), 8)
