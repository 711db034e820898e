"""One change to a thousand sidecars, beside go-control-plane's figures.

Run: ``python -m benchmarks.xds_table [--load PATH/xds_load.py] [--only sotw-1000x100] [--bumps 10] [--json FILE]``.

Drives ``benchmarks/xds_server.py`` with a load client that opens N streams as N sidecars would and speaks its protocol
over standard input. For each row: the time from the change to the last stream, the CPU of the server per stream, both
also as a share of what go-control-plane's SnapshotCache needs on the same kind of machine (2 cores, client and server
on the same two); the same for the storm in which all streams open at once. The peer's figures stand beside the load
client (README.md there) and are repeated in :data:`ROWS`; ``budget`` is the share that this project allows itself.
Exits with 1 where a row misses its budget, and with 0 and a reason where there is no load client.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

LOAD = Path(__file__).parents[2] / "shared" / "bench" / "xds_load.py"
SERVER = Path(__file__).parent / "xds_server.py"
FLOOR = Path(__file__).parent / "xds_floor.py"
PORT = 18700


@dataclass(frozen=True)
class Row:
    """A setting, and the peer's figures there: ``cpu`` (us per stream) and ``last`` (ms) of SnapshotCache,
    ``linear_cpu`` of its Linear cache where that can do it, ``storm`` (ms). Budgets are shares of these."""

    name: str
    streams: int
    clusters: int
    cpu: float
    last: float
    cpu_budget: float
    last_budget: float
    linear_cpu: float | None = None
    linear_budget: float | None = None
    storm: float | None = None
    storm_budget: float | None = None
    delta: bool = False
    per_node: bool = False


ROWS = (
    Row("sotw-1000x100", 1000, 100, 288, 206, 0.6, 0.75, 115, 1.5, 851, 1.0),
    Row("sotw-1000x1000", 1000, 1000, 2278, 1218, 0.15, 0.25, 645, 0.55, 4515, 0.35),
    Row("sotw-3000x100", 3000, 100, 267, 558, 0.75, 0.75, 96, None, 2377, None),
    Row("sotw-1000x100-per-node", 1000, 100, 276, 196, 0.6, 0.75, per_node=True),
    Row("sotw-1000x1000-per-node", 1000, 1000, 2075, 1195, 0.15, 0.25, per_node=True),
    Row("delta-1000x100", 1000, 100, 112, 80, 1.2, 1.2, 66, None, 917, None, delta=True),
    Row("delta-1000x1000", 1000, 1000, 537, 175, 0.3, 0.7, 409, None, 4918, None, delta=True),
)


def run(row: Row, load: Path, bumps: int, script: Path = SERVER) -> dict[str, float]:
    """The load client's medians for one row."""
    flags = f"--nodes {row.streams}{' --per-node' if row.per_node else ''}"
    server = f"{sys.executable} -m benchmarks.{script.stem} --port {PORT} --clusters {row.clusters} {flags}"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows.csv"
        command = [sys.executable, str(load), "--server", server, "--target", f"127.0.0.1:{PORT}"]
        command += ["--streams", str(row.streams), "--clusters", str(row.clusters), "--bumps", str(bumps)]
        command += ["--csv", str(table), "--raw", str(Path(folder) / "raw.jsonl"), *(["--delta"] if row.delta else [])]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with table.open() as lines:
            kinds = {line["kind"]: line for line in csv.DictReader(lines)}
    storm, bump = kinds["storm"], kinds["bump"]
    return {
        "cpu_us": float(bump["cpu_us_per_stream"]),
        "p50_ms": float(bump["p50_ms"]),
        "p99_ms": float(bump["p99_ms"]),
        "last_ms": float(bump["last_ms"]),
        "storm_ms": float(storm["last_ms"]),
        "storm_cpu_ms": float(storm["server_cpu_ms"]),
        "lost": row.streams - float(storm["got"]),
        "rss_mb": float(bump["rss_mb"]),
    }


def verdicts(row: Row, got: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Share of the peer's figure, and the share allowed, by what was measured."""
    pairs = {
        "cpu": (got["cpu_us"], row.cpu, row.cpu_budget),
        "last": (got["last_ms"], row.last, row.last_budget),
        "cpu vs Linear": (got["cpu_us"], row.linear_cpu, row.linear_budget),
        "storm": (got["storm_ms"], row.storm, row.storm_budget),
    }
    return {what: (mine / theirs, budget) for what, (mine, theirs, budget) in pairs.items() if theirs and budget}


def show(row: Row, got: dict[str, float]) -> bool:
    """Print one line; True if every budget holds."""
    judged = verdicts(row, got)
    good = got["lost"] == 0 and all(share <= budget for share, budget in judged.values())
    shares = ", ".join(f"{what} {share:.2f}/{budget:g}" for what, (share, budget) in judged.items())
    figures = (
        f"{got['cpu_us']:>7.0f}{got['p50_ms']:>8.0f}{got['last_ms']:>8.0f}{got['storm_ms']:>8.0f}{got['rss_mb']:>7.0f}"
    )
    print(f"{row.name:<26}{figures}  {'ok  ' if good else 'OVER'}  {shares}", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", type=Path, default=LOAD, help="the load client")
    parser.add_argument("--only", action="append", help="only this row; may be given several times")
    parser.add_argument("--bumps", type=int, default=10, help="changes measured per row")
    parser.add_argument("--floor", action="store_true", help="before each row, measure the floor (xds_floor.py), too")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if not options.load.exists():
        print(f"skipped: there is no load client at {options.load}; give one with --load", file=sys.stderr)
        return 0
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    print(f"{'ROW':<26}{'CPU_US':>7}{'P50_MS':>8}{'LAST_MS':>8}{'STORM':>8}{'RSS_MB':>7}  SHARES OF THE PEER / ALLOWED")
    results: list[dict[str, Any]] = []
    for row in rows:
        if options.floor:
            floor = run(row, options.load, options.bumps, FLOOR)
            results.append({"name": f"{row.name}, floor", **floor, "ok": True})
            show(replace(row, name="  floor", storm=None, cpu=0, last=0, linear_cpu=None), floor)
        got = run(row, options.load, options.bumps)
        results.append({**asdict(row), **got, "ok": show(row, got)})
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
