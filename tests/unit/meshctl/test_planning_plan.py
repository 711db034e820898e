"""``decide``: replicas, limits and rates of a small mesh, one situation per test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from meshctl.config import MeshConfig
from meshctl.model import Decision, Demand, EdgeObservation, Observation, Phase, Plan, Replica, ServiceObservation
from meshctl.planning.limits import base_limits, burst, inbound_limits, thresholds, upper_rate
from meshctl.planning.plan import Current, decide
from meshctl.planning.settings import PlanSettings
from meshctl.scaling.policy import get
from xds.model import Address, Limits

CONFIG = MeshConfig.model_validate(
    {
        "name": "shop",
        "services": {
            "frontend": {"replicas": {"min": 1, "max": 6}, "concurrency": 6, "queue": 24, "calls": ["catalog"]},
            "catalog": {"replicas": {"min": 1, "max": 4}, "concurrency": 8, "queue": 32},
        },
        "ingress": {"routes": [{"prefix": "/", "service": "frontend", "rate_limit": {"base": 500}}]},
    }
)
SETTINGS = PlanSettings.from_config(CONFIG)
EDGE = ("frontend", "catalog")
ROUTE = ("ingress", "/")


def service(name: str, demand: float, time: float | None, ready: int, **more: Any) -> ServiceObservation:
    values: dict[str, Any] = {
        "service": name,
        "demand": demand,
        "rate": demand,
        "errors": 0.0,
        "rate_limited": 0.0,
        "mean_latency": time,
        "p50": time,
        "p99": time,
        "service_time": time,
        "in_flight": demand * (time or 0.0),
        "ready": ready,
        "desired": ready,
        "cpu": 0.0,
        "memory": 0,
    }
    return ServiceObservation(**{**values, **more})


def edge(caller: str, callee: str, demand: float, latency: float | None, **more: Any) -> EdgeObservation:
    values: dict[str, Any] = {"sent": demand, "retries": 0.0, "errors": 0.0, "overflow": 0.0}
    return EdgeObservation(
        caller=caller, callee=callee, demand=demand, mean_latency=latency, p50=None, p99=None, **{**values, **more}
    )


def replicas(phase: Phase = "ready", **counts: int) -> tuple[Replica, ...]:
    address = Address("127.0.0.1", 1)
    return tuple(
        Replica(f"{name}-{index}", name, phase, address, address, address, address)
        for name, count in counts.items()
        for index in range(count)
    )


def world(rate: float = 60.0, frontends: int = 2, catalogs: int = 1, time: float = 100.0) -> Observation:
    """Users ask ``rate`` of the frontend, which asks the catalogue twice each time."""
    return Observation(
        time=time,
        tick=int(time),
        services={
            "frontend": service("frontend", rate, 0.1, frontends),
            "catalog": service("catalog", 2 * rate, 0.02, catalogs),
        },
        edges=(edge("ingress", "frontend", rate, 0.12), edge("frontend", "catalog", 2 * rate, 0.03)),
        replicas=replicas(ingress=1, frontend=frontends, catalog=catalogs),
    )


def forecast(
    name: str, upper: float, peak: float, skilled: bool = True, peak_skilled: bool | None = None
) -> dict[str, Demand]:
    ahead = skilled if peak_skilled is None else peak_skilled
    return {name: Demand(name, "mixture", skilled, ahead, "because", upper, upper, peak)}


def plan(
    observation: Observation,
    demand: Mapping[str, Demand] | None = None,
    current: Current | None = None,
    policy: str = "predictive",
    **changes: Any,
) -> Plan:
    return decide(observation, demand or {}, current or Current(), replace(SETTINGS, **changes), get(policy))


def decision(found: Plan, subject: str) -> Decision:
    return next(one for one in found.decisions if one.subject == subject)


# Base limits


def test_thresholds_come_from_requests() -> None:
    assert thresholds(7.2) == Limits(max_connections=8, max_pending_requests=8, max_requests=8, max_retries=2)
    assert thresholds(0.0) == Limits(1, 1, 1, 1)


def test_the_inbound_limit_is_what_one_replica_takes() -> None:
    assert inbound_limits(CONFIG.services["frontend"]).max_requests == 30


def test_base_limits_divide_the_callee_at_its_largest_over_its_callers_at_theirs() -> None:
    assert base_limits(CONFIG, *EDGE).max_requests == 4 * 40 // 6
    assert base_limits(CONFIG, "ingress", "frontend").max_requests == 6 * 30


def test_a_caller_known_from_telemetry_takes_part_in_the_division() -> None:
    assert base_limits(CONFIG, "ingress", "catalog").max_requests == 4 * 40 // (6 + 1)


def test_an_unknown_callee_has_no_base() -> None:
    with pytest.raises(KeyError):
        base_limits(CONFIG, "frontend", "nobody")


# Replicas


def test_a_quiet_mesh_is_left_alone() -> None:
    found = plan(world(rate=70.0))
    assert found.replicas == {"frontend": 2, "catalog": 1}
    assert {decision(found, name).outcome for name in ("frontend", "catalog")} == {"held"}


def test_load_adds_replicas_step_by_step() -> None:
    observation = world(rate=200.0)
    first = plan(observation)
    assert first.replicas["frontend"] == 4
    assert decision(first, "frontend").guardrails == ("step",)
    assert plan(observation, current=Current.after(first)).replicas["frontend"] == 6


def test_a_peak_ahead_adds_replicas_before_the_load() -> None:
    found = decision(plan(world(), forecast("frontend", 80.0, 150.0)), "frontend")
    assert (found.proposed, found.chosen, found.policy, found.outcome) == (4, 4, "predictive", "applied")
    assert {"hpa": 2, "floor": 4, "peak": 150.0, "ready": 2, "demand": 60.0}.items() <= found.inputs.items()
    assert found.inputs["utilization"] == pytest.approx(0.5)


def test_a_peak_without_skill_adds_nothing() -> None:
    found = decision(plan(world(), forecast("frontend", 80.0, 150.0, skilled=False)), "frontend")
    assert (found.chosen, found.policy) == (2, "reactive")
    assert "because" in found.reason


def test_a_peak_is_sized_by_the_last_known_service_time() -> None:
    known = plan(world())
    idle = replace(world(time=105.0), services={}, edges=())
    found = plan(idle, forecast("frontend", 80.0, 150.0), Current.after(known))
    assert decision(found, "frontend").inputs["floor"] == 4
    assert found.memory["frontend"].service_time == pytest.approx(0.1)


def test_scale_down_waits_for_the_window_and_goes_one_by_one() -> None:
    current = Current.after(plan(world(rate=150.0, frontends=4)))
    assert current.replicas["frontend"] == 4
    counts = []
    for time in range(105, 200, 5):
        found = plan(world(rate=20.0, frontends=current.replicas["frontend"], time=float(time)), current=current)
        current = Current.after(found)
        counts.append(current.replicas["frontend"])
    assert counts[:11] == [4] * 11  # 55 s after the last high proposal
    assert counts[11:14] == [3, 2, 1]


def test_memory_holds_one_window() -> None:
    current = Current()
    for time in range(100, 400, 5):
        current = Current.after(plan(world(time=float(time)), current=current))
    times = [time for time, _ in current.memory["frontend"].wanted]
    assert times == [float(time) for time in range(340, 400, 5)]


def test_a_service_without_traffic_goes_to_its_minimum() -> None:
    found = plan(world(rate=0.0), stabilization=0.0)
    assert found.replicas == {"frontend": 1, "catalog": 1}


def test_a_service_nobody_reports_keeps_its_replicas() -> None:
    observation = Observation(100.0, 1, {}, (), replicas("starting", frontend=3))
    found = plan(observation)
    assert found.replicas == {"frontend": 3, "catalog": 1}
    assert "no replica is ready" in decision(found, "frontend").reason


def test_starting_replicas_are_not_asked_for_twice() -> None:
    observation = world(rate=100.0)  # 10 in flight on 12 places: 83 %
    current = Current(replicas={"frontend": 3, "catalog": 1})
    assert plan(observation, current=current).replicas["frontend"] == 3


def test_bounds_that_moved_hold_at_once() -> None:
    assert plan(world(), current=Current(replicas={"frontend": 9, "catalog": 0})).replicas == {
        "frontend": 6,
        "catalog": 1,
    }


# Limits


def test_a_limit_is_littles_law_with_head_room_divided_over_sidecars() -> None:
    observation = world(rate=200.0, frontends=4, catalogs=3)
    found = decision(plan(observation, current=Current(limits={EDGE: 8.0})), "frontend>catalog")
    # 400/s x 30 ms = 12 in flight, 3 for each of 4 sidecars: 3 + 3 sqrt(3) = 8.2, more than 3 x 1.5
    assert found.proposed == 9
    assert found.inputs["in_flight"] == pytest.approx(12.0)
    assert found.inputs["share"] == pytest.approx(3.0)
    assert found.inputs["sidecars"] == 4
    assert found.inputs["service_limit"] == 36


@pytest.mark.parametrize(("share", "expected"), [(0.0, 4), (0.1, 4), (1.0, 4), (4.0, 10), (100.0, 150), (36.0, 54)])
def test_head_room_covers_bursts(share: float, expected: int) -> None:
    assert burst(share, head_room=1.5, minimum=4) == expected


def test_limits_and_scaling_each_follow_the_gate_of_their_own_steps() -> None:
    near = plan(world(), forecast("frontend", 180.0, 150.0, skilled=True, peak_skilled=False))
    ahead = plan(world(), forecast("frontend", 180.0, 150.0, skilled=False, peak_skilled=True))
    assert decision(near, "frontend").policy == "reactive"
    assert decision(ahead, "frontend").policy == "predictive"
    assert decision(near, "ingress>frontend").policy == "predictive"
    assert decision(ahead, "ingress>frontend").policy == "reactive"
    assert [decision(one, "frontend").inputs["skilled"] for one in (near, ahead)] == [False, True]


def test_the_forecast_opens_a_limit_in_proportion() -> None:
    assert upper_rate(50.0, 100.0, forecast("x", 180.0, 0.0)["x"]) == 90.0
    assert upper_rate(50.0, 100.0, forecast("x", 80.0, 0.0)["x"]) == 50.0
    assert upper_rate(50.0, 100.0, forecast("x", 180.0, 0.0, skilled=False)["x"]) == 50.0
    assert upper_rate(50.0, 100.0, None) == 50.0


def test_limits_tighten_by_half_and_never_above_base() -> None:
    first = plan(world(rate=10.0))
    base = base_limits(CONFIG, *EDGE).max_requests
    assert first.limits[EDGE].max_requests == base // 2
    assert decision(first, "frontend>catalog").guardrails == ("step",)
    busy = plan(world(rate=10_000.0), current=Current.after(first))
    assert busy.limits[EDGE].max_requests == base


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"edges": ()}, "no traffic"),
        ({"edges": (edge("frontend", "catalog", 5.0, None),)}, "no latency measured yet"),
        ({"services": {"catalog": service("catalog", 5.0, 0.1, 0)}}, "catalog has no ready replica"),
        ({"services": {}}, "catalog has no ready replica"),
    ],
)
def test_what_cannot_be_measured_gets_the_base(changes: dict[str, Any], why: str) -> None:
    found = plan(replace(world(), **changes), current=Current(limits={EDGE: 5.0}))
    chosen = decision(found, "frontend>catalog")
    assert found.limits[EDGE] == base_limits(CONFIG, *EDGE)
    assert why in chosen.reason
    assert "the base limit holds" in chosen.reason


def test_an_edge_known_from_telemetry_only_gets_a_limit() -> None:
    observation = world()
    extra = edge("ingress", "catalog", 5.0, 0.02)
    found = plan(replace(observation, edges=(*observation.edges, extra)))
    assert ("ingress", "catalog") in found.limits


def test_strangers_get_none() -> None:
    observation = world()
    strange = (edge("frontend", "example.com", 5.0, 0.02), edge("cron", "catalog", 5.0, 0.02))
    found = plan(replace(observation, edges=(*observation.edges, *strange)))
    assert set(found.limits) == {EDGE, ("ingress", "frontend")}


def test_small_moves_of_a_limit_are_held() -> None:
    current = Current(limits={("ingress", "frontend"): 100.0})
    # 550/s x 120 ms = 66 in flight: 99 with head-room
    found = decision(plan(world(rate=550.0), current=current), "ingress>frontend")
    assert (found.proposed, found.chosen, found.outcome, found.guardrails) == (99, 100, "held", ("dead-band",))


# Rates


def overloaded(rate_limited: float = 0.0) -> Observation:
    """The frontend (2 x 60/s) is offered 150/s and admits 120/s."""
    base = world(rate=120.0)
    services = {**base.services, "frontend": replace(base.services["frontend"], demand=150.0, rate_limited=30.0)}
    return replace(base, services=services)


def test_the_rate_is_what_the_tightest_service_serves() -> None:
    found = decision(plan(world(frontends=2, catalogs=1)), "ingress/")
    # frontend: 0.9 x 2 x 6 / 0.1 = 108/s; catalog: 0.9 x 8 / 0.02 = 360/s for 2 calls each = 180/s
    assert found.proposed == pytest.approx(108.0)
    assert found.inputs["bottleneck"] == "frontend"


def test_a_callee_can_be_the_bottleneck() -> None:
    found = decision(plan(world(frontends=6, catalogs=1)), "ingress/")
    assert found.inputs["bottleneck"] == "catalog"
    assert found.proposed == pytest.approx(180.0)


def test_a_rate_is_enforced_only_above_capacity() -> None:
    settled = Current(rate_limits={ROUTE: 108.0})
    assert plan(world(rate=60.0), current=settled).enforce == frozenset()
    assert plan(overloaded(), current=settled).enforce == {ROUTE}
    assert plan(world(rate=60.0), forecast("frontend", 140.0, 140.0), settled).enforce == {ROUTE}


def test_enforcement_ends_with_a_margin() -> None:
    enforced = Current(rate_limits={ROUTE: 108.0}, enforced=frozenset({ROUTE}))
    assert plan(world(rate=100.0), current=enforced).enforce == {ROUTE}
    assert plan(world(rate=90.0), current=enforced).enforce == frozenset()


def test_two_ingresses_share_a_rate() -> None:
    observation = world()
    found = decision(plan(replace(observation, replicas=(*observation.replicas, *replicas(ingress=1)))), "ingress/")
    assert found.proposed == pytest.approx(54.0)


def test_without_traffic_the_base_rate_holds() -> None:
    found = plan(world(rate=0.0), current=Current(rate_limits={ROUTE: 50.0}, enforced=frozenset({ROUTE})))
    assert found.rate_limits[ROUTE] == 500.0
    assert found.enforce == frozenset()
    assert "the base rate holds" in decision(found, "ingress/").reason


# Pause, dry-run, experiments


@pytest.mark.parametrize(("paused", "dry_run", "expected"), [(True, False, "paused"), (False, True, "dry-run")])
def test_pause_and_dry_run_decide_but_keep_what_is_in_force(paused: bool, dry_run: bool, expected: str) -> None:
    current = Current(
        replicas={"frontend": 2, "catalog": 1},
        limits={EDGE: 20.0, ("ingress", "frontend"): 50.0},
        rate_limits={ROUTE: 300.0},
        paused=paused,
    )
    found = plan(overloaded(), forecast("frontend", 300.0, 500.0), current, dry_run=dry_run)
    assert {one.outcome for one in found.decisions} == {expected}
    assert not any(one.changes for one in found.decisions)
    assert found.replicas == current.replicas
    assert {edge: limit.max_requests for edge, limit in found.limits.items()} == current.limits
    assert found.rate_limits == current.rate_limits
    assert found.enforce == frozenset()
    assert decision(found, "frontend").chosen == 4


def test_an_experiment_holds_scale_down_and_tightening() -> None:
    current = Current(replicas={"frontend": 4, "catalog": 3}, limits={EDGE: 20.0}, frozen=frozenset({"catalog"}))
    found = plan(world(rate=5.0, frontends=4, catalogs=3), current=current, stabilization=0.0)
    assert found.replicas == {"frontend": 3, "catalog": 3}
    assert found.limits[EDGE].max_requests == 20
    assert "chaos" in decision(found, "catalog").guardrails
    assert "chaos" in decision(found, "frontend>catalog").guardrails


def test_an_experiment_does_not_stop_scale_up() -> None:
    found = plan(world(rate=200.0), current=Current(frozen=frozenset({"frontend"})))
    assert found.replicas["frontend"] == 4


def simulate(loads: list[float], upper: dict[int, float]) -> list[Plan]:
    """Ticks of a mesh whose replicas are ready one tick after the plan; ``upper`` maps ticks to forecasts."""
    plans, current, ready = [], Current(replicas={"frontend": 1, "catalog": 1}), {"frontend": 1, "catalog": 1}
    for tick, load in enumerate(loads):
        observation = world(load, ready["frontend"], ready["catalog"], time=100.0 + 5 * tick)
        peak = forecast("frontend", upper[tick], upper[tick]) if tick in upper else {}
        ready = dict(current.replicas)
        plans.append(plan(observation, peak, current))
        current = Current.after(plans[-1])
    return plans


def test_a_steady_load_comes_to_rest() -> None:
    noise = [1.0, 1.02, 0.97, 1.01, 0.99, 1.03]
    plans = simulate([150.0 * noise[tick % 6] for tick in range(60)], {})
    assert {plan.replicas["frontend"] for plan in plans[10:]} == {4}
    moves = [one.subject for plan in plans[20:] for one in plan.decisions if one.changes]
    assert "frontend" not in moves
    assert len(moves) <= 20, moves  # of 200 decisions: the dead band swallows most of the noise


def test_prediction_has_replicas_ready_when_the_load_arrives() -> None:
    loads = [40.0] * 10 + [150.0] * 5
    surprised = simulate(loads, {})
    prepared = simulate(loads, dict.fromkeys(range(6, 15), 150.0))
    assert surprised[9].replicas["frontend"] == 1
    assert prepared[9].replicas["frontend"] == 4


# Settings


def test_settings_come_from_the_mesh_file() -> None:
    assert SETTINGS.edges == {EDGE, ("ingress", "frontend")}
    assert SETTINGS.routes[ROUTE].base == 500.0
    assert SETTINGS.callers("catalog") == {"frontend"}
    assert (SETTINGS.target_utilization, SETTINGS.stabilization, SETTINGS.max_step_up) == (0.65, 60.0, 2)
    assert SETTINGS.with_dry_run(True).dry_run


def test_every_decision_explains_itself() -> None:
    for one in plan(world(), forecast("frontend", 80.0, 150.0)).decisions:
        assert one.reason
        assert one.inputs
        assert one.policy
