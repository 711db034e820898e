"""A platform that cannot be scaled: desired counts are accepted and go nowhere (the decision says so)."""

from __future__ import annotations

from collections.abc import Mapping


class NoScaling:
    """For platforms whose replicas somebody else decides (docker-compose, a fixed fleet)."""

    async def scale(self, desired: Mapping[str, int]) -> None:
        """Accept and forget."""

    async def close(self) -> None:
        """Nothing is held open."""
