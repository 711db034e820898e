"""``meshctl forecast backtest``: how well would each model have forecast what is already known?

The work is :func:`forecasting.evaluate.report.evaluate`; here stand the ways that series come in and results go out.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from meshctl.cli import output as out
from meshctl.cli.options import output_option
from meshctl.cli.output import Column
from meshctl.errors import MeshctlError, UsageError

if TYPE_CHECKING:
    from forecasting.evaluate.report import Report, SeriesReport, Settings
    from forecasting.series import FloatArray, Series

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_DEMAND = "demand/"
_DAY = 86_400.0

#: Longest series, in steps, that a file may make: a wrong year would else ask for all the memory.
_MOST = 5_000_000
#: How far, in steps, a time may lie off the regular grid.
_JITTER = 0.1


class Moment(click.ParamType[float]):
    """A moment, ISO 8601 (UTC where it has no zone) or seconds since the epoch."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return float(value)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(
                f"expected a time such as 2026-01-31T10:45Z or seconds since the epoch, got {value!r}", param, ctx
            )
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class Duration(click.ParamType[float]):
    """Seconds above 0, written as 30s, 5m, 1h or a bare number."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from meshctl.config import parse_duration

        text = str(value)
        try:
            seconds = parse_duration(float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else text)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return seconds if seconds > 0 else self.fail(f"expected more than 0 seconds, got {text!r}", param, ctx)


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
@click.option("--models", metavar="NAMES", default="", help="Models, separated by commas [default: all].")
@click.option("--horizon", type=click.IntRange(1, 1000), default=12, show_default=True, help="Steps to look ahead.")
@click.option("--season", type=click.IntRange(min=1), metavar="STEPS", help="Steps of one day [default: 24h/step].")
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

    A line that is missing in a CSV is a gap. Times are ISO 8601 or seconds since the epoch.
    """
    for option, file in (("--json", json_file), ("--html", html_file)):
        _check_folder(option, file)
    with _translated():
        settings = _settings(models, horizon, origins)
        series = _long_enough(_series(source, season), horizon)
        report = _report(series, settings, resume, partial(_fan_out, engine, jobs))
        document = report.document()
        if json_file is not None:
            _write(json_file, json.dumps(document, allow_nan=False) + "\n", "--json")
        if html_file is not None:
            from forecasting.evaluate.page import render

            _write(html_file, render(report, f"Backtest of {len(series)} series"), "--html")
    out.show(document, report.rows(), COLUMNS, output)


def _settings(models: str, horizon: int, origins: int) -> Settings:
    from forecasting.evaluate.contest import contestants
    from forecasting.evaluate.report import Settings

    names = [name.strip() for name in models.split(",") if name.strip()]
    return Settings(tuple(one.name for one in contestants(names)), horizon, origins)


# -- where series come from --


def _series(source: Mapping[str, Any], season: int | None) -> list[Series]:
    """The series of the one source that was given. Raises UsageError for none, for two, and for options of another."""
    readers: dict[str, tuple[Callable[..., list[Series]], tuple[str, ...]]] = {
        "files": (_from_files, ("step",)),
        "prometheus": (_from_prometheus, ("query", "start", "end", "step", "prometheus_token_file")),
        "store": (_from_store, ("services", "step")),
    }
    given = [name for name, value in source.items() if value not in (None, ())]
    chosen = [name for name in readers if name in given]
    if len(chosen) != 1:
        raise UsageError("give one source of series: --csv FILE, --prometheus URL --query Q, or --store DIR")
    read, allowed = readers[chosen[0]]
    if strange := [name for name in given if name != chosen[0] and name not in allowed]:
        raise UsageError(f"{_flag(strange[0])} does not go with {_flag(chosen[0])}; leave one of the two out")
    return read(source[chosen[0]], season, **{name: source[name] for name in allowed})


def _flag(name: str) -> str:
    return {"files": "--csv", "services": "--service"}.get(name, f"--{name.replace('_', '-')}")


def _make(name: str, start: float, step: float, values: FloatArray, season: int | None) -> Series:
    from forecasting.series import Series

    return Series(name, start, step, values, season or max(1, round(_DAY / step)))


def _from_files(files: Sequence[Path], season: int | None, step: float | None) -> list[Series]:
    names = Counter(_stem(file) for file in files)
    return [_from_file(file, _stem(file) if names[_stem(file)] == 1 else str(file), season, step) for file in files]


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".csv")


def _from_file(file: Path, name: str, season: int | None, step: float | None) -> Series:
    from meshctl.sources import trace

    try:
        read = trace.read(file)
    except UsageError as error:
        if re.match(r":[0-9]+: ", str(error).removeprefix(str(file))):
            raise UsageError(f"{error}; correct the line, or leave it out: a missing line is a gap") from None
        raise
    return _make(name, *_regular(file, read.times, read.values, step), season)


def _regular(file: Path, times: FloatArray, values: FloatArray, step: float | None) -> tuple[float, float, FloatArray]:
    """``start``, ``step`` (the usual distance of two rows) and the values on the regular grid, NaN in gaps."""
    import numpy as np

    step = step or float(np.median(np.diff(times)))
    position = (times - times[0]) / step
    index = np.rint(position).astype(np.int64)
    wrong = (np.abs(position - index) > _JITTER) | (np.diff(index, prepend=-1) == 0)
    if wrong.any():
        moment = datetime.fromtimestamp(times[int(np.argmax(wrong))], UTC).isoformat()
        raise UsageError(
            f"{file}: {moment} is not on the grid of {step:g} s; resample the file, or give another --step"
        )
    if index[-1] >= _MOST:
        raise UsageError(f"{file}: {index[-1] + 1} steps of {step:g} s, most of them gaps; correct its times or --step")
    grid = np.full(int(index[-1]) + 1, np.nan)
    grid[index] = values
    return float(times[0]), step, grid


def _from_prometheus(url: str, season: int | None, **asked: Any) -> list[Series]:
    from meshctl.sources.prometheus_range import RangeQuery, Server, query_range

    for name in ("query", "start", "end", "step"):
        if asked[name] is None:
            raise UsageError(f"{_flag(name)} is missing; --prometheus needs --query, --start, --end and --step")
    token = asked["prometheus_token_file"]
    server = Server(url, None if token is None else _read(token).strip())
    found = query_range(server, RangeQuery(asked["query"], asked["start"], asked["end"], asked["step"]))
    # A query looks back: what it says at a moment is the rate of the step that ends there.
    return [_make(one.name, one.start - one.step, one.step, one.values, season) for one in found]


def _from_store(folder: Path, season: int | None, services: Sequence[str], step: float | None) -> list[Series]:
    from meshctl.history.database import Database

    file = folder / "history.db"
    if not file.is_file():
        raise UsageError(f"{file}: no such file; name the state directory of a control plane (--store)")
    with Database.open(file) as database:
        known = [name.removeprefix(_DEMAND) for name in database.series_names() if name.startswith(_DEMAND)]
        if unknown := [name for name in services if name not in known]:
            raise UsageError(f"{file}: no demand of {unknown[0]!r}; it has {', '.join(known) or 'none at all'}")
        wanted = list(dict.fromkeys(services)) or known
        rows = {name: database.load_samples(_DEMAND + name) for name in wanted}
    return [_stored(name, times, values, season, step) for name, (times, values) in rows.items() if len(times) > 1]


def _stored(name: str, times: FloatArray, values: FloatArray, season: int | None, step: float | None) -> Series:
    """As the control plane itself reads its history: samples fall into steps, whose ticks come a little late."""
    import numpy as np

    from meshctl.history.series import SeriesStore

    step = step or float(f"{np.median(np.diff(times)):.3g}")
    store = SeriesStore(step, min(_MOST, int((times[-1] - times[0]) / step) + 2))
    for moment, value in zip(times, values, strict=True):
        store.add(name, float(moment), float(value))
    return _make(name, store.get(name)[0], step, store.get(name)[1], season)


def _long_enough(series: Sequence[Series], horizon: int) -> list[Series]:
    """Leaves out, and says so, what is too short; raises UsageError where nothing is left."""
    from forecasting.evaluate.report import shortest

    least = shortest(horizon)
    for one in series:
        if len(one.values) < least:
            out.say(
                f"left out {one.name}: {len(one.values)} steps, fewer than the {least} that --horizon {horizon} needs"
            )
    kept = [one for one in series if len(one.values) >= least]
    if not kept:
        raise UsageError(f"no series of at least {least} steps; give longer ones, or a smaller --horizon")
    return kept


# -- the work --

FanOut = Any  #: ``fan_out(settings, series, finished) -> None``


def _report(series: Sequence[Series], settings: Settings, resume: Path | None, fan_out: FanOut) -> Report:
    """What is kept already, and the rest computed; each result is kept as soon as it is there."""
    from forecasting.evaluate.report import Report, digest

    files = [None if resume is None else resume / f"{digest(settings, one)}.json" for one in series]
    found = {number: kept for number, file in enumerate(files) if (kept := _kept(file)) is not None}
    missing = [number for number in range(len(series)) if number not in found]
    with _progress(len(missing)) as tell:

        def finished(index: int, result: SeriesReport) -> None:
            found[missing[index]] = result
            _keep(files[missing[index]], result)
            tell(result.name)

        fan_out(settings, [series[number] for number in missing], finished)
    return Report(settings.horizon, tuple(found[number] for number in range(len(series))))


def _fan_out(
    engine: Literal["local", "ray"],
    jobs: int | None,
    settings: Settings,
    series: Sequence[Series],
    finished: Callable[[int, SeriesReport], None],
) -> None:
    from forecasting.engines import run
    from forecasting.evaluate.report import evaluate

    run(partial(evaluate, settings), series, engine=engine, jobs=jobs, finished=finished)


def _kept(file: Path | None) -> SeriesReport | None:
    """The result in ``file``; None where there is none, or none that can be read (it is computed again)."""
    from forecasting.evaluate.report import ReportError, series_of

    if file is None or not file.is_file():
        return None
    try:
        return series_of(json.loads(file.read_bytes()))
    except (OSError, ValueError, ReportError) as error:
        out.say(f"{file}: cannot be read ({error}); computed again")
        return None


def _keep(file: Path | None, result: SeriesReport) -> None:
    """Whole or not at all: an interrupted write leaves no half result."""
    from forecasting.evaluate.report import document

    if file is None:
        return
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(document(result), allow_nan=False), encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}; choose another folder for --resume") from error


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, else a line for every series; on stderr."""
    if total and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("Series", total=total)
            yield lambda name: bar.update(task, advance=1, description=name.replace("[", r"\["))
        return
    done: list[str] = []

    def say(name: str) -> None:
        done.append(name)
        out.say(f"{len(done)} of {total}: {name}")

    yield say


# -- files and errors --


def _check_folder(option: str, file: Path | None) -> None:
    """Before the work, not after it."""
    if file is not None and not file.absolute().parent.is_dir():
        raise UsageError(f"cannot write {file}: there is no folder {file.parent}; choose another file for {option}")


def _write(file: Path, text: str, option: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}; choose another file for {option}") from error


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}; choose another file") from error


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of the library become those of the command line, with their exit codes."""
    from forecasting.engines import MissingEngineError
    from forecasting.errors import ForecastingError
    from forecasting.evaluate.contest import UnknownModelError

    try:
        yield
    except (UnknownModelError, MissingEngineError) as error:
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
