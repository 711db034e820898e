"""Follow the load: the formula of the Kubernetes Horizontal Pod Autoscaler on the utilisation of concurrency.

The formula is :func:`meshctl.planning.capacity.hpa`; scale-down stabilization is a guardrail of planning, for every
policy.
"""

from __future__ import annotations

from meshctl.model import Demand, ServiceObservation
from meshctl.planning.replicas import Proposal, Sizing


class Reactive:
    """Proposes what the formula wants, and the count in force where nothing can be measured."""

    name = "reactive"

    def __call__(self, service: ServiceObservation, demand: Demand | None, sizing: Sizing) -> Proposal:
        if sizing.reactive is None or sizing.utilization is None:
            why = "no replica is ready" if sizing.ready <= 0 else "no service time measured yet"
            return Proposal(sizing.current, self.name, f"{why}; the count stays")
        return Proposal(sizing.reactive, self.name, f"utilisation {sizing.utilization:.0%} asks for {sizing.reactive}")
