"""Keep what is there: the baseline that shows what scaling is worth."""

from __future__ import annotations

from meshctl.model import Demand, ServiceObservation
from meshctl.planning.replicas import Proposal, Sizing


class Static:
    """Proposes the count in force."""

    name = "static"

    def __call__(self, service: ServiceObservation, demand: Demand | None, sizing: Sizing) -> Proposal:
        return Proposal(sizing.current, self.name, "the static policy keeps what is there")
