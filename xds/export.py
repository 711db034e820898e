"""A snapshot as JSON documents: for people, and as files that Envoy's filesystem subscriptions load.

Envoy reads one file per subscription, and refuses a file with two endpoint assignments or two route configurations.
So clusters and listeners are one file each (``cds.json``, ``lds.json``), and every other resource is one file of its
own (``eds/catalog.json``). Where a resource says "ask the stream that I came by" (``ads``), the exported one says
which file to read.
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#filesystem-subscriptions
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from xds.codec import to_json
from xds.errors import TranslateError
from xds.snapshot import ResourceSet, Snapshot
from xds.types import FULL_STATE, short_name

Document = dict[str, Any]

#: Turns (short type, resource name) into the path that Envoy opens.
Locate = Callable[[str, str], str]


def responses(snapshot: Snapshot, *, secrets: bool = False) -> dict[str, Document]:
    """By short type name, the document that a DiscoveryResponse with all resources of the type would be."""
    return {short_name(url): response(one, secrets=secrets) for url, one in snapshot.sets.items()}


def response(resources: ResourceSet, *, secrets: bool = False) -> Document:
    """``version_info``, ``type_url`` and ``resources`` (by name, each with its ``@type``) in proto3 JSON.

    What Envoy's API marks as sensitive is ``[redacted]`` unless ``secrets`` are asked for.
    """
    return _document(resources.type_url, resources.version, _shown(resources, secrets).values())


def files(snapshot: Snapshot, folder: str) -> dict[str, Document]:
    """The files by their path below ``folder``, which is where Envoy will find them; secrets are in the clear.

    Files stand in the order in which they should be written when Envoy is already watching: what is named before what
    names it. TranslateError where a resource asks for something that Envoy does not read from files.
    """

    def locate(kind: str, name: str) -> str:
        if (kind, name) == _NAMELESS:
            raise TranslateError(
                "on-demand virtual hosts and scoped routes have names that are not known beforehand, so no file can "
                "hold them; name a file with path_config_source, or serve the listener over ADS"
            )
        return f"{folder}/{path_of(kind, name)}"

    made: dict[str, Document] = {}
    for url, one in sorted(snapshot.sets.items(), key=lambda item: _WRITTEN.get(short_name(item[0]), 0)):
        kind = short_name(url)
        shown = {name: _local(resource, locate) for name, resource in _shown(one, secrets=True).items()}
        if url in FULL_STATE:
            made[f"{kind}.json"] = _document(url, one.version, shown.values())
            continue
        for name, resource in shown.items():
            made[path_of(kind, name)] = _document(url, one.resources[name].version, [resource])
    return made


def path_of(kind: str, name: str) -> str:
    """``eds/catalog.json``; characters that a file name cannot have are percent-encoded."""
    return f"{kind}/{quote(name, safe=' @:+,=')}.json"


#: After all the others, clusters before listeners.
_WRITTEN = {"cds": 1, "lds": 2}


def _shown(resources: ResourceSet, secrets: bool) -> dict[str, Document]:
    return {
        name: {"@type": resources.type_url, **to_json(resources.type_url, one.body, secrets=secrets)}
        for name, one in sorted(resources.resources.items())
    }


def _document(type_url: str, version: str, resources: Any) -> Document:
    return {"version_info": version, "type_url": type_url, "resources": list(resources)}


# Where a resource names another one


def asked(resource: Document) -> frozenset[tuple[str, str]]:
    """(short type, name) of everything that a resource (as JSON) asks for on the stream that it came by.

    What has no name beforehand (on-demand virtual hosts, scoped routes) is left out.
    """
    found: set[tuple[str, str]] = set()

    def note(kind: str, name: str) -> str:
        found.add((kind, name))
        return ""

    _local(resource, note)
    found.discard(_NAMELESS)
    return frozenset(found)


def _local(value: Any, locate: Locate) -> Any:
    """``value`` with files instead of streams wherever it says where something comes from."""
    if isinstance(value, list):
        return [_local(one, locate) for one in value]
    if not isinstance(value, Mapping):
        return value
    if value.get("type") == "EDS" and "name" in value:
        value = {"eds_cluster_config": {}, **value}
        value["eds_cluster_config"] = {"service_name": value["name"], **value["eds_cluster_config"]}
    if "config_discovery" in value:  # an extension's name stands one level above where it comes from
        discovery = {**value["config_discovery"], "name": value.get("name", "")}
        local = _local(discovery, locate)
        local.pop("name")
        value = {**value, "config_discovery": local}
    return {key: _source(key, one, value, locate) for key, one in value.items()}


def _source(key: str, value: Any, parent: Mapping[str, Any], locate: Locate) -> Any:
    if not (isinstance(value, Mapping) and ("ads" in value or "self" in value)):
        return _local(value, locate)
    kind, name = _named(key, parent)
    return {"path_config_source": {"path": locate(kind, name)}, "resource_api_version": "V3"}


def _named(key: str, parent: Mapping[str, Any]) -> tuple[str, str]:
    """Short type and name of what a field of type ConfigSource asks for."""
    for field, kind, name in _SOURCES:
        if key == field and name in parent:
            return kind, str(parent[name])
    return _NAMELESS


#: What has no name before somebody asks.
_NAMELESS = ("", "")

#: Field of type ConfigSource, the type that it asks for, and the field beside it that holds the name.
_SOURCES = (
    ("eds_config", "eds", "service_name"),
    ("config_source", "rds", "route_config_name"),
    ("config_source", "ecds", "name"),
    ("sds_config", "sds", "name"),
    ("rtds_config", "rtds", "name"),
)
