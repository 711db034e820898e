"""Leases of runtime layers and extension configs, in virtual time.

xds_protocol stands for https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol; what it leaves open was
measured on Envoy 1.40 and 1.36.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.unit.xds.link import NODE, DeltaClient, Got, SotwClient, make
from xds.errors import LeaseError
from xds.model import LeasedResource, RuntimeLayer
from xds.protocol.events import TTL_FEATURE, Node, SotwRequest
from xds.protocol.leases import check_default, lease_of, leases_of
from xds.protocol.responses import ResponseCache
from xds.protocol.sotw import SotwStream
from xds.snapshot import Resource, Snapshot, encoded, snapshot
from xds.types import CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE, RUNTIME, SCOPED_ROUTE, SECRET

LIMITS = (RUNTIME, "limits")


def only(received: list[Got]) -> Got:
    (got,) = received
    return got


def live(values: dict[str, Any] | None = None, ttl: float = 15.0, expires_at: float | None = None) -> DeltaClient:
    """A client with an accepted lease of the layer ``limits`` since time 0."""
    client = DeltaClient()
    client.machine.lease(make.lease("limits", values or {"a": 1}, ttl, expires_at))
    client.ask(RUNTIME, "limits")
    client.settle()
    return client


def test_a_layer_that_nothing_is_known_about_is_answered_at_once() -> None:
    """Unanswered it delays the boot by 15 s, so even an unknown node gets an empty layer, without a lease."""
    client = DeltaClient()
    client.ask(RUNTIME, "limits", "chaos")
    received = client.settle()
    assert [got.names for got in received] == [["limits"], ["chaos"]]
    assert all(not got.ttls for got in received)
    assert client.machine.states(0)[RUNTIME].state == "SYNCED"
    client.now = 1e6
    assert client.settle() == []


def test_each_layer_has_a_lease_of_its_own() -> None:
    """xds_protocol#ttl"""
    client = DeltaClient()
    client.machine.lease(make.lease("limits", {"a": 1}, 15.0) | make.lease("chaos", {"b": 1}, 5.0))
    client.ask(RUNTIME, "limits", "chaos")
    assert [got.ttls for got in client.settle()] == [{"limits": 15.0}, {"chaos": 5.0}]


def test_a_heartbeat_has_no_body_and_comes_every_third_of_the_ttl() -> None:
    """xds_protocol#ttl"""
    client = live()
    for now in (4.9, 5.0, 9.9, 10.0):
        client.now = now
        received = client.settle()
        assert len(received) == (1 if now in {5.0, 10.0} else 0)
        for got in received:
            assert got.bodies == {"limits": None}
            assert got.versions == {"limits": make.lease("limits", {"a": 1})[LIMITS].version}
            assert got.ttls == {"limits": 15.0}


def test_an_unanswered_lease_gets_no_heartbeat() -> None:
    client = DeltaClient()
    client.machine.lease(make.lease("limits", {"a": 1}))
    client.ask(RUNTIME, "limits")
    first = client.get()
    client.now = 100.0
    assert client.get() is None
    assert first is not None
    client.ack(first)
    assert only(client.settle()).bodies["limits"] is not None, "it has lapsed meanwhile"


def test_changed_values_come_with_their_body() -> None:
    client = live()
    client.machine.lease(make.lease("limits", {"a": 2}))
    got = only(client.settle())
    assert got.bodies["limits"] is not None
    assert client.settle() == []


def test_after_expiry_the_same_version_is_armed_by_its_body() -> None:
    """A heartbeat without a body would be rejected: the client has forgotten the layer."""
    client = live()
    client.now = 15.1
    got = only(client.settle())
    assert got.bodies["limits"] is not None
    assert got.ttls == {"limits": 15.0}


def test_a_heartbeat_that_might_come_too_late_has_a_body() -> None:
    client = live()
    client.now = 14.0
    assert only(client.settle()).bodies["limits"] is not None


def test_a_clock_that_jumps_back_costs_no_lease() -> None:
    client = live()
    client.now = -1000.0
    assert only(client.settle()).bodies == {"limits": None}


def test_after_a_reconnect_a_live_lease_is_sent_anew() -> None:
    """Whatever initial_resource_versions says."""
    lease = make.lease("limits", {"a": 1})
    client = DeltaClient()
    client.machine.lease(lease)
    client.ask(RUNTIME, "limits", known={"limits": lease[LIMITS].version})
    assert only(client.settle()).bodies["limits"] is not None


def test_after_a_reconnect_a_lease_that_nobody_knows_runs_out() -> None:
    """The server restarted and has no plan yet: the old one is good until its TTL ends."""
    client = DeltaClient()
    client.ask(RUNTIME, "limits", known={"limits": "old"})
    assert client.settle() == []
    client.machine.lease(make.lease("limits", {}))
    got = only(client.settle())
    assert got.bodies["limits"] is not None
    assert got.ttls == {}


def test_a_layer_set_to_nothing_is_emptied_at_once_and_for_good() -> None:
    client = live()
    client.machine.lease(make.lease("limits", {}))
    assert only(client.settle()).ttls == {}
    client.now = 1e6
    assert client.settle() == []


def test_a_layer_that_is_left_out_lapses_by_itself() -> None:
    client = live()
    client.machine.lease({})
    client.now = 100.0
    assert client.settle() == []
    client.machine.lease(make.lease("limits", {"a": 1}))
    assert only(client.settle()).bodies["limits"] is not None


def test_no_send_outlives_the_deadline() -> None:
    client = live(ttl=5.0, expires_at=7.0)
    granted = []
    for tenth in range(200):
        client.now = tenth / 10
        granted += [(client.now, got.ttls["limits"]) for got in client.settle()]
    assert all(now + ttl <= 7.0 + 1e-9 for now, ttl in granted)
    assert max(now + ttl for now, ttl in granted) == pytest.approx(7.0)
    assert max(now for now, _ in granted) < 7.0


def test_an_expired_layer_is_silent_until_it_changes() -> None:
    client = live(ttl=5.0, expires_at=7.0)
    client.now = 8.0
    client.machine.lease(make.lease("limits", {"a": 1}, 5.0, expires_at=7.0))
    assert client.settle() == []
    client.machine.lease(make.lease("limits", {"a": 1}, 5.0, expires_at=20.0))
    assert only(client.settle()).bodies["limits"] is not None


def test_an_expired_layer_is_an_empty_one_to_a_new_client() -> None:
    client = DeltaClient()
    client.now = 8.0
    client.machine.lease(make.lease("limits", {"a": 1}, 5.0, expires_at=7.0))
    client.ask(RUNTIME, "limits")
    assert only(client.settle()).ttls == {}


def test_a_deadline_that_moves_closer_takes_effect_at_once() -> None:
    client = live(ttl=15.0)
    client.machine.lease(make.lease("limits", {"a": 1}, 15.0, expires_at=2.0))
    assert only(client.settle()).ttls == {"limits": 2.0}
    client.now = 1.0
    assert client.settle() == []


def test_a_rejected_layer_is_followed_at_once_by_the_last_good_one() -> None:
    """What Envoy rejects stays armed in the layer and aborts Envoy when another lease ends."""
    client = live({"a": 1})
    client.machine.lease(make.lease("limits", {"a": 2}))
    bad = client.get()
    assert bad is not None
    client.nack(bad, "bad a")
    got = only(client.settle())
    assert got.versions == {"limits": make.lease("limits", {"a": 1})[LIMITS].version}
    assert got.bodies["limits"] is not None
    state = client.machine.states(0)[RUNTIME]
    assert (state.state, state.error) == ("NACKED", "bad a")
    client.now = 5.0
    assert only(client.settle()).bodies == {"limits": None}, "heartbeats of the last good one go on"
    client.machine.lease(make.lease("limits", {"a": 3}))
    assert only(client.settle()).bodies["limits"] is not None
    assert client.machine.states(5.0)[RUNTIME].state == "SYNCED"


def test_a_rejected_first_layer_is_followed_by_an_empty_one() -> None:
    client = DeltaClient()
    client.machine.lease(make.lease("limits", {"a": 2}))
    client.ask(RUNTIME, "limits")
    bad = client.get()
    assert bad is not None
    client.nack(bad)
    empty = client.get()
    assert empty is not None
    assert empty.ttls == {}
    client.nack(empty)
    assert client.settle() == [], "nothing is left to try"


def test_a_rejected_heartbeat_is_followed_by_the_body() -> None:
    client = live()
    client.now = 5.0
    beat = client.get()
    assert beat is not None
    client.nack(beat, "no such resource")
    got = only(client.settle())
    assert got.bodies["limits"] is not None
    assert got.ttls == {"limits": 15.0}
    assert client.machine.states(5.0)[RUNTIME].state == "SYNCED"


def test_a_client_without_ttls_gets_no_lease() -> None:
    """xds_protocol#ttl: a plan that could not end by itself is not sent."""
    client = DeltaClient(node=Node("old", user_agent_version="1.16.0", user_agent="envoy"))
    client.machine.lease(make.lease("limits", {"a": 2}))
    client.ask(RUNTIME, "limits")
    assert only(client.settle()).ttls == {}
    assert TTL_FEATURE in client.machine.states(0)[RUNTIME].error


@pytest.mark.parametrize(
    ("node", "supported"),
    [
        (Node("n", features=frozenset({TTL_FEATURE})), True),
        (Node("n", features=frozenset({"xds.config.supports-resource-ttl"})), True),
        (Node("n", user_agent_version="1.40.0", user_agent="envoy"), True),
        (Node("n", user_agent_version="2.0.0", user_agent="envoy"), True),
        (Node("n", user_agent_version="1.9.0", user_agent="envoy"), False),
        (Node("n", user_agent_version="1.40.0", user_agent="grpc"), False),
        (Node("n", user_agent_version="dev", user_agent="envoy"), False),
    ],
)
def test_who_supports_ttls(node: Node, supported: bool) -> None:
    """Envoy 1.40 supports them and announces it only where its bootstrap does."""
    assert node.supports_ttl is supported


def test_asking_again_for_a_layer_is_answered() -> None:
    """xds_protocol#subscribing-to-resources"""
    client = live()
    client.ask(RUNTIME, "limits")
    assert only(client.settle()).bodies["limits"] is not None
    client.ask(RUNTIME, unsubscribe=("limits",))
    client.machine.lease(make.lease("limits", {"a": 2}))
    assert client.settle() == []


def test_wake_up_times() -> None:
    client = DeltaClient()
    assert client.machine.wakes_at() == math.inf
    client = live()
    assert client.machine.wakes_at() == 5.0
    client.machine.lease(make.lease("limits", {}))
    client.settle()
    assert client.machine.wakes_at() == math.inf


def test_state_of_the_world_heartbeats_carry_the_body() -> None:
    """xds_protocol#sotw-ttl: wrapped in a Resource; measured, only the body keeps the layer."""
    client = SotwClient()
    client.machine.lease(make.lease("chaos", {"a": 1}, 6.0))
    client.ask(RUNTIME, "chaos")
    first = only(client.settle())
    assert first.ttls == {"chaos": 6.0}
    client.now = 2.0
    beat = only(client.settle())
    assert beat.bodies == first.bodies
    assert beat.ttls == {"chaos": 6.0}
    client.machine.lease(make.lease("chaos", {}))
    assert only(client.settle()).ttls == {}


def test_state_of_the_world_with_two_layers_gets_no_lease() -> None:
    """Envoy 1.40 aborts when a lease ends on a stream that names two layers, be the other one leased or not."""
    client = SotwClient()
    client.machine.lease(make.lease("limits", {"a": 1}) | make.lease("chaos", {"b": 1}))
    client.ask(RUNTIME, "limits")
    assert only(client.settle()).ttls == {"limits": 15.0}
    client.ask(RUNTIME, "limits", "chaos")
    received = client.settle()
    assert sorted(name for got in received for name in got.names) == ["chaos", "limits"]
    assert all(not got.ttls for got in received), "the lease that was given is taken back"
    notices = client.machine.leased[RUNTIME].refusals()
    assert notices == [], "they were handed out with the answers, once"
    state = client.machine.states(0)[RUNTIME]
    assert state.state == "STALE"
    assert "delta ADS" in state.error
    client.ask(RUNTIME, "limits")
    assert only(client.settle()).ttls == {"limits": 15.0}


@pytest.mark.parametrize(
    "value", [-1, 1.5, math.nan, math.inf, True, None, "5", [1], 2**32, {}, {"numerator": 1}, {"numerator": -1}]
)
def test_a_value_that_envoy_rejects_or_ignores_is_refused(value: Any) -> None:
    with pytest.raises(LeaseError, match="layer 'limits', key 'a'"):
        lease_of(RuntimeLayer("limits", {"a": value}, 5.0))


@pytest.mark.parametrize("ttl", [0.0, -1.0, math.nan, math.inf])
def test_a_lease_needs_a_ttl(ttl: float) -> None:
    with pytest.raises(LeaseError, match="ttl"):
        lease_of(RuntimeLayer("limits", {"a": 1}, ttl))


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(LeaseError, match="key is empty"):
        lease_of(RuntimeLayer("limits", {"": 1}, 5.0))


def test_fractions_are_values() -> None:
    lease = lease_of(RuntimeLayer("limits", {"a": {"numerator": 5, "denominator": "TEN_THOUSAND"}}, 5.0))
    assert not lease.empty
    assert lease.version != lease_of(RuntimeLayer("limits", {}, 5.0)).version


# Extension configs. The same rules; what follows a lease is the snapshot's version, or Envoy's default at its end.


FAULT = (EXTENSION_CONFIG, "fault")


def ecds(*resources: Resource, listeners: tuple[Resource, ...] = ()) -> Snapshot:
    """A snapshot with these extension configs and listeners; without any of a type, that is not loaded."""
    sets = [make.set(EXTENSION_CONFIG, *resources)] if resources else []
    return snapshot(*sets, *([make.set(LISTENER, *listeners)] if listeners else []))


def bodies(received: list[Got]) -> list[bytes | None]:
    return [body for got in received for body in got.bodies.values()]


FULL, BASE = make.extension("fault", 1).body, make.extension("fault").body


def test_a_leased_extension_config_is_kept_alive_like_a_layer() -> None:
    """xds_protocol#ttl"""
    client = DeltaClient()
    client.machine.lease(make.leased("fault"))
    client.ask(EXTENSION_CONFIG, "fault")
    first = only(client.settle())
    assert (first.bodies, first.ttls) == ({"fault": FULL}, {"fault": 15.0})
    assert client.machine.wakes_at() == 5.0
    client.now = 5.0
    beat = only(client.settle())
    assert (beat.bodies, beat.ttls, beat.versions) == ({"fault": None}, {"fault": 15.0}, first.versions)
    assert client.machine.states(5.0)[EXTENSION_CONFIG].state == "SYNCED"


def test_a_state_of_the_world_heartbeat_of_an_extension_config_has_its_body() -> None:
    """xds_protocol#sotw-ttl: measured, one without a body is acknowledged and prolongs nothing."""
    client = SotwClient()
    client.machine.lease(make.leased("fault"))
    client.ask(EXTENSION_CONFIG, "fault")
    first = only(client.settle())
    client.now = 5.0
    beat = only(client.settle())
    assert beat.bodies == first.bodies == {"fault": FULL}
    assert beat.ttls == {"fault": 15.0}


@pytest.mark.parametrize("make_client", [DeltaClient, SotwClient])
class TestALeaseAndTheSnapshot:
    """Precedence: the lease while it is alive, then the snapshot's version, then the default of the filter."""

    def test_the_lease_wins(self, make_client: type[DeltaClient] | type[SotwClient]) -> None:
        client = make_client()
        client.machine.publish(ecds(make.extension("fault")))
        client.machine.lease(make.leased("fault"))
        client.ask(EXTENSION_CONFIG, "fault")
        assert bodies(client.settle()) == [FULL]
        client.machine.publish(ecds(make.extension("fault", 7)))
        assert client.settle() == [], "a change of what is hidden is no news"
        assert client.machine.states(0)[EXTENSION_CONFIG].state == "SYNCED"

    def test_a_lease_that_comes_later_replaces_it(self, make_client: type[DeltaClient] | type[SotwClient]) -> None:
        client = make_client()
        client.machine.publish(ecds(make.extension("fault")))
        client.ask(EXTENSION_CONFIG, "fault")
        got = only(client.settle())
        assert (got.bodies, got.ttls) == ({"fault": BASE}, {})
        client.machine.lease(make.leased("fault"))
        got = only(client.settle())
        assert (got.bodies, got.ttls) == ({"fault": FULL}, {"fault": 15.0})

    def test_a_withdrawn_lease_is_followed_at_once(self, make_client: type[DeltaClient] | type[SotwClient]) -> None:
        client = make_client()
        client.machine.publish(ecds(make.extension("fault")))
        client.machine.lease(make.leased("fault"))
        client.ask(EXTENSION_CONFIG, "fault")
        client.settle()
        client.machine.lease({})
        got = only(client.settle())
        assert (got.bodies, got.ttls) == ({"fault": BASE}, {}), "without a TTL, so that the old one ends nothing"
        client.now = 100.0
        assert client.settle() == []
        assert client.machine.wakes_at() == math.inf

    def test_a_withdrawn_lease_lapses_by_itself_where_there_is_none(
        self, make_client: type[DeltaClient] | type[SotwClient]
    ) -> None:
        client = make_client()
        client.machine.lease(make.leased("fault"))
        client.ask(EXTENSION_CONFIG, "fault")
        client.settle()
        client.machine.lease({})
        assert client.settle() == []
        client.now = 100.0
        assert client.settle() == []
        client.machine.publish(ecds(make.extension("fault")))
        assert bodies(client.settle()) == [BASE]

    def test_a_deadline_is_followed_without_a_gap(self, make_client: type[DeltaClient] | type[SotwClient]) -> None:
        """The snapshot's version comes before the client drops the lease, and not much before."""
        client = make_client()
        client.machine.publish(ecds(make.extension("fault")))
        client.machine.lease(make.leased("fault", ttl=5.0, expires_at=7.0))
        client.ask(EXTENSION_CONFIG, "fault")
        received = []
        while client.now < 10.0:
            received += [(client.now, got.bodies["fault"], got.ttls.get("fault")) for got in client.settle()]
            client.now = min(client.machine.wakes_at(), 10.0)
        assert all(ttl is None or now + ttl <= 7.0 + 1e-9 for now, _, ttl in received)
        at, body, ttl = received[-1]
        assert (body, ttl) == (BASE, None)
        assert 6.0 < at < 7.0

    def test_a_rejected_lease_leaves_the_snapshots(self, make_client: type[DeltaClient] | type[SotwClient]) -> None:
        """Measured: on state of the world the rejected one has armed its TTL, so the old one must be sent again."""
        client = make_client()
        client.machine.publish(ecds(make.extension("fault")))
        client.ask(EXTENSION_CONFIG, "fault")
        client.settle()
        client.machine.lease(make.leased("fault"))
        bad = client.get()
        assert bad is not None
        client.nack(bad, "no such field")
        got = only(client.settle())
        assert (got.bodies, got.ttls) == ({"fault": BASE}, {})
        state = client.machine.states(0)[EXTENSION_CONFIG]
        assert (state.state, state.error) == ("NACKED", "no such field")
        client.now = 100.0
        assert client.settle() == []
        client.machine.lease(make.leased("fault", 2))
        assert only(client.settle()).ttls == {"fault": 15.0}
        assert client.machine.states(100.0)[EXTENSION_CONFIG].state == "SYNCED"

    def test_a_rejected_lease_leaves_the_last_good_one(self, make_client: type[DeltaClient] | type[SotwClient]) -> None:
        client = make_client()
        client.machine.publish(ecds(make.extension("fault")))
        client.machine.lease(make.leased("fault", 1))
        client.ask(EXTENSION_CONFIG, "fault")
        client.settle()
        client.machine.lease(make.leased("fault", 2))
        bad = client.get()
        assert bad is not None
        client.nack(bad)
        got = only(client.settle())
        assert (got.bodies, got.ttls) == ({"fault": FULL}, {"fault": 15.0})

    def test_a_client_without_ttls_gets_the_snapshots(self, make_client: type[DeltaClient] | type[SotwClient]) -> None:
        client = make_client(node=Node("old", user_agent_version="1.16.0", user_agent="envoy"))
        client.machine.publish(ecds(make.extension("fault")))
        client.machine.lease(make.leased("fault"))
        client.ask(EXTENSION_CONFIG, "fault")
        got = only(client.settle())
        assert (got.bodies, got.ttls) == ({"fault": BASE}, {})
        assert TTL_FEATURE in client.machine.states(0)[EXTENSION_CONFIG].error

    def test_other_extension_configs_are_the_snapshots(self, make_client: type[DeltaClient] | type[SotwClient]) -> None:
        client = make_client()
        client.machine.publish(ecds(make.extension("fault"), make.extension("auth")))
        client.machine.lease(make.leased("fault") | make.lease("fault", {"a": 1}))
        client.ask(EXTENSION_CONFIG, "auth")
        assert bodies(client.settle()) == [make.extension("auth").body]
        client.now = 100.0
        assert client.settle() == []

    def test_a_listener_that_gives_no_default_bars_the_lease(
        self, make_client: type[DeltaClient] | type[SotwClient]
    ) -> None:
        """Measured: at the end of the lease every request of the filter chain got 500."""
        client = make_client()
        client.machine.lease(make.leased("fault"))
        client.machine.publish(ecds(make.extension("fault"), listeners=(make.discovering("in", fault=False),)))
        client.ask(EXTENSION_CONFIG, "fault")
        got = only(client.settle())
        assert (got.bodies, got.ttls) == ({"fault": BASE}, {})
        assert "default_config" in client.machine.states(0)[EXTENSION_CONFIG].error
        client.machine.publish(ecds(make.extension("fault"), listeners=(make.discovering("in", fault=True),)))
        assert only(client.settle()).ttls == {"fault": 15.0}

    def test_asking_again_is_answered_by_the_lease(self, make_client: type[DeltaClient] | type[SotwClient]) -> None:
        """xds_protocol#subscribing-to-resources"""
        client = make_client()
        client.machine.publish(ecds(make.extension("fault")))
        client.machine.lease(make.leased("fault"))
        client.ask(EXTENSION_CONFIG, "fault")
        client.settle()
        if isinstance(client, SotwClient):
            client.ask(EXTENSION_CONFIG, "other")
            client.settle()
        client.ask(EXTENSION_CONFIG, "fault")
        got = only(client.settle())
        assert (got.bodies, got.ttls) == ({"fault": FULL}, {"fault": 15.0})


def test_a_live_lease_of_an_extension_config_is_sent_anew_after_a_reconnect() -> None:
    lease = make.leased("fault")
    client = DeltaClient()
    client.machine.publish(ecds(make.extension("fault")))
    client.machine.lease(lease)
    client.ask(EXTENSION_CONFIG, "fault", known={"fault": lease[FAULT].version})
    got = only(client.settle())
    assert (got.bodies, got.ttls) == ({"fault": FULL}, {"fault": 15.0})


def test_a_leased_extension_config_is_not_missing() -> None:
    """The snapshot knows its type and not its name; nothing says that it does not exist while the lease lives."""
    client = DeltaClient()
    client.machine.publish(ecds(make.extension("auth")))
    client.machine.lease(make.leased("fault"))
    client.ask(EXTENSION_CONFIG, "fault", "gone")
    received = client.settle()
    assert [(got.names, got.removed) for got in received] == [(["fault"], []), ([], ["gone"])]
    client.ask(EXTENSION_CONFIG, "fault")
    got = only(client.settle())
    assert (got.names, got.removed) == (["fault"], [])


def test_delta_streams_lease_several_extension_configs() -> None:
    client = DeltaClient()
    client.machine.lease(make.leased("fault", ttl=3.0) | make.leased("other", ttl=15.0))
    client.ask(EXTENSION_CONFIG, "fault", "other", "third")
    assert [got.ttls for got in client.settle()] == [{"fault": 3.0}, {"other": 15.0}]


def test_state_of_the_world_with_two_extension_configs_gets_no_lease() -> None:
    """Envoy drops all of them when the lease of one ends; one without a default answers 500 from then on."""
    client = SotwClient()
    client.machine.publish(ecds(make.extension("fault"), make.extension("auth")))
    client.machine.lease(make.leased("fault"))
    client.ask(EXTENSION_CONFIG, "fault")
    assert only(client.settle()).ttls == {"fault": 15.0}
    client.ask(EXTENSION_CONFIG, "fault", "auth")
    received = client.settle()
    assert {name: body for got in received for name, body in got.bodies.items()} == {
        "fault": BASE,
        "auth": make.extension("auth").body,
    }
    assert all(not got.ttls for got in received), "the lease that was given is taken back"
    state = client.machine.states(0)[EXTENSION_CONFIG]
    assert state.state == "STALE"
    assert "delta ADS" in state.error
    client.ask(EXTENSION_CONFIG, "fault")
    assert only(client.settle()).ttls == {"fault": 15.0}


def test_a_lease_and_a_layer_on_one_state_of_the_world_stream() -> None:
    """Measured: the end of one type's lease does not touch the other type."""
    client = SotwClient()
    client.machine.lease(make.leased("fault") | make.lease("limits", {"a": 1}))
    client.ask(RUNTIME, "limits")
    client.ask(EXTENSION_CONFIG, "fault")
    assert [got.ttls for got in client.settle()] == [{"fault": 15.0}, {"limits": 15.0}]


def test_what_the_listeners_will_ask_for_counts_already() -> None:
    """A booting Envoy names its extension configs one by one: no lease is given that would be taken back at once."""
    client = SotwClient()
    client.machine.publish(ecds(listeners=(make.discovering("in", fault=True, auth=True),)))
    client.machine.lease(make.leased("fault"))
    client.ask(EXTENSION_CONFIG, "fault")
    assert client.settle() == []
    assert "state-of-the-world" in client.machine.states(0)[EXTENSION_CONFIG].error
    alone = SotwStream("abcd", ResponseCache(), EXTENSION_CONFIG)
    alone.publish(ecds(listeners=(make.discovering("in", fault=True, auth=True),)))
    alone.lease(make.leased("fault"))
    alone.receive(SotwRequest(EXTENSION_CONFIG, ("fault",), node=NODE), 0.0)
    assert alone.poll(0.0) is not None, "a stream of its own names only one"


@pytest.mark.parametrize("unsubscribe", [True, False])
def test_what_an_abandoned_lease_drops_is_sent_again(unsubscribe: bool) -> None:
    """The client holds a lease that cannot be taken back. Its end takes every extension config of the stream along."""
    client = SotwClient()
    client.machine.publish(ecds(make.extension("auth")))
    client.machine.lease(make.leased("fault"))
    client.ask(EXTENSION_CONFIG, "fault")
    client.settle()
    client.now = 5.0
    assert only(client.settle()).ttls == {"fault": 15.0}
    client.ask(EXTENSION_CONFIG, *(["auth"] if unsubscribe else ["fault", "auth"]))
    assert bodies(client.settle()) == [make.extension("auth").body]
    client.now = 19.9
    assert client.settle() == []
    assert 20.0 < client.machine.wakes_at() < 20.5
    client.now = client.machine.wakes_at()
    assert bodies(client.settle()) == [make.extension("auth").body]
    client.now = 100.0
    assert client.settle() == []
    assert client.machine.wakes_at() == math.inf


def test_one_response_of_a_type_is_in_flight_on_a_state_of_the_world_stream() -> None:
    """A client answers only the newest; leases and the snapshot share its nonces."""
    client = SotwClient()
    client.machine.publish(ecds(make.extension("fault")))
    client.ask(EXTENSION_CONFIG, "fault")
    first = client.get()
    assert first is not None
    client.machine.lease(make.leased("fault"))
    assert client.get() is None
    client.ack(first)
    second = client.get()
    assert second is not None
    assert second.ttls == {"fault": 15.0}
    client.machine.lease({})
    assert client.get() is None
    client.ack(second)
    assert bodies(client.settle()) == [BASE]


REASONS = {CLUSTER: "503", LISTENER: "refuses connections", ENDPOINT: "crashes", ROUTE: "crashes", SECRET: "crashes"}


@pytest.mark.parametrize("type_url", [*REASONS, SCOPED_ROUTE, RUNTIME])
def test_what_does_not_survive_expiry_cannot_be_leased(type_url: str) -> None:
    """Each for the reason that was measured on Envoy 1.36 and 1.40; a runtime layer is given by its values."""
    with pytest.raises(LeaseError, match=f"'one'.*{REASONS.get(type_url, 'not known|RuntimeLayer')}"):
        lease_of(LeasedResource(encoded(type_url, "one", b""), 5.0))


@pytest.mark.parametrize("ttl", [0.0, -1.0, math.nan, math.inf])
def test_a_leased_resource_needs_a_ttl(ttl: float) -> None:
    with pytest.raises(LeaseError, match=r"extension config 'fault'.*ttl"):
        make.leased("fault", ttl=ttl)


def test_a_lease_without_a_default_is_refused_if_a_listener_shows_it() -> None:
    (lease,) = make.leased("fault").values()
    check_default(None, lease)
    check_default(ecds(), lease)
    check_default(ecds(listeners=(make.discovering("in", fault=True, auth=False),)), lease)
    both = (make.discovering("in", fault=True), make.discovering("out", fault=False))
    with pytest.raises(LeaseError, match=r"'fault'.*'out'.*default_config"):
        check_default(ecds(listeners=both), lease)


def test_two_leases_of_one_name_are_refused() -> None:
    layer, one = RuntimeLayer("fault", {}, 1), LeasedResource(make.extension("fault"), 1)
    assert set(leases_of("n", [layer, one], None, {})) == {(RUNTIME, "fault"), FAULT}
    with pytest.raises(LeaseError, match="node 'n' gets two extension configs named 'fault'"):
        leases_of("n", [one, LeasedResource(make.extension("fault", 2), 1)], None, {})


def test_a_lease_whose_deadline_moves_away_is_kept_alive() -> None:
    client = live(ttl=5.0, expires_at=5.0)
    assert client.machine.wakes_at() == math.inf
    client.machine.lease(make.lease("limits", {"a": 1}, 5.0))
    assert client.get() is None
    client.now = client.machine.wakes_at()
    assert client.now < 2.0
    (beat,) = client.settle()
    assert beat.ttls == {"limits": 5.0}


def test_nobody_is_woken_for_a_lease_that_is_left_to_lapse() -> None:
    client = live()
    client.machine.lease({})
    assert client.get() is None
    assert client.machine.wakes_at() == math.inf


def test_a_short_grant_is_prolonged_in_time_when_its_deadline_moves_away() -> None:
    client = live(ttl=5.0, expires_at=1.0)
    client.machine.lease(make.lease("limits", {"a": 1}, 5.0))
    assert client.get() is None
    client.now = client.machine.wakes_at()
    assert client.now < 0.5
    (beat,) = client.settle()
    assert beat.ttls == {"limits": 5.0}
    assert client.machine.wakes_at() == pytest.approx(client.now + 5.0 / 3)
