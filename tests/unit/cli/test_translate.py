"""``meshctl translate``: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from meshctl.cli import main
from tests.unit.cli.conftest import Golden

MESH = """\
name: shop
services:
  frontend: {calls: [catalog, cart], replicas: {min: 1, max: 2}}
  catalog: {replicas: {min: 2}}
  cart: {protocol: grpc, timeout: 2s, slo: {latency: 350ms}}
ingress:
  routes:
    - {prefix: /, service: frontend, rate_limit: {base: 100}}
"""


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    path = tmp_path / "mesh.yaml"
    path.write_text(MESH)
    return path


def translate(mesh: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["translate", "-f", str(mesh), *arguments], prog_name="meshctl")


def document(mesh: Path, *arguments: str) -> Any:
    result = translate(mesh, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_one_node_is_as_it_was(mesh: Path, golden: Golden) -> None:
    golden("translate-node.yaml", translate(mesh, "--node", "frontend-0", "-o", "yaml").stdout)
    golden("translate-ingress.json", translate(mesh, "--node", "ingress-0").stdout)


def test_json_and_yaml_say_the_same(mesh: Path) -> None:
    assert yaml.safe_load(translate(mesh, "-o", "yaml").stdout) == document(mesh)


def test_the_fewest_replicas_exist_unless_the_most_are_asked_for(mesh: Path) -> None:
    fewest, most = document(mesh), document(mesh, "--replicas", "max")
    assert [node["node_id"] for node in fewest["nodes"]] == [
        "cart-0",
        "catalog-0",
        "catalog-1",
        "frontend-0",
        "ingress-0",
    ]
    assert (fewest["mesh"], fewest["replicas"], most["replicas"]) == ("shop", "min", "max")
    assert sum(node["group"] == "catalog" for node in most["nodes"]) == 4


def test_every_resource_says_its_type_and_every_type_its_version(mesh: Path) -> None:
    for node in document(mesh)["nodes"]:
        assert list(node["types"]) == ["cds", "eds", "lds", "rds", "rtds"]
        for shown in node["types"].values():
            assert len(shown["version_info"]) == 16
            assert {one["@type"] for one in shown["resources"]} <= {shown["type_url"]}


def test_nodes_have_addresses_of_their_own(mesh: Path) -> None:
    nodes = {node["node_id"]: node for node in document(mesh, "--first-address", "10.1.0.254")["nodes"]}
    listening = {
        name: [listener["address"]["socket_address"] for listener in node["types"]["lds"]["resources"]]
        for name, node in nodes.items()
    }
    assert listening["ingress-0"] == [{"address": "10.1.0.254", "port_value": 8000}]
    assert listening["cart-0"] == [{"address": "10.1.0.255", "port_value": port} for port in (15006, 15001)]
    assert len({addresses[0]["address"] for addresses in listening.values()}) == len(nodes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--node", "frontend-9"], "no node 'frontend-9'; there are cart-0, catalog-0"),
        (["--first-address", "localhost"], "'localhost' is not the first of 5 IP addresses"),
        (["--first-address", "255.255.255.253"], "is not the first of 5 IP addresses"),
        (["-o", "table"], "Invalid value for '-o'"),
    ],
)
def test_usage_errors(mesh: Path, arguments: list[str], message: str) -> None:
    result = translate(mesh, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_broken_mesh_file_is_refused_as_everywhere(mesh: Path, tmp_path: Path) -> None:
    mesh.write_text(MESH.replace("service: frontend", "service: frontent"))
    result = translate(mesh, "--output-dir", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert (
        "mesh.yaml:8: ingress.routes[0].service: unknown service 'frontent'; did you mean 'frontend'?" in result.stderr
    )
    assert not (tmp_path / "out").exists()


def test_a_silent_platform_is_reported(mesh: Path) -> None:
    mesh.write_text(MESH + "platform: {kind: processes, url: 'http://127.0.0.1:9'}\n")
    result = translate(mesh, "--replicas", "live")
    assert result.exit_code == 70
    assert "127.0.0.1:9" in result.stderr


def test_files_ask_for_files(mesh: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = translate(mesh, "--output-dir", str(out), "--mounted-at", "/etc/envoy", "--node", "frontend-0")
    assert (result.exit_code, result.stdout) == (0, "")
    folder = out / "frontend-0"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "bootstrap.json",
        "cds.json",
        "eds/cart.json",
        "eds/catalog.json",
        "lds.json",
        "rds/inbound.json",
        "rds/outbound.json",
        "rtds/chaos.json",
        "rtds/limits.json",
    ]
    text = "".join(path.read_text() for path in folder.rglob("*.json"))
    assert '"ads"' not in text
    assert "/etc/envoy/frontend-0/eds/catalog.json" in text
    assert (folder / "cds.json").stat().st_mode & 0o777 == 0o600


def test_what_an_earlier_export_left_is_removed(mesh: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    translate(mesh, "--output-dir", str(out))
    mine = out / "frontend-0" / "notes.txt"
    mine.write_text("mine")
    mesh.write_text(MESH.replace("[catalog, cart]", "[catalog]"))
    translate(mesh, "--output-dir", str(out))
    assert [path.name for path in sorted((out / "frontend-0" / "eds").iterdir())] == ["catalog.json"]
    assert mine.read_text() == "mine"


def test_a_dry_run_writes_nothing(mesh: Path, tmp_path: Path) -> None:
    result = translate(mesh, "--output-dir", str(tmp_path / "out"), "--dry-run")
    assert result.exit_code == 0
    assert "frontend-0/cds.json" in result.stderr
    assert not (tmp_path / "out").exists()
