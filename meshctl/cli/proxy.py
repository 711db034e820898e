"""``meshctl proxy``: the sidecars, and the configuration that they were sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from meshctl.cli import client
from meshctl.cli import output as out
from meshctl.cli.options import connection_options, output_option
from meshctl.cli.output import Column, Row

TYPES = ("cds", "eds", "lds", "rds", "rtds")
#: Worst first: a proxy is as bad as its worst type.
STATES = ("NACKED", "STALE", "NOT-SENT", "SYNCED")
KINDS = (
    *("cluster", "listener", "route", "endpoint", "runtime"),
    *("secret", "extension", "scoped-route", "virtual-host"),
)


@click.group()
def proxy() -> None:
    """Inspect the sidecars and their configuration."""


@proxy.command("list")
@output_option()
@connection_options()
def list_(output: str) -> None:
    """List the sidecars and whether each has what it was sent."""
    document = client.get("/v1/proxies")
    show_proxies(document, output)


def show_proxies(document: Mapping[str, Any], form: str) -> None:
    """Print GET /v1/proxies."""
    out.show(document, document["proxies"], PROXY_COLUMNS, form)


@proxy.command()
@click.argument("node")
@output_option()
@connection_options()
def describe(node: str, output: str) -> None:
    """Show NODE's state, versions and ages, type by type."""
    show_proxy(client.get(f"/v1/proxies/{client.segment(node)}"), output)


def show_proxy(document: Mapping[str, Any], form: str) -> None:
    """Print GET /v1/proxies/{node}."""
    if form in {"table", "wide"}:
        click.echo(out.fields((column.title.capitalize(), column.cell(document)) for column in _ABOUT))
    rows = [{"type": name, **kind} for name, kind in sorted(document["types"].items())]
    out.show(document, rows, TYPE_COLUMNS, form)


@proxy.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("node")
@output_option()
@connection_options()
def config(kind: str, node: str, output: str) -> None:
    """Show the resources of one KIND that NODE was sent.

    -o json holds whole resources, as Envoy's own API prints them.
    """
    document = client.get(f"/v1/proxies/{client.segment(node)}/config/{kind}")
    show_config(document, kind, output)


def show_config(document: Mapping[str, Any], kind: str, form: str) -> None:
    """Print GET /v1/proxies/{node}/config/{kind}."""
    if kind == "runtime" and form in {"table", "wide"}:
        rows = [row for resource in document["resources"] for row in _runtime_rows(resource)]
        out.show(document, rows, RUNTIME_COLUMNS, form)
    else:
        out.show(document, document["resources"], RESOURCE_COLUMNS, form)


def status(row: Row) -> str:
    """The worst state over all types with its age; the newest one's where all are synced."""
    if not row["connected"]:
        return out.state("DISCONNECTED", _elapsed(row["since"]))
    worst = _worst(row)
    ages = [age for kind in row["types"].values() if kind["state"] == worst and (age := _age(kind)) is not None]
    oldest = min(ages, default=None) if worst == "SYNCED" else max(ages, default=None)
    return out.state(worst, oldest)


def _age(kind: Row) -> float | None:
    """For how long a type has been as it is: what is behind counts from the first change that it lacks."""
    behind = kind.get("behind")
    return kind.get("age") if behind is None else behind


def _worst(row: Row) -> str:
    present = {kind["state"] for kind in row["types"].values()}
    return next((name for name in STATES if name in present), "NOT-SENT")


def _elapsed(moment: float | None) -> float | None:
    return None if moment is None else out.clock() - moment


def _synced(row: Row) -> str:
    states = [kind["state"] for kind in row["types"].values()]
    return f"{states.count('SYNCED')}/{len(states)}"


def _type_column(name: str) -> Column:
    def cell(row: Row) -> str | None:
        kind = row["types"].get(name)
        return None if kind is None else out.state(kind["state"], _age(kind))

    return Column(name.upper(), cell, wide=True)


def _errors(row: Row) -> str:
    return "; ".join(f"{name}: {kind['error']}" for name, kind in row["types"].items() if kind.get("error"))


PROXY_COLUMNS = (
    Column("NAME", lambda row: row["node_id"]),
    Column("GROUP", lambda row: row["group"]),
    Column("STATUS", status),
    Column("SYNCED", _synced),
    Column("ENVOY", lambda row: row.get("envoy_version")),
    *map(_type_column, TYPES),
    Column("AGE", lambda row: out.since(row["since"])),
    Column("ERROR", _errors, wide=True),
)

_ABOUT = PROXY_COLUMNS[:3] + PROXY_COLUMNS[4:5] + tuple(column for column in PROXY_COLUMNS if column.title == "AGE")

TYPE_COLUMNS = (
    Column("NAME", lambda row: row["type"]),
    Column("STATUS", lambda row: out.state(row["state"], _age(row))),
    Column("DESIRED", lambda row: row["desired"]),
    Column("SENT", lambda row: row["sent"], wide=True),
    Column("ACKED", lambda row: row["acked"]),
    Column("AGE", lambda row: out.age(row["age"])),
    Column("QUARANTINED", lambda row: ",".join(row["quarantined"]), wide=True),
    Column("ERROR", lambda row: row["error"], wide=True),
)


def _runtime_rows(resource: Row) -> list[Row]:
    values = resource["resource"].get("layer") or {}
    layer = {"layer": resource["name"], "ttl": resource.get("ttl")}
    return [{"key": key, "value": value, **layer} for key, value in values.items()]


def _runtime_value(row: Row) -> object:
    value = row["value"]
    if isinstance(value, Mapping):
        return f"{out.cell_text(value['numerator'])}/{value['denominator']}"
    return out.cell_text(value)


RUNTIME_COLUMNS = (
    Column("NAME", lambda row: row["key"]),
    Column("VALUE", _runtime_value),
    Column("LAYER", lambda row: row["layer"]),
    Column("TTL", lambda row: out.age(row["ttl"])),
)

RESOURCE_COLUMNS = (
    Column("NAME", lambda row: row["name"]),
    Column("VERSION", lambda row: row["version"]),
    Column("TTL", lambda row: out.age(row.get("ttl"))),
)
