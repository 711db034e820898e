"""``meshctl status``, ``pause`` and ``resume``: the control plane as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from meshctl.cli import client
from meshctl.cli import output as out
from meshctl.cli.options import connection_options, dry_run_option, output_option

#: States of a rollout that wait for a person.
_REFUSED = ("rolled-back", "refused")


@click.command()
@output_option("table", "json", "yaml")
@connection_options()
@click.pass_context
def status(ctx: click.Context, output: str) -> None:
    """Show the state of the control plane.

    The exit code is 1 when a proxy is missing, a configuration was refused, or the mesh file on disk could not be
    loaded.
    """
    document = client.get("/v1/status")
    if output == "table":
        click.echo(out.fields(summary(document)), nl=False)
    else:
        out.show_document(document, output)
    ctx.exit(0 if healthy(document) else 1)


@click.command()
@click.option("--reason", default="", metavar="TEXT", help="Why; recorded with the event.")
@dry_run_option
@connection_options()
def pause(reason: str, dry_run: bool) -> None:
    """Stop acting on plans; observing, forecasting and leases of what is in force go on."""
    _switch("pause", "paused", {"reason": reason}, dry_run)


@click.command()
@dry_run_option
@connection_options()
def resume(dry_run: bool) -> None:
    """Act on plans again."""
    _switch("resume", "resumed", {}, dry_run)


def healthy(document: Mapping[str, Any]) -> bool:
    """Every expected proxy is connected, nothing was refused, and the mesh file on disk is the one in force."""
    proxies = document["proxies"]
    refused = any(one["state"] in _REFUSED for one in document["rollouts"])
    return bool(proxies["connected"] >= proxies["expected"] and not refused and not document["config"]["error"])


def summary(document: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Name and value of every line of the table."""
    tick, model = document["tick"], document["model"]
    return [
        ("Name", document["name"]),
        ("Version", document["version"]),
        ("Status", _state(document)),
        ("Uptime", out.since(document["started"])),
        ("Policy", document["policy"] + (" (dry run: nothing is applied)" if document["dry_run"] else "")),
        ("Proxies", f"{document['proxies']['connected']}/{document['proxies']['expected']} connected"),
        ("Tick", f"{tick['count']} every {out.age(tick['interval'])}, {_latencies(tick)}"),
        ("Model", " ".join(filter(None, [model["state"], "(cached)" if model.get("cached") else "", model["detail"]]))),
        ("Forecasts", document["forecasts"]),
        ("Decisions", _counts(document["decisions"])),
        ("Pushes", _counts(document["pushes"])),
        ("Nacks", _counts(document["nacks"])),
        ("Heartbeats", document["heartbeats"]),
        *(("Rollout", _rollout(one)) for one in document["rollouts"]),
        ("Config", _config(document["config"])),
    ]


def _switch(verb: str, done: str, body: Mapping[str, object], dry_run: bool) -> None:
    name = client.get("/v1/status")["name"]
    if not dry_run:
        client.post(f"/v1/{verb}", body)
    click.echo(f"mesh/{name} {done}" + (" (dry run)" if dry_run else ""))


def _state(document: Mapping[str, Any]) -> str:
    if document["paused"]:
        return "PAUSED"
    return "READY" if healthy(document) else "DEGRADED"


def _latencies(tick: Mapping[str, Any]) -> str:
    values = ((name, tick.get(f"{name}_ms")) for name in ("last", "p50", "p99"))
    return " ".join(f"{name}={'-' if value is None else f'{value:.0f}ms'}" for name, value in values)


def _counts(counts: Mapping[str, int]) -> str:
    return " ".join(f"{name}={counts[name]}" for name in sorted(counts)) or "0"


def _rollout(one: Mapping[str, Any]) -> str:
    """A group whose newest configuration not every proxy has."""
    types, age = ",".join(one["types"]), out.age(one["age"])
    if one["state"] == "trying":
        return f"{one['group']} {types}: {one['canary'] or 'no proxy'} tries it ({age}), {one['waiting']} wait"
    if one["state"] == "validating":
        return f"{one['group']} {types}: validating ({age})"
    by = one["canary"] or "envoy --mode validate"
    return f"{one['group']} {types}: {one['state'].upper()}({age}) by {by}: {one['error']}"


def _config(config: Mapping[str, Any]) -> str:
    loaded = out.since(config["loaded"])
    text = f"{config['file']} (loaded {loaded} ago)" if loaded else str(config["file"])
    return f"{text}; the file on disk is not in force: {config['error']}" if config["error"] else text
