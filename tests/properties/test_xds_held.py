"""What a client has, told as differences, is what a plain dictionary would say."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.xds.link import make
from xds.protocol.held import Held
from xds.snapshot import ResourceSet, resource_set
from xds.types import CLUSTER

pytestmark = pytest.mark.slow

NAMES = [f"c{number}" for number in range(60)]
NAME = st.sampled_from(NAMES[:8])
FEW = st.sets(NAME, max_size=4)
MANY = st.sampled_from([frozenset(NAMES), frozenset(NAMES[:40]), frozenset(NAMES[20:])])


def clusters(names: frozenset[str] | set[str], content: int) -> ResourceSet:
    return resource_set(CLUSTER, [make.cluster(name, content) for name in sorted(names)])


class HeldMachine(RuleBasedStateMachine):
    """``model`` is the plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Held()
        self.model: dict[str, str] = {}
        self.current = clusters(frozenset(NAMES), 0)

    @rule(names=MANY, content=st.integers(1, 3))
    def another_set(self, names: frozenset[str], content: int) -> None:
        self.current = clusters(names, content)

    @rule(changed=FEW, removed=FEW, content=st.integers(1, 9))
    def a_derived_set(self, changed: set[str], removed: set[str], content: int) -> None:
        self.current = self.current.replacing([make.cluster(name, content) for name in changed], removed)

    @rule(names=st.one_of(FEW, MANY), gone=st.booleans())
    def send(self, names: set[str], gone: bool) -> None:
        sent = {name: version for name, version in self.current.versions.items() if name in names}
        removed = sorted(self.held.gone(self.current)) if gone else []
        self.held.take(self.current, sent, removed)
        self.model = {name: version for name, version in (self.model | sent).items() if name not in removed}

    @rule()
    def send_all(self) -> None:
        self.held.replace(self.current)
        self.model = dict(self.current.versions)

    @rule(name=NAME, version=st.sampled_from(["", "v1", "v2"]))
    def set_one(self, name: str, version: str) -> None:
        self.held[name] = self.model[name] = version

    @rule(name=NAME)
    def pop_one(self, name: str) -> None:
        self.held.pop(name)
        self.model.pop(name, None)

    @invariant()
    def equal(self) -> None:
        assert {name: self.held.get(name) for name in self.held} == self.model
        assert [self.held.get(name) for name in NAMES] == [self.model.get(name) for name in NAMES]
        assert len(self.held) == len(self.model)
        assert bool(self.held) == bool(self.model)

    @invariant()
    def nothing_is_overlooked(self) -> None:
        """``behind`` may name too much, of what was ever held never too little."""
        versions = self.current.versions
        stale = {name for name, version in self.model.items() if versions.get(name, version) != version}
        assert stale <= set(self.held.behind(self.current))
        assert self.held.gone(self.current) == self.model.keys() - versions.keys()


TestHeld = HeldMachine.TestCase
