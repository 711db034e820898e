"""Requests and connections that nobody should send, at a live server, while a witness watches its own stream.

Run: ``python -m benchmarks.xds_fuzz [--seconds 60] [--inputs N] [--seed 1]``. The server is a process of its own, with
everything that the control plane serves on its xDS port: a plaintext port and one with mutual TLS, which get half of
the inputs each. The witness is another process: it holds one stream on each port, through which a change comes ten
times a second.

Printed at the end: inputs by kind, how they were answered, crashes (of the server, or exceptions that nobody
handled), the server's memory (RSS) before, meanwhile and after, its open files, and what the witness saw.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import grpc
import grpc.aio
import psutil
from envoy_data_plane.envoy.config.cluster.v3 import Cluster

from benchmarks import xds_fuzz_inputs as inputs
from benchmarks.xds_fuzz_server import HOST, serve
from tests.support.certificates import Authority
from xds import _wire_pb2 as wire
from xds.server.services import METHODS
from xds.types import CLUSTER

#: Connections of ours that are left open, and inputs that are under way at once.
LEFT_OPEN, AT_ONCE = 100, 16
#: Files more than before that are no leak: pools of threads and event loops.
_FEW = 10


# The witness's process


async def watch(folder: Path, ports: list[int]) -> None:
    """One stream on each port until standard input ends; then what was seen, as JSON."""
    seen: list[list[tuple[float, float]]] = [[], []]
    ended: list[str] = []
    watching = [
        asyncio.create_task(_witness(channel(folder, port, secure, "witness"), seen[secure], ended))
        for secure, port in enumerate(ports)
    ]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    print(json.dumps({"seen": seen, "ended": ended}), flush=True)


async def _witness(to: grpc.aio.Channel, seen: list[tuple[float, float]], ended: list[str]) -> None:
    method: Any = to.stream_stream
    stream = method(METHODS[1].path)()
    node = wire.Node(id="witness-0", cluster="witness")
    await stream.write(wire.DeltaDiscoveryRequest(type_url=CLUSTER, node=node).SerializeToString())
    try:
        while isinstance(data := await stream.read(), bytes):
            now = time.monotonic_ns()
            response = wire.DeltaDiscoveryResponse.FromString(data)
            for one in response.resources:
                if one.name == "stamp":
                    stamp = int(Cluster.parse(one.resource.value).alt_stat_name)
                    seen.append((now / 1e9, (now - stamp) / 1e9))
            ack = wire.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce=response.nonce)
            await stream.write(ack.SerializeToString())
    except grpc.aio.AioRpcError as error:
        ended.append(f"{error.code()}: {error.details()}")
    else:
        ended.append("the stream ended")


def channel(folder: Path, port: int, secure: bool | int, name: str = "fuzz") -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    target = f"{HOST}:{port}"
    if not secure:
        return grpc.aio.insecure_channel(target, options)
    ca, certificate, key = ((folder / file).read_bytes() for file in ("ca.pem", f"{name}.pem", f"{name}.key"))
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(ca, key, certificate), options)


# The attacker


@dataclass
class Report:
    """What became of a run. Times in seconds, memory in bytes."""

    inputs: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    before: dict[str, Any] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)
    after: dict[str, Any] = field(default_factory=dict)
    crashed: bool = False
    witness: dict[str, Any] = field(default_factory=dict)

    @property
    def grown(self) -> int:
        return int(self.after["rss"]) - int(self.before["rss"])

    def changes(self) -> list[int]:
        """Changes that the witness saw, by port."""
        return [len(seen) for seen in self.witness["seen"]]

    def latencies(self) -> list[float]:
        """From publishing to the witness, in ascending order."""
        return sorted(latency for seen in self.witness["seen"] for _, latency in seen)

    def longest_silence(self) -> float:
        """The longest time between two changes that reached the witness."""
        gaps = [b[0] - a[0] for seen in self.witness["seen"] for a, b in pairwise(seen)]
        return max(gaps, default=0.0)


class Fuzzer:
    """Inputs from a seed, half of them as messages of gRPC and half as bytes, at both ports."""

    def __init__(self, folder: Path, ports: list[int], seed: int, report: Report) -> None:
        self._folder = folder
        self._ports = ports
        self._rng = Random(seed)
        self._report = report
        self._left_open: list[asyncio.StreamWriter] = []
        self._channels: dict[bool, grpc.aio.Channel] = {}
        self._tls = ssl.create_default_context(cafile=folder / "ca.pem")
        self._tls.load_cert_chain(folder / "fuzz.pem", folder / "fuzz.key")
        self._tls.set_alpn_protocols(["h2"])

    async def run(self, seconds: float, most: int) -> None:
        until = time.monotonic() + seconds

        async def work() -> None:
            while time.monotonic() < until and sum(self._report.inputs.values()) < most:
                await self._one()

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        for writer in self._left_open:
            writer.close()
        for one in self._channels.values():
            await one.close(None)

    async def _one(self) -> None:
        secure = self._rng.random() < 0.5
        if self._rng.random() < 0.7:
            await self._call(secure)
        else:
            await self._connect(secure)

    async def _call(self, secure: bool) -> None:
        """A stream, and messages until it is ended."""
        if secure not in self._channels or self._rng.random() < 0.02:
            self._channels[secure] = channel(self._folder, self._ports[secure], secure)
        method: Any = self._channels[secure].stream_stream
        answer = "read"
        try:
            async with asyncio.timeout(5):
                stream = method(self._rng.choice(inputs.PATHS))()
                for _ in range(self._rng.choice((1, 1, 3, 20))):
                    self._report.inputs["messages, TLS" if secure else "messages"] += 1
                    await stream.write(inputs.request(self._rng))
                if self._rng.random() < 0.5:
                    await stream.done_writing()
                    while isinstance(await stream.read(), bytes):
                        pass
                stream.cancel()
        except grpc.aio.AioRpcError as error:
            answer = error.code().name
            if answer == "INTERNAL" and error.details() == "Internal error from Core":  # of the client's core
                answer = "ended while it was written to"
        except (asyncio.InvalidStateError, grpc.aio.UsageError):
            answer = "ended while it was written to"
        except TimeoutError:
            stream.cancel()
            answer = "still open"
        self._report.answers[answer] += 1

    async def _connect(self, secure: bool) -> None:
        """Bytes on a connection, which is closed, or left alone."""
        data = inputs.connection(self._rng)
        inside = secure and self._rng.random() < 0.5  # past the handshake, which it passes
        self._report.inputs["connections, in TLS" if inside else "connections, TLS" if secure else "connections"] += 1
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(2):
                context = self._tls if inside else None
                reader, writer = await asyncio.open_connection(HOST, self._ports[secure], ssl=context)
                writer.write(data)
                await writer.drain()
                self._left_open.append(writer)
                await reader.read(self._rng.choice((0, 1, 100_000)))
        while len(self._left_open) > LEFT_OPEN:
            self._left_open.pop(self._rng.randrange(LEFT_OPEN)).close()


# Putting it together


class Child:
    """One of our processes: a line in, a line of JSON out."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, *arguments: str) -> Child:
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-m", "benchmarks.xds_fuzz", *arguments]
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=2**26))

    async def hear(self, timeout: float = 60.0) -> Any:
        assert self.process.stdout is not None
        return json.loads(await asyncio.wait_for(self.process.stdout.readline(), timeout))

    async def ask(self, line: str = "stat\n") -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode())
        return await self.hear()

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            assert self.process.stdin is not None
            self.process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), 10)
                return
            self.process.kill()
            await self.process.wait()


@contextlib.asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[Child]:
    one = await Child.start(*arguments)
    try:
        yield one
    finally:
        await one.end()


async def fuzz(folder: Path, *, seconds: float, most: int, seed: int, warm_up: int = 300, wait: bool = False) -> Report:
    """One run. The first ``warm_up`` inputs are for what is made once; memory is measured after them.

    ``wait``: until the last connection is closed, which takes half a minute.
    """
    authority, report = Authority(), Report()
    (folder / "ca.pem").write_bytes(authority.pem)
    authority.issue(HOST, "localhost").write(folder, "server")
    for name in ("fuzz", "witness"):
        authority.issue(f"spiffe://mesh/sa/{name}").write(folder, name)
    async with child("--serve", str(folder)) as server:
        ports = await server.hear()
        async with child("--watch", str(folder), *map(str, ports)) as witness:
            await attacked(folder, ports, seconds, warm_up, seed - 1)
            report.before = await settled(server)
            report.memory.append(report.before["rss"])
            async with watching(server, report, seconds / 6):
                report.inputs, report.answers = await attacked(folder, ports, seconds, most, seed)
            report.crashed = server.process.returncode is not None
            report.after = (
                {} if report.crashed else await settled(server, report.before["files"] + _FEW if wait else math.inf)
            )
            report.witness = await witness.ask()
    return report


async def attack(folder: Path, ports: list[int], seconds: float, most: int, seed: int) -> None:
    """What was sent and how it was answered, as JSON."""
    report = Report()
    await Fuzzer(folder, ports, seed, report).run(seconds, most)
    print(json.dumps([report.inputs, report.answers]), flush=True)


async def attacked(
    folder: Path, ports: list[int], seconds: float, most: int, seed: int
) -> tuple[Counter[str], Counter[str]]:
    """The attack by a process of its own, whose connections end with it."""
    wanted = (folder, *ports, seconds, most, seed)
    async with child("--attack", *map(str, wanted)) as attacker:
        sent, answered = await attacker.hear(seconds + 60)
    return Counter(sent), Counter(answered)


@contextlib.asynccontextmanager
async def watching(server: Child, report: Report, every: float) -> AsyncIterator[None]:
    """Note the server's memory now and then while the block runs."""
    process = psutil.Process(server.process.pid)

    async def note() -> None:
        while True:
            await asyncio.sleep(every)
            report.memory.append(process.memory_info().rss)

    noting = asyncio.create_task(note())
    try:
        yield
    finally:
        noting.cancel()


async def settled(server: Child, files: float = math.inf, timeout: float = 60.0) -> Any:
    """The server's word once only the witness's streams are open, and no more than so many files.

    Connections that nobody closed are found dead by keepalive, within 40 seconds.
    """
    async with asyncio.timeout(timeout):
        while (said := await server.ask())["streams"] != [1, 1] or said["files"] > files:
            await asyncio.sleep(0.1)
    return said


def told(report: Report) -> str:
    latencies = report.latencies()
    lines = [
        f"inputs      {sum(report.inputs.values())}: {dict(sorted(report.inputs.items()))}",
        f"answers     {dict(report.answers.most_common())}",
        f"refused     {report.after['refused']}",
        f"crashes     {int(report.crashed) + len(report.after['errors'])}",
        f"memory      {' '.join(f'{size / 2**20:.0f}' for size in (*report.memory, report.after['rss']))} MiB",
        f"files       {report.before['files']} before, {report.after['files']} after",
        f"witness     {report.changes()} changes, {len(report.witness['ended'])} interruptions, "
        f"p50 {latencies[len(latencies) // 2] * 1e3:.1f} ms, p99 {latencies[len(latencies) * 99 // 100] * 1e3:.1f} ms, "
        f"longest silence {report.longest_silence() * 1e3:.0f} ms",
    ]
    return "\n".join([*lines, *report.after["errors"][:3], *report.witness["ended"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="at most so long")
    parser.add_argument("--inputs", type=int, default=10**9, help="at most so many inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--watch", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--attack", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve))
    elif given.attack:
        where, one, other, seconds, most, seed = given.attack
        asyncio.run(attack(Path(where), [int(one), int(other)], float(seconds), int(most), int(seed)))
    elif given.watch:
        where, *ports = given.watch
        asyncio.run(watch(Path(where), [int(port) for port in ports]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            run = fuzz(Path(folder), seconds=given.seconds, most=given.inputs, seed=given.seed, wait=True)
            print(told(asyncio.run(run)))


if __name__ == "__main__":
    main()
