"""How long the command line takes to answer: the median of 20 fresh processes, by the clock and in CPU time.

Run: ``python benchmarks/cli_startup.py [--json FILE]``. Prints a table on stdout. On a busy machine the CPU time is
the figure to compare.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

RUNS = 20

#: Milliseconds that ``meshctl --help`` may take.
BUDGET = 150.0

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import click": ["-c", "import click"],
    "meshctl --help": ["-m", "meshctl.cli", "--help"],
    "meshctl --version": ["-m", "meshctl.cli", "--version"],
    "meshctl proxy --help": ["-m", "meshctl.cli", "proxy", "--help"],
    "meshctl chaos run --help": ["-m", "meshctl.cli", "chaos", "run", "--help"],
}


class Times(NamedTuple):
    """Milliseconds of one run."""

    clock: float
    cpu: float


def measure(arguments: list[str]) -> list[Times]:
    """:data:`RUNS` runs, after one that fills the file cache."""
    return [_once(arguments) for _ in range(RUNS + 1)][1:]


def _once(arguments: list[str]) -> Times:
    begun, used = time.perf_counter(), _cpu()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return Times(1000 * (time.perf_counter() - begun), 1000 * (_cpu() - used))


def _cpu() -> float:
    """Seconds of CPU that ended children used so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def summary(times: list[Times]) -> dict[str, float]:
    """Median of both clocks, and the best and the worst run."""
    clock = [one.clock for one in times]
    cpu = statistics.median(one.cpu for one in times)
    figures = {"median": statistics.median(clock), "best": min(clock), "worst": max(clock), "cpu": cpu}
    return {name: round(value, 1) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    results = {name: summary(measure(arguments)) for name, arguments in COMMANDS.items()}
    print(
        f"{'COMMAND':<26}{'MEDIAN':>9}{'BEST':>9}{'WORST':>9}{'CPU':>9}   ms, {RUNS} runs; --help may take {BUDGET:g}"
    )
    for name, row in results.items():
        print(f"{name:<26}{row['median']:>9.1f}{row['best']:>9.1f}{row['worst']:>9.1f}{row['cpu']:>9.1f}")
    if options.json:
        document = {"runs": RUNS, "unit": "ms", "python": sys.version.split()[0], "commands": results}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
