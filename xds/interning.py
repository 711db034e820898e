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
        """The same snapshots of known sets. One that nodes share is looked at once."""
        shared: dict[int, Snapshot] = {}
        return {
            node_id: shared.get(id(one)) or shared.setdefault(id(one), self._known(one))
            for node_id, one in snapshots.items()
        }

    def _known(self, snapshot: Snapshot) -> Snapshot:
        known = self._sets
        sets = {
            url: known.get((url, one.version)) or known.setdefault((url, one.version), one)
            for url, one in snapshot.sets.items()
        }
        return Snapshot(sets)
