"""What another process must be told so that it has the same snapshots: the difference, as plain data and bytes.

Pure, and the same for whoever has the same ``before``. A resource's bytes travel once; sets name them, and a changed
set names only what it does not share with one that the other side has already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from xds.snapshot import Resource, ResourceSet, Snapshot

#: Snapshots by node id.
Held = Mapping[str, Snapshot]

NOTHING: Held = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Feed:
    """``head`` is JSON; ``bodies`` are the bytes that its resources count through, in order."""

    head: Mapping[str, Any]
    bodies: tuple[bytes, ...] = field(repr=False)


def feed(before: Held, after: Held) -> Feed:
    """The way from ``before`` to ``after``. Equal sets should be the same object, or they are compared by content."""
    return _Writer(before).written(before, after)


class _Writer:
    """Tables of one feed: types, resources, sets, snapshots; each row is written once and then called by its number."""

    def __init__(self, before: Held) -> None:
        self._types: dict[str, int] = {}
        self._resources: dict[tuple[str, str, str], int] = {}
        self._rows: list[list[Any]] = []
        self._bodies: list[bytes] = []
        self._sets: list[list[Any]] = []
        self._references: dict[tuple[int, str], int] = {}
        self._snapshots: dict[tuple[int, ...], int] = {}
        self._members: list[list[str]] = []
        self._latest: dict[str, ResourceSet] = {}
        self._had: set[tuple[str, str]] = set()
        for snapshot in {id(one): one for one in before.values()}.values():
            for url, one in snapshot.sets.items():
                self._had.add((url, one.version))
                self._latest[url] = one

    def written(self, before: Held, after: Held) -> Feed:
        for node_id, snapshot in after.items():
            if (previous := before.get(node_id)) is not snapshot:
                self._members[self._snapshot(snapshot, previous)].append(node_id)
        head = {
            "resources": self._rows,
            "sets": self._sets,
            "references": [[kind, version] for kind, version in self._references],
            "snapshots": list(self._snapshots),
            "nodes": self._members,
            "gone": sorted(before.keys() - after.keys()),
            "types": list(self._types),
        }
        return Feed(head, tuple(self._bodies))

    def _snapshot(self, snapshot: Snapshot, previous: Snapshot | None) -> int:
        """Its number; its sets are written down where the reader lacks them."""
        found = []
        for url, one in snapshot.sets.items():
            if (url, one.version) not in self._had:
                self._set(one, (previous.get(url) if previous else None) or self._latest.get(url))
                self._had.add((url, one.version))
            self._latest[url] = one
            found.append(self._references.setdefault((self._type(url), one.version), len(self._references)))
        number = self._snapshots.setdefault(tuple(found), len(self._snapshots))
        if number == len(self._members):
            self._members.append([])
        return number

    def _set(self, one: ResourceSet, base: ResourceSet | None) -> None:
        fresh: Iterable[str] = one.resources if base is None else sorted(one.changed_since(base))
        gone = [] if base is None else sorted(one.removed_since(base))
        rows = [self._resource(one.resources[name]) for name in fresh]
        self._sets.append([self._type(one.type_url), one.version, "" if base is None else base.version, rows, gone])

    def _resource(self, one: Resource) -> int:
        key = (one.type_url, one.name, one.version)
        if key not in self._resources:
            self._resources[key] = len(self._rows)
            self._rows.append([self._type(one.type_url), one.name, one.version, len(one.body)])
            self._bodies.append(one.body)
        return self._resources[key]

    def _type(self, url: str) -> int:
        return self._types.setdefault(url, len(self._types))


def take(before: Held, head: Mapping[str, Any], body: bytes) -> dict[str, Snapshot]:
    """What the writer had as ``after``, made of ``before``. Sets that did not change are the same objects."""
    types: list[str] = head["types"]
    resources = _resources(types, head["resources"], body)
    sets = {(url, one.version): one for snapshot in before.values() for url, one in snapshot.sets.items()}
    for kind, version, base, rows, gone in head["sets"]:
        url = types[kind]
        fresh = [resources[row] for row in rows]
        sets[url, version] = sets[url, base].replacing(fresh, gone) if base else _new(url, fresh)
    gone_nodes = set(head["gone"])
    kept = {node_id: snapshot for node_id, snapshot in before.items() if node_id not in gone_nodes}
    return kept | _nodes(head, types, sets)


def _resources(types: list[str], rows: list[list[Any]], body: bytes) -> list[Resource]:
    found, at = [], 0
    for kind, name, version, length in rows:
        found.append(Resource(types[kind], name, version, body[at : at + length]))
        at += length
    return found


def _new(url: str, resources: list[Resource]) -> ResourceSet:
    return ResourceSet(url, MappingProxyType({one.name: one for one in resources}))


def _nodes(
    head: Mapping[str, Any], types: list[str], sets: Mapping[tuple[str, str], ResourceSet]
) -> dict[str, Snapshot]:
    """Nodes with the same sets share one snapshot."""
    referenced = [sets[types[kind], version] for kind, version in head["references"]]
    found: dict[str, Snapshot] = {}
    for numbers, members in zip(head["snapshots"], head["nodes"], strict=True):
        snapshot = Snapshot(MappingProxyType({one.type_url: one for one in (referenced[at] for at in numbers)}))
        found.update(dict.fromkeys(members, snapshot))
    return found
