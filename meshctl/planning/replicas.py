"""How many replicas each service should have: measure, ask the policy, pass the guardrails, record why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from meshctl.model import Decision, Demand, ServiceMemory, ServiceObservation
from meshctl.planning import capacity
from meshctl.planning.guardrails import guard_replicas, outcome
from meshctl.planning.settings import PlanSettings, ServiceSettings

Number = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Sizing:
    """The numbers that a policy chooses from.

    ``current`` is the count in force and ``ready`` those that serve. ``utilization`` is requests in flight per place,
    ``time`` the smoothed service time (seconds). ``hpa`` is what the bare formula of the
    Kubernetes autoscaler wants, within bounds: what a mesh without a forecast would run. ``reactive`` is what its
    full rule wants next to the count in force, ``floor`` what the forecast's peak needs at the target utilisation;
    each is None where it cannot be known.
    """

    current: int
    ready: int
    minimum: int
    maximum: int
    utilization: float | None
    time: float | None
    hpa: int | None
    reactive: int | None
    floor: int | None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a policy asks for; ``policy`` names the rule that won."""

    replicas: int
    policy: str
    reason: str


class ReplicaPolicy(Protocol):
    """Chooses a replica count. Implementations live in :mod:`meshctl.scaling` and keep no state."""

    @property
    def name(self) -> str:
        """The policy's name in the mesh file."""

    def __call__(self, service: ServiceObservation, demand: Demand | None, sizing: Sizing) -> Proposal:
        """The proposal, before guardrails."""


@dataclass(frozen=True, slots=True)
class ReplicaRequest:
    """All that one service's decision depends on. ``previous`` is the count in force."""

    time: float
    service: ServiceObservation
    demand: Demand | None
    memory: ServiceMemory
    previous: int
    paused: bool
    frozen: bool


def decide_replicas(
    request: ReplicaRequest, settings: PlanSettings, policy: ReplicaPolicy
) -> tuple[Decision, ServiceMemory]:
    """The decision for one service, and what to remember for the next tick."""
    limits = settings.services[request.service.service]
    sizing = size(request, limits, settings)
    proposal = policy(request.service, request.demand, sizing)
    bounded = max(limits.minimum, min(proposal.replicas, limits.maximum))
    wanted = _recent(request, bounded, settings.stabilization)
    guarded = guard_replicas(
        proposal.replicas,
        request.previous,
        recent=[count for _, count in wanted],
        bounds=(limits.minimum, limits.maximum),
        step_up=settings.max_step_up,
        step_down=settings.max_step_down,
        frozen=request.frozen,
    )
    guarded, result = outcome(guarded, request.previous, paused=request.paused, dry_run=settings.dry_run)
    decision = Decision(
        kind="replicas",
        subject=request.service.service,
        previous=request.previous,
        proposed=proposal.replicas,
        chosen=int(guarded.value),
        policy=proposal.policy,
        outcome=result,
        reason=proposal.reason,
        guardrails=guarded.rules,
        inputs=_inputs(request, sizing, limits, settings),
    )
    return decision, ServiceMemory(wanted, sizing.time)


def size(request: ReplicaRequest, limits: ServiceSettings, settings: PlanSettings) -> Sizing:
    """Measure one service."""
    service, demand = request.service, request.demand
    time = capacity.smooth(request.memory.service_time, capacity.service_time(service, limits.concurrency))
    busy = capacity.utilization(service, limits.concurrency, time)
    target = settings.target_utilization
    bare = capacity.hpa(service.ready, service.ready, busy, target, 0.0)
    known = demand is not None and time is not None
    return Sizing(
        current=request.previous,
        ready=service.ready,
        minimum=limits.minimum,
        maximum=limits.maximum,
        utilization=busy,
        time=time,
        hpa=None if bare is None else max(limits.minimum, min(bare, limits.maximum)),
        reactive=capacity.hpa(request.previous, service.ready, busy, target, settings.tolerance),
        floor=_floor(demand, time, limits, settings) if known else None,
    )


def _floor(demand: Demand | None, time: float | None, limits: ServiceSettings, settings: PlanSettings) -> int:
    assert demand is not None
    assert time is not None
    return capacity.replicas_for(demand.peak, time, limits.concurrency, settings.target_utilization)


def _recent(request: ReplicaRequest, proposed: int, window: float) -> tuple[tuple[float, int], ...]:
    kept = [(at, count) for at, count in request.memory.wanted if request.time - window < at < request.time]
    return (*kept, (request.time, proposed))


def _inputs(
    request: ReplicaRequest, sizing: Sizing, limits: ServiceSettings, settings: PlanSettings
) -> Mapping[str, Number]:
    service, demand = request.service, request.demand
    return {
        "demand": service.demand,
        "rate": service.rate,
        "service_time": sizing.time,
        "capacity": capacity.capacity(limits.concurrency, sizing.time) if sizing.time else None,
        "utilization": sizing.utilization,
        "target_utilization": settings.target_utilization,
        "ready": service.ready,
        "desired": request.previous,
        "minimum": limits.minimum,
        "maximum": limits.maximum,
        "hpa": sizing.hpa,
        "reactive": sizing.reactive,
        "floor": sizing.floor,
        "expected": demand.expected if demand else None,
        "upper": demand.upper if demand else None,
        "peak": demand.peak if demand else None,
        "model": demand.model if demand else None,
        "skilled": demand.peak_skilled if demand else None,
    }
