"""``meshctl forecast train``: in the foreground, from stored history or a seed trace, into the registry."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from forecasting.ensemble import DuplicateSeriesError
from forecasting.errors import ArtifactError, ForecastingError, TrainingError
from forecasting.registry import Registry, RegistryError
from meshctl.cli import main
from meshctl.control import training
from meshctl.control.past import DEMAND
from meshctl.history.database import Database
from tests.unit.meshctl.forecasting_support import MESH, bundle, keep, rates, series

pytestmark = pytest.mark.slow


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    (tmp_path / "mesh.yaml").write_text(MESH)
    return tmp_path / "mesh.yaml"


def remember(mesh: Path, count: int) -> float:
    """Stored history of the frontend up to now; its first moment."""
    start = float(int(time.time()) - count)
    with Database.open(mesh.parent / "state" / "history.db") as database:
        values = rates(count)
        database.append_samples([(DEMAND + "frontend", start + n + 0.5, float(v)) for n, v in enumerate(values)])
    return start


def train(mesh: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["forecast", "train", "-f", str(mesh), *arguments], prog_name="meshctl")


def test_a_training_shows_progress_and_is_promoted(mesh: Path) -> None:
    remember(mesh, 1000)
    result = train(mesh, "--seconds", "0.5")
    assert (result.exit_code, result.stdout) == (0, "generation 1 has no champion to beat: promoted\n")
    assert re.search(r"^training: \d+% ", result.stderr, re.MULTILINE)
    assert Registry(mesh.parent / "state" / "models").active() == 1


def test_what_does_not_win_is_kept_and_exits_1(mesh: Path) -> None:
    start = remember(mesh, 1000)
    registry = Registry(mesh.parent / "state" / "models")
    registry.promote(keep(registry, bundle(series(1060, start=start))), "test", {}, 1.0)
    result = train(mesh, "--seconds", "0.2")
    assert result.exit_code == 1
    assert "too few to compare: not promoted" in result.stdout
    assert (registry.active(), len(registry.generations())) == (1, 2)


def test_a_dry_run_says_what_there_is_and_changes_nothing(mesh: Path) -> None:
    remember(mesh, 600)
    result = train(mesh, "--dry-run")
    assert (result.exit_code, result.stdout) == (
        0,
        "models would be trained on 600 steps of 1 series (frontend) (dry run)\n",
    )
    assert not (mesh.parent / "state" / "models").exists()


def test_a_seed_trace_stands_for_the_history(mesh: Path, tmp_path: Path) -> None:
    rows = "".join(f"{number},{value}\n" for number, value in enumerate(np.abs(rates(700))))
    (tmp_path / "past.csv").write_text("timestamp,value\n" + rows)
    seeded = MESH.replace("forecast: {", "forecast: {history: {trace: past.csv, service: frontend}, ")
    mesh.write_text(seeded)
    assert "700 steps of 1 series (frontend) of the seed trace" in train(mesh, "--dry-run").stdout


def test_too_little_history_is_a_usage_error_that_says_what_to_do(mesh: Path) -> None:
    remember(mesh, 100)
    result = train(mesh)
    assert result.exit_code == 2
    assert "100 steps of history, 500 are needed" in result.stderr
    assert "forecast.history" in result.stderr


@pytest.mark.parametrize("kind", [RegistryError, DuplicateSeriesError, TrainingError, ArtifactError])
def test_what_the_library_refuses_is_an_internal_error(
    kind: type[ForecastingError], mesh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise kind("models: cannot be changed; check space and permissions")

    remember(mesh, 1000)
    monkeypatch.setattr(training, "learn", refuse)
    result = train(mesh)
    assert (result.exit_code, result.stdout) == (70, "")
    assert result.stderr.endswith(
        "error: no models were trained: models: cannot be changed; check space and permissions\n"
    )


def test_a_registry_that_cannot_be_written_is_an_internal_error(mesh: Path) -> None:
    remember(mesh, 1000)
    (mesh.parent / "state" / "models").write_text("in the way")
    result = train(mesh, "--seconds", "0.2")
    assert result.exit_code == 70
    assert re.search(r"^error: no models were trained: .*models: cannot be changed", result.stderr, re.MULTILINE)


def test_ctrl_c_ends_it_at_once(mesh: Path) -> None:
    remember(mesh, 1000)
    arguments = [sys.executable, "-m", "meshctl.cli", "forecast", "train", "-f", str(mesh), "--seconds", "600"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "training" in process.stderr.readline()
        process.send_signal(2)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.communicate()
    assert Registry(mesh.parent / "state" / "models").generations() == []
