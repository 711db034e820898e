"""Does the server grow while sidecars come and go?

Run: ``python -m benchmarks.xds_churn [--cycles 10000] [--clusters 100] [--json FILE]``.

Each cycle is a connection of its own: connect, subscribe to clusters and endpoints as an Envoy does, accept both, and
hang up, half of the time without saying goodbye to the stream. Every third node is one that the server does not know.
Prints the resident memory of ``benchmarks/xds_server.py`` after each tenth of the cycles; the last figure beside the
first says whether it grows. Exits with 1 if that is more than 5 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc.aio

from xds import _wire_pb2 as wire
from xds.types import CLUSTER, ENDPOINT

SERVER = Path(__file__).parent / "xds_server.py"
PORT = 18701
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
AT_ONCE = 25
ALLOWED_GROWTH = 0.05
_FRESH = [("grpc.use_local_subchannel_pool", 1)]


class Server:
    """The server under test, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, clusters: int) -> Server:
        arguments = [str(SERVER), "--port", str(PORT), "--clusters", str(clusters), "--nodes", "1000"]
        pipe = asyncio.subprocess.PIPE
        server = cls(await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe))
        await server.ask("")
        return server

    async def ask(self, command: str) -> str:
        """The next line, after a command if one is given."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the server's pipes are closed")
        if command:
            self._process.stdin.write(f"{command}\n".encode())
        return (await asyncio.wait_for(self._process.stdout.readline(), 30)).decode()

    async def memory(self) -> float:
        """MB that are resident."""
        figures = dict(item.split("=") for item in (await self.ask("stat")).split()[1:])
        return float(figures["rss_mb"])

    async def stop(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()


async def cycle(number: int, names: list[str]) -> None:
    """One sidecar's life."""
    known = number % 3 != 0
    node = wire.Node(id=f"node-{number % 1000}" if known else f"stranger-{number}", cluster="churn")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{PORT}", options=_FRESH) as channel:
        open_stream: Any = channel.stream_stream  # of raw bytes: the stubs insist on serializers
        call = open_stream(METHOD)()
        await call.write(wire.DiscoveryRequest(type_url=CLUSTER, node=node).SerializeToString())
        if known:
            await _accept(call)
            await call.write(wire.DiscoveryRequest(type_url=ENDPOINT, resource_names=names).SerializeToString())
            await _accept(call)
        if number % 2:
            await call.done_writing()


async def _accept(call: Any) -> None:
    response = wire.DiscoveryResponse.FromString(await asyncio.wait_for(call.read(), 30))
    answer = wire.DiscoveryRequest(
        type_url=response.type_url, version_info=response.version_info, response_nonce=response.nonce
    )
    await call.write(answer.SerializeToString())


async def measure(cycles: int, clusters: int) -> list[float]:
    """MB after each tenth of the cycles."""
    server = await Server.start(clusters)
    names = [f"svc-{number}" for number in range(clusters)]
    try:
        memory = []
        for tenth in range(10):
            await _lives(range(cycles * tenth // 10, cycles * (tenth + 1) // 10), names)
            memory.append(await server.memory())
            print(f"{cycles * (tenth + 1) // 10:>8}{memory[-1]:>9.1f}", flush=True)
        return memory
    finally:
        await server.stop()


async def _lives(numbers: range, names: list[str]) -> None:
    for start in range(numbers.start, numbers.stop, AT_ONCE):
        batch = range(start, min(start + AT_ONCE, numbers.stop))
        await asyncio.gather(*(cycle(number, names) for number in batch))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    print(f"{'CYCLES':>8}{'RSS_MB':>9}")
    memory = asyncio.run(measure(options.cycles, options.clusters))
    growth = memory[-1] / memory[0] - 1
    print(f"from the first tenth to the last: {growth:+.1%} (allowed: {ALLOWED_GROWTH:+.0%})")
    if options.json:
        document = {"cycles": options.cycles, "clusters": options.clusters, "rss_mb": memory, "growth": growth}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if growth <= ALLOWED_GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
