"""``meshctl chaos run``: from the command line to the verdict, by the real Chaos Toolkit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from chaoslib.experiment import ensure_experiment_is_valid

from meshctl.cli import chaos as command
from tests.unit.chaos.fake_api import ControlPlane
from tests.unit.cli.conftest import Invoke

pytestmark = pytest.mark.slow

FILE = """
title: short
service: catalog
entry: frontend
recovery: 2500ms
window: 1s
objective: 2s
faults: [{kind: abort, percent: 30, duration: 1s}]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("chaos.verdict.REPORT_LAG", 0.0)  # simulated traffic is counted at once
    path = tmp_path / "experiment.yaml"
    path.write_text(FILE)
    return path


def test_a_passed_experiment_is_stored_and_exits_0(plane: ControlPlane, invoke: Invoke, file: Path) -> None:
    result = invoke("chaos", "run", str(file), "-o", "json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    stored = plane.experiments[document["id"]]
    assert (document["status"], stored["status"], stored["score"]) == ("passed", "passed", 100.0)
    assert stored["result"] == document["result"]
    assert stored["spec"]["service"] == "catalog"
    assert "inject-0" in result.stderr


def test_a_deviation_exits_1_and_prints_arms_and_factors(plane: ControlPlane, invoke: Invoke, file: Path) -> None:
    plane.leak = 1.0
    result = invoke("chaos", "run", str(file))
    assert result.exit_code == 1
    for word in ("DEVIATED", "INJECTED", "TREATMENT", "containment", "budget"):
        assert word in result.stdout


def test_an_experiment_without_traffic_is_inconclusive(plane: ControlPlane, invoke: Invoke, file: Path) -> None:
    plane.traffic = False
    result = invoke("chaos", "run", str(file), "--wait", "0")
    assert result.exit_code == 1
    assert "INCONCLUSIVE" in result.stdout
    assert not plane.faults


def test_the_deadline_exits_124_and_is_stored(plane: ControlPlane, invoke: Invoke, file: Path) -> None:
    file.write_text(FILE.replace("duration: 1s", "duration: 60s"))
    result = invoke("chaos", "run", str(file), "--deadline", "4s")
    assert (result.exit_code, result.stdout) == (124, "")
    assert not plane.active()
    assert plane.experiments["1"]["status"] == "failed"


def test_a_dry_run_prints_what_chaos_toolkit_would_run(plane: ControlPlane, invoke: Invoke) -> None:
    options = ["--service", "catalog", "--entry", "frontend", "--percent", "20", "--delay", "250ms"]
    document = json.loads(invoke("chaos", "run", *options, "--dry-run").stdout)
    ensure_experiment_is_valid(document)
    faults = [activity["provider"]["arguments"] for activity in document["method"] if activity["type"] == "action"]
    assert [(f["kind"], f["percent"]) for f in faults if f] == [("abort", 20), ("delay", 20)]
    assert faults[2]["delay"] == 0.25
    assert not plane.requests


def test_a_dry_run_in_yaml_is_the_same(invoke: Invoke) -> None:
    arguments = ["chaos", "run", "--service", "a", "--entry", "b", "--dry-run"]
    in_yaml = yaml.safe_load(invoke(*arguments, "-o", "yaml").stdout)
    assert in_yaml == json.loads(invoke(*arguments, "-o", "json").stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--entry", "frontend"], "--service is missing"),
        (["--service", "catalog"], "--entry is missing"),
        (["{file}", "--percent", "5"], "leave out --percent"),
        (["--service", "a", "--entry", "b", "--delay", "fast"], "write 400ms"),
        (["--service", "a", "--entry", "b", "--percent", "0"], "1<=x<=100"),
        (["nowhere.yaml"], "does not exist"),
    ],
)
def test_usage_errors_exit_2(invoke: Invoke, file: Path, arguments: list[str], message: str) -> None:
    result = invoke("chaos", "run", *(argument.format(file=file) for argument in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("faults: [", "no readable YAML"),
        ("a", "is no mapping"),
        (FILE.replace("percent: 30", "percent: 0.5"), "faults"),
    ],
)
def test_a_broken_file_names_the_field(
    plane: ControlPlane, invoke: Invoke, file: Path, content: str, message: str
) -> None:
    file.write_text(content)
    result = invoke("chaos", "run", str(file))
    assert result.exit_code == 2
    assert message in result.stderr
    assert not plane.experiments


@pytest.mark.parametrize("status", ["passed", "deviated", "inconclusive"])
def test_the_exit_code_is_the_verdict(status: str) -> None:
    assert command.EXIT_CODES[status] == (status != "passed")
