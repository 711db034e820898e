"""Whatever happens in whatever order, a client that accepts ends up with what it should have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.xds.link import DeltaClient, Got, SotwClient, make
from xds.protocol.subscription import Subscription
from xds.snapshot import Snapshot, encoded
from xds.types import CLUSTER, ENDPOINT, FULL_STATE, LISTENER, ROUTE

NAMES = "abc"
#: An unknown field that no resource had so far.
UNSEEN = b"\xa0\x06\x63"
TYPES = (CLUSTER, ENDPOINT, LISTENER, ROUTE)

contents = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2), max_size=3)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Consistent content: routes and endpoints of the clusters that exist."""
    clusters, endpoints, listeners = draw(contents), draw(contents), draw(contents)
    targets = sorted(draw(st.sets(st.sampled_from(sorted(clusters)))) if clusters else [])
    return make.snapshot(
        *(make.cluster(name, content) for name, content in clusters.items()),
        *(make.endpoints(name, endpoints.get(name, 0)) for name in clusters),
        *(make.listener(name, content) for name, content in listeners.items()),
        make.route("r", *targets),
    )


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), snapshots()),
        st.tuples(st.just("receive"), st.sampled_from(["ack", "nack", "later"])),
        st.tuples(st.just("endpoints"), st.sets(st.sampled_from(NAMES), min_size=1)),
    ),
    max_size=12,
)


class World:
    """What a client has applied, and the answers that it still owes."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.has: dict[str, dict[str, bytes | None]] = {url: {} for url in TYPES}
        self.owed: list[Got] = []
        self.refused_clusters = False

    def receive(self, answer: str) -> bool:
        got = self.client.get()
        if got is None:
            return False
        if answer == "later":
            self.owed.append(got)
        elif answer == "nack":
            self.refused_clusters |= got.type_url == CLUSTER
            self.client.nack(got)
        else:
            self.apply(got)
            self.client.ack(got)
        return True

    def apply(self, got: Got) -> None:
        if isinstance(self.client, SotwClient) and got.type_url in FULL_STATE:
            self.has[got.type_url] = dict(got.bodies)
            return
        self.has[got.type_url].update(got.bodies)
        for name in got.removed:
            self.has[got.type_url].pop(name, None)

    def answer_all(self) -> None:
        for got in self.owed:
            self.apply(got)
            self.client.ack(got)
        self.owed.clear()

    def check_references(self) -> None:
        """Make before break: routes never name a cluster that this client was not given (unless it refused one)."""
        route = self.has[ROUTE].get("r")
        if route is not None and not self.refused_clusters:
            assert _targets(route) <= self.has[CLUSTER].keys()


def _targets(route: bytes) -> set[str]:
    from xds import codec

    return {name for _, name in codec.references(ROUTE, route)}


def unheard_of(last: Snapshot) -> Snapshot:
    """``last`` with everything in another version and something new in every type, so that whatever was rejected is
    pardoned."""
    old = [one for url in (CLUSTER, ENDPOINT, LISTENER) for one in last.sets[url].resources.values()]
    resources = [encoded(one.type_url, one.name, one.body + UNSEEN) for one in old]
    targets = last.sets[ROUTE].resources["r"].clusters
    new = (make.cluster("z"), make.endpoints("z"), make.listener("z"), make.route("r", *sorted(targets), "z"))
    return make.snapshot(*resources, *new)


def play(world: World, script: list[tuple[str, Any]]) -> None:
    client = world.client
    for type_url, *names in ((CLUSTER,), (LISTENER,), (ROUTE, "r"), (ENDPOINT, *NAMES)):
        client.ask(type_url, *names)
    for action, argument in script:
        if action == "publish":
            client.machine.publish(argument)
        elif action == "receive":
            world.receive(argument)
            world.check_references()
        elif isinstance(client, DeltaClient):
            client.ask(ENDPOINT, *argument)
        else:  # every request answers the newest response, so that must have been applied
            world.answer_all()
            client.ask(ENDPOINT, *NAMES)
    world.answer_all()


def drive(client: Any, script: list[tuple[str, Any]], last: Snapshot) -> None:
    world = World(client)
    play(world, script)
    final = unheard_of(last)
    client.machine.publish(final)
    responses = 0
    while world.receive("ack"):
        world.check_references()
        responses += 1
        assert responses < 20, "it never comes to rest"
    for url in (CLUSTER, LISTENER, ROUTE):
        assert world.has[url] == {name: one.body for name, one in final.sets[url].resources.items()}
    endpoints = {name: one.body for name, one in final.sets[ENDPOINT].resources.items() if name in NAMES}
    assert endpoints.items() <= world.has[ENDPOINT].items()
    assert {one.state for one in client.machine.states(0).values()} == {"SYNCED"}


@given(script=steps, last=snapshots())
@settings(max_examples=150, deadline=None)
def test_a_delta_client_converges(script: list[tuple[str, Any]], last: Snapshot) -> None:
    drive(DeltaClient(), script, last)


@given(script=steps, last=snapshots())
@settings(max_examples=150, deadline=None)
def test_a_state_of_the_world_client_converges(script: list[tuple[str, Any]], last: Snapshot) -> None:
    drive(SotwClient(), script, last)


@pytest.mark.parametrize("count", [1, 1000])
def test_a_subscription_remembers_no_more_than_it_was_asked(count: int) -> None:
    sub = Subscription(ENDPOINT)
    sub.subscribe(str(number) for number in range(count))
    sub.unsubscribe([str(number) for number in range(count)])
    assert [sub.names, sub.held.keys(), sub.forced, sub.unconfirmed, sub.rejected] == [set(), set(), set(), set(), {}]
    assert sub.held.differences <= 32
