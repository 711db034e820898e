"""The section ``resources`` of a mesh file: read, checked against what meshctl itself makes, and kept encoded.

The types of Envoy's API are a heavy import, so they are read only where a mesh file has such a section.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from meshctl.config.model import MeshConfig, ResourcesConfig
from meshctl.config.problems import Problem, suggestion
from xds.document import Path

if TYPE_CHECKING:
    from xds.resources import Extra
    from xds.snapshot import Resource

#: Clusters that every bootstrap of meshctl has.
STATIC_CLUSTERS = frozenset({"xds_cluster"})

Names = Mapping[str, frozenset[str]]


def load(config: MeshConfig) -> list[Problem]:
    """Fill in ``loaded`` of every entry; what is wrong with their resources, their targets and their names."""
    if not config.resources:
        return []
    problems = [problem for index, entry in enumerate(config.resources) for problem in _load(index, entry)]
    problems += _targets(config)
    return problems or [*_collisions(config), *_dangling(config)]


def extras(config: MeshConfig) -> tuple[Extra, ...]:
    """What the entries add to snapshots."""
    if not config.resources:
        return ()
    from xds.resources import Extra  # noqa: PLC0415 - heavy

    return tuple(
        Extra(entry.loaded, frozenset(entry.groups), frozenset(entry.nodes), entry.override)
        for entry in config.resources
    )


def _load(index: int, entry: ResourcesConfig) -> Iterator[Problem]:
    from xds.errors import ResourceError  # noqa: PLC0415 - heavy
    from xds.resources import load_resources, read_resources  # noqa: PLC0415

    path: Path = ("resources", index)
    if (entry.file is None) == (not entry.inline):
        yield Problem(path, "expected either file or inline; write one of the two")
        return
    if entry.file is None:
        read = read_resources(list(entry.inline), (*path, "inline"))
        yield from (Problem(*problem) for problem in read.problems)
        entry._loaded = read.resources
        return
    try:
        entry._loaded = tuple(load_resources(entry.file))
    except ResourceError as error:
        yield from (Problem((*path, "file"), line) for line in error.problems)


def _targets(config: MeshConfig) -> Iterator[Problem]:
    known = (*config.services, config.ingress.name)
    for index, entry in enumerate(config.resources):
        for position, group in enumerate(entry.groups):
            if group not in known:
                path = ("resources", index, "groups", position)
                yield Problem(path, f"unknown service or ingress '{group}'; {suggestion(group, known)}")
        for position, node in enumerate(entry.nodes):
            if node.rpartition("-")[0] not in known or not node.rpartition("-")[2].isdecimal():
                path = ("resources", index, "nodes", position)
                yield Problem(path, f"no node can have the id '{node}'; write <service>-<number>, such as {known[0]}-0")


# Names


def generated(config: MeshConfig, group: str) -> Names:
    """Names of what meshctl itself makes for the Envoys of ``group``, by type URL."""
    from xds import types  # noqa: PLC0415 - heavy
    from xds.translate import clusters, listeners  # noqa: PLC0415

    if group == config.ingress.name:
        callees = frozenset(route.service for route in config.ingress.routes)
        own, listening = callees, frozenset({listeners.INGRESS})
    else:
        callees = frozenset(config.services[group].calls)
        own, listening = callees | {clusters.INBOUND_APP}, frozenset({listeners.INBOUND, listeners.OUTBOUND})
    return {types.CLUSTER: own, types.ENDPOINT: callees, types.LISTENER: listening, types.ROUTE: listening}


def _audiences(config: MeshConfig) -> Iterator[tuple[str, list[int]]]:
    """Every group, or node with resources of its own, and the entries that apply to it."""
    everybody = extras(config)
    groups = (*config.services, config.ingress.name)
    nodes = sorted({node for entry in config.resources for node in entry.nodes})
    for node, group in (*(("", group) for group in groups), *((node, node.rpartition("-")[0]) for node in nodes)):
        yield group, [index for index, extra in enumerate(everybody) if extra.applies(node, group)]


def _collisions(config: MeshConfig) -> list[Problem]:
    found: dict[Problem, None] = {}
    for group, chosen in _audiences(config):
        taken = {(url, name): "meshctl itself" for url, names in generated(config, group).items() for name in names}
        for index in chosen:
            entry = config.resources[index]
            for one in entry.loaded:
                owner = taken.setdefault((one.type_url, one.name), f"resources[{index}]")
                if owner != f"resources[{index}]" and not entry.override:
                    found[_collision(index, one, owner, group)] = None
    return list(found)


def _collision(index: int, one: Resource, owner: str, group: str) -> Problem:
    from xds.types import short_name  # noqa: PLC0415 - heavy

    message = (
        f"{short_name(one.type_url)} '{one.name}' of '{group}' is made by {owner} already; "
        "rename it, narrow its groups, or set override: true"
    )
    return Problem(("resources", index), message)


def _dangling(config: MeshConfig) -> list[Problem]:
    """What a resource asks for must be there: nobody would ever answer."""
    from xds import types  # noqa: PLC0415 - heavy
    from xds.resources import needs  # noqa: PLC0415

    found: dict[Problem, None] = {}
    for group, chosen in _audiences(config):
        there = {(url, name) for url, names in generated(config, group).items() for name in names}
        there |= {(types.CLUSTER, name) for name in STATIC_CLUSTERS}
        there |= {(one.type_url, one.name) for index in chosen for one in config.resources[index].loaded}
        for index in chosen:
            for one in config.resources[index].loaded:
                for url, name in sorted(needs(one) - there):
                    message = (
                        f"{types.short_name(one.type_url)} '{one.name}' needs {types.short_name(url)} '{name}', which "
                        f"'{group}' does not have; add it to resources, or narrow groups"
                    )
                    found[Problem(("resources", index), message)] = None
    return list(found)


def files(config: MeshConfig) -> Iterable[Any]:
    """The files that the entries name."""
    return [entry.file for entry in config.resources if entry.file is not None]
