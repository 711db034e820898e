"""The command line against an API with known answers, at a known time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshctl.cli import main, output
from tests.unit.chaos.fake_api import TOKEN, ControlPlane, serving
from tests.unit.cli.documents import DOCUMENTS, NOW

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "cli"

Invoke = Callable[..., Result]
Golden = Callable[[str, str], None]


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    monkeypatch.setattr(output, "clock", lambda: NOW)
    with serving(ControlPlane(documents=dict(DOCUMENTS))) as served:
        yield served


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "api-token"
    path.write_text(TOKEN)
    return path


@pytest.fixture
def invoke(plane: ControlPlane, token_file: Path) -> Invoke:
    """Run ``meshctl`` in this process, pointed to the API."""

    def run(*arguments: str) -> Result:
        environment = {"MESHCTL_SERVER": plane.url, "MESHCTL_TOKEN_FILE": str(token_file), "MESHCTL_TIMEOUT": "5"}
        return CliRunner().invoke(main, arguments, env=environment, prog_name="meshctl")

    return run


@pytest.fixture
def golden(update_golden: bool) -> Golden:
    """Compare a text with tests/golden/cli/NAME, or rewrite that file under --update-golden."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if update_golden:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"no {path}; write it with: pytest --update-golden"
        assert text == path.read_text(), f"differs from {path}; if that is meant: pytest --update-golden"

    return check
