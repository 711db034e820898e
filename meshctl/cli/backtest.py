"""``meshctl forecast backtest``: how well would each model have forecast what is already known?

The work is :func:`forecasting.evaluate.report.evaluate`. Series come in by :mod:`meshctl.cli.backtest_series`; what was
found is gathered by :mod:`meshctl.cli.backtest_results`, and goes out here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from meshctl.cli import backtest_results, backtest_series
from meshctl.cli import output as out
from meshctl.cli.options import output_option
from meshctl.cli.output import Column
from meshctl.cli.parameters import Duration, Moment
from meshctl.errors import MeshctlError, UsageError

if TYPE_CHECKING:
    from forecasting.calendar import Holidays
    from forecasting.evaluate.report import Settings

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)

USUAL = ("last", "last+residuals", "seasonal_naive", "ewma", "mixture")
"""As ``forecasting.evaluate.contest`` has it; written out, since ``--help`` waits for no library."""


@click.command(
    epilog="Example: meshctl forecast backtest --csv shop.csv --horizon 12 --html shop.html --resume .backtest"
)
@click.option("--csv", "files", multiple=True, type=_FILE, metavar="FILE", help="CSV of timestamp,value; repeatable.")
@click.option("--prometheus", metavar="URL", help="Prometheus to ask; needs --query, --start, --end, --step.")
@click.option("--query", metavar="PROMQL", help="What to ask it: one series per result.")
@click.option("--start", type=Moment(), metavar="TIME", help="First moment asked for.")
@click.option("--end", type=Moment(), metavar="TIME", help="Last moment asked for.")
@click.option("--prometheus-token-file", type=_FILE, metavar="FILE", help="File with its bearer token.")
@click.option("--store", type=_FOLDER, metavar="DIR", help="State directory of a control plane: demand that it saw.")
@click.option("--service", "services", multiple=True, metavar="SERVICE", help="Only this one of --store; repeatable.")
@click.option("--step", type=Duration(), help="Time between two values [default: as in the data].")
@click.option(
    "--models", metavar="NAMES", default="", help=f"Models, separated by commas [default: {', '.join(USUAL)}]."
)
@click.option("--horizon", type=click.IntRange(1, 1000), default=12, show_default=True, help="Steps to look ahead.")
@click.option("--season", type=click.IntRange(min=1), metavar="STEPS", help="Steps of one day [default: 24h/step].")
@click.option("--holidays", "place", metavar="COUNTRY", help="Public holidays, such as DE or DE-BE (ISO 3166).")
@click.option("--zone", metavar="ZONE", help="Whose clocks --holidays go by [default: UTC].")
@click.option("--origins", type=click.IntRange(1, 100_000), default=400, show_default=True, help="Most per series.")
@click.option("--json", "json_file", type=_FILE, metavar="OUT", help="Also write the whole report as JSON.")
@click.option("--html", "html_file", type=_FILE, metavar="OUT", help="Also write the report as a page with pictures.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Who works.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes at once [default: one per core].")
@click.option("--resume", type=_FOLDER, metavar="DIR", help="Keep finished series there; do not compute them again.")
@output_option("table", "wide", "json", "yaml")
def backtest(
    *,
    models: str,
    horizon: int,
    season: int | None,
    place: str | None,
    zone: str | None,
    origins: int,
    json_file: Path | None,
    html_file: Path | None,
    engine: Literal["local", "ray"],
    jobs: int | None,
    resume: Path | None,
    output: str,
    **source: Any,
) -> None:
    """Score forecasts of known series against what came.

    Every model forecasts the newest fifth of a series from many origins, each time from the values before it. Give
    one source: --csv, --prometheus or --store. RELATIVE is the error as a share of last value's (below 1 is
    better), COVER-90 the share of values at or below the 0.9 quantile, WORST-90 the same in the worst 200 origins in
    a row. The rows ALL(n) are geometric means over the n series; their WORST is the worst of all. -o wide shows more.

    A line that is missing in a CSV is a gap. Times are ISO 8601 or seconds since the epoch. Further columns were
    measured beside the value, such as orders; they, and what a --store has beside demand, are told to the models
    mixture and covariates. So are public holidays.
    """
    for option, file in (("--json", json_file), ("--html", html_file)):
        _check_folder(option, file)
    with _translated():
        settings = _settings(models, horizon, origins, _holidays(place, zone))
        series = backtest_series.long_enough(backtest_series.series_of(source, season), horizon)
        report = backtest_results.report(series, settings, resume, backtest_results.Workers(engine, jobs))
        document = report.document()
        if json_file is not None:
            _write(json_file, json.dumps(document, allow_nan=False) + "\n", "--json")
        if html_file is not None:
            from forecasting.evaluate.page import render

            _write(html_file, render(report, f"Backtest of {len(series)} series"), "--html")
    out.show(document, report.rows(), COLUMNS, output)


def _settings(models: str, horizon: int, origins: int, holidays: Holidays | None) -> Settings:
    from forecasting.evaluate.contest import contestants
    from forecasting.evaluate.report import Settings

    names = [name.strip() for name in models.split(",") if name.strip()]
    return Settings(tuple(one.name for one in contestants(names)), horizon, origins, holidays)


def _holidays(place: str | None, zone: str | None) -> Holidays | None:
    """The public holidays of ``COUNTRY`` or ``COUNTRY-SUBDIVISION``."""
    from forecasting.calendar import ZONE, Holidays, SettingError

    if place is None:
        if zone is not None:
            raise UsageError("--zone says whose clocks holidays go by; give --holidays as well, or leave it out")
        return None
    country, _, subdivision = place.partition("-")
    try:
        return Holidays(country, subdivision or None, zone or "UTC")
    except SettingError as error:
        raise UsageError(f"{'--zone' if error.setting == ZONE else '--holidays'}: {error.problem}") from error


def _check_folder(option: str, file: Path | None) -> None:
    """Before the work, not after it."""
    if file is not None and not file.absolute().parent.is_dir():
        raise UsageError(f"cannot write {file}: there is no folder {file.parent}; choose another file for {option}")


def _write(file: Path, text: str, option: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}; choose another file for {option}") from error


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of the library become those of the command line, with their exit codes."""
    from forecasting.engines import MissingEngineError
    from forecasting.errors import ForecastingError
    from forecasting.evaluate.contest import UnknownModelError
    from forecasting.models.prophet import MissingPackageError

    try:
        yield
    except (UnknownModelError, MissingEngineError, MissingPackageError) as error:
        raise UsageError(str(error)) from error
    except ForecastingError as error:
        raise MeshctlError(str(error)) from error


def _of(key: str, title: str, *, wide: bool = False) -> Column:
    return Column(title, lambda row: row[key], wide)


COLUMNS = (
    _of("name", "NAME"),
    _of("model", "MODEL"),
    _of("step", "STEP"),
    _of("wape", "WAPE"),
    _of("relative_wape", "RELATIVE"),
    _of("mase", "MASE", wide=True),
    _of("coverage_90", "COVER-90"),
    _of("worst_window_90", "WORST-90"),
    _of("pinball_90", "PINBALL-90", wide=True),
    _of("relative_pinball_90", "RELATIVE-90", wide=True),
    _of("coverage_99", "COVER-99", wide=True),
    _of("worst_window_99", "WORST-99", wide=True),
    _of("pinball_99", "PINBALL-99", wide=True),
    _of("relative_pinball_99", "RELATIVE-99", wide=True),
    _of("seconds", "SECONDS", wide=True),
)
