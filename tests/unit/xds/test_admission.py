"""Limits: what is too fast waits, what is too much is refused, and one peer's hurry is its own."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds.errors import CodecError, LimitExceeded
from xds.protocol.delta import DeltaStream
from xds.protocol.events import DeltaRequest, Node, SotwRequest
from xds.protocol.responses import ResponseCache
from xds.server.admission import Admission, Pace, check_node, check_request, check_stream, inflated
from xds.server.settings import Limits
from xds.types import CLUSTER, ENDPOINT

LIMITS = Limits()


def reason(refused: pytest.ExceptionInfo[LimitExceeded]) -> str:
    return refused.value.reason


def test_a_burst_is_free_and_then_everyone_waits_their_turn() -> None:
    pace = Pace(rate=10, burst=3)
    assert [round(pace.take(0.0), 3) for _ in range(5)] == [0, 0, 0, 0.1, 0.2]
    assert pace.take(100.0) == 0, "time pays"


def test_what_is_refused_is_not_paid_for() -> None:
    pace = Pace(rate=1, burst=1)
    pace.take(0.0)
    waits = [pace.take(0.0, patience=0.5) for _ in range(3)]
    assert waits == [1.0, 1.0, 1.0]


@given(
    st.floats(0.1, 1000),
    st.integers(1, 50),
    st.lists(st.floats(0, 10), min_size=1, max_size=100),
)
def test_over_any_time_no_more_than_rate_and_burst_are_let_through(rate: float, burst: int, gaps: list[float]) -> None:
    pace, now, served = Pace(rate, burst), 0.0, []
    for gap in gaps:
        now += gap
        served.append(now + pace.take(now))
    for first in range(0, len(served), 7):
        for last in range(first, len(served)):
            assert last - first + 1 <= rate * (served[last] - served[first]) + burst + 1e-6 * len(served)


def test_a_storm_of_three_thousand_loses_nobody() -> None:
    tight = replace(LIMITS, new_streams_per_second=500.0, new_streams_burst=100, new_streams_burst_per_peer=100)
    admission = Admission(tight)
    delays = [admission.enter(f"10.0.{i // 250}.{i % 250}", now=0.0).delay for i in range(3000)]
    assert admission.streams == 3000
    assert max(delays) == pytest.approx(2900 / 500)
    assert max(Admission(LIMITS).enter("127.0.0.1", now=0.0).delay for _ in range(3000)) == 0.0


def test_a_flood_is_refused_once_its_turn_would_come_too_late() -> None:
    admission = Admission(replace(LIMITS, new_streams_per_second=10.0, new_streams_burst=10))
    for peer in range(110):
        admission.enter(str(peer), now=0.0)
    with pytest.raises(LimitExceeded, match="try again in 11 s") as refused:
        admission.enter("last", now=0.0)
    assert reason(refused) == "new_streams"
    assert admission.enter("last", now=1.0).delay == pytest.approx(9.1), "a refusal cost nobody a turn"


def test_a_peer_in_a_hurry_delays_itself_alone() -> None:
    admission = Admission(replace(LIMITS, new_streams_per_second_per_peer=1.0, new_streams_burst_per_peer=2))
    assert [admission.enter("hasty", now=0.0).delay for _ in range(4)] == [0, 0, 1, 2]
    assert admission.enter("calm", now=0.0).delay == 0


def test_closing_streams_does_not_refill_a_bucket() -> None:
    admission = Admission(replace(LIMITS, new_streams_per_second_per_peer=1.0, new_streams_burst_per_peer=1))
    delays = []
    for _ in range(3):
        ticket = admission.enter("loop", now=0.0)
        delays.append(ticket.delay)
        admission.leave(ticket)
    assert delays == [0, 1, 2]
    assert admission.streams == 0


def test_one_peer_cannot_have_all_streams() -> None:
    admission = Admission(replace(LIMITS, streams=5, streams_per_peer=3))
    tickets = [admission.enter("greedy", now=0.0) for _ in range(3)]
    with pytest.raises(LimitExceeded) as refused:
        admission.enter("greedy", now=0.0)
    assert reason(refused) == "peer_streams"
    admission.enter("other", now=0.0)
    admission.enter("other", now=0.0)
    with pytest.raises(LimitExceeded) as refused:
        admission.enter("third", now=0.0)
    assert reason(refused) == "streams"
    admission.leave(tickets[0])
    admission.enter("third", now=0.0)


def test_peers_that_left_are_forgotten_in_the_end() -> None:
    admission = Admission(replace(LIMITS, streams=10))
    for number in range(30_000):
        admission.leave(admission.enter(f"peer-{number}", now=number * 0.01))
    assert len(admission._shares) <= 10_010


def test_requests_wait_for_the_stream_and_for_the_peer() -> None:
    limits = replace(LIMITS, requests_per_second=10.0, requests_burst=1, requests_per_second_per_peer=1.0)
    one, other = (Admission(replace(limits, requests_burst_per_peer=100)).enter("peer", 0.0) for _ in range(2))
    assert [round(one.pace(0.0), 3) for _ in range(3)] == [0, 0.1, 0.2]
    assert other.pace(0.0) == 0
    admission = Admission(replace(limits, requests_burst_per_peer=1))
    one, other = admission.enter("peer", 0.0), admission.enter("peer", 0.0)
    assert [one.pace(0.0), other.pace(0.0)] == [0, 1]


def test_names_are_counted_where_a_request_can_hold_many() -> None:
    few = replace(LIMITS, names=3, name_bytes=10)
    check_request(few, SotwRequest(CLUSTER[:8], ("a", "b", "c")), size=100)
    for request in (
        SotwRequest("type", ("a", "b", "c", "d")),
        DeltaRequest("type", subscribe=("a", "b"), unsubscribe=("c", "d")),
        DeltaRequest("type", initial_versions=dict.fromkeys("abcd", "1")),
    ):
        with pytest.raises(LimitExceeded, match="4 names") as refused:
            check_request(few, request, size=100)
        assert reason(refused) == "names"
    for request in (
        SotwRequest("type", ("a" * 11,)),
        SotwRequest("t" * 11),
        DeltaRequest("t", initial_versions={"a" * 11: ""}),
    ):
        with pytest.raises(LimitExceeded) as refused:
            check_request(few, request, size=100)
        assert reason(refused) == "name_length"


def test_small_requests_add_up() -> None:
    stream = DeltaStream("n", ResponseCache())
    limits = replace(LIMITS, names=3, types=1)
    for name in "abc":
        stream.receive(DeltaRequest(ENDPOINT, subscribe=(name,), node=Node("a-0")), 0.0)
        check_stream(limits, stream)
    stream.receive(DeltaRequest(ENDPOINT, subscribe=("d",)), 0.0)
    with pytest.raises(LimitExceeded, match="4 names on one stream"):
        check_stream(limits, stream)
    stream.receive(DeltaRequest(CLUSTER), 0.0)
    with pytest.raises(LimitExceeded, match="more than 1 types"):
        check_stream(limits, stream)


@pytest.mark.parametrize(
    "node", [Node("a" * 2000), Node("a", "b" * 2000), Node("a", features=frozenset(map(str, range(300))))]
)
def test_what_a_peer_says_of_itself_is_short(node: Node) -> None:
    with pytest.raises(LimitExceeded) as refused:
        check_node(node)
    assert reason(refused) == "node"
    check_node(
        Node("sidecar~10.0.0.1~pod-1.shop~shop.svc.cluster.local", "shop", "1.40.0", frozenset({"a.b"}), "envoy")
    )


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_a_bomb_is_not_inflated(compress: object) -> None:
    assert callable(compress)
    assert inflated(compress(b"\x0a\x01a"), 100) == b"\x0a\x01a"
    with pytest.raises(LimitExceeded) as refused:
        inflated(compress(b"\0" * 10_000_000), 1_000_000)
    assert reason(refused) == "message_size"
    with pytest.raises(CodecError):
        inflated(compress(b"abc")[:2] + b"\xff" * 20, 100)


def test_plain_requests_are_passed_on_as_they_are() -> None:
    for data in (b"", b"\x0a", b"\x78", b"\x78\x00", b"\x1f", b"\x22\x00"):
        assert inflated(data, 10) is data
