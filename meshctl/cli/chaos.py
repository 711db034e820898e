"""``meshctl chaos``: experiments that inject faults into a random part of the traffic, their verdicts and scores."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshctl.cli import client
from meshctl.cli import output as out
from meshctl.cli.options import connection_options, dry_run_option, output_option
from meshctl.cli.output import Column, Row
from meshctl.errors import UsageError

if TYPE_CHECKING:
    from chaos.client import Api
    from chaos.experiment import Experiment
    from chaos.verdict import ExperimentResult

EXIT_CODES = {"passed": 0, "deviated": 1, "inconclusive": 1}
FAILED = 70


class Duration(click.ParamType[float]):
    """Seconds, written as 400ms, 10s, 2m or a bare number."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from chaos.experiment import parse_duration

        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group()
def chaos() -> None:
    """Run experiments that inject faults, and read their scores."""


@chaos.command("list")
@output_option()
@connection_options()
def list_(output: str) -> None:
    """List the experiments, newest first. The score goes from 0 to 100; LOWER is its lower bound."""
    document = client.get("/v1/experiments")
    out.show(document, document["experiments"], EXPERIMENT_COLUMNS, output)


@chaos.command()
@click.argument("experiment_id", metavar="ID")
@output_option("table", "json", "yaml")
@connection_options()
def show(experiment_id: str, output: str) -> None:
    """Show experiment ID: its verdict, what was injected, both arms, and the score factor by factor."""
    document = client.get(f"/v1/experiments/{client.segment(experiment_id)}")
    show_experiment(document, output)


@chaos.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--service", metavar="SERVICE", help="The service under fault.")
@click.option("--entry", metavar="SERVICE", help="The service whose users are watched.")
@click.option("--percent", type=click.IntRange(1, 100), help="Share of the arm's requests hit [default: 30].")
@click.option("--treatment", type=click.IntRange(1, 99), help="Share of user requests in the arm [default: 50].")
@click.option("--duration", type=Duration(), help="Length of each fault [default: 10s].")
@click.option("--delay", type=Duration(), help="What the delay adds [default: 400ms].")
@click.option("--deadline", type=Duration(), help="Give up after this long [default: 60s more than it needs].")
@click.option(
    "--wait", type=Duration(), default="30s", show_default=True, help="Wait so long for a steady state first."
)
@dry_run_option
@output_option("table", "json", "yaml")
@connection_options()
def run(file: Path | None, deadline: float | None, wait: float, dry_run: bool, output: str, **given: Any) -> None:
    """Run the experiment of FILE, or the standard one: abort, then delay, in --service as users of --entry feel it.

    Exit codes: 0 passed; 1 deviated or inconclusive; 69 the control plane is unreachable; 124 deadline; 130
    interrupted. The faults end with the command; if it dies, their lease ends them. --dry-run prints the Chaos
    Toolkit experiment.
    """
    with client.translated():
        experiment = _experiment(file, given)
    if dry_run:
        _print_toolkit(experiment, output)
        return
    document = _run(experiment, deadline, wait)
    show_experiment(document, output)
    click.get_current_context().exit(EXIT_CODES.get(document["status"], FAILED))


def show_experiment(document: Mapping[str, Any], form: str) -> None:
    """Print an experiment as GET /v1/experiments/{id} answers it."""
    if form == "table":
        click.echo(description(document), nl=False)
    else:
        out.show_document(document, form)


def description(document: Mapping[str, Any]) -> str:
    """The verdict, the findings, the arms of every fault, and the factors of every score."""
    result = document.get("result") or {}
    faults = [fault for fault in result.get("faults") or [] if fault["id"] is not None]
    parts = [out.fields(_heading(document, result))]
    if result.get("findings"):
        parts.append(out.table(result["findings"], FINDING_COLUMNS))
    if faults:
        parts.append(out.table(faults, FAULT_COLUMNS))
        parts += [f"No verdict on {fault['kind']}: {fault['problem']}\n" for fault in faults if fault.get("problem")]
    parts += [_factors(fault) for fault in faults if fault.get("score")]
    return "\n".join(parts)


def _heading(document: Mapping[str, Any], result: Mapping[str, Any]) -> list[tuple[str, object]]:
    lower = result.get("score_lower")
    score = None if lower is None else f"{result['score']:g} of 100, at least {lower:g} with 95 % confidence"
    return [
        ("Name", document["id"]),
        ("Title", document["title"]),
        ("Status", _status(document)),
        ("Reason", result.get("reason")),
        ("Score", score),
        ("Lasted", None if document.get("ended") is None else out.age(document["ended"] - document["started"])),
    ]


def _factors(fault: Mapping[str, Any]) -> str:
    score = fault["score"]
    heading = f"Score of {fault['kind']}: {score['value']:g}, at least {score['lower']:g}\n"
    return heading + out.table(score["factors"], FACTOR_COLUMNS)


def _experiment(file: Path | None, given: Mapping[str, Any]) -> Experiment:
    from chaos.experiment import from_mapping, standard

    stated = {name: value for name, value in given.items() if value is not None}
    if file is not None:
        if stated:
            raise UsageError(f"FILE already says it all: leave out --{min(stated)}, or leave out FILE")
        return from_mapping(_read(file))
    for name in ("service", "entry"):
        if name not in stated:
            raise UsageError(f"--{name} is missing; name it, or a FILE with an experiment")
    settings = {"percent": 30, "treatment": 50, "duration": 10.0, "delay": 0.4, **stated}
    return standard(treatment_percent=settings.pop("treatment"), **settings)


def _read(file: Path) -> object:
    import yaml

    try:
        return yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{file}: no readable YAML: {error}") from error


def _print_toolkit(experiment: Experiment, output: str) -> None:
    from chaos.experiment import to_chaostoolkit

    out.show_document(to_chaostoolkit(experiment, client.api().config), "yaml" if output == "yaml" else "json")


def _run(experiment: Experiment, deadline: float | None, wait: float) -> dict[str, Any]:
    """Register, run, store. The stored status is never left at "running" by an error that can still be reported."""
    with _terminable(), client.translated():
        api = client.api()
        created = api.post("/v1/experiments", {"title": experiment.title, "spec": experiment.document()})
        path = f"/v1/experiments/{client.segment(created['id'])}"
        try:
            result = _execute(experiment, api, created["id"], deadline, wait)
        except BaseException as error:
            _store_failure(api, path, error)
            raise
        api.patch(path, {"status": result.status, "result": result.document()})
    return _document(experiment, created["id"], result)


def _execute(
    experiment: Experiment, api: Api, experiment_id: int | str, deadline: float | None, wait: float
) -> ExperimentResult:
    import numpy as np

    from chaos.runner import run as run_experiment

    return run_experiment(
        experiment,
        api.config,
        experiment_id=experiment_id,
        progress=out.say,
        generator=np.random.default_rng(0),  # the same evidence gives the same bound
        deadline=deadline,
        patience=wait,
    )


def _document(experiment: Experiment, experiment_id: object, result: ExperimentResult) -> dict[str, Any]:
    return {
        "id": experiment_id,
        "title": experiment.title,
        "status": result.status,
        "started": result.started,
        "ended": result.ended,
        "score": result.score,
        "result": result.document(),
    }


def _store_failure(api: Api, path: str, error: BaseException) -> None:
    from chaos.errors import ChaosError

    reason = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
    with suppress(ChaosError):
        api.patch(path, {"status": "failed", "result": {"status": "failed", "reason": reason}})


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends an experiment as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _status(row: Row) -> str:
    moment = row.get("ended") or row.get("started")
    return out.state(str(row["status"]).upper(), None if moment is None else out.clock() - moment)


def _of_spec(name: str) -> Column:
    return Column(name.upper(), lambda row: (row.get("spec") or row.get("result") or {}).get(name))


def _arm(name: str) -> Column:
    def cell(row: Row) -> str:
        arm = row["arms"][name]
        return f"{arm['bad']}/{arm['requests']}"

    return Column(name.upper(), cell)


def _interval(row: Row) -> str:
    low, high = row["interval"]
    return f"{100 * row['difference']:+.1f}%[{100 * low:+.1f},{100 * high:+.1f}]"


EXPERIMENT_COLUMNS = (
    Column("NAME", lambda row: row["id"]),
    Column("STATUS", _status),
    Column("SCORE", lambda row: row.get("score")),
    Column("LOWER", lambda row: (row.get("result") or {}).get("score_lower")),
    _of_spec("service"),
    _of_spec("entry"),
    Column("AGE", lambda row: out.since(row["started"])),
    Column("TITLE", lambda row: row["title"], wide=True),
)

FINDING_COLUMNS = (
    Column("HOLDS", lambda row: "unknown" if row["holds"] is None else row["holds"]),
    Column("STATEMENT", lambda row: row["statement"]),
)

FAULT_COLUMNS = (
    Column("FAULT", lambda row: row["kind"]),
    Column("INJECTED", lambda row: row["injected"]),
    Column("SHARE", lambda row: out.percent(row["traffic_share"])),
    Column("EXPECTED", lambda row: out.percent(row["expected_loss"])),
    _arm("treatment"),
    _arm("control"),
    Column("DIFFERENCE", _interval),
)

FACTOR_COLUMNS = (
    Column("FACTOR", lambda row: row["name"]),
    Column("VALUE", lambda row: float(row["value"])),
    Column("WEIGHT", lambda row: float(row["weight"])),
    Column("REASON", lambda row: row["reason"]),
)
