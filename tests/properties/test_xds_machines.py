"""Both variants of the protocol against clients that were written from its text, over random histories.

The clients and their world are in tests/support; :class:`~tests.support.xds_judge.Judge` checks every response. Here
are the steps of a history and what must hold when nothing is on its way. ``HYPOTHESIS_PROFILE=thorough`` runs fifty
times as many.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.conftest import examples
from tests.support.xds_clients import STAR, Client, DeltaClient, Manner, Received, SotwClient
from tests.support.xds_judge import Judge
from tests.support.xds_world import TYPES, World, published, service
from xds import _wire_pb2 as wire
from xds import codec
from xds.model import RuntimeLayer
from xds.protocol.delta import DeltaStream
from xds.protocol.leases import lease_of
from xds.protocol.responses import ResponseCache
from xds.protocol.sotw import SotwStream
from xds.protocol.stream import Stream
from xds.types import CLUSTER, ENDPOINT, FULL_STATE, LISTENER, ROUTE, RUNTIME

pytestmark = pytest.mark.slow

CLUSTERS, ROUTES, LISTENERS = ("a", "b", "c"), ("r", "s"), ("l", "m")
NAMES = {CLUSTER: CLUSTERS, ENDPOINT: tuple(map(service, CLUSTERS)), ROUTE: ROUTES, LISTENER: LISTENERS}

#: What a client that follows nothing may ask for; often everything.
WISHES = {url: (*names, STAR, STAR) if url in FULL_STATE else names for url, names in NAMES.items()}

ENVOY = wire.Node(id="one", user_agent_name="envoy", user_agent_version="1.40.0")
GRPC = wire.Node(id="one", user_agent_name="gRPC C-core", user_agent_version="1.80.0")

content = st.sampled_from([0, 1, 2, 3] * 3 + [7, 8])
targets = st.frozensets(st.sampled_from(CLUSTERS), max_size=2)
a_cluster = st.tuples(content, st.sampled_from([True, True, False]))
a_route = st.tuples(content, targets)
a_listener = st.tuples(content, st.sampled_from([*ROUTES, ""]), targets)
worlds = st.builds(
    World,
    clusters=st.dictionaries(st.sampled_from(CLUSTERS), a_cluster),
    routes=st.fixed_dictionaries(dict.fromkeys(ROUTES, a_route)),
    listeners=st.dictionaries(st.sampled_from(LISTENERS), a_listener),
)
edit = st.one_of(
    st.tuples(st.just("replace"), st.sampled_from(CLUSTERS), st.sampled_from(CLUSTERS)),
    st.tuples(st.just("replace"), st.sampled_from(CLUSTERS), st.sampled_from(CLUSTERS)),
    st.tuples(st.just("clusters"), st.sampled_from(CLUSTERS), a_cluster),
    st.tuples(st.just("no clusters"), st.sampled_from(CLUSTERS), st.none()),
    st.tuples(st.just("endpoints"), st.sampled_from(NAMES[ENDPOINT]), content),
    st.tuples(st.just("routes"), st.sampled_from(ROUTES), a_route),
    st.tuples(st.just("listeners"), st.sampled_from(LISTENERS), a_listener),
    st.tuples(st.just("no listeners"), st.sampled_from(LISTENERS), st.none()),
)
type_urls = st.sampled_from(TYPES)
manners = st.builds(Manner, st.booleans(), st.booleans())


class Machine(RuleBasedStateMachine):
    """A history of one client. Subclasses choose the variant."""

    sotw = False

    @initialize(
        follow=st.sampled_from(["envoy", "envoy", "grpc", "", ""]),
        explicit=st.booleans(),
        world=worlds,
        wishes=st.fixed_dictionaries({url: st.sets(st.sampled_from(names)) for url, names in WISHES.items()}),
        loaded=st.sampled_from([TYPES, TYPES, TYPES[:2], TYPES[2:], ()]),
    )
    def begin(
        self,
        follow: str,
        explicit: bool,
        world: World,
        wishes: dict[str, set[str]],
        loaded: tuple[str, ...],
    ) -> None:
        """Not everything may be loaded yet when the client comes."""
        made = SotwClient if self.sotw else DeltaClient
        self.client: Client = made(follow, GRPC if follow == "grpc" else ENVOY)
        self.world, self.judge, self.explicit = world, Judge(self.client), explicit
        self.client.asked, self.client.answered = self.judge.asked, self.judge.answered
        self.wanted: dict[str, RuntimeLayer] = {}
        self.cache = ResponseCache()
        self._wish(follow, wishes)
        self.streams = 0
        self._connect(quarantine=None)
        self.loaded = loaded
        if loaded:
            self._publish()
        self._open(TYPES)

    def _wish(self, follow: str, wishes: dict[str, set[str]]) -> None:
        wants = self.client.interest
        if follow == "envoy":
            wants[CLUSTER].star = wants[LISTENER].star = True
            wants[RUNTIME].names = {"limits"} if self.sotw else {"limits", "chaos"}
        elif follow == "grpc":
            wants[LISTENER].names = {"l"}
        else:
            for type_url, names in wishes.items():
                wants[type_url].names, wants[type_url].star = names - {STAR}, STAR in names

    # The server

    def _connect(self, quarantine: Any) -> None:
        self.streams += 1
        made = SotwStream if self.sotw else DeltaStream
        self.stream: Stream = made(f"n{self.streams}", self.cache)
        if quarantine is not None:
            self.stream.quarantine = quarantine
        self.client.connect(self._serve)
        self.judge.connected(forgetful=quarantine is None)
        if self.judge.content is not None:
            self.stream.publish(published(self.judge.content, self.loaded))
        self._lease()

    def _serve(self, data: bytes) -> None:
        decode = codec.decode_sotw_request if self.sotw else codec.decode_delta_request
        self.stream.receive(decode(data), self.client.now)

    def _publish(self) -> None:
        things = {url: ones if url in self.loaded else {} for url, ones in self.world.things().items()}
        self.stream.publish(published(things, self.loaded))
        self.judge.published(things)

    def _lease(self) -> None:
        self.stream.lease({(RUNTIME, name): lease_of(one) for name, one in self.wanted.items()})

    def _change(self, edits: list[tuple[str, str, Any]]) -> None:
        fields: dict[str, dict[str, Any]] = vars(self.world)
        for what, name, value in edits:
            if what == "replace":
                self.world.replace(name, value)
            elif what.startswith("no "):
                fields[what.removeprefix("no ")].pop(name, None)
            else:
                fields[what][name] = value

    # The client

    def _open(self, types: Collection[str], old_nonce: str = "") -> None:
        for type_url in (*types, RUNTIME):
            paused = type_url == CLUSTER and self.client.quiet
            if self.client.interest[type_url] and type_url not in self.client.told and not paused:
                self.client.open(type_url, explicit=self.explicit, old_nonce=old_nonce)
                self.judge.opened(type_url)

    def _poll(self) -> Received | None:
        response = self.stream.poll(self.client.now)
        if response is None:
            return None
        got = self.client.receive(response.data)
        assert got.type_url in (*self.loaded, RUNTIME), "not loaded is silence"
        self.judge.check(got)
        self.client.inbox.append(got)
        return got

    def _process(
        self, manner: Manner, add: Collection[str] = (), drop: Collection[str] = (), *, late: bool = False
    ) -> None:
        self.client.process(manner, add, drop, late=late)
        self._open(TYPES if self.client.follow else ())

    # Steps

    @rule(edits=st.lists(edit, min_size=1, max_size=6))
    def publish(self, edits: list[tuple[str, str, Any]]) -> None:
        self._change(edits)
        self.loaded = TYPES
        self._publish()

    @rule()
    def deliver(self) -> None:
        self._poll()

    @rule()
    def deliver_everything(self) -> None:
        """All that may be on its way at once."""
        while self._poll() is not None:
            pass

    @precondition(lambda self: self.client.inbox)
    @rule(manner=manners, late=st.booleans())
    def process(self, manner: Manner, late: bool) -> None:
        self._process(manner, late=late)

    @precondition(lambda self: self.client.answers)
    @rule(which=st.integers(0, 3))
    def answer_late(self, which: int) -> None:
        """Answers of different types may come in any order."""
        self.client.answer_late(which % len(self.client.answers))

    @precondition(lambda self: self.client.inbox and not self.client.follow)
    @rule(manner=manners, data=st.data())
    def answer_with_other_names(self, manner: Manner, data: st.DataObject) -> None:
        got = self.client.inbox[0]
        assume(got.type_url != RUNTIME)
        add, drop = self._draw_names(got.type_url, data)
        self._process(manner, add, drop)

    @precondition(lambda self: not self.client.follow)
    @rule(type_url=type_urls, data=st.data())
    def ask(self, type_url: str, data: st.DataObject) -> None:
        if type_url not in self.client.told:
            wish = self.client.interest[type_url]
            if not wish:
                star = type_url in FULL_STATE and data.draw(st.booleans())
                names = data.draw(st.sets(st.sampled_from(NAMES[type_url]), min_size=0 if star else 1))
                wish.star, wish.names = star, names
            self._open((type_url,))
            return
        add, drop = self._draw_names(type_url, data)
        self.client.change(type_url, add, drop)
        self.judge.may_cross(type_url, add)

    @precondition(lambda self: not self.client.follow)
    @rule(type_url=type_urls, data=st.data())
    def ask_with_a_stale_nonce(self, type_url: str, data: st.DataObject) -> None:
        assume(type_url in self.client.told)
        add, drop = self._draw_names(type_url, data)
        self.client.change(type_url, add, drop, nonce="of-a-dead-server")
        self.judge.may_cross(type_url, add)

    def _draw_names(self, type_url: str, data: st.DataObject) -> tuple[list[str], list[str]]:
        """Names to add and to drop. A state-of-the-world client that never named anything cannot stop wanting all, and
        does not want again at once what the server has not heard that it dropped: nobody could tell."""
        wish, told = self.client.interest[type_url], self.client.told[type_url]
        have = wish.all
        names = {*NAMES[type_url], *([STAR] if type_url in FULL_STATE else [])}
        droppable = have if not self.sotw or told.named else have - {STAR}
        drop = data.draw(st.sets(st.sampled_from(sorted(droppable)))) if droppable else set()
        again = set() if self.sotw else have - {STAR}
        unheard = told.all - have if self.sotw else set()
        possible = sorted((names - have | again) - drop - unheard)
        add = data.draw(st.sets(st.sampled_from(possible))) if possible else set()
        for name in add & have:
            self.client.lose(type_url, name)
        return sorted(add), sorted(drop)

    @rule(type_url=st.sampled_from([*TYPES, RUNTIME]))
    def repeat_an_answer(self, type_url: str) -> None:
        self.client.repeat(type_url)

    @rule(
        arrived=st.booleans(),
        forgetful=st.booleans(),
        shuffled=st.permutations(TYPES),
        nonce=st.sampled_from(["", "n1-3"]),
    )
    def reconnect(self, arrived: bool, forgetful: bool, shuffled: list[str], nonce: str) -> None:
        """What was on its way is lost, or only the answer is. An Envoy asks in its own order."""
        client = self.client
        client.asked, client.answered = lambda *_: None, lambda _: None
        client.disconnect()
        while arrived and client.inbox:
            client.process(Manner())
        client.asked, client.answered = self.judge.asked, self.judge.answered
        self._connect(None if forgetful else self.stream.quarantine)
        self._open(TYPES if client.follow else shuffled, nonce)

    @rule(name=st.sampled_from(["limits", "chaos"]), value=st.integers(0, 3), lasts=st.sampled_from([None, None, 9.0]))
    def lease(self, name: str, value: int, lasts: float | None) -> None:
        """0 ends the lease."""
        self.wanted.pop(name, None)
        if value:
            ends = None if lasts is None else self.client.now + lasts
            self.wanted[name] = RuntimeLayer(name, {"key": value}, 15.0 if name == "limits" else 5.0, ends)
        self._lease()

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0, 20.0]))
    def sleep(self, seconds: float) -> None:
        self.client.now += seconds

    @rule(seconds=st.sampled_from([1.0, 7.0, 20.0]))
    def attend(self, seconds: float) -> None:
        """Time passes while both sides do what they should: no lease ends that should not."""
        end = self.client.now + seconds
        self._settle(Manner())
        while self.client.now < (wakes := self.stream.wakes_at()) < end:
            self.client.now = wakes
            self._alive()
            self._settle(Manner())
        self.client.now = end

    @rule(manner=manners)
    def settle(self, manner: Manner) -> None:
        self._settle(manner)
        self._rests()

    # At rest

    def _settle(self, manner: Manner) -> None:
        """Everything that is on its way arrives and is answered. It must come to an end."""
        self.client.answer_late()
        for _ in range(80):
            if self.client.inbox:
                self._process(manner)
            elif self._poll() is None and not self._once_more():
                if not self.client.quiet:
                    break
                self._time_out()
        else:
            raise AssertionError("it never comes to rest")
        self._nothing_more()

    def _once_more(self) -> bool:
        """Say again what the server had to ignore, because it crossed with a response."""
        told, wishes = self.client.told, self.client.interest
        ignored = [url for url, one in told.items() if one.all != wishes[url].all]
        for type_url in ignored:
            self.client.repeat(type_url)
        return bool(ignored)

    def _time_out(self) -> None:
        """Clusters wait for endpoints until a timeout only if those are refused."""
        client, things = self.client, self.judge.content
        services = {client.cache[CLUSTER][name].service for name in client.warming}
        good = {one.name for one in things[ENDPOINT].values() if not one.bad} if things else set()
        assert ENDPOINT in self.judge.untold or not services & good, f"clusters wait for endpoints: {services & good}"
        client.give_up_warming()
        self._open(TYPES)

    def _nothing_more(self) -> None:
        """The same content anew is no news, nor is an answer that was given already."""
        if self.judge.content is not None:
            self.stream.publish(published(self.judge.content, self.loaded))
        for type_url in self.client.told:
            self.client.repeat(type_url)
        assert self.stream.poll(self.client.now) is None
        if all(one.expires_at is None for one in self.wanted.values()):
            assert self.stream.wakes_at() > self.client.now, "time alone would not get any further"

    def _rests(self) -> None:
        """The client has what it asked for, as far as it accepts it."""
        things = self.judge.content
        if things is None:
            return
        told = {url: one for url, one in self.client.told.items() if url in self.loaded}
        wanted = {url: {n: t for n, t in things[url].items() if one.wants(n)} for url, one in told.items()}
        clean = not any(thing.bad for url in TYPES for thing in things[url].values())
        for type_url, expected in wanted.items():
            has = self.client.cache[type_url]
            if clean:
                extra = has.keys() - expected.keys() - self.judge.unheard[type_url]
                stays = (self.sotw and type_url not in FULL_STATE) or (type_url in self._kept())
                assert not extra or stays, f"{type_url}: too much: {extra}"
            if clean or (type_url in (CLUSTER, ENDPOINT) and type_url not in self.judge.untold):
                good = {name: one for name, one in expected.items() if not one.bad}
                assert good.items() <= has.items(), f"{type_url}: {good} is not in {has}"
        if clean:
            self._synced(told)

    def _kept(self) -> tuple[str, ...]:
        """Types of which nothing is taken away. Who names its clusters, and not yet all those that its routes lead to,
        may go on using the ones that it has."""
        client, things = self.client, self.judge.content or {}
        told = client.told.get(CLUSTER)
        if told is None or told.star:
            return ()
        targets = [things[CLUSTER].get(name) for one in client.cache[ROUTE].values() for name in one.clusters]
        lacking = [one for one in targets if one is not None and one.name not in client.cache[CLUSTER]]
        known = client.cache[ENDPOINT].keys() | {""}
        lacking += [one for one in targets if one and ENDPOINT in client.told and one.service not in known]
        return (CLUSTER, ENDPOINT) if lacking else ()

    def _synced(self, told: Collection[str]) -> None:
        states, certain = self.stream.states(self.client.now), set(told).difference(self._kept())
        assert {url: states[url].state for url in certain} == dict.fromkeys(certain, "SYNCED")
        assert not any(self.client.owed.get(url) for url in certain), f"names that nobody answers: {self.client.owed}"
        if self.client.follow == "envoy":
            assert not self.client.warming, "clusters wait for their endpoints"

    def _alive(self) -> None:
        """Every lease that was asked for is alive (a client without the feature has none)."""
        for name, one in self.wanted.items():
            asked = RUNTIME in self.client.told and name in self.client.told[RUNTIME].names
            if asked and (one.expires_at is None or self.client.now < one.expires_at - 0.1):
                layer = self.client.layer(name)
                assert layer is not None, f"{name} ended"
                assert layer.body == lease_of(one).resource.body

    def teardown(self) -> None:
        """In the end everything is acceptable, and the client has it."""
        if sys.exc_info()[0] is not None or not hasattr(self, "client"):
            return
        self.world.heal()
        self.loaded = TYPES
        self._publish()
        self._settle(Manner())
        self._rests()
        self._alive()


class DeltaMachine(Machine):
    """The incremental variant."""


class SotwMachine(Machine):
    """State of the world."""

    sotw = True


TestDelta = DeltaMachine.TestCase
TestSotw = SotwMachine.TestCase
TestDelta.settings = TestSotw.settings = settings(
    max_examples=examples(200), stateful_step_count=30, report_multiple_bugs=False
)
