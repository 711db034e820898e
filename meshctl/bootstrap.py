"""Bootstraps of Envoy: one template per role, filled with the names and addresses of one node.

The templates are the files in ``envoy-configs/``, which containers mount as they are. Filling one changes what
differs between nodes and nothing else: who the node is, where its admin page and its control plane are, and whose
name its statistics carry.
"""

from __future__ import annotations

import ipaddress
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
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_DETECTOR = "envoy.tracers.opentelemetry.resource_detectors.static_config"
_DETECTOR_TYPE = (
    "type.googleapis.com/envoy.extensions.tracers.opentelemetry.resource_detectors.v3"
    ".StaticConfigResourceDetectorConfig"
)

#: Where load reports go: to the cluster that configuration comes from.
_LOAD_REPORTS = {
    "api_type": "GRPC",
    "transport_api_version": "V3",
    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds_cluster"}}],
}

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
class ClientTls:
    """How an Envoy and the control plane prove to each other who they are; paths as Envoy sees them.

    ``name`` is what the control plane's certificate must be issued for: a host name, an address or a SPIFFE id. Without
    it every certificate of the CA, a sidecar's too, could play the control plane. ``secrets`` is the folder and the
    beginning of the names of the two files that Envoy watches (:func:`secrets`).
    """

    certificate: Path
    key: Path
    ca: Path
    name: str
    secrets: Path

    @property
    def certificate_file(self) -> Path:
        return self.secrets.with_name(f"{self.secrets.name}.tls-certificate.yaml")

    @property
    def ca_file(self) -> Path:
        return self.secrets.with_name(f"{self.secrets.name}.tls-ca.yaml")


@dataclass(frozen=True, slots=True)
class Node:
    """What differs between nodes.

    ``latencies`` are SLO thresholds in seconds; each becomes a bound of the latency histograms, so that the share
    of slow requests is counted and not interpolated. ``load_reports``: report load to the control plane (LRS), too.
    """

    node_id: str
    group: str
    xds: HostPort = HostPort("127.0.0.1", 18000)
    admin: HostPort = HostPort("127.0.0.1", 15000)
    latencies: tuple[float, ...] = ()
    load_reports: bool = False
    tls: ClientTls | None = None


def template(name: str) -> str:
    """``envoy-configs/NAME.yaml``: from the installed package, or from the checkout that this file is in."""
    file = f"{name}.yaml"
    checkout = Path(__file__).resolve().parent.parent / _FOLDER
    folders: tuple[Traversable, ...] = (files("meshctl") / _FOLDER, checkout)
    for folder in folders:
        if (folder / file).is_file():
            return (folder / file).read_text(encoding="utf-8")
    raise UsageError(f"no bootstrap {name!r}: expected {file} in {checkout}; roles: {', '.join(ROLES)}")


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
    if node.tls is not None:
        _xds_cluster(filled)["transport_socket"] = _transport_socket(node.tls)
    _sink(filled)["resource_detectors"] = [_resource(node)]
    for setting in filled["stats_config"]["histogram_bucket_settings"]:
        setting["buckets"] = _bounds(setting["buckets"], node.latencies)
    if node.load_reports:
        filled["cluster_manager"] = {"load_stats_config": _LOAD_REPORTS}
    return filled


def offline(role: Role, node: Node, folder: str) -> Document:
    """The bootstrap of ``node`` that reads everything from files below ``folder`` (see :mod:`xds.export`).

    There is no control plane: nobody receives statistics, and runtime layers hold what their files say.
    """
    filled = document(role, node)
    del filled["stats_sinks"], filled["stats_flush_interval"]
    filled.pop("cluster_manager", None)
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


def secrets(tls: ClientTls) -> dict[Path, str]:
    """The files that Envoy watches beside its bootstrap, by path: its certificate, and the CA that it trusts."""
    certificate, ca = yaml.safe_load(template("tls-certificate")), yaml.safe_load(template("tls-ca"))
    shown = certificate["resources"][0]["tls_certificate"]
    shown["certificate_chain"]["filename"], shown["private_key"]["filename"] = str(tls.certificate), str(tls.key)
    shown["watched_directory"]["path"] = str(tls.certificate.parent)
    trusted = ca["resources"][0]["validation_context"]
    trusted["trusted_ca"]["filename"], trusted["watched_directory"]["path"] = str(tls.ca), str(tls.ca.parent)
    return {
        tls.certificate_file: yaml.safe_dump(certificate, sort_keys=False, width=120),
        tls.ca_file: yaml.safe_dump(ca, sort_keys=False, width=120),
    }


def _transport_socket(tls: ClientTls) -> Document:
    """Both secrets come from watched files, so that what rotates needs no restart. gRPC speaks HTTP/2 only by ALPN."""
    kind = _san_type(tls.name)
    certificate = {"name": "xds_certificate", "sds_config": _watched(tls.certificate_file)}
    expected = {"match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": tls.name}}]}
    context: Document = {
        "alpn_protocols": ["h2"],
        "tls_certificate_sds_secret_configs": [certificate],
        "combined_validation_context": {
            "default_validation_context": expected,
            "validation_context_sds_secret_config": {"name": "xds_ca", "sds_config": _watched(tls.ca_file)},
        },
    }
    indication = {"sni": tls.name} if kind == "DNS" else {}
    typed = {"@type": _TLS, **indication, "common_tls_context": context}
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


def _watched(path: Path) -> Document:
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


def _san_type(name: str) -> Literal["URI", "IP_ADDRESS", "DNS"]:
    if "://" in name:
        return "URI"
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "DNS"
    return "IP_ADDRESS"


def _socket_address(address: HostPort) -> Document:
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _xds_cluster(filled: Document) -> Document:
    cluster: Document = next(each for each in filled["static_resources"]["clusters"] if each["name"] == "xds_cluster")
    return cluster


def _xds_endpoint(filled: Document) -> Document:
    endpoint: Document = _xds_cluster(filled)["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
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
