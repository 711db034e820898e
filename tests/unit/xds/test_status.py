"""The board: who is connected, how far each is, and no memory without bound."""

from __future__ import annotations

import pytest

from tests.unit.xds.link import NODE, DeltaClient, make
from xds.protocol.events import Node, Notice, Response
from xds.protocol.states import State, TypeState
from xds.status import StatusBoard, worse
from xds.types import CLUSTER, RUNTIME


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> StatusBoard:
    return StatusBoard(clock, max_strangers=2)


def client_of(node: Node = NODE) -> DeltaClient:
    client = DeltaClient(node=node)
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER)
    return client


def test_an_expected_node_is_listed_before_it_connects(board: StatusBoard) -> None:
    board.expect(["catalog-0"])
    (node,) = board.nodes()
    assert (node.node_id, node.connected, node.since, node.types) == ("catalog-0", False, None, {})
    assert board.node("nobody") is None


def test_states_follow_the_stream(board: StatusBoard) -> None:
    client = client_of()
    board.opened(client.machine, NODE)
    node = board.node("catalog-0")
    assert node is not None
    assert (node.group, node.connected, node.since, node.user_agent_version) == ("catalog", True, 100.0, "1.40.0")
    assert node.types["cds"].state == "STALE"
    client.settle()
    node = board.node("catalog-0")
    assert node is not None
    assert node.types["cds"].state == "SYNCED"
    assert node.types["cds"].acked == node.types["cds"].desired


def test_the_last_states_of_a_lost_node_are_kept(board: StatusBoard, clock: Clock) -> None:
    client = client_of()
    board.opened(client.machine, NODE)
    client.settle()
    clock.now = 130.0
    board.closed(client.machine, NODE)
    (node,) = board.nodes()
    assert (node.connected, node.since, node.types["cds"].state) == (False, 130.0, "SYNCED")
    assert board.connected() == 0
    assert board.connects == 1


def test_a_node_that_reconnects_before_its_old_stream_ends_stays_connected(board: StatusBoard, clock: Clock) -> None:
    old, new = client_of(), client_of()
    board.opened(old.machine, NODE)
    clock.now = 110.0
    board.opened(new.machine, NODE)
    old.settle()
    board.closed(old.machine, NODE)
    (node,) = board.nodes()
    assert (node.connected, node.since, node.types["cds"].state) == (True, 100.0, "STALE")
    assert board.connected() == 1


def test_a_node_that_nobody_expects_any_longer_is_forgotten(board: StatusBoard) -> None:
    client = client_of()
    board.expect(["catalog-0"])
    board.opened(client.machine, NODE)
    board.expect([])
    assert [node.node_id for node in board.nodes()] == ["catalog-0"], "not while it is connected"
    board.expect(["catalog-0"])
    board.closed(client.machine, NODE)
    board.expect([])
    assert board.nodes() == []


def test_strangers_are_remembered_in_bounded_number(board: StatusBoard, clock: Clock) -> None:
    for number in range(5):
        clock.now += 1
        node = Node(f"stranger-{number}")
        client = client_of(node)
        board.opened(client.machine, node)
        board.closed(client.machine, node)
    assert [node.node_id for node in board.nodes()] == ["stranger-3", "stranger-4"]


def test_counters(board: StatusBoard) -> None:
    stream = client_of().machine
    board.count(Response(CLUSTER, "v", "n", b""))
    board.count(Response(RUNTIME, "v", "n", b"", heartbeat=True))
    board.note(Notice("ack", CLUSTER, "v", seconds=0.7), stream)
    board.note(Notice("nack", CLUSTER, "v", "bad"), stream)
    board.note(Notice("refused", RUNTIME, "", "no"), stream)
    assert dict(board.pushes) == {
        ("cds", "sent"): 1,
        ("cds", "acked"): 1,
        ("cds", "nacked"): 1,
        ("rtds", "refused"): 1,
    }
    assert (board.acks["cds"], board.nacks["cds"], board.heartbeats) == (1, 1, 1)
    assert list(board.push_seconds["cds"].cumulative())[:3] == [(0.1, 0), (0.5, 0), (1.0, 1)]
    assert board.push_seconds["cds"].total == 0.7


def test_a_type_is_behind_since_the_first_change_that_it_lacks(board: StatusBoard, clock: Clock) -> None:
    client, before = client_of(), make.snapshot(make.cluster("a"))
    board.opened(client.machine, NODE)
    client.settle()
    for moment, content in ((110.0, 1), (120.0, 2)):
        clock.now = client.now = moment
        after = make.snapshot(make.cluster("a", content))
        board.owes(board.published({"catalog-0": before}, {"catalog-0": after}), client.machine, after)
        client.machine.publish(after)
        assert client.get() is not None or content == 2, "nothing more is sent while the first is unanswered"
        before = after
    (node,) = board.nodes()
    assert (node.types["cds"].state, node.types["cds"].since) == ("STALE", 110.0)
    assert board.behind() == {"cds": 1}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("SYNCED", "STALE", "STALE"), ("NACKED", "STALE", "NACKED"), ("SYNCED", "NOT-SENT", "NOT-SENT")],
)
def test_the_worse_of_two_states_counts(one: State, other: State, expected: State) -> None:
    states = [TypeState(state, "", "", "", 0.0, f"says {state}") for state in (one, other)]
    for pair in (states, states[::-1]):
        merged = worse(pair[0], pair[1])
        assert merged.state == expected
        assert merged.error.startswith(f"says {expected}")
        assert all(state.error in merged.error for state in states)
