"""What a node has while a change is held back from it: the old configuration with the newest endpoints.

Endpoints are never held back, because replicas come and go whatever else happens. Runtime layers are not part of it
either. Everything else of a snapshot, the *held* types, changes together or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from xds.errors import SnapshotError
from xds.snapshot import Resource, ResourceSet, Snapshot, check, resource_set
from xds.types import CLUSTER, ENDPOINT, RUNTIME

#: Types that no canary delays.
FLOWING = frozenset({ENDPOINT, RUNTIME})

#: Held types and the versions of their sets.
Key = tuple[tuple[str, str], ...]


def key(snapshot: Snapshot) -> Key:
    """What must be equal for two snapshots to hold the same slow configuration."""
    return tuple(sorted((url, one.version) for url, one in snapshot.sets.items() if url not in FLOWING))


def changed_types(before: Snapshot, after: Snapshot) -> tuple[str, ...]:
    """Held types whose sets differ."""
    urls = sorted((before.sets.keys() | after.sets.keys()) - FLOWING)
    return tuple(url for url in urls if before.get(url) != after.get(url))


def changed_resources(before: Snapshot, after: Snapshot) -> dict[str, frozenset[str]]:
    """Names that are new or have another version, by held type."""
    found: dict[str, frozenset[str]] = {}
    for url in changed_types(before, after):
        old, new = before.get(url), after.get(url)
        if new is not None:
            found[url] = new.changed_since(old) if old is not None else frozenset(new.resources)
    return found


class Blender:
    """Old configuration with new endpoints, computed once for all nodes that share both."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], ResourceSet] = {}

    def forget(self) -> None:
        self._known.clear()

    def held(self, old: Snapshot, new: Snapshot) -> Snapshot:
        """``old`` with the endpoints of ``new``; clusters that ``new`` no longer has keep theirs."""
        sets = {url: one for url, one in old.sets.items() if url not in FLOWING}
        sets.update((url, one) for url, one in new.sets.items() if url in FLOWING)
        endpoints = self._endpoints(old, new)
        if endpoints is not None:
            sets[ENDPOINT] = endpoints
        return old if sets == old.sets else Snapshot(sets)

    def _endpoints(self, old: Snapshot, new: Snapshot) -> ResourceSet | None:
        before, after, clusters = old.get(ENDPOINT), new.get(ENDPOINT), old.get(CLUSTER)
        if before is None or after is None or clusters is None:
            return after or before
        same = (clusters.version, before.version, after.version)
        if same not in self._known:
            self._known[same] = _joined(clusters, before, after)
        return self._known[same]


def _joined(clusters: ResourceSet, before: ResourceSet, after: ResourceSet) -> ResourceSet:
    needed = {one.assignment for one in clusters.resources.values()}
    kept = [one for name, one in before.resources.items() if name in needed and name not in after.resources]
    return resource_set(ENDPOINT, [*after.resources.values(), *kept]) if kept else after


def stand_in(own: Snapshot, peer_new: Snapshot, peer_old: Snapshot) -> Snapshot | None:
    """What a newcomer would have had before the change, as far as one of its peers shows; None if that contradicts
    itself.

    ``own`` and ``peer_new`` are two nodes' snapshots after the change, ``peer_old`` is the peer's before it. What
    both nodes share is taken from before the change, what is the newcomer's own (a listener on its own port) as it is.
    """
    sets = {url: one for url, one in own.sets.items() if url in FLOWING}
    for url in own.sets.keys() - FLOWING:
        old = peer_old.get(url)
        if old is not None:
            new = peer_new.get(url)
            shared = new.resources if new is not None else {}
            sets[url] = resource_set(url, _before(own.sets[url].resources, shared, old.resources))
    made = Blender().held(Snapshot({**sets, **_endpoints_of(peer_old)}), own)
    try:
        check(made)
    except SnapshotError:
        return None
    return made


def _endpoints_of(snapshot: Snapshot) -> Mapping[str, ResourceSet]:
    endpoints = snapshot.get(ENDPOINT)
    return {} if endpoints is None else {ENDPOINT: endpoints}


def _before(
    own: Mapping[str, Resource], peer_new: Mapping[str, Resource], peer_old: Mapping[str, Resource]
) -> Iterator[Resource]:
    """The newcomer's own resources, and those that it shares as they were; what came with the change is left out."""
    for name, one in own.items():
        twin = peer_new.get(name)
        if twin is None or twin.version != one.version:
            yield one
        elif name in peer_old:
            yield peer_old[name]
    yield from (one for name, one in peer_old.items() if name not in own and name not in peer_new)
