"""The canary's promises, whatever happens in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.releases import content, versions
from xds.canary import Policy
from xds.rollout import Rollout
from xds.snapshot import Snapshot, check
from xds.types import CLUSTER, ENDPOINT

pytestmark = pytest.mark.slow

DEADLINE, SETTLE = 5.0, 1.0
NODES = [f"n{i}" for i in range(5)]
VERSIONS = st.integers(1, 6)
NAMES = st.sampled_from([("backend",), ("backend", "extra"), ("alpha", "backend")])


class Canaries(RuleBasedStateMachine):
    """One group; every publication may change the clusters, the endpoints, the names and the members."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Rollout(Policy(deadline=DEADLINE, settle=SETTLE))
        self.now = 0.0
        self.wanted: dict[str, Snapshot] = {}
        self.streams: dict[str, int] = {}

    @initialize()
    def begin(self) -> None:
        self.publish(1, ("backend",), 1, set(NODES))

    @rule(version=VERSIONS, names=NAMES, ports=st.integers(1, 3), members=st.sets(st.sampled_from(NODES), min_size=1))
    def publish(self, version: int, names: tuple[str, ...], ports: int, members: set[str]) -> None:
        own = {node_id: NODES.index(node_id) + 1 for node_id in members}
        self.wanted = {n: content(version, names, tuple(range(1, ports + 1)), port) for n, port in own.items()}
        self.machine.publish(self.wanted, self.now)

    @rule(ports=st.integers(1, 3))
    def scale(self, ports: int) -> None:
        """Endpoints alone change: nobody's held configuration moves."""
        before = self.held()
        trying = self.machine.canaries()
        endpoints = content(1, ("alpha", "backend", "extra"), tuple(range(1, ports + 1))).sets[ENDPOINT]
        self.wanted = {n: Snapshot({**one.sets, ENDPOINT: endpoints}) for n, one in self.wanted.items()}
        self.machine.publish(self.wanted, self.now)
        assert self.machine.canaries() == trying
        assert self.held() == before

    @rule(node_id=st.sampled_from(NODES))
    def connect(self, node_id: str) -> None:
        self.streams[node_id] = self.streams.get(node_id, 0) + 1
        self.machine.joined(node_id, "g", self.now)

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        node_id = data.draw(st.sampled_from(sorted(self.streams)))
        self.streams[node_id] -= 1
        if not self.streams[node_id]:
            del self.streams[node_id]
        self.machine.left(node_id, self.now)

    @rule(seconds=st.sampled_from([0.1, SETTLE, DEADLINE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.machine.expire(self.now)
        assert self.machine.wakes_at() > self.now, "time alone would not get any further"

    @precondition(lambda self: self.machine.canaries())
    @rule()
    def accept(self) -> None:
        [canary] = self.machine.canaries()
        self.machine.progressed(canary, owed=False, unasked=False, now=self.now)
        for node_id, one in self.machine.effective.items():
            assert one == self.wanted[node_id], "after the ACK everybody has what was published"

    @precondition(lambda self: self.machine.canaries())
    @rule()
    def hesitate(self) -> None:
        [canary] = self.machine.canaries()
        self.machine.progressed(canary, owed=False, unasked=True, now=self.now)

    @precondition(lambda self: self.machine.canaries())
    @rule()
    def reject(self) -> None:
        [canary] = self.machine.canaries()
        before = {node_id: one for node_id, one in self.machine.effective.items() if node_id != canary}
        kept = self.machine.accepted(canary)
        clusters = self.machine.effective[canary].sets[CLUSTER]
        trial = self.machine.trial(canary)
        assert trial is not None
        self.machine.rejected(canary, trial.types[0], "new " + clusters.version, "no", self.now)
        after = dict(self.machine.effective)
        assert after.pop(canary) == kept, "the canary has again what it had"
        assert after == before, "and nobody else saw anything"
        self.machine.publish(self.wanted, self.now)
        assert not self.machine.canaries(), "refused content is not tried again"

    @invariant()
    def nobody_is_forgotten(self) -> None:
        assert self.machine.effective.keys() <= self.wanted.keys()
        for node_id in self.streams.keys() & self.wanted.keys():
            assert node_id in self.machine.effective

    @invariant()
    def never_two_configurations_beyond_the_canary(self) -> None:
        others = {key for node_id, key in self.held().items() if node_id not in self.machine.canaries()}
        assert len(others) <= 1

    @invariant()
    def a_canary_is_connected_and_never_alone(self) -> None:
        for canary in self.machine.canaries():
            assert canary in self.streams
            assert self.machine.accepted(canary) is not None

    @invariant()
    def everybody_has_a_consistent_configuration_with_the_newest_endpoints(self) -> None:
        for node_id, one in self.machine.effective.items():
            check(one)
            newest = self.wanted[node_id].sets[ENDPOINT].resources
            assert newest.items() <= dict(one.sets[ENDPOINT].resources).items()

    @invariant()
    def versions_exist(self) -> None:
        assert None not in versions(self.machine.effective).values()

    def held(self) -> dict[str, tuple[str, str]]:
        """Clusters and routes, which the members share, of everybody who has any."""
        urls = [url for url in next(iter(self.wanted.values())).sets if url.endswith(("Cluster", "RouteConfiguration"))]
        effective = self.machine.effective
        return {n: (one.sets[urls[0]].version, one.sets[urls[1]].version) for n, one in effective.items()}


Canaries.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestCanaries = Canaries.TestCase
