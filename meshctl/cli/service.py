"""``meshctl service``: the services of the mesh, as their callers' sidecars see them."""

from __future__ import annotations

import click

from meshctl.cli import client
from meshctl.cli import output as out
from meshctl.cli.options import connection_options, output_option
from meshctl.cli.output import Column, Row


@click.group()
def service() -> None:
    """Inspect the services of the mesh."""


@service.command("list")
@output_option()
@connection_options()
def list_(output: str) -> None:
    """List the services: replicas, demand, latency, limit and forecast. Rates are requests per second."""
    document = client.get("/v1/services")
    out.show(document, document["services"], SERVICE_COLUMNS, output)


def _replicas(row: Row) -> str:
    return f"{row['ready']}/{row['desired']}"


def _forecast(row: Row) -> float | None:
    return row["forecast"]["expected"] if row.get("forecast") else None


def _upper(row: Row) -> float | None:
    return row["forecast"]["upper"] if row.get("forecast") else None


def _model(row: Row) -> str | None:
    return row["forecast"]["model"] if row.get("forecast") else None


def _slo(row: Row) -> str | None:
    return out.percent((row.get("slo") or {}).get("good_ratio"))


SERVICE_COLUMNS = (
    Column("NAME", lambda row: row["name"]),
    Column("READY", _replicas),
    Column("DEMAND", lambda row: row["demand"]),
    Column("ERRORS", lambda row: row["errors"]),
    Column("P50", lambda row: out.seconds(row["p50"]), wide=True),
    Column("P99", lambda row: out.seconds(row["p99"])),
    Column("LIMIT", lambda row: row["limit"]),
    Column("FORECAST", _forecast),
    Column("UPPER", _upper, wide=True),
    Column("MODEL", _model, wide=True),
    Column("GOOD", _slo),
    Column("IN-FLIGHT", lambda row: row["in_flight"], wide=True),
    Column("REJECTED", lambda row: row["rate_limited"], wide=True),
    Column("CPU", lambda row: row["cpu"], wide=True),
)
