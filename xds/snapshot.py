"""What one node should have: encoded resources, versioned by their content.

A version is a hash, so that a restarted server that computes the same resources sends nothing again. Sets are
shared between the nodes of a group: the server encodes one response for all of them. ``check`` finds resources
that contradict each other before a client does. A set's version is a sum of its resources' hashes, so
:meth:`ResourceSet.replacing` makes a changed set at the price of the change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, cast
from weakref import WeakValueDictionary, ref

from betterproto2 import Message

from xds import codec
from xds.errors import SnapshotError
from xds.types import CLUSTER, ENDPOINT, LISTENER, ORDER, ROUTE, RUNTIME, SCOPED_ROUTE, VIRTUAL_HOST, short_name

VERSION_LENGTH = 16

#: Sums of hashes are taken modulo this.
_MODULUS = 1 << 128

#: Selections of one set that are remembered; streams that each ask for other names are served one by one.
_SELECTIONS = 256


@dataclass(frozen=True)
class Resource:
    """One encoded resource. ``version`` is 16 hexadecimal digits of the SHA-256 of ``body``."""

    type_url: str
    name: str
    version: str
    body: bytes = field(repr=False)

    @cached_property
    def references(self) -> frozenset[tuple[str, str]]:
        """(type URL, name) of the resources that this one needs: a route's clusters, an EDS cluster's endpoints, a
        listener's routes, filters and secrets. CodecError if the body is not of its type."""
        return codec.references(self.type_url, self.body)

    @cached_property
    def fingerprint(self) -> int:
        """A hash of name and version, to be summed up over a set (Bellare and Micciancio's AdHash, 1997)."""
        return int.from_bytes(hashlib.sha256(f"{self.name}\0{self.version}".encode()).digest()[:16])

    @cached_property
    def sotw_part(self) -> bytes:
        """What this resource adds to the bytes of a state-of-the-world response."""
        return codec.sotw_part(self.type_url, self.body)

    @cached_property
    def delta_part(self) -> bytes:
        """What this resource adds to the bytes of a delta response."""
        return codec.delta_part(self.type_url, self.name, self.version, self.body)

    @cached_property
    def discovered(self) -> Mapping[str, codec.Discovered]:
        """Extensions whose configuration this listener leaves to ECDS, by the name that it asks for."""
        return codec.discovered(self.type_url, self.body)

    @cached_property
    def clusters(self) -> frozenset[str]:
        """Names of the clusters that this resource sends traffic to."""
        return frozenset(name for type_url, name in self.references if type_url == CLUSTER)

    @cached_property
    def homes(self) -> frozenset[str]:
        """``<route configuration>/*`` for each route configuration in it that leaves its virtual hosts to VHDS."""
        return frozenset(name for type_url, name in self.references if type_url == VIRTUAL_HOST)

    @cached_property
    def assignment(self) -> str | None:
        """The name under which an EDS cluster asks for its endpoints; None for any other resource."""
        return next((name for type_url, name in self.references if type_url == ENDPOINT), None)


@dataclass(frozen=True, slots=True)
class Discovery:
    """An extension that listeners leave to ECDS. ``without_default`` names a listener that gives it no default
    configuration, and is empty if each of them does; ``by_ads``: one of them asks for it on the aggregated stream."""

    by_ads: bool
    without_default: str = ""


class Selection(list[Resource]):
    """Resources of one set, by name, that many streams are due together: what follows from them is worked out once.

    ``versions`` by name, all ``names``, and ``beside``, as of a :class:`ResourceSet`. Shared: do not change it.
    """

    __slots__ = ("beside", "names", "versions")

    def __init__(self, resources: Iterable[Resource]) -> None:
        super().__init__(resources)
        self.versions: Mapping[str, str] = {one.name: one.version for one in self}
        self.names = tuple(self.versions)
        self.beside: dict[object, Any] = {}


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Difference:
    """Of a set to an earlier one: what is new or has another version (``resources``, and their names, ``changed``),
    the names among these that are new, the resources that the others replace, and names that it has no longer."""

    resources: Selection
    changed: frozenset[str]
    added: frozenset[str]
    replaced: Mapping[str, Resource]
    removed: frozenset[str]


#: Differences in use by the resources that are new and those that they replace (by their ids: who is in here lives).
#: Sets that change alike, one per node, say, have theirs in common.
_ALIKE: WeakValueDictionary[tuple[int, ...], Difference] = WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class ResourceSet:
    """All resources of one type that a group of nodes may have, by name.

    Who needs something for as long as the set lives (encoded responses, say) keeps it ``beside``, under a key of its
    own.
    """

    type_url: str
    resources: Mapping[str, Resource]
    beside: dict[object, Any] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def version(self) -> str:
        """A hash over names and versions."""
        return hashlib.sha256(self._fingerprint.to_bytes(16)).hexdigest()[:VERSION_LENGTH]

    @cached_property
    def _fingerprint(self) -> int:
        return sum(one.fingerprint for one in self.resources.values()) % _MODULUS

    @cached_property
    def discovered(self) -> Mapping[str, Discovery]:
        """Of a set of listeners: the extensions that they leave to ECDS, by name."""
        found: dict[str, Discovery] = {}
        for one in self.resources.values():
            for name, source in one.discovered.items():
                known = found.get(name, Discovery(by_ads=False))
                lacking = known.without_default or ("" if source.has_default else one.name)
                found[name] = Discovery(source.by_ads or known.by_ads, lacking)
        return found

    @cached_property
    def domains(self) -> Mapping[str, Mapping[str, str]]:
        """Of a set of virtual hosts: their names by route configuration and domain."""
        found: dict[str, dict[str, str]] = {}
        for name, one in sorted(self.resources.items()):
            home = found.setdefault(name.rpartition("/")[0], {})
            for domain in codec.domains(one.body):
                home.setdefault(domain.lower(), name)
        return found

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """Versions by name."""
        return MappingProxyType({name: one.version for name, one in self.resources.items()})

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of :attr:`resources`."""
        return tuple(self.resources)

    @cached_property
    def sotw_parts(self) -> list[bytes]:
        """Every resource's share of a state-of-the-world response, in the order of :attr:`names`. Shared: do not change
        it."""
        return [one.sotw_part for one in self.resources.values()]

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def ordered(self) -> Selection:
        """All resources."""
        return self._select(self.resources)

    def among(self, names: Set[str]) -> Selection:
        """The resources of these names that exist; found once for all who ask for the same."""
        key = frozenset(names)
        found = self._selections.get(key)
        if found is None:
            found = self._select(key & self.resources.keys())
            if len(self._selections) < _SELECTIONS:
                self._selections[key] = found
        return found

    @cached_property
    def _selections(self) -> dict[frozenset[str], Selection]:
        return {}

    def _select(self, names: Iterable[str]) -> Selection:
        return Selection([self.resources[name] for name in sorted(names)])

    def changed_since(self, previous: ResourceSet) -> frozenset[str]:
        """Names that are new or have another version than in ``previous``; computed once for all who ask."""
        return self.since(previous).changed

    def removed_since(self, previous: ResourceSet) -> frozenset[str]:
        """Names that only ``previous`` has; computed once for all who ask."""
        return self.since(previous).removed

    def since(self, previous: ResourceSet) -> Difference:
        """What differs from ``previous``; computed once for all who ask, found again by identity."""
        known = self._differences.get(id(previous))
        if known is not None and known[0]() is previous:
            return known[1]
        return self._remember(previous, self._compare(previous))

    def _compare(self, previous: ResourceSet) -> Difference:
        before = previous.versions
        changed = [name for name, version in self.versions.items() if before.get(name) != version]
        return self._difference(previous, changed, before.keys() - self.resources.keys())

    def _difference(self, previous: ResourceSet, changed: Iterable[str], removed: Iterable[str]) -> Difference:
        resources, before = self._select(changed), previous.resources
        names = frozenset(resources.versions)
        replaced = {name: before[name] for name in names if name in before}
        return Difference(resources, names, names - replaced.keys(), replaced, frozenset(removed))

    def _remember(self, previous: ResourceSet, difference: Difference) -> Difference:
        """A set that is gone leaves its entry, until another takes its place."""
        known = self._differences
        for key in [key for key, (reference, _) in known.items() if reference() is None]:
            del known[key]
        known[id(previous)] = (ref(previous), difference)
        return difference

    @cached_property
    def _differences(self) -> dict[int, tuple[ref[ResourceSet], Difference]]:
        return {}

    def replacing(self, changed: Iterable[Resource] = (), removed: Iterable[str] = ()) -> ResourceSet:
        """This set with some resources changed, added or removed; SnapshotError if one is of another type.

        Far cheaper than a new set of all resources, also for the streams that get it: what differs is known.
        """
        fresh = {one.name: one for one in changed}
        misplaced = next((one for one in fresh.values() if one.type_url != self.type_url), None)
        if misplaced is not None:
            raise _misplaced(misplaced, self.type_url)
        resources = cast(dict[str, Resource], self.resources) | fresh  # a copy, at the speed of dict
        gone = frozenset(removed)
        for name in gone:
            resources.pop(name, None)
        return self._derived(MappingProxyType(resources), fresh.keys() | gone)

    def _derived(self, resources: Mapping[str, Resource], touched: Iterable[str]) -> ResourceSet:
        made, total, pairs = ResourceSet(self.type_url, resources), self._fingerprint, []
        for name in touched:
            before, after = self.resources.get(name), resources.get(name)
            if after is not before:
                total += (after.fingerprint if after else 0) - (before.fingerprint if before else 0)
                pairs.append((before, after))
        difference = made._replaced(self, pairs)
        made.__dict__["_fingerprint"] = total % _MODULUS
        made.__dict__["_differences"] = {id(self): (ref(self), difference)}
        if "sotw_parts" in self.__dict__ and not difference.added and not difference.removed:
            made._inherit(self, difference.resources)
        return made

    def _replaced(self, previous: ResourceSet, pairs: Iterable[tuple[Resource | None, Resource | None]]) -> Difference:
        """What differs from ``previous``, where it can be only these: a resource there, and the one in its place."""
        changed = [(old, new) for old, new in pairs if new and (old is None or old.version != new.version)]
        removed = [old.name for old, new in pairs if old and new is None]
        key = tuple([id(one) for pair in changed for one in pair])
        alike = _ALIKE.get(key) if not removed else None
        if alike is not None:
            return alike
        made = self._difference(previous, [new.name for _, new in changed], removed)
        if not removed:
            _ALIKE[key] = made
        return made

    def _inherit(self, previous: ResourceSet, changed: Iterable[Resource]) -> None:
        """Take over what an earlier set of the same names knows; a set per node is made for every node."""
        places, parts = previous._places, previous.sotw_parts.copy()
        for one in changed:
            parts[places[one.name]] = one.sotw_part
        self.__dict__.update(names=previous.names, _places=places, sotw_parts=parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ResourceSet):
            return NotImplemented
        return self is other or (self.type_url == other.type_url and self.version == other.version)

    def __hash__(self) -> int:
        return hash((self.type_url, self.version))


@dataclass(frozen=True)
class Snapshot:
    """The sets of one node by type URL. A type that is absent is not loaded yet: the server stays silent about it."""

    sets: Mapping[str, ResourceSet]

    def get(self, type_url: str) -> ResourceSet | None:
        """The set of one type, or None while it is not loaded."""
        return self.sets.get(type_url)

    def find(self, type_url: str, name: str) -> Resource | None:
        """One resource; None if it does not exist or its type is not loaded."""
        one_set = self.sets.get(type_url)
        return one_set.resources.get(name) if one_set else None


def resource(name: str, message: Message) -> Resource:
    """Encode ``message`` as the resource ``name``; its type URL is that of its class."""
    return encoded(codec.type_url(message), name, codec.encode(message))


def encoded(type_url: str, name: str, body: bytes) -> Resource:
    """A resource from bytes that are encoded already."""
    return Resource(type_url, name, hashlib.sha256(body).hexdigest()[:VERSION_LENGTH], body)


def resource_set(type_url: str, resources: Iterable[Resource]) -> ResourceSet:
    """Collect resources of one type; SnapshotError if one is of another type or if two share a name."""
    by_name: dict[str, Resource] = {}
    for one in resources:
        if one.type_url != type_url:
            raise _misplaced(one, type_url)
        if one.name in by_name:
            raise SnapshotError(f"two {short_name(type_url)} resources are named {one.name!r}; names must be unique")
        by_name[one.name] = one
    return ResourceSet(type_url, MappingProxyType(by_name))


def _misplaced(one: Resource, type_url: str) -> SnapshotError:
    return SnapshotError(f"{one.name!r} is a {short_name(one.type_url)} resource in a set of {type_url}")


def snapshot(*sets: ResourceSet) -> Snapshot:
    """A snapshot of sets of distinct types; SnapshotError if two are of the same type."""
    by_type: dict[str, ResourceSet] = {}
    for one in sets:
        if one.type_url in by_type:
            raise SnapshotError(f"two sets of type {one.type_url} in one snapshot; merge them into one")
        by_type[one.type_url] = one
    return Snapshot(MappingProxyType(by_type))


def snapshot_of(resources: Iterable[Resource | Message]) -> Snapshot:
    """All that a node should have, whatever the types, in any order; messages of envoy-data-plane are encoded.

    A type of which there is none is loaded and empty: what the node has of it is taken away. SnapshotError if two
    resources of one type share a name.
    """
    by_type: dict[str, list[Resource]] = {url: [] for url in ORDER if url != RUNTIME}
    for one in resources:
        made = one if isinstance(one, Resource) else _named(one)
        by_type.setdefault(made.type_url, []).append(made)
    return snapshot(*(resource_set(url, ones) for url, ones in by_type.items()))


def _named(message: Message) -> Resource:
    """``message`` under the name that it gives itself."""
    name: object = getattr(message, "cluster_name", "") or getattr(message, "name", "")
    if not isinstance(name, str) or not name:
        raise SnapshotError(
            f"a {type(message).__name__} has no name; give it one, or make it by resource(name, message)"
        )
    return resource(name, message)


def versions_of(resources: Iterable[Resource]) -> Mapping[str, str]:
    """Versions by name, in the order of ``resources``."""
    return resources.versions if isinstance(resources, Selection) else {one.name: one.version for one in resources}


def combined_version(versions: Iterable[tuple[str, str]]) -> str:
    """A hash over (name, version) pairs, whatever their order."""
    digest = hashlib.sha256()
    for name, version in sorted(versions):
        digest.update(f"{name}\0{version}\0".encode())
    return digest.hexdigest()[:VERSION_LENGTH]


def check(candidate: Snapshot, known: Iterable[str] = ()) -> None:
    """Raise SnapshotError if a resource refers to one that the snapshot lacks.

    ``known`` names clusters that the client has from elsewhere (its bootstrap). A type that is not loaded is not
    checked against: that is how secrets, say, may come from another server. A virtual host must be named after its
    route configuration and carry its name inside, too, because Envoy removes it by the one and keeps it by the other.
    """
    problems = [*_misnamed(candidate), *_dangling(candidate, frozenset(known)), *_homeless(candidate)]
    if problems:
        raise SnapshotError("inconsistent snapshot: " + "; ".join(problems))


def _misnamed(candidate: Snapshot) -> Iterator[str]:
    for type_url, one_set in candidate.sets.items():
        for name, one in one_set.resources.items():
            if name != one.name or one.type_url != type_url or one_set.type_url != type_url:
                yield f"{short_name(type_url)} {name!r} holds {short_name(one.type_url)} {one.name!r}"


def _dangling(candidate: Snapshot, known: frozenset[str]) -> Iterator[str]:
    for type_url in ORDER:
        one_set = candidate.get(type_url)
        for one in one_set.resources.values() if one_set else ():
            for target, name in sorted(one.references):
                if not _has(candidate, target, name) and not (target == CLUSTER and name in known):
                    yield f"{short_name(type_url)} {one.name!r} names {short_name(target)} {name!r}, which is missing"


def _has(candidate: Snapshot, type_url: str, name: str) -> bool:
    target = candidate.get(type_url)
    return target is None or name in target.resources or type_url == VIRTUAL_HOST


def _homeless(candidate: Snapshot) -> Iterator[str]:
    """https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/vhds#virtual-host-resource-naming-convention"""
    hosts, homes = candidate.get(VIRTUAL_HOST), _homes(candidate)
    for name, one in hosts.resources.items() if hosts else ():
        home, inside = name.rpartition("/")[0], codec.host_name(one.body)
        if candidate.get(ROUTE) is not None and home not in homes:
            yield f"vhds {name!r} belongs to no route configuration: none named {home!r} has the field vhds"
        if inside != name:
            yield f"vhds {name!r} holds a virtual host named {inside!r}; give both the same name"


def _homes(candidate: Snapshot) -> set[str]:
    """Names of route configurations that leave virtual hosts to VHDS."""
    sets = (candidate.get(type_url) for type_url in (LISTENER, SCOPED_ROUTE, ROUTE))
    resources = (one for one_set in sets if one_set for one in one_set.resources.values())
    return {name.removesuffix("/*") for one in resources for url, name in one.references if url == VIRTUAL_HOST}
