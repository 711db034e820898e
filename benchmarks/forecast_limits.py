"""How far from the best that can be are the quantiles? Two limits, beside what the mixture serves.

*Windows*: misses of forecasts that reach h steps ahead follow each other, as what happens at one step is missed by all
h forecasts that reach over it. So the worst 200 in a row are far below the promise even for one who knows the
distribution that every value is drawn from. Simulated for series as long as the traces' last 20 %: values that do not
depend on each other, those that forget a fifth at each step, and a random walk.

*Hindsight*: no mixture of what its members say is better than the convex one that the outcomes themselves are asked
for, per trace, step and quantile. Members are the own quantiles of network and trees, and those of the newest residuals
around every model and around the served median. It is fitted on what it is judged by (at most 400 outcomes for some ten
weights), so it flatters itself: nobody who learns from the past reaches it.

    python -m benchmarks.forecast_table --data ../shared/data --save answers.npz
    python -m benchmarks.forecast_limits --data ../shared/data --answers answers.npz --json limits.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.optimize import linprog
from scipy.stats import norm

from benchmarks.forecast_table import BEGIN, STEPS, H, Told, columns_of, covered, load, read, walk_through
from forecasting.base import MEDIAN, QUANTILES
from forecasting.batch import Batch
from forecasting.conformal import LEARNED, LEAST
from forecasting.conformal import WINDOW as RESIDUALS
from forecasting.ensemble import units
from forecasting.evaluate.backtest import origins
from forecasting.evaluate.contest import LastResiduals
from forecasting.evaluate.stats import WINDOW, geometric_mean, pinball, worst_window_coverage
from forecasting.series import FloatArray, Series

LEVELS = (0.9, 0.99)
KINDS = {"independent": 0.0, "forgets a fifth": 0.8, "random walk": 1.0}
"""What a value keeps of the one before."""


# -- windows ---------------------------------------------------------------------------------------------------------


def knowing(length: int, h: int, keeps: float, rng: np.random.Generator) -> float:
    """Worst window of the true 0.9 quantile, h steps ahead, over ``length`` forecasts of one series."""
    weights = keeps ** np.arange(h)
    errors = np.convolve(rng.standard_normal(length + h - 1), weights, "valid")
    bound = np.full(length, norm.ppf(0.9) * np.sqrt((weights**2).sum()))
    return worst_window_coverage(errors, bound)


def worst(series: Sequence[Series], h: int, keeps: float, repeats: int) -> FloatArray:
    """The worst window over all series, 10 %, 50 % and 90 % of ``repeats`` trials."""
    rng = np.random.default_rng(0)
    lengths = [len(one.values) - h + 1 - int(0.8 * len(one.values)) for one in series]
    trials = [min(knowing(length, h, keeps, rng) for length in lengths if length >= WINDOW) for _ in range(repeats)]
    return np.quantile(trials, (0.1, 0.5, 0.9))


# -- hindsight -------------------------------------------------------------------------------------------------------


def members(one: Series, told: Mapping[str, Told], served: FloatArray, h: int, level: float) -> FloatArray:
    """What a mixture of quantiles could be made of at every origin of ``one``: ``(C, K)``, no NaN."""
    counts, quantile = origins(len(one.values), H), QUANTILES.index(level)
    own = [told[name].values[one.name][counts, h - 1, quantile] for name in LEARNED]
    medians = [each.values[one.name][:, h - 1, MEDIAN] for each in told.values()] + [served[:, h - 1, MEDIAN]]
    columns = np.stack(own + [around(one, median, h, level)[counts] for median in medians], axis=1)
    return columns[:, np.isfinite(columns).all(axis=0)]


def around(one: Series, median: FloatArray, h: int, level: float) -> FloatArray:
    """``median (T + 1,)`` moved by the quantile of its newest residuals that were known, in units of a usual error."""
    total, unit = len(one.values), usual(one)
    missed = np.full(total + 1, np.nan)
    missed[: total - h + 1] = (one.values[h - 1 :] - median[: total - h + 1]) / unit[: total - h + 1]
    known = np.concatenate([np.full(RESIDUALS + h - 1, np.nan), missed[: total + 2 - h]])
    return np.array(
        [
            middle + size * np.nanquantile(past, level) if np.isfinite(past).sum() >= LEAST else np.nan
            for middle, size, past in zip(median, unit, sliding_window_view(known, RESIDUALS), strict=False)
        ]
    )


@cache
def usual(one: Series) -> FloatArray:
    """The size of a usual error ``(T + 1,)`` by count of known values, NaN before what is judged."""
    total, first = len(one.values), int(BEGIN * len(one.values))
    return np.concatenate([np.full(first, np.nan), units(Batch.at(one, np.arange(first, total + 1), H))])


def best(told: FloatArray, actual: FloatArray, level: float) -> float:
    """The least pinball loss that a convex combination of ``told (C, K)`` has on ``actual (C,)``: a linear program
    (Koenker & Bassett 1978) over the weights and what reality lies above and below.
    """
    count, width = told.shape
    scale = max(float(np.abs(actual).mean()), 1e-9)
    cost = np.concatenate([np.zeros(width), np.full(count, level), np.full(count, 1.0 - level)])
    rows = np.block([[told / scale, np.eye(count), -np.eye(count)], [np.ones((1, width)), np.zeros((1, 2 * count))]])
    found = linprog(cost, A_eq=rows, b_eq=np.append(actual / scale, 1.0), bounds=(0, None), method="highs")
    return float(found.fun * scale)


def hindsight(
    series: Sequence[Series], told: Mapping[str, Told], served: Mapping[str, FloatArray], h: int, level: float
) -> tuple[float, float, float]:
    """Pinball loss relative to last value with its residual quantiles, geometric means over series: as served, of the
    best single member of each series, and of its best mixture.
    """
    rows, quantile = [], QUANTILES.index(level)
    for one in series:
        counts = origins(len(one.values), H)
        actual = one.values[counts + h - 1]
        reference = LastResiduals().predict(Batch.at(one, counts, H))[:, h - 1, quantile]
        columns = members(one, told, served[one.name], h, level)
        mine = pinball(actual, served[one.name][counts, h - 1, quantile], level).sum()
        single = pinball(actual[:, None], columns, level).sum(axis=0).min()
        rows.append(np.array([mine, single, best(columns, actual, level)]) / pinball(actual, reference, level).sum())
    mine, single, mixed = (geometric_mean(column) for column in np.transpose(rows))
    return mine, single, mixed


# -- tables ----------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--answers", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=200, help="trials of each simulation")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    series, told = read(args.data), load(args.answers)
    served = walk_through(series, told).served
    result = {"windows": windows(series, served, args.repeats), "hindsight": mixtures(series, told, served)}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def windows(series: Sequence[Series], served: Mapping[str, FloatArray], repeats: int) -> dict[str, list[float]]:
    """Print and return the first limit."""
    print(
        f"worst {WINDOW} in a row of the 0.9 quantile, over all series: 10 %, 50 %, 90 % of {repeats} trials of one who"
    )
    print("knows the distribution, and the mixture")
    mine = columns_of({one.name: covered(one, served[one.name]) for one in series}, min)
    found: dict[str, list[float]] = {}
    for h in STEPS:
        row = {kind: worst(series, h, keeps, repeats).round(3).tolist() for kind, keeps in KINDS.items()}
        row["served"] = [round(mine[f"0.9 h{h} worst"], 3)]
        print(f"{h:3} steps  " + "   ".join(f"{kind} {' '.join(map(str, each))}" for kind, each in row.items()))
        found |= {f"{kind} h{h}": each for kind, each in row.items()}
    return found


def mixtures(
    series: Sequence[Series], told: Mapping[str, Told], served: Mapping[str, FloatArray]
) -> dict[str, list[float]]:
    """Print and return the second limit."""
    print("\npinball loss / that of last value with residual quantiles: served, best member and mixture in hindsight")
    found: dict[str, list[float]] = {}
    for level in LEVELS:
        for h in STEPS:
            row = [round(value, 4) for value in hindsight(series, told, served, h, level)]
            print(f"{level:5} {h:3} steps  " + "  ".join(f"{value:.3f}" for value in row), flush=True)
            found[f"{level} h{h}"] = row
    return found


if __name__ == "__main__":
    main()
