"""Extras for tests: only what is missing, once, beside the environment; and who takes part in quick work."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import extras
from tests.support.extras import InstallError

pytestmark = pytest.mark.slow

NAME = "meshctl_test_wheel"


def wheel(folder: Path, version: str = "1.0", needs: Sequence[str] = ("numpy",)) -> list[str]:
    """Options for pip, which finds nothing but a package of one module there."""
    info = f"{NAME}-{version}.dist-info"
    requires = "".join(f"Requires-Dist: {one}\n" for one in needs)
    files = {
        f"{NAME}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{NAME}-{version}-py3-none-any.whl", "w") as file:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            file.writestr(name, text)
    return ["--no-index", "--find-links", str(folder)]


@pytest.fixture
def constraints(tmp_path: Path) -> Path:
    path = tmp_path / "constraints.txt"
    path.write_text("")
    return path


def test_only_what_is_missing_is_installed_and_only_once(
    tmp_path: Path, constraints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = wheel(tmp_path / "wheels")
    folder = extras.installed([NAME], constraints, tmp_path / "extras", options)
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {f"{NAME}.py", f"{NAME}-1.0.dist-info"}
    monkeypatch.setattr(extras, "_pip", lambda *_: pytest.fail("pip was asked again"))
    assert extras.installed([NAME], constraints, tmp_path / "extras", options) == folder


def test_other_constraints_are_another_installation_in_its_place(tmp_path: Path, constraints: Path) -> None:
    parent, options = tmp_path / "extras", wheel(tmp_path / "wheels")
    wheel(tmp_path / "wheels", "2.0")
    newest = extras.installed([NAME], constraints, parent, options)
    constraints.write_text(f"{NAME}==1.0\n")
    pinned = extras.installed([NAME], constraints, parent, options)
    assert "2.0" not in (pinned / f"{NAME}.py").read_text()
    assert not newest.exists()


def test_no_index_is_impossible_and_leaves_nothing(tmp_path: Path, constraints: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InstallError) as caught:
        extras.installed(
            [NAME], constraints, tmp_path / "extras", ["--no-index", "--find-links", str(tmp_path / "empty")]
        )
    assert caught.value.is_impossible
    assert [path.name for path in (tmp_path / "extras").iterdir()] == ["lock"]


def test_a_wrong_pin_is_our_own_fault(tmp_path: Path, constraints: Path) -> None:
    constraints.write_text(f"{NAME}==9.9\n")
    with pytest.raises(InstallError, match="ResolutionImpossible") as caught:
        extras.installed([NAME], constraints, tmp_path / "extras", wheel(tmp_path / "wheels"))
    assert not caught.value.is_impossible


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        ("Retrying after connection broken by 'NewConnectionError'", pytest.skip.Exception),
        ("ResolutionImpossible", pytest.fail.Exception),
    ],
)
def test_what_cannot_be_is_skipped_and_what_is_wrong_fails(
    words: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "_tried", lambda extra: InstallError(words))
    with pytest.raises(outcome, match=words), extras.importable("ray"):
        pass


def test_packages_can_be_imported_inside_and_by_children_and_not_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{NAME}.py").touch()
    monkeypatch.setattr(extras, "_tried", lambda extra: tmp_path)
    monkeypatch.setenv("PYTHONPATH", "before")
    paths = list(sys.path)
    with extras.importable("anything"):
        assert importlib.import_module(NAME).__file__ == str(tmp_path / f"{NAME}.py")
        assert os.environ["PYTHONPATH"] == os.pathsep.join(["before", str(tmp_path)])
        subprocess.run([sys.executable, "-c", f"import {NAME}"], check=True)
    del sys.modules[NAME]
    assert sys.path == paths
    assert os.environ["PYTHONPATH"] == "before"


def test_what_the_environment_has_is_not_installed() -> None:
    assert extras.provided("numpy") is None


def test_every_extra_that_tests_use_is_declared_and_pinned() -> None:
    pins = {line.partition("==")[0] for line in extras.CONSTRAINTS.read_text().splitlines()}
    for extra in ("prophet", "ray"):
        assert [one.partition(">=")[0] for one in extras.requirements(extra)] == [extra]
        assert extra in pins


@pytest.mark.parametrize(("marks", "taken"), [("not envoy", False), ("extras", True)])
def test_a_selection_by_marks_leaves_extras_out_unless_it_names_them(marks: str, taken: bool) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", marks]
    target = "tests/unit/forecasting/test_prophet_model.py"
    done = subprocess.run([*command, target], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ("test_it_learns_a_week" in done.stdout) is taken
    assert done.returncode == 0, done.stdout
