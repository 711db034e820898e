"""Resources that users write themselves, as YAML or JSON, and how they join the snapshots of a mesh.

:func:`load_resources` reads them strictly: every field by Envoy's own types, every constraint of Envoy's API, every
``Any`` by its ``@type``. :func:`merged` adds them to snapshots. Names may be whatever the type allows, ``xdstp://``
names included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from xds import export
from xds._from_json import Problem, Reader
from xds._json import known_type, to_json
from xds.codec import encode
from xds.document import Document, DocumentError, Path, dotted, parse
from xds.errors import ResourceError, SnapshotError
from xds.snapshot import Resource, ResourceSet, Snapshot, encoded, resource_set
from xds.types import CLUSTER, ENDPOINT, ORDER, RESOURCE, RUNTIME, SHORT_NAMES, short_name

__all__ = ["Extra", "Problem", "Read", "load_resources", "merged", "needs", "read_resources"]

#: What a user may supply. Runtime layers are leases and no part of a snapshot.
SUPPLIED = tuple(url for url in ORDER if url != RUNTIME)

_URLS = {short: url for url, short in SHORT_NAMES.items()}


class Read(NamedTuple):
    """Resources with the places where they stand, and what is wrong with the others."""

    found: tuple[tuple[Path, Resource], ...]
    problems: tuple[Problem, ...]

    @property
    def resources(self) -> tuple[Resource, ...]:
        return tuple(one for _, one in self.found)


def load_resources(source: str | FilePath) -> list[Resource]:
    """The resources in a YAML or JSON text (``str``) or file (``pathlib.Path``), in their order.

    The document is one resource with its ``@type``, a list of them, or a mapping with such a list under ``resources``
    (a DiscoveryResponse). A resource may stand inside an envoy.service.discovery.v3.Resource that names it, which an
    on-demand virtual host needs. ResourceError with every problem: file, line, field, what was expected and what to do.
    """
    name = source.name if isinstance(source, FilePath) else "<text>"
    document = _document(name, source)
    read = read_resources(document.data)
    problems = [*_duplicates(document), *read.problems]
    if problems:
        raise ResourceError([_line(name, document, problem) for problem in problems])
    return list(read.resources)


def read_resources(data: Any, path: Path = ()) -> Read:
    """The same from plain data that stands at ``path`` of a larger document."""
    found: list[tuple[Path, Resource]] = []
    problems: list[Problem] = []
    seen: dict[tuple[str, str], Path] = {}
    for at, item in _items(data, path, problems):
        one = _resource(item, at, problems)
        if one is None:
            continue
        other = seen.setdefault((one.type_url, one.name), at)
        if other != at:
            message = (
                f"{short_name(one.type_url)} {one.name!r} is there already ({dotted(other)}); rename or remove one"
            )
            problems.append(Problem(at, message))
        found.append((at, one))
    return Read(tuple(found), tuple(problems))


def _document(name: str, source: str | FilePath) -> Document:
    try:
        return parse(source.read_text(encoding="utf-8") if isinstance(source, FilePath) else source)
    except OSError as error:
        raise ResourceError([f"{name}: cannot be read: {(error.strerror or str(error)).lower()}"]) from None
    except UnicodeDecodeError as error:
        raise ResourceError([f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8"]) from None
    except DocumentError as error:
        where = f"{name}:{error.line}:{error.column}"
        raise ResourceError([f"{where}: {error.message}; correct the YAML here"]) from None


def _duplicates(document: Document) -> Iterator[Problem]:
    for path, line in document.duplicates:
        yield Problem(path, f"set again on line {line}; remove one")


def _line(name: str, document: Document, problem: Problem) -> str:
    field = dotted(problem.path)
    where = f"{name}:{document.line(problem.path)}"
    return f"{where}: {field}: {problem.message}" if field else f"{where}: {problem.message}"


def _items(data: Any, path: Path, problems: list[Problem]) -> Iterator[tuple[Path, Any]]:
    """Each resource of a document and where it is."""
    if isinstance(data, Mapping) and "resources" in data and "@type" not in data:
        data, path = data["resources"], (*path, "resources")
    if isinstance(data, Mapping) and data:
        yield path, data
    elif isinstance(data, Sequence) and not isinstance(data, str) and data:
        yield from (((*path, index), item) for index, item in enumerate(data))
    else:
        problems.append(Problem(path, "expected a resource with its '@type', or a list of them"))


def _resource(data: Any, path: Path, problems: list[Problem]) -> Resource | None:
    url = data.get("@type") if isinstance(data, Mapping) else None
    if url == RESOURCE:
        return _wrapped(data, path, problems)
    if url not in SUPPLIED:
        problems.append(Problem(path if url is None else (*path, "@type"), _refusal(url)))
        return None
    message_type = known_type(url)
    assert message_type is not None, url
    reader = Reader()
    message: Any = reader.message(message_type, {key: one for key, one in data.items() if key != "@type"}, path)
    problems.extend(reader.problems)
    if message is None:
        return None
    field = "cluster_name" if url == ENDPOINT else "name"
    name: str = getattr(message, field)
    if not name:
        problems.append(Problem(path, f"missing; add '{field}: ...'; it is the name that Envoy asks for"))
        return None
    return encoded(url, name, encode(message))


def _wrapped(data: Mapping[str, Any], path: Path, problems: list[Problem]) -> Resource | None:
    """A resource under another name than it gives itself."""
    beyond = sorted(data.keys() - {"@type", "name", "resource"})
    problems.extend(Problem((*path, key), "cannot be set here; keep name and resource only") for key in beyond)
    inner = _resource(data.get("resource"), (*path, "resource"), problems)
    name = data.get("name")
    if not isinstance(name, str) or not name:
        problems.append(Problem(path, "missing; add 'name: ...'; it is the name that Envoy asks for"))
        return None
    return None if inner is None else encoded(inner.type_url, name, inner.body)


def _refusal(url: object) -> str:
    if url is None:
        return f"missing '@type'; add one of {', '.join(SUPPLIED)}"
    if url == RUNTIME:
        return "runtime layers are leases that every tick renews, so they are no resources; remove it"
    return f"no resource that is served, got {str(url)[:120]!r}; expected one of {', '.join(SUPPLIED)}"


# What a resource needs


def needs(one: Resource) -> frozenset[tuple[str, str]]:
    """(type URL, name) of what must be in the same snapshot: clusters of routes, and whatever is asked for by ADS."""
    asked = export.asked(to_json(one.type_url, one.body))
    by_ads = {(_URLS[kind], name) for kind, name in asked if kind in _URLS and _URLS[kind] != RUNTIME}
    return frozenset({(CLUSTER, name) for name in one.clusters} | by_ads)


# Joining snapshots


@dataclass(frozen=True, slots=True)
class Extra:
    """Resources for some nodes: those of ``groups`` and those in ``nodes``; for all where both are empty.

    Only with ``override`` may one take the place of a resource of the same type and name.
    """

    resources: tuple[Resource, ...]
    groups: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    override: bool = False

    def applies(self, node_id: str, group: str) -> bool:
        return not (self.groups or self.nodes) or group in self.groups or node_id in self.nodes


def merged(
    snapshots: Mapping[str, Snapshot],
    groups: Mapping[str, str],
    extras: Sequence[Extra],
    types: Iterable[str] = (),
) -> dict[str, Snapshot]:
    """``snapshots`` (by node id) with ``extras``; ``groups`` names the group of each node.

    Every snapshot has a set of each of ``types``, an empty one if need be, so that a client hears of removals. Equal
    inputs give the same set objects, so that a server encodes once. SnapshotError where two resources have one name.
    """
    known: dict[tuple[str, str, tuple[int, ...]], ResourceSet] = {}
    wanted = tuple(types)
    return {
        node_id: _joined(one, _applying(node_id, groups.get(node_id, ""), extras), extras, wanted, known)
        for node_id, one in snapshots.items()
    }


def _applying(node_id: str, group: str, extras: Sequence[Extra]) -> tuple[int, ...]:
    return tuple(index for index, extra in enumerate(extras) if extra.applies(node_id, group))


def _joined(
    snapshot: Snapshot,
    chosen: tuple[int, ...],
    extras: Sequence[Extra],
    types: tuple[str, ...],
    known: dict[tuple[str, str, tuple[int, ...]], ResourceSet],
) -> Snapshot:
    sets = dict(snapshot.sets)
    added = {one.type_url for index in chosen for one in extras[index].resources}
    for url in sorted(added.union(types)):
        base = sets.get(url)
        key = (url, base.version if base else "", chosen)
        if key not in known:
            known[key] = _joined_set(url, base, [extras[index] for index in chosen])
        sets[url] = known[key]
    return Snapshot(sets)


def _joined_set(url: str, base: ResourceSet | None, extras: Sequence[Extra]) -> ResourceSet:
    by_name = dict(base.resources) if base else {}
    for extra in extras:
        for one in extra.resources:
            if one.type_url != url:
                continue
            if one.name in by_name and not extra.override:
                raise SnapshotError(
                    f"{short_name(url)} {one.name!r} is there already; rename the supplied one, or let it override"
                )
            by_name[one.name] = one
    return resource_set(url, (by_name[name] for name in sorted(by_name)))
