"""The parts of a sharded server that need no process: frames, merged status, forwarded calls."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import grpc
import pytest

from xds.errors import CodecError
from xds.histogram import Histogram
from xds.server import ShardedServer, shard_calls, shard_frames
from xds.server.shard_calls import Answer
from xds.server.shard_status import ShardedStatus, node_head, node_of, totals_head, totals_of
from xds.status import NodeStatus, StatusBoard, TypeStatus

STALE = TypeStatus("STALE", "2", "2", "1", 5.0, "", 4.0)
SYNCED = TypeStatus("SYNCED", "2", "2", "2", 6.0)
NACKED = TypeStatus("NACKED", "2", "2", "1", 6.0, "no such filter")


# Frames


def reader(data: bytes) -> asyncio.StreamReader:
    made = asyncio.StreamReader()
    made.feed_data(data)
    made.feed_eof()
    return made


async def test_messages_come_out_as_they_went_in() -> None:
    stream = reader(shard_frames.pack({"op": "a", "é": [1, None]}, [b"\x00", b"xy"]) + shard_frames.pack({"op": "b"}))
    assert await shard_frames.read(stream) == ({"op": "a", "é": [1, None]}, b"\x00xy")
    assert await shard_frames.read(stream) == ({"op": "b"}, b"")
    assert await shard_frames.read(stream) is None


async def test_half_a_message_is_the_end() -> None:
    whole = shard_frames.pack({"op": "a"}, [b"12345"])
    for length in range(len(whole)):
        assert await shard_frames.read(reader(whole[:length])) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x01\x00\x00\x00\x00{",
        b"\x00\x00\x00\x02\x00\x00\x00\x00[]",
        b"\x00\x00\x00\x02\x00\x00\x00\x00\xff\xff",
        b"\x00\x00\x00\x02\x7f\xff\xff\xff{}",
    ],
)
async def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        await shard_frames.read(reader(data), limit=1000)


# Status


def node(node_id: str, connected: bool = True, since: float = 1.0, **types: TypeStatus) -> NodeStatus:
    return NodeStatus(node_id, "catalog", connected, since, "1.40", types)


def report(*nodes: NodeStatus, forgotten: tuple[str, ...] = (), **counts: int) -> dict[str, Any]:
    board = StatusBoard(lambda: 0.0)
    for name, count in counts.items():
        board.acks[name] = count
        board.pushes[name, "acked"] = count
        board.push_seconds[name].observe(0.2)
    head = {
        "totals": totals_head(board, {"identity": 1}),
        "behind": {"cds": 1},
        "nodes": [node_head(one) for one in nodes],
        "forgotten": list(forgotten),
    }
    return dict(json.loads(json.dumps(head)))


def status(workers: int = 2) -> ShardedStatus:
    return ShardedStatus(lambda: 100.0, workers)


def test_a_node_survives_the_wire() -> None:
    one = node("catalog-0", cds=NACKED, eds=STALE, rtds=SYNCED)
    assert node_of(json.loads(json.dumps(node_head(one)))) == one


def test_totals_survive_the_wire() -> None:
    totals = totals_of(report(cds=3)["totals"])
    assert (totals.acks, totals.pushes) == (Counter(cds=3), Counter({("cds", "acked"): 3}))
    assert totals.refused == Counter(identity=1)
    assert totals.push_seconds["cds"].counts == [0, 1, *[0] * 7]


def test_totals_of_workers_add_up_and_outlive_them() -> None:
    board = status()
    board.reported(0, report(cds=3))
    board.reported(1, report(cds=4, eds=1))
    assert (board.acks, board.refused, board.behind()) == (Counter(cds=7, eds=1), Counter(identity=2), {"cds": 2})
    board.ended(0)
    assert (board.acks["cds"], board.behind()) == (7, {"cds": 1})
    board.reported(0, report(cds=1))
    assert board.acks["cds"] == 8
    assert isinstance(board.push_seconds["cds"], Histogram)
    assert board.push_seconds["cds"].count == 3


def test_a_node_is_where_it_is_connected_and_as_well_as_its_worst_stream() -> None:
    board = status()
    board.reported(0, report(node("a-0", cds=SYNCED), node("b-0", False, 50.0)))
    board.reported(1, report(node("a-0", since=0.5, cds=NACKED, rtds=SYNCED), node("b-0", False, 60.0)))
    merged = board.node("a-0")
    assert merged is not None
    assert (merged.connected, merged.since) == (True, 0.5)
    assert merged.types == {"cds": NACKED, "rtds": SYNCED}
    last = board.node("b-0")
    assert last is not None
    assert (last.connected, last.since) == (False, 60.0)
    assert (board.connected(), [one.node_id for one in board.nodes()]) == (1, ["a-0", "b-0"])


def test_nodes_of_a_worker_that_ended_are_disconnected_until_they_are_back() -> None:
    board = status()
    board.reported(0, report(node("a-0", cds=SYNCED), node("b-0", False)))
    assert board.ended(0) == ["a-0"]
    lost = board.node("a-0")
    assert lost is not None
    assert (lost.connected, lost.since, lost.types) == (False, 100.0, {"cds": SYNCED})
    board.reported(1, report(node("a-0")))
    assert board.connected() == 1


def test_expected_nodes_are_known_and_others_forgotten() -> None:
    board = status()
    board.expect(["a-0", "b-0"])
    assert [(one.node_id, one.connected) for one in board.nodes()] == [("a-0", False), ("b-0", False)]
    board.reported(0, report(node("a-0", False), node("b-0")))
    board.expect(["c-0"])
    assert [one.node_id for one in board.nodes()] == ["b-0", "c-0"]
    board.reported(0, report(forgotten=("b-0",)))
    assert board.node("b-0") is None


# Calls

CALL = {"method": "/a.B/C", "peer": "ipv4:127.0.0.1:1", "auth": {"peer_spiffe_id": ["spiffe://m/a"]}, "metadata": []}


def handlers(behavior: Any, **serializers: Any) -> list[Any]:
    method = grpc.unary_unary_rpc_method_handler(behavior, **serializers)
    return [grpc.method_handlers_generic_handler("a.B", {"C": method})]


async def test_a_call_is_answered_by_its_handler() -> None:
    async def reverse(request: str, context: Any) -> str:
        assert context.auth_context() == {"peer_spiffe_id": [b"spiffe://m/a"]}
        return request[::-1]

    found = handlers(reverse, request_deserializer=bytes.decode, response_serializer=str.encode)
    assert await shard_calls.answer(found, CALL, b"abc") == Answer(0, "", b"cba")


async def test_a_refusal_keeps_its_words_and_a_failure_costs_one_call() -> None:
    async def refuse(_request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
        return b""

    async def fail(_request: bytes, _context: Any) -> bytes:
        raise ValueError("broken")

    assert await shard_calls.answer(handlers(refuse), CALL, b"") == Answer(7, "not you", b"")
    assert await shard_calls.answer(handlers(fail), CALL, b"") == Answer(2, "ValueError: broken", b"")


async def test_nobody_has_the_method() -> None:
    stream = grpc.unary_stream_rpc_method_handler(lambda request, context: iter(()))
    found = [grpc.method_handlers_generic_handler("a.B", {"C": stream})]
    for some in ([], found):
        assert (await shard_calls.answer(some, CALL, b"")).code == grpc.StatusCode.UNIMPLEMENTED.value[0]


def test_no_worker_is_none_at_all() -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        ShardedServer(0)
