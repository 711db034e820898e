"""How good are the forecasts, and what does a tick of them cost?

For every trace: train on the first 70 %, then walk through the rest as the control plane would, one value per tick,
through the selector. Prints the WAPE of each model relative to last value (below 1 is better) at 1, 5 and 12 steps, how
often a model acted, the coverage of the calibrated 0.05 and 0.95 quantiles, and how often the peak over 12 steps stayed
below its 0.95 quantile. Then the time of ``Selector.update`` over ten series and three models.

    python -m benchmarks.forecast_accuracy --data ../shared/data --seconds 20 --json result.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from forecasting.base import QUANTILES
from forecasting.ensemble import Selected, Selector
from forecasting.evaluate.backtest import Backtest, backtest
from forecasting.evaluate.stats import coverage
from forecasting.models.lstm import Lstm
from forecasting.models.naive import LastValue
from forecasting.models.statistical import Ewma
from forecasting.series import FloatArray, Series
from forecasting.training import TrainSettings, train

HORIZON = 12
STEPS = (1, 5, 12)
DAY = 86_400
TRACES = {
    "nasa_jul95_1min": 1,
    "nasa_jul95_1min/2": 2,
    "nasa_jul95_1min/5": 5,
    "nasa_aug95_5min": 1,
    "twitter_aug21_1min": 1,
    "twitter_aug21_1min/5": 5,
    "aws_elb_5min": 1,
    "tweets_aapl_5min": 1,
    "nyc_taxi_30min": 1,
    "servegen_small_10min": 1,
    "ob_frontend_1min": 1,
    "ob_checkout_1min": 1,
}
"""Name of the file and, after a slash, rows that make one step."""


def read(folder: Path, name: str) -> Series:
    """A trace as a series; rows are averaged to steps."""
    rows = [line.split(",") for line in (folder / f"{name.partition('/')[0]}.csv").read_text().split()[1:]]
    merge = TRACES[name]
    times = [datetime.fromisoformat(stamp).timestamp() for stamp, _ in rows[:2]]
    values = np.array([float(value) for _, value in rows])
    step = (times[1] - times[0]) * merge
    values = values[: len(values) // merge * merge].reshape(-1, merge).mean(axis=1)
    return Series(name, times[0], step, values, max(1, round(DAY / step)))


def walk(selector: Selector, series: Series, cut: int, last: int) -> list[Selected]:
    """One update per tick from ``cut`` on."""
    return [selector.update([replace(series, values=series.values[:n])])[0] for n in range(cut, last)]


def measure(series: Series, lstm: Lstm, cut: int, most: int) -> dict[str, Any]:
    """Every model alone, and what the selector served, over the same origins."""
    last = min(cut + most, len(series.values) - HORIZON + 1)
    view = series.until(last + HORIZON - 1)
    alone = {model.name: backtest(model, [view], HORIZON, cut) for model in (LastValue(), Ewma(), lstm)}
    chosen = walk(Selector([Ewma(), lstm], HORIZON), view, cut, last)
    reference = alone["last"]
    served = Backtest(reference.actual, np.array([one.forecast.values for one in chosen]), reference.last)
    return {
        "origins": len(chosen),
        **{name: {f"h{h}": result.relative_wape(h) for h in STEPS} for name, result in alone.items()},
        "selected": {f"h{h}": served.relative_wape(h) for h in STEPS},
        "acting": {name: sum(one.model == name for one in chosen) / len(chosen) for name in alone},
        "below": {str(q): {f"h{h}": served.coverage(h, q) for h in STEPS} for q in QUANTILES},
        "peak_0.95": coverage(reference.actual.max(axis=1), np.array([one.peak(HORIZON, 0.95) for one in chosen])),
    }


def accuracy(folder: Path, names: Sequence[str], seconds: float, most: int) -> dict[str, Any]:
    """Train and measure every trace on its own."""
    results: dict[str, Any] = {}
    for name in names:
        series = read(folder, name)
        cut = int(len(series.values) * 0.7)
        lstm = train([series.until(cut)], TrainSettings(seconds=seconds, horizon=HORIZON), _bar(name))
        results[name] = {"train_seconds": lstm.card["seconds"], "train_steps": lstm.card["steps"]}
        results[name] |= measure(series, lstm, cut, most)
        print(_row(name, results[name]), flush=True)
    return results


def cost(lstm: Lstm, services: int = 10, ticks: int = 60) -> dict[str, float]:
    """Milliseconds (wall clock and CPU) of one update over ``services`` series of seven days in 5-minute steps."""
    rng = np.random.default_rng(0)
    day = 50 + 40 * np.sin(2 * np.pi * np.arange(7 * 288 + ticks) / 288)
    many = [Series(f"s{n}", 0.0, 5.0, _noisy(day, rng), 288) for n in range(services)]
    selector = Selector([Ewma(), lstm], HORIZON)
    spent = []
    busy = 0.0
    for count in range(7 * 288, 7 * 288 + ticks):
        past = [replace(one, values=one.values[:count]) for one in many]
        began, before = time.perf_counter(), time.process_time()
        selector.update(past)
        spent.append((time.perf_counter() - began) * 1e3)
        busy += (time.process_time() - before) * 1e3 if len(spent) > 1 else 0.0
    later = np.array(spent[1:])
    return {
        "services": services,
        "cpu_ms": busy / len(later),
        "first_ms": spent[0],
        "p50_ms": float(np.median(later)),
        "p99_ms": float(np.quantile(later, 0.99)),
    }


def _noisy(day: FloatArray, rng: np.random.Generator) -> FloatArray:
    return np.maximum(0.0, day + rng.normal(0, 5, len(day)))


def _bar(name: str) -> Any:
    def progress(done: int, total: int, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r{name}: {done}/{total} {text}   ", end="", file=sys.stderr)

    return progress


HEADER = (
    f"{'TRACE':22}{'EWMA 1/5/12':>18}{'LSTM 1/5/12':>18}{'SELECTED 1/5/12':>18}"
    f"{'ACTS':>6}{'<.05':>6}{'<.95':>6}{'PEAK':>6}"
)


def _row(name: str, found: dict[str, Any]) -> str:
    errors = "".join(_cell(found[model]) for model in ("ewma", "lstm", "selected"))
    low, high = (np.mean(list(found["below"][level].values())) for level in ("0.05", "0.95"))
    return f"{name:22}{errors}{1 - found['acting']['last']:>6.2f}{low:>6.2f}{high:>6.2f}{found['peak_0.95']:>6.2f}"


def _cell(errors: dict[str, float]) -> str:
    return f"{'/'.join(f'{error:.2f}' for error in errors.values()):>18}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--traces", nargs="*", default=list(TRACES), choices=list(TRACES), metavar="TRACE")
    parser.add_argument("--seconds", type=float, default=20.0, help="training budget per trace")
    parser.add_argument("--origins", type=int, default=2000, help="ticks to walk through at most")
    parser.add_argument("--json", type=Path, help="write the figures there")
    told = parser.parse_args()
    if not told.data.is_dir():
        sys.exit(f"no traces at {told.data}; name their folder with --data")
    print(HEADER)
    results = accuracy(told.data, told.traces, told.seconds, told.origins)
    short = train([read(told.data, told.traces[0])], TrainSettings(steps=5, seconds=60), lambda *_: None)
    spent = cost(short)
    times = "first {first_ms:.1f} ms, p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms, {cpu_ms:.1f} ms of CPU"
    print(f"update of {spent['services']} series: {times.format(**spent)}")
    if told.json:
        told.json.write_text(json.dumps({"traces": results, "cost": spent}, indent=2) + "\n")


if __name__ == "__main__":
    main()
