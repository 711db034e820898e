"""``decide``: the plan of one tick, with a recorded reason for every number in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshctl.model import Decision, Demand, EdgeObservation, Observation, Plan, ServiceMemory, ServiceObservation
from meshctl.planning.limits import LimitRequest, decide_limit
from meshctl.planning.rates import RateRequest, decide_rate
from meshctl.planning.replicas import ReplicaPolicy, ReplicaRequest, decide_replicas
from meshctl.planning.settings import Edge, PlanSettings, thresholds


@dataclass(frozen=True, slots=True)
class Current:
    """What is in force before the plan. Missing entries mean what the mesh file says: minimum, base, not enforced.

    ``limits`` holds max_requests of one sidecar by (caller, callee); ``rate_limits`` requests per second of one
    ingress by (ingress, prefix). ``frozen`` names services under an experiment: their replicas, limits and rates are
    not tightened. ``memory`` is the last plan's.
    """

    replicas: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[Edge, float] = field(default_factory=dict)
    rate_limits: Mapping[Edge, float] = field(default_factory=dict)
    enforced: frozenset[Edge] = frozenset()
    paused: bool = False
    frozen: frozenset[str] = frozenset()
    memory: Mapping[str, ServiceMemory] = field(default_factory=dict)

    @classmethod
    def after(cls, plan: Plan, *, paused: bool = False, frozen: frozenset[str] = frozenset()) -> Current:
        """What is in force once ``plan`` was applied."""
        limits = {edge: float(limit.max_requests) for edge, limit in plan.limits.items()}
        return cls(plan.replicas, limits, plan.rate_limits, plan.enforce, paused, frozen, plan.memory)


def decide(
    observation: Observation,
    demand: Mapping[str, Demand],
    current: Current,
    settings: PlanSettings,
    policy: ReplicaPolicy,
) -> Plan:
    """The plan for what was observed and what is expected. Pure: the same arguments give the same plan.

    While paused or in dry-run, decisions say what would have been chosen and the plan keeps what is in force.
    """
    tick = _Tick(observation, demand, current, settings, _count_ready(observation))
    replicas, memory = _replicas(tick, policy)
    limits = _limits(tick)
    rates = _rates(tick, memory)
    return Plan(
        tick=observation.tick,
        time=observation.time,
        replicas={decision.subject: int(_in_force(decision)) for decision in replicas},
        limits={edge: thresholds(_in_force(decision)) for edge, decision in limits.items()},
        rate_limits={route: _in_force(decision) for route, (decision, _) in rates.items()},
        enforce=frozenset(route for route, (_, enforce) in rates.items() if enforce),
        decisions=(*replicas, *limits.values(), *(decision for decision, _ in rates.values())),
        memory=memory,
    )


@dataclass(frozen=True, slots=True)
class _Tick:
    """The arguments of ``decide``, with the ready replicas counted once."""

    observation: Observation
    demand: Mapping[str, Demand]
    current: Current
    settings: PlanSettings
    ready: Mapping[str, int]

    def live(self, group: str) -> int:
        """Envoys of ``group`` that take traffic, at least 1: shares are never infinite."""
        return max(1, self.ready.get(group, 0))


def _count_ready(observation: Observation) -> Counter[str]:
    return Counter(replica.service for replica in observation.replicas if replica.phase == "ready")


def _in_force(decision: Decision) -> float:
    """The number that the plan carries: what was chosen, unless pause or dry-run keep the previous one."""
    if decision.previous is not None and decision.outcome in ("paused", "dry-run"):
        return decision.previous
    return decision.chosen


def _replicas(tick: _Tick, policy: ReplicaPolicy) -> tuple[list[Decision], dict[str, ServiceMemory]]:
    decisions, memory = [], {}
    for name in sorted(tick.settings.services):
        seen = tick.observation.services.get(name) or _unseen(name, tick)
        request = ReplicaRequest(
            time=tick.observation.time,
            service=seen,
            demand=tick.demand.get(name),
            memory=tick.current.memory.get(name, ServiceMemory()),
            previous=tick.current.replicas.get(name, seen.desired or tick.settings.services[name].minimum),
            paused=tick.current.paused,
            frozen=name in tick.current.frozen,
        )
        decision, memory[name] = decide_replicas(request, tick.settings, policy)
        decisions.append(decision)
    return decisions, memory


def _limits(tick: _Tick) -> dict[Edge, Decision]:
    """A decision for every edge that is configured or was seen, ingress routes included."""
    seen = {(edge.caller, edge.callee): edge for edge in tick.observation.edges if _ours(edge, tick.settings)}
    return {
        edge: decide_limit(_limit(edge, seen.get(edge), tick), tick.settings)
        for edge in sorted(tick.settings.edges | set(seen))
    }


def _ours(edge: EdgeObservation, settings: PlanSettings) -> bool:
    return edge.callee in settings.services and (edge.caller in settings.services or edge.caller == settings.ingress)


def _limit(edge: Edge, seen: EdgeObservation | None, tick: _Tick) -> LimitRequest:
    caller, callee = edge
    return LimitRequest(
        edge=edge,
        seen=seen,
        callee=tick.observation.services.get(callee),
        demand=tick.demand.get(callee),
        sidecars=tick.live(caller),
        previous=tick.current.limits.get(edge),
        paused=tick.current.paused,
        frozen=not tick.current.frozen.isdisjoint(edge),
    )


def _rates(tick: _Tick, memory: Mapping[str, ServiceMemory]) -> dict[Edge, tuple[Decision, bool]]:
    routes = tick.settings.routes
    return {route: decide_rate(_rate(route, tick, memory), tick.settings) for route in sorted(routes)}


def _rate(route: Edge, tick: _Tick, memory: Mapping[str, ServiceMemory]) -> RateRequest:
    return RateRequest(
        route=route,
        observation=tick.observation,
        demand=tick.demand,
        memory=memory,
        ingresses=tick.live(route[0]),
        previous=tick.current.rate_limits.get(route),
        enforced=route in tick.current.enforced,
        paused=tick.current.paused,
        frozen=bool(tick.current.frozen),  # any service under an experiment may be behind the route
    )


def _unseen(name: str, tick: _Tick) -> ServiceObservation:
    """A service of which nothing was reported in this tick."""
    living = sum(
        replica.service == name and replica.phase in ("pending", "starting", "ready")
        for replica in tick.observation.replicas
    )
    return ServiceObservation(
        service=name,
        demand=0.0,
        rate=0.0,
        errors=0.0,
        rate_limited=0.0,
        mean_latency=None,
        p50=None,
        p99=None,
        service_time=None,
        in_flight=0.0,
        ready=tick.ready.get(name, 0),
        desired=living,
        cpu=0.0,
        memory=0,
    )
