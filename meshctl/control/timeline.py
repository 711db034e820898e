"""The last ticks as plain records: what the API's ``/v1/timeline``, the live table and the report are drawn from."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from meshctl.model import Demand, Observation, Plan, Replica, ServiceObservation

_KEPT = 5000


class Timeline:
    """A bounded memory of ticks, newest last."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._ticks: deque[dict[str, Any]] = deque(maxlen=kept)

    def add(self, observation: Observation, plan: Plan, demand: Mapping[str, Demand], duration: float) -> None:
        """Append one tick; ``duration`` in seconds."""
        callers = live_sidecars(observation.replicas)
        hpa = {d.subject: d.inputs.get("hpa") for d in plan.decisions if d.kind == "replicas"}
        self._ticks.append(
            {
                "tick": observation.tick,
                "time": observation.time,
                "duration_ms": round(duration * 1e3, 3),
                "services": {
                    name: _service(seen, plan, demand.get(name), hpa.get(name), live_limit(plan, name, callers))
                    for name, seen in observation.services.items()
                },
            }
        )

    def after(self, tick: int, limit: int = _KEPT) -> list[dict[str, Any]]:
        """At most ``limit`` ticks newer than ``tick``, oldest first."""
        return [record for record in self._ticks if record["tick"] > tick][:limit]


def live_sidecars(replicas: Iterable[Replica]) -> Counter[str]:
    """Ready replicas by group."""
    return Counter(replica.service for replica in replicas if replica.phase == "ready")


def live_limit(plan: Plan, service: str, callers: Mapping[str, int]) -> int | None:
    """Requests that all live sidecars of the callers together may have in flight to ``service``; None without a
    plan.
    """
    parts = [
        limits.max_requests * max(1, callers.get(caller, 1))
        for (caller, callee), limits in plan.limits.items()
        if callee == service
    ]
    return sum(parts) if parts else None


def _service(
    seen: ServiceObservation, plan: Plan, demand: Demand | None, hpa: Any, limit: int | None
) -> dict[str, Any]:
    return {
        "demand": round(seen.demand, 3),
        "rate": round(seen.rate, 3),
        "errors": round(seen.errors, 3),
        "p50": seen.p50,
        "p99": seen.p99,
        "service_time": seen.service_time,
        "in_flight": round(seen.in_flight, 3),
        "ready": seen.ready,
        "desired": plan.replicas.get(seen.service, seen.desired),
        "limit": limit,
        "expected": demand and demand.expected,
        "upper": demand and demand.upper,
        "peak": demand and demand.peak,
        "model": demand and demand.model,
        "skilled": demand and demand.skilled,
        "hpa": hpa,
    }
