"""What a tick of the forecasts costs: CPU, cold start and memory for 10, 100 and 1,000 services.

Run: ``python -m benchmarks.forecast_tick [--services 10 100 1000] [--ticks 30] [--json FILE]``.

Series are days of 1-minute steps with noise and gaps; the models are last value, EWMA, and linear, boosting and LSTM
in the shapes that training gives them, with random weights (what they cost does not depend on what they say). For each
number of services a fresh process on one thread measures

- ``first``: CPU of the first update, which replays 60 intervals of a stored history of 8 days (seconds);
- ``median`` and ``p90``: CPU of the updates after it, one new interval each (milliseconds);
- ``memory``: peak resident memory without the interpreter and the libraries, and without the series (MB);
- ``process``: peak resident memory of the whole process without the series (MB).

Exits with 1 where 1,000 services miss a budget.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = "1"  # before numpy is imported: a tick may use one core

import numpy as np
import torch

from forecasting.base import Forecaster
from forecasting.ensemble import Selector
from forecasting.features import A, S
from forecasting.models.boosting import DEPTH, FIGURES, KNOTS, UPPER_KNOTS, Boosting, Forests
from forecasting.models.linear import F, Linear
from forecasting.models.lstm import Lstm, Network
from forecasting.models.statistical import Ewma
from forecasting.series import FloatArray, Series

DAY, DAYS, STEP = 1_440, 8, 60.0
HORIZON, REPLAY = 12, 60
HIDDEN, TREES = 32, 120
TAILS = {0.9: (60, DEPTH), 0.99: (60, DEPTH - 1)}
"""Trees and levels of the upper quantiles' forests."""

BUDGETS = {"median": 250.0, "first": 30.0, "process": 500.0}
"""Of 1,000 services; units as in the table."""

COLUMNS = {
    "services": "{:.0f}",
    "median": "{:.1f}",
    "p90": "{:.1f}",
    "first": "{:.1f}",
    "memory": "{:.0f}",
    "process": "{:.0f}",
}
TITLES = ("SERVICES", "MEDIAN ms", "P90 ms", "FIRST s", "MEMORY MB", "PROCESS MB")


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one number of services; see the module's text."""

    services: int
    median: float
    p90: float
    first: float
    memory: float
    process: float


def histories(services: int, ticks: int) -> FloatArray:
    """``(services, 8 days + ticks)``: a daily curve of random height with noise, and 1 % of gaps."""
    rng = np.random.default_rng(0)
    length = DAYS * DAY + ticks
    day = 1.0 + 0.5 * np.sin(2.0 * np.pi * np.arange(length) / DAY)
    table = np.empty((services, length))
    for row in table:
        row[:] = rng.uniform(10.0, 1_000.0) * day * np.maximum(1.0 + 0.1 * rng.standard_normal(length), 0.0)
        row[rng.random(length) < 0.01] = np.nan
    return table


def models(names: Sequence[str]) -> list[Forecaster]:
    """EWMA, and trained models with random weights (last value is always there)."""
    rng, count = np.random.default_rng(1), len(names)
    linear = Linear(names, rng.normal(0.0, 0.05, (count, HORIZON, 1 + F)))
    upper = {level: [_forests(rng, count, FIGURES, *shape) for _ in UPPER_KNOTS] for level, shape in TAILS.items()}
    boosting = Boosting(names, [_forests(rng, count, S + A, TREES, DEPTH) for _ in KNOTS], upper)
    torch.manual_seed(0)
    return [Ewma(), linear, boosting, Lstm(Network(HORIZON, HIDDEN, count), names)]


def _forests(rng: np.random.Generator, count: int, figures: int, trees: int, levels: int) -> Forests:
    inner = (count, trees, 2**levels - 1)
    leaf = rng.standard_normal((count, trees, 2**levels), dtype=np.float32)
    leaf *= 0.01
    figure = rng.integers(0, figures, inner, dtype=np.int8)
    return Forests(figure, rng.standard_normal(inner, dtype=np.float32), leaf.astype(np.float16), np.zeros(count))


def seen(names: Sequence[str], table: FloatArray, count: int) -> list[Series]:
    """The first ``count`` values of every row, as series; views, no copies."""
    return [Series(name, 0.0, STEP, row[:count], DAY) for name, row in zip(names, table, strict=True)]


def updates(services: int, ticks: int, table: FloatArray) -> Iterator[float]:
    """CPU seconds of every update; the first is that of the cold start."""
    names = [f"service-{n}" for n in range(services)]
    selector = Selector(models(names), HORIZON, replay=REPLAY)
    for tick in range(ticks):
        series = seen(names, table, DAYS * DAY + tick)
        begin = time.process_time()
        selector.update(series)
        yield time.process_time() - begin


def measured(services: int, ticks: int) -> Row:
    """Measure this process: call it once per process."""
    before = _peak()
    table = histories(services, ticks)
    first, *others = updates(services, ticks, table)
    peak, own = _peak(), table.nbytes / 1e6
    each = 1e3 * np.array(others)
    return Row(services, float(np.median(each)), float(np.quantile(each, 0.9)), first, peak - before - own, peak - own)


def _peak() -> float:
    """Peak resident memory of this process in MB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 1e6 if sys.platform == "darwin" else size * 1024 / 1e6


def apart(services: int, ticks: int) -> Row:
    """``measured`` in a process of its own, so that peaks of memory are its own, too."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.forecast_tick",
        "--services",
        str(services),
        "--ticks",
        str(ticks),
        "--here",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return Row(**json.loads(done.stdout))


def missed(row: Row) -> list[str]:
    """The budgets that a row misses."""
    if row.services != 1_000:
        return []
    return [
        f"{name}: {getattr(row, name):.1f}, at most {most:.0f}"
        for name, most in BUDGETS.items()
        if getattr(row, name) > most
    ]


def line(row: Row) -> str:
    """One line of the table."""
    cells = [shape.format(getattr(row, name)) for name, shape in COLUMNS.items()]
    return "  ".join(cell.rjust(len(title)) for cell, title in zip(cells, TITLES, strict=True))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPU and memory of a tick of the forecasts")
    parser.add_argument("--services", type=int, nargs="+", default=[10, 100, 1_000])
    parser.add_argument("--ticks", type=int, default=31, help="updates per process, the cold start included")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.ticks < 2:
        parser.error("--ticks must be at least 2: the first update is the cold start")
    return found


def main() -> int:
    told = arguments()
    if told.here:
        print(json.dumps(asdict(measured(told.services[0], told.ticks))))
        return 0
    print("  ".join(TITLES))
    rows = []
    for services in told.services:
        rows.append(apart(services, told.ticks))
        print(line(rows[-1]), flush=True)
    failures = [text for row in rows for text in missed(row)]
    for text in failures:
        print(f"over budget with 1000 services: {text}", file=sys.stderr)
    if told.json is not None:
        _store(told.json, rows, failures)
    return 1 if failures else 0


def _store(path: Path, rows: Sequence[Row], failures: Sequence[str]) -> None:
    found: dict[str, Any] = {
        "horizon": HORIZON,
        "replay": REPLAY,
        "days": DAYS,
        "step": STEP,
        "rows": [asdict(row) for row in rows],
        "over_budget": list(failures),
    }
    path.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
