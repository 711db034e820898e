"""``meshctl forecast``: what demand is expected, by which model, whether it may act, and how models are replaced."""

from __future__ import annotations

from pathlib import Path

import click

from meshctl.cli import client
from meshctl.cli import output as out
from meshctl.cli.backtest import backtest
from meshctl.cli.options import connection_options, dry_run_option, mesh_file_option, output_option
from meshctl.cli.output import Column, Row
from meshctl.errors import UsageError


@click.group()
def forecast() -> None:
    """Read forecasts; train, list and exchange their models."""


forecast.add_command(backtest)


@forecast.command()
@click.argument("service", required=False)
@click.option(
    "--span",
    type=click.Choice(("ticks", "1h", "1d")),
    default="ticks",
    show_default=True,
    help="How far ahead: the next ticks, an hour, or a day in coarser steps.",
)
@output_option()
@connection_options()
def show(service: str | None, span: str, output: str) -> None:
    """Show the newest forecast of SERVICE, or of every service. Rates are requests per second.

    NEXT is the median and UPPER the 95 % quantile of the next step, PEAK the largest upper value over the horizon.
    SKILLED says whether the mixture of models may act on any step; elsewhere it is last value. -o wide adds the models'
    weights, the calls that a request of each caller causes (with their standard error), each gate (steps, open or
    closed, skill against last value, and for how long it has stood so), the share of values at or below the 0.95
    quantile, and the last drift of demand since the models were trained.

    With --span, NEXT is the next step of that span (of length STEP). Medians agree: a minute's is the mean of its
    ticks', a quarter of an hour's that of its minutes'. A span for which a replay's days are too short is refused.
    """
    document = client.get("/v1/forecasts", service=service)
    if service and not document["forecasts"]:
        raise UsageError(f"no forecast of service {service!r}; `meshctl service list` shows the names")
    if span == "ticks":
        out.show(document, document["forecasts"], FORECAST_COLUMNS, output)
        return
    if span in document["skipped"]:
        raise UsageError(f"no forecasts of {span}: {document['skipped'][span]}")
    rows = [{"service": row["service"], **one} for row in document["forecasts"] for one in row["outlook"]]
    rows = [row for row in rows if row["span"] == span]
    out.show({"span": span, "forecasts": rows}, rows, OUTLOOK_COLUMNS, output)


@forecast.command()
@output_option()
@connection_options()
def models(output: str) -> None:
    """List the generations of trained models, newest first.

    ERROR is each generation's own as a share of last value's (below 1 is better), over the newest past, from which
    it has not learned; RATIO that of its error to the champion's of the time, on the same values. -o wide says why it
    was trained, or what is wrong with it.
    """
    document = client.get("/v1/models")
    out.show(document, document["generations"], MODEL_COLUMNS, output)


@forecast.command()
@output_option()
@connection_options()
def history(output: str) -> None:
    """List the changes of the models in use, newest first."""
    document = client.get("/v1/models")
    out.show(document, document["swaps"], SWAP_COLUMNS, output)


@forecast.command()
@click.option("--reason", default="", metavar="TEXT", help="Why; recorded with the change.")
@dry_run_option
@connection_options()
def undo(reason: str, dry_run: bool) -> None:
    """Go back to the models that were in use before these."""
    if dry_run:
        found = client.get("/v1/models")
        if found["previous"] is None:
            raise UsageError("there is nothing to go back to; `meshctl forecast history` shows the changes")
        click.echo(f"models/gen-{found['champion']} would be replaced by gen-{found['previous']} (dry run)")
        return
    swap = client.post("/v1/models/undo", {"reason": reason})
    click.echo(f"models/gen-{swap['before']} replaced by gen-{swap['after']}")


@forecast.command()
@mesh_file_option
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="CPU time [default: train_seconds].")
@dry_run_option
def train(config_path: Path, seconds: float | None, dry_run: bool) -> None:
    """Train models now, in this process, on what the mesh's state directory holds (or on the seed trace).

    The result is a new generation. It is promoted if it wins against the champion, and a running control plane then
    takes it up. Exits with 1 if it is not promoted.
    """
    from meshctl.control import offline_training

    material = offline_training.material(config_path)
    if dry_run:
        click.echo(f"models would be trained on {material.text} (dry run)")
        return
    from meshctl.server.progress import Progress

    text, promoted = offline_training.train(material, seconds, Progress("training"))
    click.echo(text)
    raise SystemExit(0 if promoted else 1)


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


def _weights(row: Row) -> str:
    shares = sorted(row["weights"].items(), key=lambda item: (-item[1], item[0]))
    return ",".join(f"{name}={share:.2f}" for name, share in shares)


def _callers(row: Row) -> str | None:
    """``frontend=1.20(0.01)``: calls per request of the caller and their standard error, the most first."""
    measured = sorted(row["callers"].items(), key=lambda item: (-item[1]["ratio"], item[0]))
    return ",".join(f"{name}={one['ratio']:.2f}({one['error']:.2f})" for name, one in measured) or None


def _gates(row: Row) -> str:
    return ",".join(_gate(gate) for gate in row["gates"])


def _gate(gate: Row) -> str:
    """``2-5:open(+0.12,3m)``: steps, state, skill, and for how long."""
    skill = "-" if gate["skill"] is None else f"{gate['skill']:+.2f}"
    return f"{gate['steps']}:{'open' if gate['open'] else 'closed'}({skill},{out.since(gate['since']) or '-'})"


def _drift(row: Row) -> str | None:
    """``level(+0.35,2h)``: cause, size, and since when."""
    drift = row["drift"]
    if drift is None:
        return None
    return f"{drift['cause'].replace(' ', '-')}({drift['size']:+.2f},{out.since(drift['since'])})"


def _error(row: Row) -> str | None:
    """The best model's error one step ahead."""
    steps = [scored.get("h1") or {} for scored in (row["scores"] or {}).values()]
    return min((one["relative_wape"] for one in steps if one.get("relative_wape") is not None), default=None)


def _against(row: Row) -> str | None:
    contest = row["contest"]
    return contest and f"gen-{contest['champion']}"


_EXPECTED = (
    Column("NAME", lambda row: row["service"]),
    Column("MODEL", lambda row: row["model"]),
    Column("SKILLED", lambda row: row["skilled"]),
    Column("NEXT", lambda row: at(row, 0, 0.5)),
    Column("UPPER", lambda row: at(row, 0, 0.95)),
    Column("PEAK", _peak),
)
"""What is expected, at any span."""

FORECAST_COLUMNS = (
    *_EXPECTED,
    Column("HORIZON", _horizon),
    Column("WEIGHTS", _weights, wide=True),
    Column("CALLERS", _callers, wide=True),
    Column("GATES", _gates, wide=True),
    Column("COVERAGE", lambda row: out.percent(row["coverage"]), wide=True),
    Column("DRIFT", _drift, wide=True),
    Column("AGE", lambda row: out.age(row["age"])),
    Column("REASON", lambda row: row["reason"], wide=True),
)

OUTLOOK_COLUMNS = (
    *_EXPECTED,
    Column("STEP", lambda row: out.age(row["step"])),
    Column("HORIZON", _horizon),
    Column("WEIGHTS", _weights, wide=True),
    Column("GATES", _gates, wide=True),
    Column("COVERAGE", lambda row: out.percent(row["coverage"]), wide=True),
    Column("AGE", lambda row: out.age(row["age"])),
    Column("REASON", lambda row: row["reason"], wide=True),
)

MODEL_COLUMNS = (
    Column("NAME", lambda row: f"gen-{row['generation']}"),
    Column("STATE", lambda row: row["state"].upper()),
    Column("SERIES", lambda row: len(row["series"])),
    Column("ERROR", _error),
    Column("AGAINST", _against),
    Column("RATIO", lambda row: row["contest"] and row["contest"]["ratio"]),
    Column("SECONDS", lambda row: row["seconds"], wide=True),
    Column("AGE", lambda row: out.since(row["trained"])),
    Column("REASON", lambda row: row["error"] or row["reason"], wide=True),
)

SWAP_COLUMNS = (
    Column("NAME", lambda row: f"swap-{row['sequence']}"),
    Column("KIND", lambda row: row["kind"]),
    Column("FROM", lambda row: None if row["before"] is None else f"gen-{row['before']}"),
    Column("TO", lambda row: f"gen-{row['after']}"),
    Column("RATIO", lambda row: (row["scores"].get("contest") or {}).get("ratio")),
    Column("AGE", lambda row: out.since(row["time"])),
    Column("REASON", lambda row: row["reason"], wide=True),
)
