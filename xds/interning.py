"""Equal resource sets as one object, so that a response is encoded once for all, and an equal set is not compared."""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakValueDictionary

from xds.snapshot import ResourceSet, Snapshot


class Interner:
    """Remembers the sets that are in use somewhere."""

    def __init__(self) -> None:
        self._sets: WeakValueDictionary[tuple[str, str], ResourceSet] = WeakValueDictionary()

    def all(self, snapshots: Mapping[str, Snapshot]) -> dict[str, Snapshot]:
        """The same snapshots of known sets. What nodes share is looked at once."""
        shared: dict[int, Snapshot] = {}
        seen: dict[int, ResourceSet] = {}
        return {
            node_id: shared.get(id(one)) or shared.setdefault(id(one), self._snapshot(one, seen))
            for node_id, one in snapshots.items()
        }

    def _snapshot(self, snapshot: Snapshot, seen: dict[int, ResourceSet]) -> Snapshot:
        return Snapshot({url: seen.get(id(one)) or self._set(one, seen) for url, one in snapshot.sets.items()})

    def _set(self, one: ResourceSet, seen: dict[int, ResourceSet]) -> ResourceSet:
        found = seen[id(one)] = self._sets.setdefault((one.type_url, one.version), one)
        return found
