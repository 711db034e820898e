"""From a change to the last ACK of it, over real machines and a board; and when each resource last changed."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc.aio
import pytest

from tests.unit.xds.link import NODE, DeltaClient, Got, SotwClient, make
from tests.unit.xds.test_csds import Client as Caller
from tests.unit.xds.test_csds import until
from xds.changes import ChangeTimes
from xds.convergence import Converged
from xds.histogram import Histogram
from xds.model import RuntimeLayer
from xds.protocol.leases import Lease, lease_of
from xds.server import Settings, XdsServer
from xds.snapshot import Snapshot
from xds.status import StatusBoard
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, RUNTIME

Client = DeltaClient | SotwClient


@dataclass
class Room:
    """A board and clients that all should have the same; what the server does with them."""

    now: float = 1000.0
    converged: list[Converged] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    snapshot: Snapshot | None = None

    def __post_init__(self) -> None:
        self.board = StatusBoard(lambda: self.now, on_converged=self.converged.append)

    def connect(self, client: Client, *types: str) -> Client:
        client.now = self.now
        client.machine.publish(self.snapshot)
        for type_url in types:
            client.ask(type_url)
        self.board.opened(client.machine, NODE)
        self.clients.append(client)
        return client

    def publish(self, snapshot: Snapshot) -> None:
        before = {NODE.id: self.snapshot} if self.snapshot else {}
        change = self.board.published(before, {NODE.id: snapshot})
        self.snapshot = snapshot
        for client in self.clients:
            self.board.owes(change, client.machine, snapshot)
            client.machine.publish(snapshot)

    def lease(self, leases: dict[tuple[str, str], Lease]) -> None:
        change = self.board.convergence.begin()
        for client in self.clients:
            client.machine.lease(leases)
            self.board.owes_leases(change, client.machine)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for client in self.clients:
            client.now = self.now

    def get(self, client: Client) -> Got | None:
        got = client.get()
        if got is None:
            self.board.rested(client.machine)
        return got

    def only(self, client: Client) -> Got:
        """The one response that is due now."""
        got = self.get(client)
        assert got is not None
        assert self.get(client) is None
        return got

    def ack(self, client: Client, got: Got) -> None:
        self.note(client, client.ack(got))

    def note(self, client: Client, notices: list) -> None:  # type: ignore[type-arg]
        for notice in notices:
            self.board.note(notice, client.machine)

    def settle(self) -> None:
        for client in self.clients:
            while (got := self.get(client)) is not None:
                self.ack(client, got)


@pytest.fixture
def room() -> Room:
    one = Room()
    one.publish(make.snapshot(make.cluster("a"), make.endpoints("a"), make.listener("l"), make.route("r", "a")))
    return one


def seconds(room: Room) -> list[tuple[str, float, int]]:
    return [(one.type_url.rpartition(".")[2], one.seconds, one.acks) for one in room.converged]


@pytest.mark.parametrize("kind", [DeltaClient, SotwClient])
def test_a_change_has_converged_with_the_last_ack(room: Room, kind: type[Client]) -> None:
    first, second = (room.connect(kind(), CLUSTER) for _ in range(2))
    room.settle()
    assert room.converged == [], "who connects gets what is there; that is no change"
    room.publish(make.snapshot(make.cluster("a", 1)))
    flying = [room.only(client) for client in (first, second)]
    room.wait(2.0)
    room.ack(first, flying[0])
    assert room.converged == []
    assert room.board.behind() == {"cds": 1}
    room.wait(3.0)
    room.ack(second, flying[1])
    room.settle()
    assert seconds(room) == [("Cluster", 5.0, 2)]
    assert room.board.behind() == {}
    assert room.board.convergence_seconds["cds"].total == 5.0


def test_types_converge_one_by_one(room: Room) -> None:
    client = room.connect(DeltaClient(), CLUSTER, LISTENER)
    room.settle()
    room.publish(make.snapshot(make.cluster("a", 1), make.listener("l", 1)))
    clusters = room.get(client)
    assert clusters is not None
    listeners = room.only(client)
    room.wait(1.0)
    room.ack(client, listeners)
    room.wait(1.0)
    room.ack(client, clusters)
    room.settle()
    assert seconds(room) == [("Listener", 1.0, 1), ("Cluster", 2.0, 1)]


def test_a_removal_that_comes_last_counts(room: Room) -> None:
    """Make before break: the first ACK of the new set is not the end of it."""
    client = room.connect(DeltaClient(), CLUSTER)
    client.ask(ROUTE, "r")
    room.settle()
    room.publish(make.snapshot(make.cluster("b"), make.endpoints("b"), make.route("r", "b")))
    for _ in range(3):  # cluster b; route r names it; cluster a goes
        got = room.get(client)
        assert got is not None
        room.wait(1.0)
        room.ack(client, got)
    room.settle()
    assert sorted(seconds(room)) == [("Cluster", 3.0, 2), ("RouteConfiguration", 2.0, 1)]


def test_what_nobody_needs_to_answer_is_no_observation(room: Room) -> None:
    client = room.connect(DeltaClient(), CLUSTER)
    client.ask(ENDPOINT, "a")
    room.settle()
    room.publish(make.snapshot(make.cluster("a"), make.endpoints("a"), make.endpoints("other"), make.listener("l", 3)))
    room.settle()
    assert room.converged == []
    assert room.board.behind() == {}


def test_an_overtaken_change_is_owed_no_longer(room: Room) -> None:
    quick, slow = room.connect(DeltaClient(), CLUSTER), room.connect(DeltaClient(), CLUSTER)
    room.settle()
    room.publish(make.snapshot(make.cluster("a", 1)))
    stuck, got = room.only(slow), room.only(quick)
    room.wait(1.0)
    room.ack(quick, got)
    room.publish(make.snapshot(make.cluster("a", 2)))
    assert seconds(room) == [("Cluster", 1.0, 1)], "of those who were not overtaken"
    room.wait(1.0)
    room.ack(slow, stuck)
    room.settle()
    assert seconds(room)[1:] == [("Cluster", 1.0, 3)]


def test_who_rejects_keeps_the_change_open_until_the_next(room: Room) -> None:
    client = room.connect(DeltaClient(), CLUSTER)
    room.settle()
    room.publish(make.snapshot(make.cluster("a", 1)))
    got = room.get(client)
    assert got is not None
    room.wait(1.0)
    room.note(client, client.nack(got))
    room.settle()
    assert room.converged == []
    room.wait(9.0)
    room.publish(make.snapshot(make.cluster("a", 2)))
    room.wait(2.0)
    room.settle()
    assert seconds(room) == [("Cluster", 2.0, 1)]


def test_who_leaves_is_not_waited_for(room: Room) -> None:
    staying, leaving = room.connect(DeltaClient(), CLUSTER), room.connect(DeltaClient(), CLUSTER)
    room.settle()
    room.publish(make.snapshot(make.cluster("a", 1)))
    room.only(leaving)
    got = room.only(staying)
    room.wait(1.0)
    room.ack(staying, got)
    room.wait(10.0)
    room.board.closed(leaving.machine, NODE)
    assert seconds(room) == [("Cluster", 1.0, 1)]


def test_leases_converge_like_sets(room: Room) -> None:
    client = room.connect(DeltaClient())
    client.ask(RUNTIME, "limits")
    room.settle()

    def layer(limit: int) -> dict[tuple[str, str], Lease]:
        return {(RUNTIME, "limits"): lease_of(RuntimeLayer("limits", {"a.b": limit}, 15.0))}

    room.lease(layer(1))
    got = room.get(client)
    assert got is not None
    room.wait(0.25)
    room.ack(client, got)
    room.settle()
    room.lease(layer(1))
    room.settle()
    assert seconds(room) == [("Runtime", 0.25, 1)], "the same layer again is no change"


def test_times_of_resources_follow_their_changes() -> None:
    times, first = ChangeTimes(), make.snapshot(make.cluster("a"), make.cluster("b"))
    second = make.snapshot(make.cluster("a"), make.cluster("b", 1), make.cluster("c"))
    third = make.snapshot(make.cluster("a", 2), make.cluster("b", 1))
    times.published(first, None, 1.0)
    times.published(second, first, 2.0)
    times.published(third, second, 3.0)
    found = [
        {name: times.of(one.sets[CLUSTER], name) for name in one.sets[CLUSTER].resources} for one in (second, third)
    ]
    assert found == [{"a": 1.0, "b": 2.0, "c": 2.0}, {"a": 3.0, "b": 2.0}]
    assert times.of(make.set(CLUSTER, make.cluster("z")), "z") is None


def test_a_histogram_counts_up_to_and_including_its_bounds() -> None:
    one = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        one.observe(value)
    assert list(one.cumulative()) == [(1.0, 2), (2.0, 3), (float("inf"), 4)]
    assert (one.count, one.total) == (4, 12.0)


async def test_what_was_held_back_converges_from_its_publication() -> None:
    converged: list[Converged] = []
    server = XdsServer(on_converged=converged.append, settings=Settings(debounce_seconds=1.0))
    server.publish({"n-0": make.snapshot(make.cluster("a"))})
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = Caller(channel, "n-0")
        await client.accept(CLUSTER)
        await until(lambda: server.status.acks["cds"] == 1)
        for content in (1, 2):
            server.publish({"n-0": make.snapshot(make.cluster("a", content))})
        got = await client.get()
        await client.ask(CLUSTER, nonce=got.nonce)
        await until(lambda: converged)
    await server.stop(0)
    assert [one.type_url for one in converged] == [CLUSTER]
    assert 0.9 < converged[0].seconds < 3.0
