"""The shop: its shape, and that the numbers in the mesh file's comments follow from it."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from meshctl import config
from meshctl.config import MeshConfig
from meshctl.demo.topology import BEHAVIOURS, ENTRY, MIX, calls_of, entry_time, mean_time, visits


@pytest.fixture(scope="module")
def mesh() -> MeshConfig:
    return config.load(Path(str(resources.files("meshctl.demo").joinpath("mesh.yaml"))))


def test_at_least_six_services_and_all_of_them_visited() -> None:
    assert len(BEHAVIOURS) >= 6
    assert all(count > 0.0 for count in visits().values())
    assert visits()[ENTRY] == pytest.approx(1.0)


def test_the_mix_is_a_distribution() -> None:
    assert sum(MIX.values()) == pytest.approx(1.0)


def test_calls_end_somewhere() -> None:
    for path in MIX:
        assert 0.0 < mean_time(ENTRY, path) < 1.0


def test_an_unknown_path_costs_work_and_no_calls() -> None:
    assert calls_of("frontend", "/nowhere") == ()
    assert mean_time("frontend", "/nowhere") == BEHAVIOURS["frontend"].work


def test_the_mesh_file_has_the_same_services_and_calls(mesh: MeshConfig) -> None:
    assert set(mesh.services) == set(BEHAVIOURS)
    for name, behaviour in BEHAVIOURS.items():
        called = {call.callee for calls in behaviour.calls.values() for call in calls}
        assert set(mesh.services[name].calls) == called, name


def test_one_frontend_serves_fifteen_to_twenty_per_second_at_the_target(mesh: MeshConfig) -> None:
    assert 15.0 <= mesh.services[ENTRY].concurrency / entry_time() * mesh.scaling.target_utilization <= 20.0


def test_the_most_replicas_serve_twice_the_default_rate_at_the_target(mesh: MeshConfig) -> None:
    """Of every service: a peak of twice the mean must be servable by the replicas that the file allows."""
    for name, count in visits().items():
        times = [mean_time(name, path) for path in BEHAVIOURS[name].calls] or [BEHAVIOURS[name].work]
        spec = mesh.services[name]
        assert spec.replicas.max * spec.concurrency / max(times) >= 2 * 25.0 * count, name


@pytest.mark.parametrize("module", ["meshctl.demo.service", "meshctl.demo.load"])
def test_the_processes_import_little(module: str) -> None:
    heavy = "{'torch', 'numpy', 'pydantic', 'envoy_data_plane', 'matplotlib', 'grpc', 'opentelemetry', 'yaml'}"
    code = f"import sys, {module}; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
