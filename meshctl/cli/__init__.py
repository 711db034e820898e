"""The command line. ``main`` is a group whose commands are imported only when they are invoked.

The table :data:`COMMANDS` carries the short help of every command, so that ``meshctl --help`` and shell completion
import none of the rooms behind them. Exit codes: 0 yes; 1 it worked and the answer is no; 2 usage; 69 control plane
unreachable; 70 internal error; 124 timeout; 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from meshctl.cli.options import connection_options
from meshctl.errors import MeshctlError

INTERNAL_ERROR = 70
INTERRUPTED = 130


class Lazy(NamedTuple):
    """Where a command lives, and what ``--help`` says about it without importing it."""

    module: str
    attribute: str
    help: str


COMMANDS: Mapping[str, Lazy] = {
    "bootstrap": Lazy("meshctl.cli.bootstrap", "bootstrap", "Print the Envoy bootstrap of a node."),
    "chaos": Lazy("meshctl.cli.chaos", "chaos", "Run experiments that inject faults, and read their scores."),
    "completion": Lazy("meshctl.cli.completion", "completion", "Print the completion script of a shell."),
    "config": Lazy("meshctl.cli.config", "config", "Check a mesh file and list its settings."),
    "decision": Lazy("meshctl.cli.decision", "decision", "Read what was decided, and why."),
    "demo": Lazy("meshctl.cli.demo", "demo", "Run a mesh with real sidecars on this machine."),
    "forecast": Lazy("meshctl.cli.forecast", "forecast", "Read forecasts; train, list and exchange their models."),
    "pause": Lazy("meshctl.cli.status", "pause", "Stop acting on plans; observing and forecasting go on."),
    "proxy": Lazy("meshctl.cli.proxy", "proxy", "Inspect the sidecars and their configuration."),
    "resume": Lazy("meshctl.cli.status", "resume", "Act on plans again."),
    "serve": Lazy("meshctl.cli.serve", "serve", "Run the control plane."),
    "service": Lazy("meshctl.cli.service", "service", "Inspect the services of the mesh."),
    "status": Lazy("meshctl.cli.status", "status", "Show the state of the control plane."),
    "translate": Lazy("meshctl.cli.translate", "translate", "Print what every Envoy would be told."),
}


class LazyGroup(click.Group):
    """A group over :data:`COMMANDS` that owns the mapping of exceptions to exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)  # Group's own would import every command
        return [CompletionItem(name, help=COMMANDS[name].help) for name in names] + options

    def main(self, args: Sequence[str] | None = None, *rest: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run and exit; with ``standalone_mode=False`` return what the command returned, as click does."""
        run: Callable[..., Any] = super().main
        if not standalone_mode:
            return run(args, *rest, standalone_mode=False, **extra)
        debug = "--debug" in (sys.argv[1:] if args is None else args)
        try:
            code = run(args, *rest, standalone_mode=False, **extra)
        except Exception as error:
            if debug and not isinstance(error, (click.ClickException, click.Abort, BrokenPipeError)):
                raise
            code = exit_code(error)
        sys.exit(code if isinstance(code, int) else 0)


def exit_code(error: Exception) -> int:
    """Print ``error`` on stderr as one message and return the exit code that it stands for."""
    if isinstance(error, click.exceptions.NoSuchOption | click.UsageError):
        error.show()
        return 2
    if isinstance(error, click.Abort):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return _reader_left()
    if isinstance(error, MeshctlError):
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    if isinstance(error, click.ClickException):
        click.echo(f"error: {error.format_message()}", err=True)
        return 2
    click.echo(f"error: internal: {type(error).__name__}: {error}; run again with --debug for the traceback", err=True)
    return INTERNAL_ERROR


def _reader_left() -> int:
    """``meshctl ... | head`` is no error; stdout is pointed at nothing so that the interpreter's last flush is
    silent.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@connection_options(top=True)
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
@click.version_option(package_name="meshctl", message="%(prog)s %(version)s")
def main(debug: bool) -> None:
    """A control plane for Envoy meshes that anticipates load and proves resilience."""


__all__ = ["COMMANDS", "Lazy", "LazyGroup", "exit_code", "main"]
