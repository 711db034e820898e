"""How long the command line takes to answer: the median of 20 fresh processes.

Run: ``python benchmarks/cli_startup.py [--json FILE]``. Prints a table on stdout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 20
BUDGET_MS = 150.0

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import click": ["-c", "import click"],
    "meshctl --help": ["-m", "meshctl.cli", "--help"],
    "meshctl --version": ["-m", "meshctl.cli", "--version"],
    "meshctl proxy --help": ["-m", "meshctl.cli", "proxy", "--help"],
    "meshctl chaos run --help": ["-m", "meshctl.cli", "chaos", "run", "--help"],
}


def measure(arguments: list[str]) -> list[float]:
    """Milliseconds of :data:`RUNS` runs, after one that fills the file cache."""
    times = []
    for _ in range(RUNS + 1):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(1000 * (time.perf_counter() - begun))
    return times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    results = {name: measure(arguments) for name, arguments in COMMANDS.items()}
    print(f"{'COMMAND':<26}{'MEDIAN':>9}{'BEST':>9}{'WORST':>9}   (ms, {RUNS} runs, budget of --help {BUDGET_MS:g} ms)")
    for name, times in results.items():
        print(f"{name:<26}{statistics.median(times):>9.1f}{min(times):>9.1f}{max(times):>9.1f}")
    if options.json:
        medians = {name: round(statistics.median(times), 2) for name, times in results.items()}
        options.json.write_text(
            json.dumps({"runs": RUNS, "unit": "ms", "median": medians, "python": sys.version}, indent=2)
        )


if __name__ == "__main__":
    main()
