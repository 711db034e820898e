"""The group itself: exit codes, options before and after the command, completion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from meshctl.cli import COMMANDS, LazyGroup, main
from meshctl.errors import DeadlineError, MeshctlError, UsageError
from tests.unit.chaos.fake_api import ControlPlane
from tests.unit.cli.conftest import Invoke
from tests.unit.cli.documents import NOW

NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize("command", ["status", "proxy list", "pause", "chaos run --service a --entry b"])
def test_an_unreachable_control_plane_exits_69_with_a_remedy(command: str) -> None:
    result = CliRunner().invoke(main, ["--server", NOBODY, *command.split()])
    assert (result.exit_code, result.stdout) == (69, "")
    assert NOBODY in result.stderr
    assert "meshctl serve" in result.stderr


@pytest.mark.parametrize("arguments", [["--server", "{url}", "proxy", "list"], ["proxy", "list", "--server", "{url}"]])
def test_the_server_may_stand_before_or_after_the_command(plane: ControlPlane, arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [argument.format(url=plane.url) for argument in arguments])
    assert result.exit_code == 0


def test_the_flag_beats_the_environment_and_the_inner_flag_the_outer(plane: ControlPlane) -> None:
    arguments = ["--server", NOBODY, "status", "--server", plane.url]
    assert CliRunner().invoke(main, arguments, env={"MESHCTL_SERVER": NOBODY}).exit_code == 0


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("no such thing"), 2, "error: no such thing"),
        (MeshctlError("broken"), 70, "error: broken"),
        (DeadlineError("too late"), 124, "error: too late"),
        (ZeroDivisionError("by zero"), 70, "error: internal: ZeroDivisionError: by zero; run again with --debug"),
        (KeyboardInterrupt(), 130, ""),
        (click.FileError("x.yaml", "gone"), 2, "x.yaml"),
        (click.UsageError("what?"), 2, "what?"),
    ],
)
def test_errors_become_exit_codes(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: failing)
    result = CliRunner().invoke(main, ["status"])
    assert (result.exit_code, result.stdout) == (code, "")
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: failing)
    assert isinstance(CliRunner().invoke(main, ["--debug", "status"]).exception, ZeroDivisionError)


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["nope"])
    assert result.exit_code == 2
    assert "No such command 'nope'" in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_has_the_short_help_of_the_table(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    assert command.help


def test_completion_lists_commands_without_importing_them() -> None:
    completer = ShellComplete(main, {}, "meshctl", "_MESHCTL_COMPLETE")
    assert [item.value for item in completer.get_completions([], "p")] == ["pause", "proxy"]
    assert {"--server", "--help"} <= {item.value for item in completer.get_completions([], "--")}
    assert [item.value for item in completer.get_completions(["proxy"], "l")] == ["list"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert "_MESHCTL_COMPLETE" in result.stdout


def test_a_reader_that_leaves_is_no_error(plane: ControlPlane) -> None:
    plane.documents["/v1/events"] = {}
    plane.documents["/v1/proxies"] = {"proxies": [_proxy(number) for number in range(3000)]}
    command = [sys.executable, "-m", "meshctl.cli", "--server", plane.url, "proxy", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == b""


def test_an_interrupted_experiment_exits_130_and_leaves_no_fault(plane: ControlPlane, token_file: Path) -> None:
    options = ["--service", "catalog", "--entry", "frontend", "--duration", "60s"]
    connection = ["--server", plane.url, "--token-file", str(token_file)]
    command = [sys.executable, "-m", "meshctl.cli", *connection, "chaos", "run", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert plane.injecting.wait(30)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 130
    assert not plane.active()
    assert plane.experiments["1"]["status"] == "failed"
    assert plane.experiments["1"]["result"]["reason"] == "interrupted"


def _proxy(number: int) -> dict[str, object]:
    return {"node_id": f"node-{number}", "group": "g", "connected": True, "since": NOW, "types": {}}


def test_status_of_a_terminal_says_paused(plane: ControlPlane, invoke: Invoke) -> None:
    invoke("pause", "--reason", "release")
    assert "Status:       PAUSED" in invoke("status").stdout
