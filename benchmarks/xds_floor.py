"""The floor under any xDS server that is written with ``grpc.aio``: it knows nothing and writes what was prepared.

Takes the arguments of ``benchmarks/xds_server.py`` that matter and speaks its protocol on standard input. The first
request of a type is answered with prepared bytes and a nonce, and so is every change; ACKs are read and thrown away. No
subscription, no order, no status. ``benchmarks/xds_table.py --floor`` runs it before each row, on the same machine at
the same time, so that a figure can be told from the machine's mood.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import xds.server.polling  # noqa: F401 - before whatever loads gRPC, as in the server

# isort: split
import grpc
import grpc.aio
import psutil
import uvloop

from benchmarks.xds_server import HOST, Content, commands, say
from xds import _wire_pb2 as wire
from xds import codec
from xds.protocol.responses import ResponseCache
from xds.server import collector, heap
from xds.snapshot import Snapshot
from xds.types import CLUSTER

_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
_METHODS = {_ADS + "StreamAggregatedResources": False, _ADS + "DeltaAggregatedResources": True}
_PENDING = [("grpc.server.max_pending_requests", 100_000), ("grpc.server.max_pending_requests_hard_limit", 100_000)]


class Floor(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Both variants. ``bodies`` maps types to prepared responses, ``change`` is what a change sends."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._cache = ResponseCache()
        self.requests = 0
        self.changed = asyncio.Condition()
        self.prepare(snapshot)

    def prepare(self, snapshot: Snapshot) -> None:
        sets = snapshot.sets
        self.first = {
            False: {url: self._cache.whole(one, b"") for url, one in sets.items()},
            True: {url: self._cache.delta(one, one.ordered, ()) for url, one in sets.items()},
        }
        clusters = sets[CLUSTER]
        self.change = {False: self.first[False][CLUSTER], True: self._cache.delta(clusters, clusters.ordered[:1], ())}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        delta = _METHODS.get(handler_call_details.method)
        if delta is None:
            return None

        async def serve(_: object, context: Any) -> None:
            await self._serve(context, delta)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(self, context: Any, delta: bool) -> None:
        writer = asyncio.create_task(self._changes(context, delta))
        request = wire.DeltaDiscoveryRequest if delta else wire.DiscoveryRequest
        answered: set[str] = set()
        try:
            while isinstance(data := await context.read(), bytes):
                self.requests += 1
                url = request.FromString(data).type_url
                if url not in answered:
                    answered.add(url)
                    await context.write(self.first[delta][url] + codec.nonce_field(url[-8:]))
        finally:
            writer.cancel()

    async def _changes(self, context: Any, delta: bool) -> None:
        number = 0
        while True:
            async with self.changed:
                await self.changed.wait()
            number += 1
            await context.write(self.change[delta] + codec.nonce_field(f"c-{number}"))


async def serve(options: argparse.Namespace) -> None:
    content = Content(options.clusters, per_node=False)
    floor = Floor(content.snapshots(["any"])["any"])
    server = grpc.aio.server(options=_PENDING)
    server.add_generic_rpc_handlers((floor,))
    server.add_insecure_port(f"{HOST}:{options.port}")
    await server.start()
    collector.calm()
    heap.keep()
    say("ready")
    async for command in commands():
        if command == "stat":
            used = psutil.Process()
            cpu = used.cpu_times()
            say(f"stat cpu_s={cpu.user + cpu.system} rss_mb={used.memory_info().rss / 1e6} requests={floor.requests}")
        elif command == "quit":
            break
        else:
            content.change(content.names()[:1])
            floor.prepare(content.snapshots(["any"])["any"])
            say(f"bumped {time.time():.6f} {content.generation}")
            async with floor.changed:
                floor.changed.notify_all()
    await server.stop(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=18000)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=0, help="ignored")
    parser.add_argument("--per-node", action="store_true", help="ignored")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
