"""``meshctl config``: check a mesh file, list where each setting comes from, print the schema."""

from __future__ import annotations

import json
from typing import Any

import click

from meshctl.cli.options import output_option
from meshctl.cli.output import Column, show

DEFAULT_FILE = "mesh.yaml"

_COLUMNS = (
    Column("NAME", lambda row: row["name"]),
    Column("VALUE", lambda row: setting(row["value"])),
    Column("FROM", lambda row: row["from"]),
)


@click.group()
def config() -> None:
    """Check a mesh file and list its settings."""


@config.command()
def schema() -> None:
    """Print the JSON schema of a mesh file, for editors and CI."""
    from meshctl.config import schema as describe

    click.echo(json.dumps(describe(), indent=2))


@config.command()
@click.argument("file", type=click.Path(), default=DEFAULT_FILE)
def check(file: str) -> None:
    """Check FILE (default: mesh.yaml). Every problem is printed with its line; exit 0 means that it can be served."""
    from meshctl.config import load

    mesh = load(file)
    services, routes = len(mesh.services), len(mesh.ingress.routes)
    click.echo(f"{file}: ok: {mesh.name}, {_count(services, 'service')}, {_count(routes, 'route')}")


@config.command("list")
@click.argument("prefix", required=False, default="")
@click.option("-f", "--file", type=click.Path(), default=DEFAULT_FILE, show_default=True, help="The mesh file.")
@click.option("--set", "flags", metavar="NAME=VALUE", multiple=True, help="A setting that wins over all others.")
@output_option()
def list_(prefix: str, file: str, flags: tuple[str, ...], output: str) -> None:
    """List the settings under PREFIX (such as controller.tick) as NAME VALUE FROM.

    A setting comes from a flag, else from MESHCTL_<SECTION>__<FIELD>, else from the mesh file, else it is the default.
    """
    from meshctl.config import resolved

    found = resolved(file, flags=parse_flags(flags))
    rows = [{"name": name, "value": value, "from": origin} for name, value, origin in found if _under(name, prefix)]
    show({"file": file, "settings": rows}, rows, _COLUMNS, output)


def parse_flags(flags: tuple[str, ...]) -> dict[str, Any]:
    """``("controller.tick=2s",)`` as ``{"controller.tick": "2s"}``; values are YAML scalars."""
    from meshctl.config import parse_value

    pairs = [flag.partition("=") for flag in flags]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise click.UsageError(f"--set: expected NAME=VALUE such as controller.tick=2s, got '{name}'")
    return {name: parse_value(value) for name, _, value in pairs}


def setting(value: Any) -> str:
    """A value without spaces: ``-`` for none, ``[a,b]`` for lists, numbers as short as they are."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return "[" + ",".join(map(setting, value)) + "]"
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _under(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith((f"{prefix}.", f"{prefix}["))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
