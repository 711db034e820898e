"""Raise a floor under the reactive count before the load arrives.

The floor is what the forecast's peak within the start-up time needs. It acts only while the forecast has skill that
far ahead; the reactive rule always runs, and the larger wins. So a wrong forecast can cost replicas, and never takes
one away.
"""

from __future__ import annotations

from meshctl.model import Demand, ServiceObservation
from meshctl.planning.replicas import Proposal, Sizing
from meshctl.scaling.reactive import Reactive

_REACTIVE = Reactive()


class Predictive:
    """Proposes the larger of the reactive count and the forecast's floor."""

    name = "predictive"

    def __call__(self, service: ServiceObservation, demand: Demand | None, sizing: Sizing) -> Proposal:
        reactive = _REACTIVE(service, demand, sizing)
        if demand is None or sizing.floor is None:
            return reactive
        if not demand.peak_skilled:
            return Proposal(reactive.replicas, reactive.policy, f"{reactive.reason}; no forecast acts: {demand.reason}")
        if sizing.floor <= reactive.replicas:
            return reactive
        reason = f"a peak of {demand.peak:.1f}/s ({demand.model}) needs {sizing.floor}, {reactive.reason}"
        return Proposal(sizing.floor, self.name, reason)
