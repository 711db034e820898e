"""Options that many commands share. They are accepted before and after the command's name.

Values travel in ``Context.meta``, which click shares between a group's context and its command's; the inner one wins.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class ConnectionSettings(NamedTuple):
    """How to reach the control plane: base URL, file with the API token, and seconds to wait for one answer."""

    server: str = "http://127.0.0.1:18080"
    token_file: str = ".meshctl/api-token"  # noqa: S105 (a path)
    timeout: float = 10.0


DEFAULTS = ConnectionSettings()
HELP = {
    "server": "URL of the control plane's API.",
    "token_file": "File that holds the API token.",
    "timeout": "Seconds to wait for an answer.",
}
METAVAR = {"server": "URL", "token_file": "FILE", "timeout": "SECONDS"}


def connection_settings(ctx: click.Context) -> ConnectionSettings:
    """What the innermost ``--server``, ``--token-file`` and ``--timeout`` said."""
    return ConnectionSettings(*(ctx.meta.get(_key(name), getattr(DEFAULTS, name)) for name in HELP))


def connection_options(*, top: bool = False) -> Callable[[F], F]:
    """``--server``, ``--token-file`` and ``--timeout``; the ``top`` group also reads MESHCTL_* variables."""

    def decorate(function: F) -> F:
        for name in reversed(HELP):
            function = _option(name, top)(function)
        return function

    return decorate


def output_option(*formats: str) -> Callable[[F], F]:
    """``-o``: table and wide are for people, json and yaml are the whole document, name is one name a line."""
    choice = click.Choice(formats or ("table", "wide", "json", "yaml", "name"))
    return click.option("-o", "--output", type=choice, default="table", show_default=True, help="Output format.")


def dry_run_option(function: F) -> F:
    return click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")(function)


def mesh_file_option(function: F) -> F:
    """``-f`` of commands that work on a mesh file; they are given it as ``config_path``."""
    return click.option(
        "-f",
        "--file",
        "config_path",
        type=click.Path(dir_okay=False, path_type=Path),
        default=Path("mesh.yaml"),
        show_default=True,
        envvar="MESHCTL_FILE",
        show_envvar=True,
        help="The mesh file.",
    )(function)


def _option(name: str, top: bool) -> Callable[[F], F]:
    variable = f"MESHCTL_{name.upper()}"
    note = f" [{variable}; default: {_text(getattr(DEFAULTS, name))}]" if top else ""
    return click.option(
        f"--{name.replace('_', '-')}",
        envvar=variable if top else None,
        type=click.FloatRange(min=0, min_open=True) if name == "timeout" else str,
        metavar=METAVAR[name],
        help=HELP[name] + note,
        expose_value=False,
        callback=_store,
    )


def _store(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    if value is not None and parameter.name is not None:
        ctx.meta[_key(parameter.name)] = value


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _key(name: str) -> str:
    return f"meshctl.{name}"
