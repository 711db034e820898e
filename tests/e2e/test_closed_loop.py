"""The closed loop on real Envoys under load, judged by the Envoys' own admin endpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.running import RunningMesh, wait_for

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(240)]

LIMITS_TTL = 3.0
CHAOS_TTL = 3.0
_MODIFIED = "cluster_manager.cluster_(added|modified|removed|updated)$"
_DESTROYED = "upstream_cx_destroy_local"
#: Idle connections to an application are closed after 4 s, so that it does not close them first: no tick's doing.
_IDLE_POOL = "cluster.inbound_app."


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    leases = {"limits": LIMITS_TTL, "chaos": CHAOS_TTL}
    with RunningMesh(tmp_path_factory.mktemp("mesh"), rate=10.0, tick=0.25, leases=leases) as running:
        yield running


@pytest.fixture(scope="module")
def load(mesh: RunningMesh) -> Iterator[None]:
    child = mesh.start_load()
    yield
    mesh.stop_load(child)


@pytest.fixture(autouse=True)
def alive(mesh: RunningMesh, load: None) -> Iterator[None]:
    """Every test starts with a control plane whose plan is in force, and ends with the Envoys that it began with."""
    if not mesh.ready():
        mesh.start_control_plane()
    wait_for(lambda: _limits(mesh, "ingress-0"), "a plan is in force")
    wait_for(lambda: _settled(mesh), "every sidecar is connected and has acknowledged what it should have")
    yield
    assert "died" not in str(mesh.supervisor.finished)


def _limits(mesh: RunningMesh, node_id: str) -> dict[str, str]:
    return {key: value for key, value in mesh.runtime(node_id).items() if key.startswith("circuit_breakers.")}


def _settled(mesh: RunningMesh) -> bool:
    proxies = {proxy["node_id"]: proxy for proxy in mesh.api("/v1/proxies")["proxies"]}
    return all(
        node_id in proxies
        and proxies[node_id]["connected"]
        and {status["state"] for status in proxies[node_id]["types"].values()} == {"SYNCED"}
        for node_id in mesh.envoys()
    )


def _counters(mesh: RunningMesh, pattern: str) -> dict[str, dict[str, int]]:
    return {node_id: mesh.stats(node_id, pattern) for node_id in mesh.envoys()}


def test_ticks_change_limits_and_touch_no_cluster_and_no_connection(mesh: RunningMesh) -> None:
    before = {pattern: _counters(mesh, pattern) for pattern in (_MODIFIED, _DESTROYED)}
    pushes, ticks = mesh.status()["pushes"], mesh.status()["tick"]["count"]
    wait_for(lambda: mesh.status()["tick"]["count"] >= ticks + 100, "100 ticks", 60.0)
    after = mesh.status()
    for pattern, counters in before.items():
        now = _counters(mesh, pattern)
        changed = {
            (node, name): (value, now[node][name])
            for node, counted in counters.items()
            for name, value in counted.items()
            if now[node][name] != value and _IDLE_POOL not in name
        }
        assert changed == {}, pattern
    assert after["pushes"]["rtds"] > pushes["rtds"], "the fast lane was used"
    assert after["nacks"] == {}


def test_the_runtime_layers_show_the_plan(mesh: RunningMesh) -> None:
    overrides = _limits(mesh, "frontend-0")
    assert int(overrides["circuit_breakers.catalog.default.max_requests"]) >= 1
    layers = mesh.admin("frontend-0", "/runtime")
    assert layers.index('"limits"') < layers.index('"chaos"')


def test_a_killed_control_plane_costs_no_request_and_its_leases_end(mesh: RunningMesh) -> None:
    pids = mesh.pids()
    versions = {node["node_id"]: _versions(node) for node in mesh.api("/v1/proxies")["proxies"]}
    seconds = len(mesh.lines())
    mesh.kill_control_plane()
    killed = time.monotonic()
    wait_for(lambda: not _limits(mesh, "ingress-0"), "the plan's lease ends", LIMITS_TTL + 2.0)
    assert time.monotonic() - killed < LIMITS_TTL + 1.5
    wait_for(lambda: len(mesh.lines()) > seconds + 8, "load goes on without a control plane")
    mesh.start_control_plane()
    wait_for(lambda: mesh.status()["proxies"]["connected"] == len(pids), "all sidecars are back")
    wait_for(lambda: _limits(mesh, "ingress-0"), "a new plan")
    assert {node["node_id"]: _versions(node) for node in mesh.api("/v1/proxies")["proxies"]} == versions
    pushed = mesh.status()["pushes"]
    assert {name: pushed.get(name, 0) for name in ("cds", "lds", "eds")} == {"cds": 0, "lds": 0, "eds": 0}
    assert mesh.pids() == pids
    failed = [line["errors"] for line in mesh.lines()[seconds:] if line["errors"]]
    assert failed == []


def test_a_fault_ends_within_its_lease_when_the_control_plane_is_killed(mesh: RunningMesh) -> None:
    body = {"service": "catalog", "kind": "abort", "percent": 100, "treatment_percent": 100, "duration": 120}
    fault = mesh.api("/v1/faults", body)
    key = "fault.http.abort.abort_percent"
    wait_for(lambda: mesh.runtime("catalog-0").get(key) == "100", "the fault is in the callee's runtime")
    wait_for(lambda: mesh.api(f"/v1/faults/{fault['id']}")["injected"]["aborts"] > 0, "Envoy counts injections")
    mesh.kill_control_plane()
    killed = time.monotonic()
    wait_for(lambda: key not in mesh.runtime("catalog-0"), "the fault ends", CHAOS_TTL + 2.0)
    assert time.monotonic() - killed < CHAOS_TTL + 1.5
    injected = mesh.stats("catalog-0", "fault.aborts_injected")
    seconds = len(mesh.lines())
    wait_for(lambda: len(mesh.lines()) > seconds + 3, "load goes on")
    assert mesh.stats("catalog-0", "fault.aborts_injected") == injected
    mesh.start_control_plane()
    assert mesh.api("/v1/faults")["faults"] == []
    assert key not in mesh.runtime("catalog-0")


def test_a_broken_mesh_file_is_refused_and_a_good_one_taken(mesh: RunningMesh) -> None:
    good = mesh.folder.mesh_file.read_text()
    try:
        mesh.folder.mesh_file.write_text(good.replace("min: 1", "min: minus-one", 1))
        error = wait_for(lambda: mesh.status()["config"]["error"], "the broken file is noticed")
        assert "min" in error
        wait_for(lambda: mesh.status()["proxies"]["connected"] == len(mesh.envoys()), "nobody is lost")
    finally:
        mesh.folder.mesh_file.write_text(good.replace("timeout: 5.0", "timeout: 4.0"))
    wait_for(lambda: mesh.status()["config"]["error"] is None, "the good file is taken")


def _versions(node: Any) -> dict[str, str]:
    return {name: status["acked"] for name, status in node["types"].items() if name in ("cds", "lds", "eds")}
