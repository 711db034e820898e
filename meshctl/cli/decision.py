"""``meshctl decision``: every number that was chosen, with the reasons that were recorded before it was applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from meshctl.cli import client
from meshctl.cli import output as out
from meshctl.cli.options import connection_options, output_option
from meshctl.cli.output import Column, Row

KINDS = ("replicas", "limit", "rate_limit")
UNITS = {"limit": "requests at once", "rate_limit": "requests per second"}


@click.group()
def decision() -> None:
    """Read what was decided, and why."""


@decision.command("list")
@click.option("--service", metavar="SERVICE", help="Only decisions about SERVICE.")
@click.option("--kind", type=click.Choice(KINDS), help="Only decisions of one kind.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@output_option()
@connection_options()
def list_(service: str | None, kind: str | None, limit: int, output: str) -> None:
    """List the newest decisions."""
    document = client.get("/v1/decisions", limit=limit, service=service, kind=kind)
    out.show(document, document["decisions"], DECISION_COLUMNS, output)


@decision.command()
@click.argument("decision_id", metavar="ID")
@output_option("table", "json", "yaml")
@connection_options()
def explain(decision_id: str, output: str) -> None:
    """Explain decision ID: what went in, what the rule asked for, what the guardrails made of it."""
    document = client.get(f"/v1/decisions/{client.segment(decision_id)}")
    if output == "table":
        click.echo(explanation(document), nl=False)
    else:
        out.show_document(document, output)


def explanation(row: Mapping[str, Any]) -> str:
    """A decision in prose and figures."""
    unit = UNITS.get(row["kind"], "")
    heading = [
        ("Name", row["id"]),
        ("Kind", f"{row['kind']} ({unit})" if unit else row["kind"]),
        ("Subject", row["subject"]),
        ("Tick", row["tick"]),
        ("Age", out.since(row["time"])),
        ("Outcome", row["outcome"]),
        ("Policy", row["policy"]),
        ("Reason", row["reason"]),
    ]
    return out.fields(heading) + _numbers(row) + _guardrails(row) + _inputs(row)


def _numbers(row: Mapping[str, Any]) -> str:
    steps = [("in force before", "previous"), ("the rule asked for", "proposed"), ("after the guardrails", "chosen")]
    return "Formula:\n" + "".join(f"  {name:<22}{out.cell_text(row[key])}\n" for name, key in steps)


def _guardrails(row: Mapping[str, Any]) -> str:
    lines = "".join(f"  {rule}\n" for rule in row.get("guardrails") or ())
    return "Guardrails:\n" + (lines or "  none changed the proposal\n")


def _inputs(row: Mapping[str, Any]) -> str:
    inputs = row.get("inputs") or {}
    width = max((len(name) for name in inputs), default=0) + 3
    lines = "".join(f"  {name:<{width}}{out.cell_text(value)}\n" for name, value in inputs.items())
    return "Inputs:\n" + (lines or "  none were recorded\n")


DECISION_COLUMNS = (
    Column("NAME", lambda row: row["id"]),
    Column("KIND", lambda row: row["kind"]),
    Column("SUBJECT", lambda row: row["subject"]),
    Column("FROM", lambda row: row["previous"]),
    Column("ASKED", lambda row: row["proposed"], wide=True),
    Column("TO", lambda row: row["chosen"]),
    Column("POLICY", lambda row: row["policy"]),
    Column("OUTCOME", lambda row: row["outcome"]),
    Column("GUARDRAILS", lambda row: ",".join(str(rule).split(":")[0] for rule in row["guardrails"]), wide=True),
    Column("AGE", lambda row: out.since(row["time"])),
    Column("REASON", lambda row: row["reason"], wide=True),
)

__all__ = ["Row", "decision", "explanation"]
