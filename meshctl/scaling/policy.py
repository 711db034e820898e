"""The policies by name."""

from __future__ import annotations

from meshctl.errors import UsageError
from meshctl.planning.replicas import Proposal, ReplicaPolicy, Sizing
from meshctl.scaling.predictive import Predictive
from meshctl.scaling.reactive import Reactive
from meshctl.scaling.static import Static

__all__ = ["NAMES", "Proposal", "ReplicaPolicy", "Sizing", "get"]

_POLICIES: tuple[ReplicaPolicy, ...] = (Static(), Reactive(), Predictive())
NAMES = tuple(policy.name for policy in _POLICIES)


def get(name: str) -> ReplicaPolicy:
    """The policy of that name. Raises UsageError for others."""
    for policy in _POLICIES:
        if policy.name == name:
            return policy
    raise UsageError(f"scaling.policy: unknown policy '{name}'; use one of {', '.join(NAMES)}")
