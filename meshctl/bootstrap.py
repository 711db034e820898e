"""Bootstraps of Envoy: one template per role, filled with the names and addresses of one node.

The templates are the files in ``envoy-configs/``, which containers mount as they are. Filling one changes what
differs between nodes and nothing else: who the node is, where its admin page and its control plane are, and whose
name its statistics carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from meshctl.errors import UsageError

Role = Literal["sidecar", "ingress"]
ROLES: tuple[Role, ...] = get_args(Role)

_FOLDER = "envoy-configs"
_DETECTOR = "envoy.tracers.opentelemetry.resource_detectors.static_config"
_DETECTOR_TYPE = (
    "type.googleapis.com/envoy.extensions.tracers.opentelemetry.resource_detectors.v3"
    ".StaticConfigResourceDetectorConfig"
)

#: Parsed YAML; the templates are ours, so their shape is known.
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where somebody listens; ``host`` is a name or an address, without the brackets of IPv6."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """From ``host:port`` or ``[ipv6]:port``; UsageError for anything else."""
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise UsageError(f"{text!r} is no address: expected HOST:PORT with a port from 1 to 65535")
        return cls(host, int(port))


@dataclass(frozen=True, slots=True)
class Node:
    """What differs between nodes.

    ``latencies`` are SLO thresholds in seconds; each becomes a bound of the latency histograms, so that the share
    of slow requests is counted and not interpolated.
    """

    node_id: str
    group: str
    xds: HostPort = HostPort("127.0.0.1", 18000)
    admin: HostPort = HostPort("127.0.0.1", 15000)
    latencies: tuple[float, ...] = ()


def template(role: Role) -> str:
    """The template of ``role`` as YAML: from the installed package, or from the checkout that this file is in."""
    name = f"{role}.yaml"
    checkout = Path(__file__).resolve().parent.parent / _FOLDER
    folders: tuple[Traversable, ...] = (files("meshctl") / _FOLDER, checkout)
    for folder in folders:
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise UsageError(f"no bootstrap for role {role!r}: expected {name} in {checkout}; roles: {', '.join(ROLES)}")


def render(role: Role, node: Node) -> str:
    """The bootstrap of ``node`` as YAML, ready for ``envoy -c``."""
    text: str = yaml.safe_dump(document(role, node), sort_keys=False, width=120)
    return f"# Bootstrap of {node.node_id}, made by meshctl from {_FOLDER}/{role}.yaml.\n{text}"


def document(role: Role, node: Node) -> Document:
    """The bootstrap of ``node`` as plain data."""
    filled: Document = {"node": {"id": node.node_id, "cluster": node.group}}
    filled.update(yaml.safe_load(template(role)))
    filled["admin"]["address"] = _socket_address(node.admin)
    _xds_endpoint(filled)["address"] = _socket_address(node.xds)
    _sink(filled)["resource_detectors"] = [_resource(node)]
    for setting in filled["stats_config"]["histogram_bucket_settings"]:
        setting["buckets"] = _bounds(setting["buckets"], node.latencies)
    return filled


def offline(role: Role, node: Node, folder: str) -> Document:
    """The bootstrap of ``node`` that reads everything from files below ``folder`` (see :mod:`xds.export`).

    There is no control plane: nobody receives statistics, and runtime layers hold what their files say.
    """
    filled = document(role, node)
    del filled["stats_sinks"], filled["stats_flush_interval"]
    filled["static_resources"]["clusters"] = [
        each for each in filled["static_resources"]["clusters"] if each["name"] != "xds_cluster"
    ]
    filled["dynamic_resources"] = {f"{kind}_config": _file(folder, f"{kind}.json") for kind in ("cds", "lds")}
    for layer in filled["layered_runtime"]["layers"]:
        if "rtds_layer" in layer:
            layer["rtds_layer"]["rtds_config"] = _file(folder, f"rtds/{layer['name']}.json")
    return filled


def _file(folder: str, name: str) -> Document:
    return {"path_config_source": {"path": f"{folder}/{name}"}, "resource_api_version": "V3"}


def _socket_address(address: HostPort) -> Document:
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _xds_endpoint(filled: Document) -> Document:
    cluster = next(each for each in filled["static_resources"]["clusters"] if each["name"] == "xds_cluster")
    endpoint: Document = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    return endpoint


def _sink(filled: Document) -> Document:
    config: Document = filled["stats_sinks"][0]["typed_config"]
    return config


def _resource(node: Node) -> Document:
    """Names in the file itself instead of an environment variable that somebody must remember to set."""
    attributes: Mapping[str, str] = {"service.name": node.group, "service.instance.id": node.node_id}
    return {"name": _DETECTOR, "typed_config": {"@type": _DETECTOR_TYPE, "attributes": dict(attributes)}}


def _bounds(template_bounds: Iterable[float], latencies: Iterable[float]) -> list[float]:
    """Milliseconds, ascending."""
    return sorted({float(bound) for bound in template_bounds} | {round(latency * 1000, 3) for latency in latencies})
