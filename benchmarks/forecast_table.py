"""How good are the forecasts? The whole evaluation: errors, calibration, ablations, other libraries.

Rolling origin on the last 20 % of each series, up to 400 origins evenly spaced, 1, 5 and 12 steps ahead; WAPE relative
to last value on the same origins, geometric mean over series. One configuration for all series.

Models are fitted three times: on the first 64 % (the mixture then learns its weights on what none of them has seen),
on 80 % and, but for the network, on 90 %; each forecasts only what comes after. The mixture walks through every value
as the control plane would, one tick at a time, through ``Selector.update``. Coverage is measured at the origins and,
which is harder where misses follow each other, at every step of the last 20 %.

    python -m benchmarks.forecast_table --data ../shared/data --json result.json
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from forecasting import engines
from forecasting.base import MEDIAN, QUANTILES
from forecasting.batch import Batch
from forecasting.ensemble import LEAST_SHARE, units
from forecasting.evaluate.backtest import origins
from forecasting.evaluate.contest import LastResiduals
from forecasting.evaluate.stats import coverage, geometric_mean, pinball, relative_wape, worst_window_coverage
from forecasting.evaluate.walk import Recorded, Walk, walk
from forecasting.mixture import Mixture
from forecasting.models.naive import LastValue
from forecasting.models.recent import RecentMedian
from forecasting.models.statistical import Ewma
from forecasting.series import FloatArray, IntArray, Series

H = 12
STEPS = (1, 5, 12)
BEGIN = 0.64
NETWORK_CUTS = (0.64, 0.8)
OWN_CUTS = (0.64, 0.8, 0.9)
DAY = 86_400


def read(folder: Path) -> list[Series]:
    """Every trace of the folder."""
    return [_read(path) for path in sorted(folder.glob("*.csv")) if path.stem != "baselines"]


def _read(path: Path) -> Series:
    rows = [line.split(",") for line in path.read_text().split()[1:]]
    first, second = (datetime.fromisoformat(stamp).timestamp() for stamp, _ in rows[:2])
    values = np.array([float(value) for _, value in rows])
    return Series(path.stem, first, second - first, values, max(1, round(DAY / (second - first))))


# -- fitting ---------------------------------------------------------------------------------------------------------


@dataclass
class Told:
    """Answers of one model by series: ``(T + 1, H, Q)``, row t is the forecast that knows t values."""

    values: dict[str, FloatArray]
    seconds: float = 0.0


def empty(series: Sequence[Series]) -> Told:
    """Nothing told yet."""
    return Told({one.name: np.full((len(one.values) + 1, H, len(QUANTILES)), np.nan) for one in series})


def spans(cuts: Sequence[float], length: int) -> list[tuple[int, int]]:
    """For each cut: the first number of values that is forecast from, and the one after the last."""
    edges = [int(cut * length) for cut in cuts] + [length + 1]
    return list(itertools.pairwise(edges))


def network(series: Sequence[Series], steps: int, seed: int) -> Told:
    """The LSTM, trained over all series at each cut."""
    from forecasting.training import TrainSettings, train

    told = empty(series)
    for number, cut in enumerate(NETWORK_CUTS):
        began = time.perf_counter()
        past = [one.until(int(cut * len(one.values))) for one in series]
        model = train(past, TrainSettings(steps=steps, horizon=H, seed=seed), lambda *_: None)
        told.seconds += time.perf_counter() - began
        for one in series:
            first, after = spans(NETWORK_CUTS, len(one.values))[number]
            told.values[one.name][first:after] = model.predict(Batch.at(one, np.arange(first, after), H))
    return told


def own(job: tuple[Series, float, float, int]) -> tuple[dict[str, FloatArray], dict[str, float]]:
    """The linear model and the forests of one series from one cut to the next: answers and seconds by model."""
    from forecasting.models import boosting_training, linear

    one, cut, until, seed = job
    first, after = int(cut * len(one.values)), int(until * len(one.values)) if until < 1 else len(one.values) + 1
    batch = Batch.at(one, np.arange(first, after), H)
    began = time.perf_counter()
    told = linear.windows(one.until(first), H)
    flat = linear.Linear([one.name], linear.fit(*told)[None])
    middle = time.perf_counter()
    answers, seconds = {"linear": flat.predict(batch)}, {"linear": middle - began}
    if len(told[1]) >= boosting_training.LEAST:
        middle = time.perf_counter()
        forests = boosting_training.grow(one.name, *told, seed=seed)
        seconds["boosting"] = time.perf_counter() - middle
        answers["boosting"] = forests.predict(batch)
    return answers, seconds


def owns(series: Sequence[Series], seed: int) -> dict[str, Told]:
    """Models of single series, fitted side by side in two processes."""
    jobs = [
        (one, cut, until, seed) for one in series for cut, until in zip(OWN_CUTS, (*OWN_CUTS[1:], 1.0), strict=True)
    ]
    told = {"linear": empty(series), "boosting": empty(series)}
    for job, (answers, seconds) in zip(jobs, engines.run(own, jobs, jobs=2), strict=True):
        one, cut, until, _ = job
        first, after = int(cut * len(one.values)), int(until * len(one.values)) if until < 1 else len(one.values) + 1
        for name, values in answers.items():
            told[name].values[one.name][first:after] = values
            told[name].seconds += seconds[name]
    return told


def simple(series: Sequence[Series], model: Any) -> Told:
    """A model that needs no training."""
    told = empty(series)
    began = time.perf_counter()
    for one in series:
        first = int(BEGIN * len(one.values))
        told.values[one.name][first:] = model.predict(Batch.at(one, np.arange(first, len(one.values) + 1), H))
    told.seconds = time.perf_counter() - began
    return told


# -- the mixture -----------------------------------------------------------------------------------------------------


def mixed(series: Sequence[Series], told: Mapping[str, Told], shares: FloatArray) -> dict[str, FloatArray]:
    """Only the mixture's medians ``(T + 1, H)``, without quantiles: for ablations. All series at once.

    ``shares (M,)``: what each model counts before anything was learned.
    """
    begins = [int(BEGIN * len(one.values)) for one in series]
    ticks = max(len(one.values) - first for one, first in zip(series, begins, strict=True))
    shape = (len(series), ticks + 1, len(told), H)
    answers, actual, unit = (
        np.full(shape, np.nan),
        np.full((len(series), ticks), np.nan),
        np.ones((len(series), ticks + 1)),
    )
    for row, (one, first) in enumerate(zip(series, begins, strict=True)):
        count = len(one.values) - first
        actual[row, ticks - count :] = one.values[first:]
        unit[row, ticks - count :] = units(Batch.at(one, np.arange(first, len(one.values) + 1), H))
        for column, each in enumerate(told.values()):
            answers[row, ticks - count :, column] = each.values[one.name][first:, :, MEDIAN]
    prior = np.broadcast_to((shares / shares.sum())[None, :, None], (len(series), len(told), H))
    mixture = Mixture.fresh(prior, np.full(H, 0.5))
    result = np.full((len(series), ticks + 1, H), np.nan)
    steps = np.arange(H)
    for t in range(ticks + 1):
        if t > 0:
            back = np.maximum(t - 1 - steps, 0)
            seen = np.where(t - 1 - steps >= 0, actual[:, t - 1, None], np.nan)
            mixture.learn(np.moveaxis(answers[:, back, :, steps], 0, 2), result[:, back, steps], seen, unit[:, back])
        result[:, t], _ = mixture.mixed(answers[:, t])
    return {
        one.name: np.concatenate([np.full((first, H), np.nan), result[row, ticks - (len(one.values) - first) :]])
        for row, (one, first) in enumerate(zip(series, begins, strict=True))
    }


def start(told: Mapping[str, Told], least: float = LEAST_SHARE) -> FloatArray:
    """As in the selector: all models count the same at first, but for last value."""
    return np.array([least if name == "last" else 1.0 for name in told])


# -- scores ----------------------------------------------------------------------------------------------------------


def errors(one: Series, median: FloatArray) -> dict[int, float]:
    """Relative WAPE at the origins of the protocol; ``median (T + 1, H)``."""
    counts = origins(len(one.values), H)
    return relative(one, counts, median[counts])


def relative(one: Series, counts: IntArray, median: FloatArray) -> dict[int, float]:
    """Relative WAPE by step of what was said knowing ``counts (N,)`` values; ``median (N, H)``."""
    last = one.values[counts - 1]
    return {h: relative_wape(one.values[counts + h - 1], median[:, h - 1], last) for h in STEPS}


def losses(one: Series, values: FloatArray) -> dict[str, float]:
    """Pinball loss at 0.9 and 0.99, relative to last value with the empirical quantiles of its newest residuals."""
    counts = origins(len(one.values), H)
    base = LastResiduals().predict(Batch.at(one, counts, H))
    result = {}
    for h in STEPS:
        actual = one.values[counts + h - 1]
        for q in (0.9, 0.99):
            mine = pinball(actual, values[counts, h - 1, QUANTILES.index(q)], q).sum()
            theirs = pinball(actual, base[:, h - 1, QUANTILES.index(q)], q).sum()
            result[f"{q} h{h}"] = float(mine / theirs)
    return result


def covered(one: Series, values: FloatArray, *, every: bool = True) -> dict[str, float]:
    """Coverage, and its worst window of 200: at every step of the last 20 %, or at the origins of the protocol."""
    first = int(0.8 * len(one.values))
    result = {}
    for h in STEPS:
        counts = np.arange(first, len(one.values) - h + 1) if every else origins(len(one.values), H)
        actual = one.values[counts + h - 1]
        for q in (0.9, 0.99):
            upper = values[counts, h - 1, QUANTILES.index(q)]
            result[f"{q} h{h}"] = coverage(actual, upper)
            result[f"{q} h{h} worst"] = worst_window_coverage(actual, upper)
    return result


def peaked(one: Series, peaks: FloatArray) -> dict[str, float]:
    """Coverage of the maximum over the next k steps."""
    first = int(0.8 * len(one.values))
    result = {}
    for k in STEPS:
        counts = np.arange(first, len(one.values) - k + 1)
        highest = np.max([one.values[counts + n] for n in range(k)], axis=0)
        for q in (0.9, 0.99):
            upper = peaks[counts, k - 1, QUANTILES.index(q)]
            result[f"{q} k{k}"] = coverage(highest, upper)
            result[f"{q} k{k} worst"] = worst_window_coverage(highest, upper)
    return result


# -- tables ----------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """Everything that is printed, by name."""

    wape: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    pinball: dict[str, dict[str, float]] = field(default_factory=dict)
    coverage: dict[str, dict[str, float]] = field(default_factory=dict)
    coverage_at_origins: dict[str, dict[str, float]] = field(default_factory=dict)
    peaks: dict[str, dict[str, float]] = field(default_factory=dict)
    ablation: dict[str, dict[int, float]] = field(default_factory=dict)
    ablation_apart: dict[str, dict[int, float]] = field(default_factory=dict)
    acting: dict[str, float] = field(default_factory=dict)


def summary(rows: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """Geometric mean over series, of those that the model answered."""
    return {h: geometric_mean([row[h] for row in rows.values() if np.isfinite(row[h])]) for h in STEPS}


def show_wape(result: Result) -> None:
    """Per series and in summary."""
    names = list(result.wape)
    print(f"\nrelative WAPE at {STEPS} steps\n{'':24}" + "".join(f"{name:>21}" for name in names))
    for series in result.wape[names[0]]:
        cells = ("".join(f"{result.wape[name][series][h]:7.3f}" for h in STEPS) for name in names)
        print(f"{series:24}" + "".join(cells))
    cells = ("".join(f"{value:7.3f}" for value in summary(result.wape[name]).values()) for name in names)
    print(f"{'geometric mean':24}" + "".join(cells))
    print(f"{'seconds':24}" + "".join(f"{result.seconds.get(name, 0.0):21.1f}" for name in names))


def show_figures(title: str, rows: Mapping[str, Mapping[str, float]], last: Mapping[str, float]) -> None:
    """Any table of figures by series, with a last row."""
    columns = list(next(iter(rows.values())))
    print(f"\n{title}\n{'':24}" + "".join(f"{name:>14}" for name in columns))
    for series, row in rows.items():
        print(f"{series:24}" + "".join(f"{row[name]:14.3f}" for name in columns))
    print(f"{'':24}" + "".join(f"{last[name]:14.3f}" for name in columns))


def columns_of(rows: Mapping[str, Mapping[str, float]], how: Any) -> dict[str, float]:
    """One figure per column; NaN does not count."""
    names = next(iter(rows.values()))
    return {name: float(how([row[name] for row in rows.values() if np.isfinite(row[name])])) for name in names}


def fitted(series: Sequence[Series], steps: int, seed: int) -> dict[str, Told]:
    """What every model said at every origin."""
    told = {model.name: simple(series, model) for model in (LastValue(), Ewma(), RecentMedian(12), RecentMedian(48))}
    told |= owns(series, seed)
    told["lstm"] = network(series, steps, seed)
    return told


def evaluate(series: Sequence[Series], told: Mapping[str, Told]) -> Result:
    """Walk and score."""
    result = Result(seconds={name: one.seconds for name, one in told.items()})
    result.wape = {
        name: {s.name: errors(s, one.values[s.name][..., MEDIAN]) for s in series} for name, one in told.items()
    }
    began = time.perf_counter()
    walked = walk_through(series, told)
    result.seconds["mixture"] = time.perf_counter() - began
    result.wape["mixture"] = {s.name: errors(s, walked.served[s.name][..., MEDIAN]) for s in series}
    result.pinball = {s.name: losses(s, walked.served[s.name]) for s in series}
    result.coverage = {s.name: covered(s, walked.served[s.name]) for s in series}
    result.coverage_at_origins = {s.name: covered(s, walked.served[s.name], every=False) for s in series}
    result.peaks = {s.name: peaked(s, walked.peaks[s.name]) for s in series}
    result.acting = {s.name: float(walked.acting[s.name][int(0.8 * len(s.values)) :].mean()) for s in series}
    ablate(series, told, walked, result)
    return result


def ablate(series: Sequence[Series], told: Mapping[str, Told], walked: Walk, result: Result) -> None:
    """The mixture of all models and without each, as served and apart; ``walked`` with all of them."""
    for without in (None, *told):
        kept = {name: one for name, one in told.items() if name != without}
        label = f"without {without}" if without else "all models"
        apart = mixed(series, kept, start(kept))
        result.ablation_apart[label] = summary({s.name: errors(s, apart[s.name]) for s in series})
        if without == LastValue.name:  # the selector always has it
            continue
        served = walk_through(series, kept).served if without else walked.served
        result.ablation[label] = summary({s.name: errors(s, served[s.name][..., MEDIAN]) for s in series})


def walk_through(series: Sequence[Series], told: Mapping[str, Told]) -> Walk:
    """What the selector makes of what models said, one tick at a time."""
    recorded = [Recorded(name, one.values) for name, one in told.items()]
    return walk(series, recorded, [int(BEGIN * len(one.values)) for one in series], H)


def show(result: Result) -> None:
    """All tables."""
    show_wape(result)
    show_figures(
        "pinball loss of the mixture / that of last value with rolling residual quantiles",
        result.pinball,
        columns_of(result.pinball, geometric_mean),
    )
    show_figures(
        "coverage, at every step of the last 20 % (last row: mean)",
        result.coverage,
        columns_of(result.coverage, np.mean),
    )
    show_figures(
        "coverage, at the origins of the protocol (last row: mean)",
        result.coverage_at_origins,
        columns_of(result.coverage_at_origins, np.mean),
    )
    show_figures(
        "coverage of the maximum over k steps (last row: mean)", result.peaks, columns_of(result.peaks, np.mean)
    )
    show_ablation("as served", result.ablation)
    show_ablation("no gate, each series by itself", result.ablation_apart)
    print("\nshare of forecasts whose gate was open")
    print("  ".join(f"{name} {value:.2f}" for name, value in result.acting.items()))


def show_ablation(how: str, rows: Mapping[str, Mapping[int, float]]) -> None:
    """What the mixture loses without each model."""
    print(f"\nablation: geometric mean of the mixture's relative WAPE, {how}")
    for name, row in rows.items():
        print(f"{name:24}" + "".join(f"{value:8.4f}" for value in row.values()))


def save(path: Path, told: Mapping[str, Told]) -> None:
    """Keep all answers in one file."""
    answers: dict[str, Any] = {
        f"{name}/{series}": values for name, one in told.items() for series, values in one.values.items()
    }
    np.savez(path, **answers)


def load(path: Path) -> dict[str, Told]:
    """The counterpart of ``save``."""
    told: dict[str, Told] = {}
    with np.load(path, allow_pickle=False) as stored:
        for key in stored.files:
            name, _, series = key.partition("/")
            told.setdefault(name, Told({})).values[series] = stored[key]
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--steps", type=int, default=4000, help="optimiser steps of the network at each cut")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--save", type=Path, help="keep what the models said, for benchmarks.forecast_choice")
    parser.add_argument("--answers", type=Path, help="take what the models said from there; fit nothing")
    args = parser.parse_args()
    began = time.perf_counter()
    series = read(args.data)
    told = load(args.answers) if args.answers else fitted(series, args.steps, args.seed)
    if args.save:
        save(args.save, told)
    result = evaluate(series, told)
    show(result)
    print(f"\n{time.perf_counter() - began:.0f} s in all")
    if args.json:
        args.json.write_text(json.dumps(result.__dict__, indent=1) + "\n")


if __name__ == "__main__":
    main()
