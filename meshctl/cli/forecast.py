"""``meshctl forecast``: what demand is expected, by which model, and whether it may act."""

from __future__ import annotations

import click

from meshctl.cli import client
from meshctl.cli import output as out
from meshctl.cli.options import connection_options, output_option
from meshctl.cli.output import Column, Row
from meshctl.errors import UsageError


@click.group()
def forecast() -> None:
    """Read the forecasts of demand."""


@forecast.command()
@click.argument("service", required=False)
@output_option()
@connection_options()
def show(service: str | None, output: str) -> None:
    """Show the newest forecast of SERVICE, or of every service. Rates are requests per second.

    NEXT is the median and UPPER the 95 % quantile of the next step, PEAK the largest upper value over the horizon. -o
    wide adds each model's skill against repeating the last value (above 0 is better) and why the model may act or
    not.
    """
    document = client.get("/v1/forecasts", service=service)
    if service and not document["forecasts"]:
        raise UsageError(f"no forecast of service {service!r}; `meshctl service list` shows the names")
    out.show(document, document["forecasts"], FORECAST_COLUMNS, output)


def at(row: Row, step: int, quantile: float) -> float | None:
    """The value of ``quantile`` in ``step`` (0 is the next one); None where the forecast does not have it."""
    if quantile not in row["quantiles"] or step >= len(row["values"]):
        return None
    return float(row["values"][step][row["quantiles"].index(quantile)])


def _peak(row: Row) -> float | None:
    values = [at(row, step, 0.95) for step in range(len(row["values"]))]
    return max((value for value in values if value is not None), default=None)


def _horizon(row: Row) -> str | None:
    return out.age(len(row["values"]) * row["step"])


def _skill(row: Row) -> str:
    return ",".join(f"{name}={out.cell_text(value)}" for name, value in sorted((row.get("skill") or {}).items()))


FORECAST_COLUMNS = (
    Column("NAME", lambda row: row["service"]),
    Column("MODEL", lambda row: row["model"]),
    Column("SKILLED", lambda row: row["skilled"]),
    Column("NEXT", lambda row: at(row, 0, 0.5)),
    Column("UPPER", lambda row: at(row, 0, 0.95)),
    Column("PEAK", _peak),
    Column("HORIZON", _horizon),
    Column("SKILL", _skill, wide=True),
    Column("AGE", lambda row: out.age(row["age"])),
    Column("REASON", lambda row: row["reason"], wide=True),
)
