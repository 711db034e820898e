"""When each resource last changed, as far as this server knows.

Kept beside a set's content, because a set is its content. A set that follows another shares its times:
only names that changed later than the first known set are written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from xds.snapshot import ResourceSet, Snapshot


class _Times(NamedTuple):
    """``since`` holds for every name that is not in ``later`` (seconds)."""

    since: float
    later: Mapping[str, float]


class ChangeTimes:
    """Remembers when the resources of published sets changed; forgets a set with its last owner."""

    def __init__(self) -> None:
        self._key = object()

    def published(self, snapshot: Snapshot, previous: Snapshot | None, now: float) -> None:
        """A node that had ``previous`` should have ``snapshot``; equal sets must be the same object."""
        before = previous.sets if previous is not None else {}
        for type_url, one in snapshot.sets.items():
            if one is not before.get(type_url):
                self._follow(one, before.get(type_url), now)

    def of(self, one: ResourceSet, name: str) -> float | None:
        """When the resource last changed (seconds); None for a set that was never published."""
        times = self._times(one)
        return None if times is None else times.later.get(name, times.since)

    def _follow(self, one: ResourceSet, previous: ResourceSet | None, now: float) -> None:
        if self._key in one.beside:
            return
        known = self._times(previous) if previous is not None else None
        if known is None or previous is None:
            one.beside[self._key] = _Times(now, {})
            return
        difference, later = one.since(previous), dict(known.later)
        for name in difference.removed:
            later.pop(name, None)
        later.update(dict.fromkeys(difference.changed, now))
        one.beside[self._key] = _Times(known.since, later)

    def _times(self, one: ResourceSet) -> _Times | None:
        found: _Times | None = one.beside.get(self._key)
        return found
