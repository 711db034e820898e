"""How soon do models that learn each series apart earn their keep? Errors by the length of the history.

Every trace is cut at 40 % and at 60 % of its length, and what came before is forgotten but for the newest windows; the
models are fitted on those and judged on the next tenth of the trace. The last 20 %, which the forecasts are judged on
(``benchmarks.forecast_table``), are not looked at, so settings may be chosen here. Errors relative to last value,
geometric mean over traces and cuts; only those that are long enough.

    python -m benchmarks.forecast_young --data ../shared/data --penalty 0 100 300 1000
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.forecast_table import H, read, relative, summary
from forecasting.base import MEDIAN
from forecasting.batch import Batch
from forecasting.models import boosting_training, linear
from forecasting.models.boosting import Boosting
from forecasting.models.recent import RecentMedian
from forecasting.models.statistical import Ewma
from forecasting.series import IntArray, Series

LENGTHS = (120, 200, 350, 600, 1000, 3000, 10_000)
CUTS = (0.4, 0.6)
JUDGED = 0.1
SCORED = 0.8
"""From here on the forecasts are judged elsewhere."""

MOST = 400
"""Origins that a history is judged at, evenly spaced."""


@dataclass(frozen=True)
class Young:
    """A short history inside a trace, and the ``counts`` of values at which it is judged."""

    series: Series
    end: int
    counts: IntArray


def young(series: Sequence[Series], windows: int) -> Iterator[Young]:
    """Every trace at every cut where it has ``windows`` windows behind it."""
    for one, cut in itertools.product(series, CUTS):
        end = int(cut * len(one.values))
        first = end - windows - linear.FIRST
        if first < 0:
            continue
        after = min(int(SCORED * len(one.values)) - H, end + max(MOST // 2, int(JUDGED * len(one.values))))
        counts = np.unique(np.linspace(end, after, MOST).astype(int)) - first
        short = replace(one, start=one.start + first * one.step, values=one.values[first:])
        yield Young(short, end - first, counts)


def errors(one: Young, penalties: Sequence[float]) -> dict[str, dict[int, float]]:
    """Relative errors by model and step."""
    batch, told = Batch.at(one.series, one.counts, H), linear.windows(one.series.until(one.end), H)
    medians = {"ewma": Ewma().predict(batch), "median48": RecentMedian(48).predict(batch)}
    for penalty in penalties:
        linear.PENALTY = penalty
        medians[f"linear {penalty:g}"] = linear.Linear([one.series.name], linear.fit(*told)[None]).predict(batch)
    forests = Boosting([one.series.name], boosting_training.fit(*told))
    medians["boosting"] = forests.predict(batch)
    return {name: relative(one.series, one.counts, values[..., MEDIAN]) for name, values in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--penalty", type=float, nargs="+", default=[linear.PENALTY], help="of the linear model")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    series, found = read(args.data), {}
    for windows in LENGTHS:
        rows = [errors(one, args.penalty) for one in young(series, windows)]
        found[windows] = {
            name: summary({str(number): row[name] for number, row in enumerate(rows)}) for name in rows[0]
        }
        cells = (
            f"{name} " + "/".join(f"{value:.3f}" for value in row.values()) for name, row in found[windows].items()
        )
        print(f"{windows:6} windows, {len(rows):2} histories:  " + "   ".join(cells), flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
