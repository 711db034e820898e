"""Constraints as the library reads them and as Envoy does: what one refuses, the other refuses too."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import envoys
from xds import types
from xds.errors import ResourceError
from xds.resources import load_resources

pytestmark = pytest.mark.envoy

TYPE = "type.googleapis.com/envoy."
CLUSTER: dict[str, Any] = {"name": "a", "type": "STATIC", "connect_timeout": "1s"}
LOCAL = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}}}
EXTENSION = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
OPTIONS = f"{TYPE}extensions.upstreams.http.v3.HttpProtocolOptions"


def assignment(**fields: Any) -> dict[str, Any]:
    return {"load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [{"endpoint": LOCAL}], **fields}]}}


GOOD: list[dict[str, Any]] = [
    {},
    {"outlier_detection": {"consecutive_5xx": 5, "max_ejection_percent": 100}},
    {
        "typed_extension_protocol_options": {
            EXTENSION: {"@type": OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}
        }
    },
    {"circuit_breakers": {"thresholds": [{"retry_budget": {"budget_percent": {"value": 20.5}}}]}},
    {"metadata": {"filter_metadata": {"a.b": {"list": [1, "x", None, True, {"deep": {}}]}}}},
    {"lb_subset_config": {"subset_selectors": [{"keys": ["version"]}]}, "alt_stat_name": "é"},
    assignment(priority=0, load_balancing_weight=7),
    {"per_connection_buffer_limit_bytes": 4294967295, "cleanup_interval": "0.000001s"},
]
BAD: list[dict[str, Any]] = [
    {"name": ""},
    {"connect_timeout": "0s"},
    {"nmae": "x"},
    {"outlier_detection": {"max_ejection_percent": 101}},
    {"outlier_detection": {"interval": "0s"}},
    {"typed_extension_protocol_options": {EXTENSION: {"@type": OPTIONS}}},
    {"typed_extension_protocol_options": {EXTENSION: {"@type": OPTIONS, "explicit_http_config": {}}}},
    {"load_assignment": {"endpoints": []}},
    {"health_checks": [{"timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1}]},
    {"health_checks": [{"timeout": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1, "tcp_health_check": {}}]},
    {"per_connection_buffer_limit_bytes": "many"},
    {"lb_policy": "ROUNDROBIN"},
    {"transport_socket": {"name": "", "typed_config": {}}},
    {"cluster_type": {"name": "x"}},
    assignment(load_balancing_weight=0),
    assignment(priority=129),
]


def ours(fields: dict[str, Any]) -> bool:
    try:
        load_resources(json.dumps({"@type": types.CLUSTER, **CLUSTER, **fields}))
    except ResourceError:
        return False
    return True


def envoys_own(fields: dict[str, Any], folder: Path) -> tuple[bool, str]:
    """A bootstrap with the cluster in it, in validation mode."""
    file = folder / "envoy.json"
    file.write_text(json.dumps({"static_resources": {"clusters": [{**CLUSTER, **fields}]}}))
    command = [str(envoys.installed()), "--mode", "validate", "-l", "error", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode == 0, done.stderr


@pytest.mark.parametrize("fields", GOOD, ids=lambda fields: "-".join(fields) or "plain")
def test_what_envoy_takes_is_taken(fields: dict[str, Any], tmp_path: Path) -> None:
    assert (ours(fields), *envoys_own(fields, tmp_path)) == (True, True, "")


@pytest.mark.parametrize("fields", BAD, ids=json.dumps)
def test_what_envoy_refuses_is_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    assert not ours(fields)
    assert not envoys_own(fields, tmp_path)[0]
