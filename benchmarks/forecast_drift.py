"""Drift on a running mesh: the level shifts, then the season does. Is it found, named, learned, and does a tick wait?

Run: ``python -m benchmarks.forecast_drift [--warm 100] [--each 420] [--rate 10] [--json FILE] [--keep DIR]``.

Makes up two weeks of traffic with a daily course, and replays what follows through ``meshctl demo`` at 1,440 times
its speed, so that a day lasts a minute (30 ticks of 2 s). After ``--warm`` seconds it rises to 1.7 times its level for
good, ``--each`` seconds later its daily peak moves by eight hours and gets a companion, and ``--each`` seconds later
it ends. Prints what the control plane journaled about drift and models, and how late ticks began and how long they
took, over the whole run, trainings included. Exits with 1 where a shift was not found, no model that was trained for
it was promoted, or a tick began later than a fifth of its interval.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

SPEEDUP, TICK, LATE = 1440.0, 2.0, 0.2
BEGIN, PAST_DAYS = datetime(2026, 3, 2, tzinfo=UTC), 14
MINUTES = 1440

LEVEL, SHIFT = 1.7, 8 * 60


def rate(minute: int, level_from: float, season_from: float) -> float:
    """Requests per minute of the made-up service, before noise."""
    day = 2 * math.pi * minute / MINUTES
    course = 1.0 + 0.6 * math.sin(day - 1.9)
    if minute >= season_from:
        course = 1.0 + 0.45 * math.sin(day - 1.9 + 2 * math.pi * SHIFT / MINUTES) + 0.3 * math.sin(2 * day)
    return 100.0 * course * (LEVEL if minute >= level_from else 1.0)


def write_trace(path: Path, warm: float, each: float) -> None:
    """Two weeks, then what is replayed; a second of the replay is 24 minutes."""
    begin, chance = PAST_DAYS * MINUTES, random.Random(1)
    level_from = begin + warm * SPEEDUP / 60
    season_from = level_from + each * SPEEDUP / 60
    last = round(season_from + each * SPEEDUP / 60) + 60
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("timestamp", "value"))
        for minute in range(last):
            value = max(0.0, rate(minute, level_from, season_from) * chance.gauss(1.0, 0.04))
            rows.writerow(((BEGIN + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ"), f"{value:.1f}"))


@dataclass
class Seen:
    """What was found out, with seconds since the replay began where the mesh's clock is meant."""

    events: list[dict[str, Any]] = field(default_factory=list)
    late: dict[str, float] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)


def histogram(text: str, name: str) -> dict[str, float]:
    """Cumulative counts by upper bound, from the text that Prometheus scrapes."""
    return {bound: float(count) for bound, count in re.findall(rf'^{name}_bucket{{le="([^"]+)"}} (\S+)$', text, re.M)}


def watch(process: subprocess.Popen[bytes], folder: Path) -> str:
    """The last metrics that could be read before the demo ended."""
    text = ""
    while process.poll() is None:
        with suppress(OSError, KeyError, TypeError, yaml.YAMLError):
            listen = yaml.safe_load((folder / "mesh.yaml").read_text())["controller"]["http"]
            url = f"http://{listen['address']}:{listen['port']}/metrics"
            with urllib.request.urlopen(url, timeout=3) as answer:
                text = answer.read().decode()
        time.sleep(2.0)
    return text


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """What the control plane journaled about drift and models."""
    with sqlite3.connect(folder / "state" / "history.db") as database:
        query = "select time, kind, body from events where kind in ('drift', 'model') order by time"
        for moment, kind, body in database.execute(query):
            yield {"time": moment, "kind": kind, "message": json.loads(body)["message"]}


def run(options: argparse.Namespace, folder: Path) -> Seen:
    trace, state = folder / "drift.csv", options.keep or folder / "state"
    write_trace(trace, options.warm, options.each)
    duration = options.warm + 2 * options.each
    command = [
        sys.executable,
        "-m",
        "meshctl.cli",
        "demo",
        "--trace",
        str(trace),
        "--no-chaos",
        "--rate",
        f"{options.rate}",
    ]
    command += ["--from", (BEGIN + timedelta(days=PAST_DAYS)).isoformat(), "--speedup", f"{SPEEDUP}"]
    command += ["--duration", f"{duration}", "--keep-state", str(state), "--seed", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        text = watch(process, state)
    finally:
        process.terminate() if process.poll() is None else None
        process.wait(60)
    load = json.loads((state / "load.json").read_text())
    return Seen(
        [{**event, "at": round(event["time"] - load["started"], 1)} for event in events(state)],
        histogram(text, "meshctl_tick_delay_seconds"),
        histogram(text, "meshctl_tick_duration_seconds"),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm", type=float, default=100.0, help="seconds before the first shift")
    parser.add_argument("--each", type=float, default=420.0, help="seconds after each shift")
    parser.add_argument("--rate", type=float, default=10.0, help="mean requests per second")
    parser.add_argument("--keep", type=Path, help="keep the mesh's files in this folder")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drift-") as folder:
        seen = run(options, Path(folder))
    verdict = show(seen, options)
    if options.json:
        options.json.write_text(json.dumps({**asdict(seen), "verdict": verdict}, indent=2) + "\n")
    return 0 if all(verdict.values()) else 1


def show(seen: Seen, options: argparse.Namespace) -> dict[str, bool]:
    """Print the story; what held."""
    first, second = options.warm, options.warm + options.each
    print(f"level x{LEVEL} at {first:.0f} s, another season at {second:.0f} s")
    for event in seen.events:
        print(f"{event['at']:8.1f} s  {event['kind']:<6} {event['message']}")
    everything = seen.late.get("+Inf", 0.0)
    print(f"ticks {everything:.0f}; began late by at most (s): {_shares(seen.late)}")
    print(f"took at most (s): {_shares(seen.took)}")
    drifts = [(event["at"], event["message"]) for event in seen.events if event["kind"] == "drift"]
    promoted = [event["at"] for event in seen.events if event["message"].endswith(": promoted")]
    verdict = {
        "level found": any(first <= at < second and ": level" in message for at, message in drifts),
        "season found": any(at >= second and ": season" in message for at, message in drifts),
        "promoted after the level": any(first <= at < second for at in promoted),
        "promoted after the season": any(at >= second for at in promoted),
        "no tick late by a fifth": everything > 0 and seen.late.get(f"{LATE * TICK:g}", 0.0) == everything,
    }
    for what, held in verdict.items():
        print(f"{'yes' if held else 'NO ':<4}{what}")
    return verdict


def _shares(counts: dict[str, float]) -> str:
    total = counts.get("+Inf", 0.0) or 1.0
    return ", ".join(f"{bound}: {count / total:.1%}" for bound, count in counts.items())


if __name__ == "__main__":
    sys.exit(main())
