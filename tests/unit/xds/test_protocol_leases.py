"""Runtime layers as leases, in virtual time.

xds_protocol stands for https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol; what it leaves open was
measured on Envoy 1.40.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.unit.xds.link import DeltaClient, Got, SotwClient, make
from xds.errors import LeaseError
from xds.model import RuntimeLayer
from xds.protocol.events import TTL_FEATURE, Node
from xds.protocol.leases import lease_of
from xds.types import RUNTIME


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
            assert got.versions == {"limits": make.lease("limits", {"a": 1})["limits"].version}
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
    client.ask(RUNTIME, "limits", known={"limits": lease["limits"].version})
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
    assert got.versions == {"limits": make.lease("limits", {"a": 1})["limits"].version}
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
    notices = client.machine.layers.refusals()
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
