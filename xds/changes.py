"""When each resource last changed, as far as this server knows.

Kept beside the sets and not in them, because a set is its content. A set that follows another shares its times:
only names that changed later than the first known set are written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from xds.snapshot import ResourceSet, Snapshot


@dataclass(frozen=True, slots=True)
class _Times:
    """``since`` holds for every name that is not in ``later`` (seconds)."""

    since: float
    later: Mapping[str, float]


class ChangeTimes:
    """Remembers when the resources of published sets changed; forgets a set with its last owner."""

    def __init__(self) -> None:
        self._times: WeakKeyDictionary[ResourceSet, _Times] = WeakKeyDictionary()

    def published(self, snapshot: Snapshot, previous: Snapshot | None, now: float) -> None:
        """A node that had ``previous`` should have ``snapshot``; equal sets must be the same object."""
        before = previous.sets if previous is not None else {}
        for type_url, one in snapshot.sets.items():
            if one is not before.get(type_url):
                self._follow(one, before.get(type_url), now)

    def of(self, one: ResourceSet, name: str) -> float | None:
        """When the resource last changed (seconds); None for a set that was never published."""
        times = self._times.get(one)
        return None if times is None else times.later.get(name, times.since)

    def _follow(self, one: ResourceSet, previous: ResourceSet | None, now: float) -> None:
        if one in self._times:
            return
        known = self._times.get(previous) if previous is not None else None
        if known is None or previous is None:
            self._times[one] = _Times(now, {})
            return
        kept = {name: at for name, at in known.later.items() if name in one.resources}
        self._times[one] = _Times(known.since, kept | dict.fromkeys(one.changed_since(previous), now))
