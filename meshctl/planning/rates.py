"""Rate limits at the ingress: what the ready replicas behind a route can serve.

A request at the ingress becomes work for every service it reaches. How much is measured: a callee's demand over the
requests admitted at the ingress. The service that runs out first sets the rate. The limit is switched on only while
the *mean* demand, now or as forecast, is more than that: a planned bucket holds one fill of a tenth of a second, so it
turns bursts away even below its rate, and queues absorb bursts better. An error in it costs nothing on a quiet day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshctl.model import Decision, Demand, Observation, ServiceMemory
from meshctl.planning.capacity import capacity
from meshctl.planning.guardrails import guard_limit, outcome
from meshctl.planning.limits import expected_rate
from meshctl.planning.replicas import Number
from meshctl.planning.settings import Edge, PlanSettings, RouteSettings

#: A queue in front of fully used places grows without bound, so a limit that is enforced keeps a tenth free. It is
#: enforced when all places would be taken.
FULL = 0.9

#: While a limit is not enforced its value matters to nobody, so it follows the capacity in coarse steps: every step is
#: a push of the route.
IDLE_BAND = 0.25

#: An enforced limit is lifted once demand is below this share of it; in between nothing changes.
RELEASE = 0.9


@dataclass(frozen=True, slots=True)
class RateRequest:
    """All that one route's rate depends on. ``ingresses`` are the live ones; ``previous`` the rate of one of them."""

    route: Edge
    observation: Observation
    demand: Mapping[str, Demand]
    memory: Mapping[str, ServiceMemory]
    ingresses: int
    previous: float | None
    enforced: bool
    paused: bool
    frozen: bool


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The service that runs out first, and the requests per second at the ingress that fill it."""

    service: str
    rate: float


def decide_rate(request: RateRequest, settings: PlanSettings) -> tuple[Decision, bool]:
    """The rate (requests per second) that one live ingress admits on a route, and whether to enforce it."""
    route = settings.routes[request.route]
    previous = route.base if request.previous is None else request.previous
    found = bottleneck(route.service, request.route[0], request, settings)
    offered = _offered(route.service, request)
    proposed = route.base if found is None else found.rate / request.ingresses
    enforce = found is not None and _enforce(offered / request.ingresses, proposed, request.enforced)
    guarded = guard_limit(
        proposed,
        previous,
        bounds=(min(1.0, route.base), route.base),
        step=settings.limit_step,
        dead_band=settings.dead_band if enforce else max(settings.dead_band, IDLE_BAND),
        frozen=request.frozen,
    )
    guarded, result = outcome(guarded, previous, paused=request.paused, dry_run=settings.dry_run)
    decision = Decision(
        kind="rate_limit",
        subject="".join(request.route),
        previous=previous,
        proposed=proposed,
        chosen=guarded.value,
        policy="base" if found is None else "capacity",
        outcome=result,
        reason=_reason(found, offered, enforce),
        guardrails=guarded.rules,
        inputs=_inputs(request, route, found) | {"offered": offered, "enforced": enforce},
    )
    return decision, request.enforced if result in ("paused", "dry-run") else enforce


def bottleneck(entry: str, ingress: str, request: RateRequest, settings: PlanSettings) -> Bottleneck | None:
    """The tightest service behind ``entry``, or None while nothing is measured."""
    admitted = sum(_first(edge.sent, edge.retries) for edge in request.observation.edges if edge.callee == entry)
    of_route = sum(
        _first(edge.sent, edge.retries)
        for edge in request.observation.edges
        if (edge.caller, edge.callee) == (ingress, entry)
    )
    if of_route <= 0:
        return None
    found = []
    for name in _reach(entry, request.observation):
        work = admitted if name == entry else request.observation.services[name].demand
        serves = _serves(name, request, settings)
        if serves is not None and work > 0:
            found.append(Bottleneck(name, of_route * serves / work))
    return min(found, key=lambda one: (one.rate, one.service), default=None)


def _first(sent: float, retries: float) -> float:
    return max(sent - retries, 0.0)


def _reach(entry: str, observation: Observation) -> list[str]:
    """``entry`` and every observed service that its requests lead to, in order of discovery."""
    calls: dict[str, set[str]] = {}
    for edge in observation.edges:
        if edge.demand > 0 and edge.callee in observation.services:
            calls.setdefault(edge.caller, set()).add(edge.callee)
    reached = dict.fromkeys([entry] if entry in observation.services else [])
    queue = list(reached)
    for name in queue:
        new = sorted(calls.get(name, set()) - reached.keys())
        reached.update(dict.fromkeys(new))
        queue += new
    return queue


def _serves(name: str, request: RateRequest, settings: PlanSettings) -> float | None:
    """Requests per second that the ready replicas of a service serve, None while unmeasured or not ours."""
    memory = request.memory.get(name)
    if memory is None or memory.service_time is None or name not in settings.services:
        return None
    one = capacity(settings.services[name].concurrency, memory.service_time)
    return FULL * one * request.observation.services[name].ready


def _offered(entry: str, request: RateRequest) -> float:
    """What users ask of the route's service now, or by the forecast's median if that is more."""
    service = request.observation.services.get(entry)
    edges = request.observation.edges
    arrived = sum(edge.demand for edge in edges if (edge.caller, edge.callee) == (request.route[0], entry))
    if service is None:
        return arrived
    return expected_rate(arrived + service.rate_limited, service.demand, request.demand.get(entry))


def _enforce(offered: float, rate: float, enforced: bool) -> bool:
    return offered > (RELEASE * rate if enforced else rate / FULL)


def _reason(found: Bottleneck | None, offered: float, enforce: bool) -> str:
    if found is None:
        return "no traffic or no service time measured yet; the base rate holds"
    state = "enforced" if enforce else "not enforced"
    return f"{found.service} fills up at {found.rate:.1f}/s of this route; {offered:.1f}/s offered, {state}"


def _inputs(request: RateRequest, route: RouteSettings, found: Bottleneck | None) -> dict[str, Number]:
    return {
        "service": route.service,
        "base": route.base,
        "ingresses": request.ingresses,
        "bottleneck": found.service if found else None,
        "capacity": found.rate if found else None,
    }
