"""``meshctl demo``: a mesh with real sidecars on this machine. Its room, :mod:`meshctl.demo`, is imported inside the
command.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

POLICIES = ("static", "reactive", "predictive")


class Moment(click.ParamType[datetime]):
    """A moment of the trace, ISO 8601."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"expected a time such as 1995-07-26T10:45Z, got {value!r}", param, ctx)


def _positive(maximum: float) -> click.FloatRange:
    return click.FloatRange(min=0, min_open=True, max=maximum)


@click.command()
@click.option("--duration", type=_positive(86400), default=180.0, show_default=True, help="Seconds of load.")
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write report.json and report.html.",
)
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="CSV of timestamp,value to replay, gzipped or not [default: NASA-HTTP, July 1995].",
)
@click.option("--from", "start", type=Moment(), metavar="TIME", help="Where the replay starts in the trace.")
@click.option("--speedup", type=_positive(1e6), default=60.0, show_default=True, help="How much faster than recorded.")
@click.option(
    "--rate",
    type=_positive(1e5),
    default=25.0,
    show_default=True,
    help="Mean requests per second, after a start of 20 s.",
)
@click.option("--arrivals", type=click.Choice(("poisson", "even")), default="poisson", show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Makes arrivals and kinds of requests repeatable.")
@click.option("--policy", type=click.Choice(POLICIES), help="How replicas are chosen [default: predictive].")
@click.option("--train-seconds", type=click.FloatRange(min=0), help="CPU time for training; 0: no model [default: 20].")
@click.option("--chaos/--no-chaos", default=True, show_default=True, help="Run an experiment meanwhile.")
@click.option(
    "--chaos-at",
    type=click.FloatRange(0, 1),
    default=0.55,
    show_default=True,
    help="When, as a share of the duration; earlier if there is too little time.",
)
@click.option(
    "--keep-state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep logs, bootstraps and history there, and trained models for the next run.",
)
def demo(arrivals: str, **given: Any) -> None:
    """Run a mesh with real sidecars on this machine: services, Envoys, the control plane, and load from a trace.

    \b
    Exit codes: 0 the mesh ran as meant; 1 it did not (a sidecar not connected, a NACK, the load or the experiment
    did not finish); 2 usage; 130 interrupted. Nothing keeps running.
    """
    from meshctl.demo.command import demo as run
    from meshctl.demo.setup import Options

    code = run(Options(even=arrivals == "even", **given), lambda line: click.echo(line, err=True))
    click.get_current_context().exit(code)
