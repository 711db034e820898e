"""What holds for every plan, whatever was observed, forecast and in force."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.model import Demand, EdgeObservation, Observation, Plan, Replica, ServiceMemory, ServiceObservation
from meshctl.planning.guardrails import guard_limit, guard_replicas
from meshctl.planning.limits import burst
from meshctl.planning.plan import Current, decide
from meshctl.planning.settings import PlanSettings, RouteSettings, ServiceSettings
from meshctl.scaling.policy import NAMES, get
from xds.model import Address

pytestmark = pytest.mark.slow

GROUPS = ("ingress", "a", "b", "c")
EDGES = (("ingress", "a"), ("a", "b"), ("a", "c"), ("b", "c"), ("c", "a"))
ROUTE = ("ingress", "/")
ADDRESS = Address("127.0.0.1", 1)

rates = st.floats(0, 1e5)
times = st.none() | st.floats(1e-4, 60)


@st.composite
def plan_settings(draw: st.DrawFn) -> PlanSettings:
    services = {}
    for name in GROUPS[1:]:
        low = draw(st.integers(1, 5))
        services[name] = ServiceSettings(
            low, low + draw(st.integers(0, 9)), draw(st.integers(1, 50)), draw(st.integers(0, 99))
        )
    return PlanSettings(
        services=services,
        edges=frozenset(draw(st.sets(st.sampled_from(EDGES)))),
        routes={ROUTE: RouteSettings("a", draw(st.floats(0.5, 1e4)))},
        stabilization=draw(st.floats(0, 100)),
        head_room=draw(st.floats(1, 5)),
        limit_minimum=draw(st.integers(1, 10)),
        dead_band=draw(st.floats(0, 0.5)),
        limit_step=draw(st.floats(0.01, 1)),
        max_step_up=draw(st.integers(1, 5)),
        max_step_down=draw(st.integers(1, 5)),
    )


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    services = {name: draw(service(name)) for name in draw(st.sets(st.sampled_from(GROUPS[1:])))}
    edges = tuple(draw(edge(*pair)) for pair in sorted(draw(st.sets(st.sampled_from(EDGES)))))
    replicas = tuple(
        Replica(f"{name}-{number}", name, "ready", ADDRESS, None, None, None)
        for name in GROUPS
        for number in range(draw(st.integers(0, 4)))
    )
    return Observation(draw(st.floats(1000, 2000)), 1, services, edges, replicas)


@st.composite
def service(draw: st.DrawFn, name: str) -> ServiceObservation:
    demand, ready = draw(rates), draw(st.integers(0, 9))
    rate = draw(st.floats(0, demand))
    time = draw(times)
    return ServiceObservation(
        name, demand, rate, draw(st.floats(0, rate)), 0.0, time, time, time, time, 0.0, ready, ready, 0.0, 0
    )


@st.composite
def edge(draw: st.DrawFn, caller: str, callee: str) -> EdgeObservation:
    demand, retries = draw(rates), draw(st.floats(0, 100))
    return EdgeObservation(caller, callee, demand, demand + retries, retries, 0.0, 0.0, draw(times), None, None)


@st.composite
def demands(draw: st.DrawFn) -> dict[str, Demand]:
    return {
        name: Demand(
            *(name, "mixture", draw(st.booleans()), draw(st.booleans()), ""), draw(rates), draw(rates), draw(rates)
        )
        for name in draw(st.sets(st.sampled_from(GROUPS[1:])))
    }


@st.composite
def currents(draw: st.DrawFn) -> Current:
    counts = st.dictionaries(st.sampled_from(GROUPS[1:]), st.integers(0, 20))
    memory = ServiceMemory(((draw(st.floats(900, 1900)), draw(st.integers(0, 20))),), draw(times))
    return Current(
        replicas=draw(counts),
        limits=draw(st.dictionaries(st.sampled_from(EDGES), st.integers(1, 1000).map(float))),
        rate_limits=draw(st.dictionaries(st.just(ROUTE), st.floats(0.5, 1e4))),
        enforced=draw(st.sampled_from([frozenset(), frozenset({ROUTE})])),
        frozen=frozenset(draw(st.sets(st.sampled_from(GROUPS[1:])))),
        memory=dict.fromkeys(GROUPS[1:], memory),
    )


situations = st.tuples(observations(), demands(), currents(), plan_settings(), st.sampled_from(NAMES))
Situation = tuple[Observation, dict[str, Demand], Current, PlanSettings, str]


def planned(situation: Situation) -> Plan:
    observation, demand, current, plan_settings, policy = situation
    return decide(observation, demand, current, plan_settings, get(policy))


@settings(deadline=None)
@given(situations)
def test_a_plan_stays_within_bounds(situation: Situation) -> None:
    plan, bounds = planned(situation), situation[3]
    for name, count in plan.replicas.items():
        assert bounds.services[name].minimum <= count <= bounds.services[name].maximum
    for pair, limit in plan.limits.items():
        base = bounds.base(pair)
        assert 1 <= limit.max_requests <= base.max_requests, "a lease only tightens below the base"
        assert 1 <= limit.max_connections <= base.max_connections
        assert 1 <= limit.max_pending_requests <= base.max_pending_requests
        assert 1 <= limit.max_retries <= base.max_retries
    for route, rate in plan.rate_limits.items():
        assert 0 < rate <= bounds.routes[route].base


@settings(deadline=None)
@given(situations)
def test_deciding_is_deterministic(situation: Situation) -> None:
    assert planned(situation) == planned(situation)


@settings(deadline=None)
@given(situations)
def test_no_limit_is_below_what_littles_law_says_is_in_flight(situation: Situation) -> None:
    plan, (observation, _, _, bounds, _) = planned(situation), situation
    for seen in observation.edges:
        pair = (seen.caller, seen.callee)
        if seen.mean_latency is None or pair not in plan.limits:
            continue
        sidecars = max(1, sum(replica.service == seen.caller for replica in observation.replicas))
        share = max(seen.demand, seen.sent) * seen.mean_latency / sidecars
        assert (
            plan.limits[pair].max_requests >= min(bounds.base(pair).max_requests, share) * (1 - bounds.dead_band) - 1e-6
        )


@settings(deadline=None)
@given(situations)
def test_steps_are_bounded(situation: Situation) -> None:
    plan, bounds = planned(situation), situation[3]
    for one in plan.decisions:
        if one.kind != "replicas" or one.previous is None:
            continue
        low, high = bounds.services[one.subject].minimum, bounds.services[one.subject].maximum
        if low <= one.previous <= high:
            assert -bounds.max_step_down <= one.chosen - one.previous <= bounds.max_step_up


@settings(deadline=None)
@given(situations, st.booleans())
def test_paused_and_dry_run_plans_change_nothing(situation: Situation, paused: bool) -> None:
    observation, demand, current, bounds, policy = situation
    current = replace(current, paused=paused)
    plan = decide(observation, demand, current, replace(bounds, dry_run=not paused), get(policy))
    assert current.replicas.items() <= plan.replicas.items()
    assert {pair: float(plan.limits[pair].max_requests) for pair in current.limits.keys() & plan.limits.keys()} == {
        pair: current.limits[pair] for pair in current.limits.keys() & plan.limits.keys()
    }
    assert plan.enforce == current.enforced
    assert not any(one.changes for one in plan.decisions)


@settings(deadline=None)
@given(situations)
def test_prediction_never_takes_a_replica_away(situation: Situation) -> None:
    observation, demand, current, bounds, _ = situation
    reactive = decide(observation, demand, current, bounds, get("reactive"))
    predictive = decide(observation, demand, current, bounds, get("predictive"))
    assert all(predictive.replicas[name] >= count for name, count in reactive.replicas.items())


@given(
    st.integers(-5, 30),
    st.integers(0, 20),
    st.lists(st.integers(0, 20)),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
)
def test_guarding_replicas_twice_is_guarding_once(
    proposed: int, previous: int, recent: list[int], up: int, down: int, frozen: bool
) -> None:
    def guard(value: int) -> int:
        guarded = guard_replicas(
            value, previous, recent=recent, bounds=(1, 10), step_up=up, step_down=down, frozen=frozen
        )
        return int(guarded.value)

    assert guard(guard(proposed)) == guard(proposed)


@given(st.floats(0, 1e6), st.floats(1, 1e4), st.floats(1, 1e4), st.floats(0.01, 1), st.floats(0, 0.5), st.booleans())
def test_guarding_a_limit_twice_is_guarding_once(
    proposed: float, previous: float, high: float, step: float, dead_band: float, frozen: bool
) -> None:
    def guard(value: float) -> float:
        return guard_limit(value, previous, bounds=(1.0, high), step=step, dead_band=dead_band, frozen=frozen).value

    assert guard(guard(proposed)) == guard(proposed)


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(1, 10), st.integers(1, 100))
def test_more_in_flight_never_lowers_a_limit(one: float, other: float, head_room: float, minimum: int) -> None:
    low, high = sorted((one, other))
    assert burst(low, head_room, minimum) <= burst(high, head_room, minimum)
    assert burst(high, head_room, minimum) >= high * head_room - 1e-6
