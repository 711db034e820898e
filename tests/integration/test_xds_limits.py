"""Limits on a live port: what is refused says so, what is delayed arrives, and what gRPC bounds by itself it bounds."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster

from benchmarks.xds_fuzz_inputs import PREFACE, frame
from tests.support.envoys import HOST, until
from xds import _wire_pb2 as wire
from xds.server import Settings, XdsServer
from xds.server.admission import Admission, check_request, check_stream
from xds.server.settings import Limits
from xds.snapshot import resource, resource_set, snapshot
from xds.status import XdsEvent
from xds.types import CLUSTER, ENDPOINT

pytestmark = pytest.mark.slow

DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


class Port:
    def __init__(self, limits: Limits) -> None:
        self.events: list[XdsEvent] = []
        self.server = XdsServer(on_event=self.events.append, settings=Settings(limits=limits))
        self.port = 0

    def reasons(self) -> list[str]:
        return [event.version for event in self.events if event.kind == "limited"]

    def channel(self, **options: Any) -> grpc.aio.Channel:
        own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        return grpc.aio.insecure_channel(f"{HOST}:{self.port}", own, **options)


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[Port]:
    port = Port(replace(Limits(), **limits))
    port.port = await port.server.start(HOST, 0)
    try:
        yield port
    finally:
        await port.server.stop(0)


def opened(channel: grpc.aio.Channel) -> Any:
    method: Any = channel.stream_stream
    return method(DELTA)()


def request(node_id: str = "a-0", type_url: str = CLUSTER, **fields: Any) -> bytes:
    return wire.DeltaDiscoveryRequest(type_url=type_url, node=wire.Node(id=node_id), **fields).SerializeToString()


async def code(stream: Any) -> grpc.StatusCode:
    """How the server ends the stream."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        async with asyncio.timeout(10):
            while isinstance(await stream.read(), bytes):
                pass
    return await stream.code()  # type: ignore[no-any-return]


async def test_a_storm_that_must_wait_loses_nobody() -> None:
    """3,000 streams at 1,500 per second: the last is served after two seconds, and none is refused."""
    tight = {"new_streams_burst": 100, "new_streams_burst_per_peer": 100}
    async with serving(new_streams_per_second=1500.0, new_streams_per_second_per_peer=1500.0, **tight) as port:
        wanted = snapshot(resource_set(CLUSTER, [resource("c", Cluster(name="c"))]))
        port.server.publish({f"a-{number}": wanted for number in range(3_000)})
        channels = [port.channel() for _ in range(30)]
        started = time.monotonic()

        async def one(number: int) -> bytes:
            stream = opened(channels[number % len(channels)])
            await stream.write(request(f"a-{number}"))
            data: bytes = await stream.read()
            return data

        answers = await asyncio.wait_for(asyncio.gather(*map(one, range(3_000))), 60)
        assert all(isinstance(data, bytes) for data in answers)
        assert time.monotonic() - started > 1.8
        assert port.server.status.connected() == 3_000
        assert port.reasons() == []
        for channel in channels:
            await channel.close(None)


async def test_who_says_nothing_is_asked_to_leave() -> None:
    async with serving(first_request_seconds=0.3) as port, port.channel() as channel:
        stream, talker = opened(channel), opened(channel)
        await talker.write(request())
        await until(lambda: port.server.status.connected() == 1)
        assert await code(stream) == grpc.StatusCode.DEADLINE_EXCEEDED
        assert port.server.status.connected() == 1
        assert port.reasons() == ["first_request"]


@pytest.mark.parametrize(
    ("limits", "data", "reason"),
    [
        ({"names": 10}, request(type_url=ENDPOINT, resource_names_subscribe=["n" * 500] * 11), "names"),
        ({"name_bytes": 64}, request(type_url=ENDPOINT, resource_names_subscribe=["n" * 65]), "name_length"),
        ({"names": 3}, request(type_url=ENDPOINT, resource_names_subscribe=list("abcd")), "names"),
        ({}, request("n" * 2000), "node"),
        ({"message_bytes": 100_000}, gzip.compress(request() + bytes(200_000)), "message_size"),
    ],
)
async def test_too_much_in_one_request_is_refused(limits: dict[str, int], data: bytes, reason: str) -> None:
    async with serving(**limits) as port, port.channel() as channel:
        stream = opened(channel)
        await stream.write(data)
        assert await code(stream) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert port.reasons() == [reason]
        assert port.server.gate.admission.refused == {reason: 1}
        assert port.server.gate.admission.streams == 0


async def test_too_many_types_are_refused() -> None:
    async with serving(types=2) as port, port.channel() as channel:
        stream = opened(channel)
        for number in range(3):
            await stream.write(request(type_url=f"type.googleapis.com/a.T{number}"))
        assert await code(stream) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert port.reasons() == ["types"]


async def test_requests_in_a_hurry_are_all_answered_in_time() -> None:
    async with serving(requests_per_second=50.0, requests_burst=5) as port, port.channel() as channel:
        stream, started = opened(channel), time.monotonic()
        port.server.publish({"a-0": snapshot(resource_set(ENDPOINT, []))})
        for number in range(30):
            await stream.write(request(type_url=ENDPOINT, resource_names_subscribe=[f"e-{number}"]))
        gone: set[str] = set()
        while len(gone) < 30:
            response = wire.DeltaDiscoveryResponse.FromString(await asyncio.wait_for(stream.read(), 10))
            gone |= set(response.removed_resources)
            await stream.write(request(type_url=ENDPOINT, response_nonce=response.nonce))
        assert time.monotonic() - started > 0.4
        stream.cancel()


# Before anybody is known


BOMBER = """
import asyncio, sys, grpc, grpc.aio

async def main(port, size):
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel("127.0.0.1:" + port, options, compression=grpc.Compression.Gzip) as channel:
        stream = channel.stream_stream(sys.argv[3])()
        await stream.write(bytes(int(size)))
        print(await stream.code(), flush=True)

asyncio.run(main(*sys.argv[1:3]))
"""


async def test_a_message_that_inflates_beyond_all_bounds_takes_no_memory() -> None:
    """gRPC's core would inflate it whole, and look at its size then."""
    size = 256 * 2**20
    async with serving(message_bytes=2**20) as port:
        before = _reset_peak()
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-c", BOMBER, str(port.port), str(size), DELTA)
        bomber = await asyncio.create_subprocess_exec(*command, stdout=pipe)
        said, _ = await asyncio.wait_for(bomber.communicate(), 60)
        assert said.split() == [b"StatusCode.RESOURCE_EXHAUSTED"]
        assert port.reasons() == ["message_size"]
        assert _peak() - before < size / 4


def _reset_peak() -> int:
    """Forget the most memory that this process ever had (https://man7.org/linux/man-pages/man5/proc.5.html)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """The most resident memory since then, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def test_compressed_requests_are_taken() -> None:
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        async with serving() as port, port.channel(compression=compression) as channel:
            stream = opened(channel)
            await stream.write(request(resource_names_subscribe=["a" * 1000]))
            await until(lambda port=port: port.server.status.connected() == 1)
            stream.cancel()


async def raw(port: Port, data: bytes, seconds: float) -> bytes:
    """What the server says until it closes the connection; TimeoutError if it does not."""
    reader, writer = await asyncio.open_connection(HOST, port.port)
    writer.write(data)
    try:
        async with asyncio.timeout(seconds):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("data", [b"", PREFACE, PREFACE[:10], b"\x16\x03\x01"])
async def test_a_connection_that_does_not_shake_hands_is_closed(data: bytes) -> None:
    async with serving(handshake_seconds=0.5) as port:
        await raw(port, data, seconds=5)


async def test_pings_without_end_end_the_connection() -> None:
    flood = PREFACE + frame(4, 0, 0, b"") + frame(6, 0, 0, b"\0" * 8) * 100
    async with serving(ping_interval_seconds=60.0, ping_strikes=2) as port:
        assert b"too_many_pings" in await raw(port, flood, seconds=5)


async def test_connections_are_bounded_before_the_handshake() -> None:
    async with serving(connections=3) as port:
        open_now = [await asyncio.open_connection(HOST, port.port) for _ in range(3)]
        for reader, _ in open_now:
            await asyncio.wait_for(reader.readexactly(9), 5)
        assert await raw(port, b"", seconds=5) == b""
        for _, writer in open_now:
            writer.close()


async def test_a_request_on_an_admitted_stream_costs_next_to_nothing() -> None:
    """Counting and checking; the median of many, so that a busy machine does not matter."""
    from xds.protocol.delta import DeltaStream
    from xds.protocol.events import DeltaRequest, Node
    from xds.protocol.responses import ResponseCache

    limits = Limits()
    ticket, stream = Admission(limits).enter("peer", 0.0), DeltaStream("n", ResponseCache())
    ack = DeltaRequest(CLUSTER, nonce="1", node=Node("a-0"))
    stream.receive(ack, 0.0)
    took = []
    for number in range(2_000):
        started = time.perf_counter()
        ticket.pace(float(number))
        check_request(limits, ack, 100)
        check_stream(limits, stream)
        took.append(time.perf_counter() - started)
    assert sorted(took)[1_000] < 10e-6
