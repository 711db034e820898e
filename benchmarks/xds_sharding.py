"""What several processes on one port cost: feeding them, and losing one.

Run: ``python benchmarks/xds_sharding.py [--nodes 1000] [--clusters 100] [--workers 2]``. Printed are bytes per worker
and the time until the last worker has taken them, for everything and for one changed cluster, with one snapshot for all
nodes and with one per node; then, with one delta stream per node on connections of their own, the time from ``kill -9``
of a worker until another listens in its place and until every stream that it served is open again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import time
from collections.abc import Callable, Mapping

import grpc
import grpc.aio
import uvloop

from benchmarks.xds_server import Content
from xds import _wire_pb2 as wire
from xds.feed import NOTHING, feed
from xds.server import Settings, ShardedServer
from xds.server.shard_frames import pack
from xds.snapshot import Snapshot
from xds.status import EventKind
from xds.types import CLUSTER

HOST = "127.0.0.1"
DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
STREAMS_PER_CONNECTION = 20
CONNECT: tuple[EventKind, ...] = ("connect",)


async def until(condition: Callable[[], bool]) -> float:
    """Seconds until the condition holds."""
    started = time.perf_counter()
    while not condition():
        await asyncio.sleep(0.0005)
    return time.perf_counter() - started


async def feeding(options: argparse.Namespace, *, per_node: bool) -> None:
    content = Content(options.clusters, per_node)
    node_ids = [f"node-{number}" for number in range(options.nodes)]
    server = ShardedServer(options.workers, settings=Settings(debounce_seconds=0.0))
    await server.start(HOST, 0)
    before: Mapping[str, Snapshot] = NOTHING
    for what in ("everything", "one change", "one change", "one change"):
        wanted = content.snapshots(node_ids)
        started = time.perf_counter()
        server.publish(wanted)
        parent = time.perf_counter() - started
        await until(lambda: not any(link.busy for link in server.links))
        total = time.perf_counter() - started
        made = feed(before, server.snapshots)
        size = len(pack(made.head, made.bodies))
        kind = "per node" if per_node else "shared"
        times = f"parent {parent * 1e3:6.1f} ms, taken {total * 1e3:6.1f} ms"
        print(f"{kind:8} {what:10} {size / 1e3:9.1f} kB/worker, {times}", flush=True)
        before = server.snapshots
        content.change(content.names()[:1])
    await server.stop(0)


class Client:
    """One delta stream that comes back when it is lost, with the versions that it has."""

    def __init__(self, channel: grpc.aio.Channel, node_id: str) -> None:
        self.channel, self.node_id = channel, node_id
        self.versions: dict[str, str] = {}
        self.responses = 0
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self._stream()
            await asyncio.sleep(0.02)

    async def _stream(self) -> None:
        call = self.channel.stream_stream(DELTA)()  # type: ignore[call-arg]  # serializers are optional
        request = wire.DeltaDiscoveryRequest(
            node=wire.Node(id=self.node_id), type_url=CLUSTER, initial_resource_versions=self.versions
        )
        await call.write(request.SerializeToString())
        while isinstance(data := await call.read(), bytes):
            response = wire.DeltaDiscoveryResponse.FromString(data)
            self.responses += 1
            self.versions |= {one.name: one.version for one in response.resources}
            ack = wire.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce=response.nonce)
            await call.write(ack.SerializeToString())


async def _kill(server: ShardedServer, connects: list[float], nodes: int) -> tuple[float, float]:
    """Seconds until another worker has been told everything, and until all streams are open again."""
    worker = max(server.status.workers, key=lambda one: one.connected)
    served, pid, restarts = worker.connected, worker.pid, worker.restarts
    connects.clear()
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: worker.restarts > restarts and worker.pid != pid)
    await until(lambda: not server.links[worker.index].busy)
    fed = time.time() - killed
    await until(lambda: len(connects) >= served and server.status.connected() == nodes)
    back = max(connects) - killed
    print(
        f"killed a worker with {served} streams: fed again {fed * 1e3:.0f} ms, all open {back * 1e3:.0f} ms", flush=True
    )
    return fed, back


async def losing(options: argparse.Namespace) -> None:
    content = Content(options.clusters, per_node=False)
    node_ids = [f"node-{number}" for number in range(options.nodes)]
    connects: list[float] = []
    server = ShardedServer(
        options.workers,
        on_event=lambda event: connects.append(event.time),
        kinds=CONNECT,
        settings=Settings(debounce_seconds=0.0),
    )
    port = await server.start(HOST, 0)
    server.publish(content.snapshots(node_ids))
    connection = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
    channels = [
        grpc.aio.insecure_channel(f"{HOST}:{port}", options=connection)
        for _ in range(-(-options.nodes // STREAMS_PER_CONNECTION))
    ]
    clients = [Client(channels[number // STREAMS_PER_CONNECTION], node_id) for number, node_id in enumerate(node_ids)]
    await until(lambda: server.status.acks["cds"] == options.nodes)
    await until(lambda: sum(worker.connected for worker in server.status.workers) == options.nodes)
    rounds = [await _kill(server, connects, options.nodes) for _ in range(options.kills)]
    extra = sum(client.responses - 1 for client in clients)
    medians = [statistics.median(column) * 1e3 for column in zip(*rounds, strict=True)]
    print(f"median: fed again {medians[0]:.0f} ms, all open {medians[1]:.0f} ms; responses sent again: {extra}")
    for client in clients:
        client.task.cancel()
    await asyncio.gather(*(channel.close(None) for channel in channels))
    await server.stop(0)


async def run(options: argparse.Namespace) -> None:
    for per_node in (False, True):
        await feeding(options, per_node=per_node)
    await losing(options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=5)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
