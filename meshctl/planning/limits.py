"""Concurrency limits: how many requests one sidecar may have in flight to a service (Envoy's circuit breakers).

Little's law: rate x latency requests are in flight. Each live sidecar of the caller gets an equal share of that for the
rate that the forecast's upper quantile allows, times the head-room, but never less than a burst needs, and never less
than its share of the places that the callee's ready replicas have: what they can serve at once is never turned away.
Arrivals are close to Poisson, so a share of ``l`` requests has a standard deviation of sqrt(l), and l + 3 sqrt(l) lets
99.9 % of moments pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

from meshctl.model import Decision, Demand, EdgeObservation, ServiceObservation
from meshctl.planning.guardrails import guard_limit, outcome
from meshctl.planning.replicas import Number
from meshctl.planning.settings import Edge, PlanSettings, base_limits, inbound_limits, thresholds

__all__ = ["LimitRequest", "base_limits", "burst", "decide_limit", "inbound_limits", "thresholds", "upper_rate"]

_SIGMAS = 3.0


@dataclass(frozen=True, slots=True)
class LimitRequest:
    """All that one edge's limit depends on.

    ``seen`` is the edge's traffic, None where there was none; ``callee`` the callee's observation; ``sidecars`` the
    caller's live sidecars; ``previous`` the max_requests in force, None for the base.
    """

    edge: Edge
    seen: EdgeObservation | None
    callee: ServiceObservation | None
    demand: Demand | None
    sidecars: int
    previous: float | None
    paused: bool
    frozen: bool


@dataclass(frozen=True, slots=True)
class _Need:
    """What an edge needs: requests in flight of one sidecar, the rule, the reason, and how it came about."""

    value: float
    policy: str
    reason: str
    inputs: dict[str, Number]


def burst(share: float, head_room: float, minimum: int) -> int:
    """The limit for a mean of ``share`` requests in flight: head-room, three standard deviations, or the minimum."""
    return max(minimum, ceil(head_room * share - 1e-9), ceil(share + _SIGMAS * sqrt(share) - 1e-9), 1)


def upper_rate(observed: float, total: float, demand: Demand | None) -> float:
    """The rate to prepare for: ``observed``, or its part of the callee's upper forecast if that is larger.

    ``total`` is the callee's demand from all callers. A forecast without skill does not act.
    """
    return _prepared(observed, total, demand, demand.upper if demand else 0.0)


def expected_rate(observed: float, total: float, demand: Demand | None) -> float:
    """As :func:`upper_rate`, for the forecast's median."""
    return _prepared(observed, total, demand, demand.expected if demand else 0.0)


def _prepared(observed: float, total: float, demand: Demand | None, forecast: float) -> float:
    if demand is None or not demand.skilled or total <= 0:
        return observed
    return max(observed, min(observed / total, 1.0) * forecast)


def decide_limit(request: LimitRequest, settings: PlanSettings) -> Decision:
    """The limit (max_requests) of one live sidecar on one edge."""
    base = settings.base(request.edge).max_requests
    previous = base if request.previous is None else request.previous
    need = _need(request, base, settings)
    guarded = guard_limit(
        need.value,
        previous,
        bounds=(1, base),
        step=settings.limit_step,
        dead_band=settings.dead_band,
        frozen=request.frozen,
    )
    guarded, result = outcome(guarded, previous, paused=request.paused, dry_run=settings.dry_run)
    return Decision(
        kind="limit",
        subject=">".join(request.edge),
        previous=previous,
        proposed=need.value,
        chosen=ceil(guarded.value),
        policy=need.policy,
        outcome=result,
        reason=need.reason,
        guardrails=guarded.rules,
        inputs=need.inputs | {"base": base, "sidecars": request.sidecars},
    )


def _need(request: LimitRequest, base: int, settings: PlanSettings) -> _Need:
    why_not = _unmeasured(request)
    if why_not:
        return _Need(base, "base", f"{why_not}; the base limit holds", {})
    assert request.seen is not None
    assert request.seen.mean_latency is not None
    assert request.callee is not None
    observed = max(request.seen.demand, request.seen.sent)
    upper = upper_rate(observed, request.callee.demand, request.demand)
    in_flight = upper * request.seen.mean_latency
    share = in_flight / request.sidecars
    places = settings.services[request.edge[1]].concurrency * request.callee.ready
    value = max(burst(share, settings.head_room, settings.limit_minimum), ceil(places / request.sidecars))
    forecast = upper > observed
    reason = (
        f"{upper:.1f}/s {'forecast' if forecast else 'observed'} x {request.seen.mean_latency * 1000:.0f} ms = "
        f"{in_flight:.1f} in flight over {request.sidecars} sidecars, {value} each with head-room"
    )
    inputs: dict[str, Number] = {
        "demand": request.seen.demand,
        "rate": upper,
        "latency": request.seen.mean_latency,
        "in_flight": in_flight,
        "share": share,
        "head_room": settings.head_room,
        "minimum": settings.limit_minimum,
        "places": places,
        "service_limit": value * request.sidecars,
    }
    return _Need(value, "predictive" if forecast else "reactive", reason, inputs)


def _unmeasured(request: LimitRequest) -> str | None:
    """Why the edge cannot be sized from what was measured, or None if it can."""
    if request.callee is None or request.callee.ready <= 0:
        return f"{request.edge[1]} has no ready replica"
    if request.seen is None or max(request.seen.demand, request.seen.sent) <= 0:
        return "no traffic"
    return "no latency measured yet" if request.seen.mean_latency is None else None
