"""How do our forecasts compare with statsforecast's AutoETS, AutoARIMA, AutoTheta and MSTL, and with Prophet?

The protocol is that of ``benchmarks.forecast_table`` (last 20 % of each series, 1, 5 and 12 steps ahead, WAPE relative
to last value, geometric mean over series) with fewer origins, because the libraries fit anew at each of them: every
method, ours included, is scored on the same ``--origins`` origins of a series, evenly spaced.

- statsforecast reads the newest 1,000 values, or three days where those are more. AutoTheta and MSTL (STL, the rest by
  AutoETS) get the day as season, MSTL also the week, each where two of them are in what is read. AutoETS and AutoARIMA
  get none: days have 48 to 8,640 steps, AutoETS takes seasons up to 24, and AutoARIMA's search does not end in time.
- Prophet, with its own defaults, reads the newest two weeks.
- Forecasts below 0 count as 0. Where a fit fails, last value stands in; the summary counts how often.
- A method that uses up its ``--limit`` of CPU seconds on a series is timed out there: it has no figure for it, and its
  mean and the mixture's beside it are over the other series.

Ours is the mixture of ``forecast_table``, walked tick by tick through the same ``Selector``; ``--answers`` takes what
its models said from a run of ``forecast_table --save``, so that nothing is trained again. Finished series are kept in
``--keep``: an interrupted run goes on where it was. What is kept counts while code, data, versions and origins are the
same.

    pip install -c constraints.txt -e '.[compare]'
    python -m benchmarks.forecast_table --save answers.npz
    python -m benchmarks.forecast_compare --answers answers.npz --json result.json
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
import csv
import hashlib
import inspect
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import forecast_table
from benchmarks.forecast_table import BEGIN, STEPS, H, read
from forecasting.base import MEDIAN
from forecasting.evaluate.backtest import origins
from forecasting.evaluate.stats import geometric_mean, relative_wape
from forecasting.evaluate.walk import Recorded, walk
from forecasting.models.statistical import bridged
from forecasting.series import FloatArray, IntArray, Series

WEEK = 7
LEAST = 1000
DAYS = 3
PROPHET_DAYS = 14
ROOT = Path(__file__).resolve().parent.parent
INSTALL = "pip install -c constraints.txt -e '.[compare]'"
OURS = "mixture"
LAST = "last"


# -- the libraries ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Method:
    """``forecast(past)`` gives the ``(H,)`` values after ``past``; it may raise whatever its library raises."""

    name: str
    package: str
    forecast: Callable[[Series], FloatArray]


def auto_ets(past: Series) -> FloatArray:
    """The additive and multiplicative models without a season, chosen by AICc."""
    from statsforecast.models import AutoETS

    return _mean(AutoETS(model="ZZN"), past)


def auto_arima(past: Series) -> FloatArray:
    """Hyndman & Khandakar's stepwise search, without a season."""
    from statsforecast.models import AutoARIMA

    return _mean(AutoARIMA(), past)


def auto_theta(past: Series) -> FloatArray:
    """The best of four Theta models, after the library's own test for a season of a day."""
    from statsforecast.models import AutoTheta

    return _mean(AutoTheta(season_length=max([1, *seasons(past)[:1]])), past)


def mstl(past: Series) -> FloatArray:
    """Seasons of a day and a week by repeated STL, the rest by AutoETS; AutoETS alone where there is no season."""
    from statsforecast.models import MSTL, AutoETS

    rest = AutoETS(model="ZZN")
    known = seasons(past)
    return _mean(MSTL(known, trend_forecaster=rest) if known else rest, past)


def seasons(past: Series) -> list[int]:
    """The day and the week in steps, as far as two of them are in what statsforecast reads; shortest first."""
    length = len(recent(past))
    return [steps for steps in (past.season, WEEK * past.season) if steps > 1 and 2 * steps <= length]


def recent(past: Series) -> FloatArray:
    """What statsforecast reads; it knows no gaps, so straight lines bridge them."""
    return bridged(past.values[-max(LEAST, DAYS * past.season) :])


def _mean(model: Any, past: Series) -> FloatArray:
    return np.asarray(model.forecast(recent(past), H)["mean"], dtype=np.float64)


def prophet(past: Series) -> FloatArray:
    """Prophet as it comes: it looks for seasons itself. Draws of the future are left out, which moves no forecast."""
    import pandas as pd
    from prophet import Prophet

    values = past.values[-(PROPHET_DAYS * past.season + 1) :]  # two weeks from the first time to the last one
    ahead = past.start + past.step * (len(past.values) + np.arange(-len(values), H))
    times = pd.to_datetime(ahead, unit="s")
    model = Prophet(uncertainty_samples=0)
    model.fit(pd.DataFrame({"ds": times[: len(values)], "y": values}), seed=1)
    return np.asarray(model.predict(pd.DataFrame({"ds": times[len(values) :]}))["yhat"], dtype=np.float64)


METHODS = (
    Method("AutoETS", "statsforecast", auto_ets),
    Method("AutoARIMA", "statsforecast", auto_arima),
    Method("AutoTheta", "statsforecast", auto_theta),
    Method("MSTL+ETS", "statsforecast", mstl),
    Method("Prophet", "prophet", prophet),
)


# -- what was told ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """One method on one series: ``median[n][h - 1]`` at the n-th origin, as far as the time went.

    ``limit`` and ``seconds`` are CPU seconds, child processes included; ``key`` names what the figures depend on.
    """

    key: str
    median: list[list[float]]
    failed: int
    seconds: float
    limit: float
    day: str

    def is_whole(self, count: int) -> bool:
        """Whether all ``count`` origins were answered."""
        return len(self.median) == count


def ask(method: Method, one: Series, counts: IntArray, key: str, limit: float) -> Told:
    """Forecast from every origin, until the time is up (looked at between two fits)."""
    began, failed = cpu(), 0
    median: list[list[float]] = []
    for count in counts:
        if cpu() - began > limit:
            break
        past = one.until(int(count))
        told = attempt(method, past)
        failed += told is None
        median.append((np.full(H, past.values[-1]) if told is None else np.maximum(told, 0.0)).tolist())
    return Told(key, median, failed, cpu() - began, limit, today())


def attempt(method: Method, past: Series) -> FloatArray | None:
    """``(H,)``; None where the fit fails, or where its answer is no number."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told = method.forecast(past)
    except Exception:  # the libraries raise bare ones
        return None
    return told if np.isfinite(told).all() else None


def cpu() -> float:
    """CPU seconds of this process and of its children that have ended: a stopped or shared machine costs nothing."""
    now = os.times()
    return now.user + now.system + now.children_user + now.children_system


def today() -> str:
    return datetime.now(UTC).date().isoformat()


# -- ours ------------------------------------------------------------------------------------------------------------


def mixture(series: Sequence[Series], counts: Mapping[str, IntArray], keys: Mapping[str, str], args: Any) -> list[Told]:
    """What the selector served at the origins, per series. All series are walked together, as in a mesh."""
    answers = (
        forecast_table.load(args.answers) if args.answers else forecast_table.fitted(series, args.steps, args.seed)
    )
    check(answers, series, args.answers)
    began = cpu()
    recorded = [Recorded(name, one.values) for name, one in answers.items()]
    served = walk(series, recorded, [int(BEGIN * len(one.values)) for one in series], H).served
    seconds = (cpu() - began) / len(series)
    return [
        Told(keys[one.name], served[one.name][counts[one.name], :, MEDIAN].tolist(), 0, seconds, 0.0, today())
        for one in series
    ]


def check(answers: Mapping[str, forecast_table.Told], series: Sequence[Series], path: Path | None) -> None:
    """Raises SystemExit where the saved answers are not about this data."""
    for name, told in answers.items():
        for one in series:
            rows = len(told.values.get(one.name, ()))
            if rows != len(one.values) + 1:
                raise SystemExit(
                    f"{path}: {rows} answers of model {name} about series {one.name}, which needs "
                    f"{len(one.values) + 1}; save them again: python -m benchmarks.forecast_table --save {path}"
                )


# -- what is kept ----------------------------------------------------------------------------------------------------


def key_of(one: Series, counts: IntArray, source: str) -> str:
    """Changes with the values, the origins and the source of the forecasts."""
    told = hashlib.sha256(one.values.tobytes() + counts.tobytes() + source.encode())
    return told.hexdigest()


def source_of(method: Method) -> str:
    """The library's version, and how it is asked."""
    asked = "".join(inspect.getsource(one) for one in (method.forecast, seasons, recent, _mean, ask, attempt))
    return f"{metadata.version(method.package)} {LEAST} {DAYS} {PROPHET_DAYS} {H} {asked}"


def source_of_ours(args: Any) -> str:
    """The package's code, and the saved answers or how the models are trained."""
    package = sorted((ROOT / "forecasting").rglob("*.py"))
    return digest([*package, args.answers] if args.answers else package) + f" {args.steps} {args.seed}"


def digest(files: Iterable[Path]) -> str:
    """Of the contents."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def recall(path: Path, key: str, count: int, limit: float) -> Told | None:
    """What was kept, if it is still true, and whole or had at least as much time."""
    if not path.exists():
        return None
    told = Told(**json.loads(path.read_text()))
    return told if told.key == key and (told.is_whole(count) or told.limit >= limit) else None


def keep(path: Path, told: Told) -> Told:
    """All or nothing, by rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(asdict(told)))
    scratch.replace(path)
    return told


def by_library(method: Method, series: Sequence[Series], counts: Mapping[str, IntArray], args: Any) -> dict[str, Told]:
    """One method on every series."""
    found, source = {}, source_of(method)
    for one in series:
        path, at = args.keep / f"{one.name}.{method.name}.json", counts[one.name]
        key = key_of(one, at, source)
        told = recall(path, key, len(at), args.limit)
        found[one.name] = told or keep(path, ask(method, one, at, key, args.limit))
        print(f"{method.name:12}{one.name:24}{found[one.name].seconds:8.1f} s{' (kept)' if told else ''}", flush=True)
    return found


def by_us(series: Sequence[Series], counts: Mapping[str, IntArray], args: Any) -> dict[str, Told]:
    """The mixture on every series; all anew where one is missing, for it learns from all of them."""
    source = source_of_ours(args)
    paths = {one.name: args.keep / f"{one.name}.{OURS}.json" for one in series}
    keys = {one.name: key_of(one, counts[one.name], source) for one in series}
    kept = {name: recall(path, keys[name], len(counts[name]), 0.0) for name, path in paths.items()}
    if all(kept.values()):
        return {name: told for name, told in kept.items() if told}
    answers = mixture(series, counts, keys, args)
    return {one.name: keep(paths[one.name], told) for one, told in zip(series, answers, strict=True)}


# -- scores ----------------------------------------------------------------------------------------------------------


Row = dict[int, float]
"""Relative WAPE by step."""


def score(one: Series, counts: IntArray, told: Told) -> Row | None:
    """None where the method was timed out."""
    if not told.is_whole(len(counts)):
        return None
    median, last = np.array(told.median), one.values[counts - 1]
    return {h: relative_wape(one.values[counts + h - 1], median[:, h - 1], last) for h in STEPS}


@dataclass(frozen=True, slots=True)
class Summary:
    """One method over the series that it finished: geometric means by step, beside the mixture's on the same series.

    ``better`` counts the series on which the mixture errs less. ``seconds`` is CPU time per forecast, ``total`` of all.
    """

    series: int
    wape: Row
    ours: Row
    better: dict[int, int]
    failed: int
    seconds: float
    total: float


def summary(rows: Mapping[str, Row | None], ours: Mapping[str, Row | None], told: Mapping[str, Told]) -> Summary:
    pairs = [(row, mine) for name, row in rows.items() if row is not None and (mine := ours[name]) is not None]
    forecasts, seconds = sum(len(one.median) for one in told.values()), sum(one.seconds for one in told.values())
    return Summary(
        len(pairs),
        {h: geometric_mean(row[h] for row, _ in pairs) for h in STEPS},
        {h: geometric_mean(mine[h] for _, mine in pairs) for h in STEPS},
        {h: sum(mine[h] < row[h] for row, mine in pairs) for h in STEPS},
        sum(one.failed for one in told.values()),
        seconds / max(1, forecasts),
        seconds,
    )


def references(path: Path, names: Iterable[str]) -> dict[str, dict[str, Row]]:
    """By method and series, from a table of WAPEs (columns series, method, h, wape) that was made elsewhere."""
    if not path.exists():
        return {}
    with path.open() as file:
        table = {(row["method"], row["series"], int(row["h"])): float(row["wape"]) for row in csv.DictReader(file)}
    found: dict[str, dict[str, Row]] = {}
    for (method, series, h), wape in table.items():
        if method != LAST and series in set(names):
            found.setdefault(method, {}).setdefault(series, {})[h] = wape / table[LAST, series, h]
    return found


# -- tables ----------------------------------------------------------------------------------------------------------


Table = Mapping[str, Mapping[str, Row | None]]
"""Rows by method and series."""


def show_series(table: Table, counts: Mapping[str, IntArray]) -> None:
    """One line per series."""
    print(f"\nrelative WAPE at {STEPS} steps\n{'':24}{'origins':>8}" + "".join(f"{name:>22}" for name in table))
    for series, at in counts.items():
        print(f"{series:24}{len(at):8}" + "".join(cells(rows[series]) for rows in table.values()))


def cells(row: Row | None) -> str:
    return f"{'timed out':>22}" if row is None else " " + "".join(f"{row[h]:7.3f}" for h in STEPS)


def show_summary(summaries: Mapping[str, Summary]) -> None:
    """One line per method."""
    print(
        f"\n{'geometric mean':16}{'series':>7}{'method':>22}{'mixture, same series':>22}{'mixture better':>16}"
        f"{'failed fits':>13}{'s/forecast':>12}{'s in all':>10}"
    )
    for name, one in summaries.items():
        better = "/".join(str(one.better[h]) for h in STEPS)
        print(
            f"{name:16}{one.series:7}{cells(one.wape)}{cells(one.ours)}{better:>16}{one.failed:13}"
            f"{one.seconds:12.3f}{one.total:10.0f}"
        )


def show_timed_out(told: Mapping[str, Mapping[str, Told]], counts: Mapping[str, IntArray]) -> None:
    """How far they came."""
    for method, by_series in told.items():
        for series, one in by_series.items():
            if not one.is_whole(len(counts[series])):
                done = f"{len(one.median)} of {len(counts[series])} origins in {one.seconds:.0f} s"
                print(f"timed out: {method} on {series}, {done}")


def show_reference(table: Table, reference: Mapping[str, Mapping[str, Row]]) -> None:
    """Means over the series that both have; the reference has other origins and fits less often."""
    common = [name for name in table if name in reference]
    if common:
        print(f"\n{'cross-check':16}{'series':>7}{'here':>22}{'reference':>22}")
    for name in common:
        here = {series: row for series, row in table[name].items() if row and series in reference[name]}
        theirs = [reference[name][series] for series in here]
        means = ({h: geometric_mean(row[h] for row in rows) for h in STEPS} for rows in (here.values(), theirs))
        print(f"{name:16}{len(here):7}" + "".join(map(cells, means)))


# -- running ---------------------------------------------------------------------------------------------------------


def available() -> list[Method]:
    """Those whose library is installed; says which are left out."""
    for package in sorted({one.package for one in METHODS if util.find_spec(one.package) is None}):
        names = ", ".join(one.name for one in METHODS if one.package == package)
        print(f"skipped: {names}; package {package} is not installed: {INSTALL}")
    return [one for one in METHODS if util.find_spec(one.package) is not None]


def naive(one: Series, counts: IntArray) -> Told:
    """Last value."""
    return Told("", np.repeat(one.values[counts - 1][:, None], H, axis=1).tolist(), 0, 0.0, 0.0, today())


def chosen(series: Sequence[Series], only: Sequence[str] | None) -> list[Series]:
    """The series named by ``--only``. Raises SystemExit where one is unknown."""
    unknown = set(only or ()) - {one.name for one in series}
    if unknown:
        names = ", ".join(one.name for one in series)
        raise SystemExit(f"--only: no series {', '.join(sorted(unknown))}; choose from {names}")
    return [one for one in series if not only or one.name in only]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", metavar="SERIES", action="append", help="score this series; may be repeated")
    parser.add_argument("--origins", type=int, default=40, help="per series")
    parser.add_argument("--limit", type=float, default=300.0, help="CPU seconds of a method on a series")
    parser.add_argument("--answers", type=Path, help="what our models said, from forecast_table --save; train nothing")
    parser.add_argument("--steps", type=int, default=4000, help="without --answers: optimiser steps of the network")
    parser.add_argument("--seed", type=int, default=0, help="without --answers: of the training")
    parser.add_argument("--keep", type=Path, default=ROOT / "benchmarks" / "results" / "compare")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    everything = read(args.data) if args.data.is_dir() else []
    if not everything:
        print(f"skipped: no traces (CSV of timestamp,value) in {args.data}; name their folder with --data")
        return
    logging.disable()  # Stan tells of every chain
    series = chosen(everything, args.only)
    every = {one.name: origins(len(one.values), H, most=args.origins) for one in everything}
    counts = {one.name: every[one.name] for one in series}
    told = {LAST: {one.name: naive(one, counts[one.name]) for one in series}, OURS: by_us(everything, every, args)}
    told |= {method.name: by_library(method, series, counts, args) for method in available()}
    report(series, counts, told, args)


def report(
    series: Sequence[Series], counts: Mapping[str, IntArray], told: Mapping[str, Mapping[str, Told]], args: Any
) -> None:
    """Score, show and write."""
    table = {
        name: {one.name: score(one, counts[one.name], rows[one.name]) for one in series} for name, rows in told.items()
    }
    summaries = {name: summary(table[name], table[OURS], {s: told[name][s] for s in counts}) for name in table}
    show_series(table, counts)
    show_summary(summaries)
    show_timed_out({name: {s: rows[s] for s in counts} for name, rows in told.items()}, counts)
    show_reference(table, references(args.data / "baselines.csv", counts))
    days = sorted({rows[s].day for name, rows in told.items() for s in counts})
    print(f"\nmade {' to '.join(dict.fromkeys([days[0], days[-1]]))}; mixture: s/forecast is the walk alone")
    if args.json:
        found = {"origins": {s: at.tolist() for s, at in counts.items()}, "wape": table, "days": days}
        found |= {"summary": {name: asdict(one) for name, one in summaries.items()}, "versions": versions()}
        args.json.write_text(json.dumps(found, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Of the libraries that are compared with."""
    packages = sorted({one.package for one in METHODS})
    return {name: metadata.version(name) for name in packages if util.find_spec(name) is not None}


if __name__ == "__main__":
    main()
