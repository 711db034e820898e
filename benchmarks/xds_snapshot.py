"""From a mesh to bytes: what it costs to encode one cluster, to build a large snapshot, and to renew every limit.

Run: ``python -m benchmarks.xds_snapshot [--services 1000] [--groups 100] [--callers 4] [--runs 9] [--json FILE]``.

- *cluster*: ``xds.codec.encode`` beside ``bytes()`` for the outbound cluster that the translation makes;
- *snapshot*: translate an ingress that calls every service, and encode the response of each type, in a fresh process
  each time (nothing compiled, nothing cached; imports are not counted);
- *tick*: new limits for every service, each called by some groups of sidecars (``--callers``): values, checks, leases
  and the body of every group's response, until the last is encoded.

Prints a table of medians and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xds import codec
from xds.model import LIMITS_LAYER, Address, Call, Limits, Mesh, Route, RuntimeLayer, Service, Workload
from xds.protocol.leases import lease_of
from xds.protocol.responses import ResponseCache
from xds.snapshot import Snapshot
from xds.translate import snapshots
from xds.translate.clusters import outbound
from xds.translate.runtime import limits_values
from xds.types import RUNTIME

LIMITS = Limits(max_connections=1024, max_pending_requests=1024, max_requests=1024, max_retries=3)

#: What the project promises: microseconds, seconds, milliseconds.
CLUSTER_BUDGET_US, SNAPSHOT_BUDGET_S, TICK_BUDGET_MS = 25.0, 1.5, 60.0


def mesh(count: int) -> tuple[Mesh, Workload]:
    """``count`` services with two replicas each, and an ingress that calls and routes to all of them."""
    names = [f"svc-{number}" for number in range(count)]
    services = {name: Service(name, LIMITS, (Address("10.0.0.1", 8080), Address("10.0.0.2", 8080))) for name in names}
    routes = tuple(Route(f"/{name}/", name) for name in names)
    calls = tuple(Call("ingress", name, LIMITS) for name in names)
    return Mesh(services, calls, {"ingress": routes}), Workload("ingress-0", "ingress", Address("127.0.0.1", 10000))


def bodies(snapshot: Snapshot) -> int:
    """Bytes of the responses that bring the whole snapshot."""
    cache = ResponseCache()
    return sum(len(cache.whole(one, b"")) for one in snapshot.sets.values())


def cold_snapshot(count: int) -> dict[str, float]:
    """Seconds and bytes of one build, in this very process."""
    built, workload = mesh(count)
    begun = time.perf_counter()
    size = bodies(snapshots(built, [workload])[workload.node_id])
    return {"seconds": time.perf_counter() - begun, "bytes": size}


def cold_snapshots(count: int, runs: int) -> list[float]:
    """Seconds of builds in fresh processes."""
    command = [sys.executable, "-m", "benchmarks.xds_snapshot", "--services", str(count), "--cold"]
    results = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(runs)]
    return [float(json.loads(line)["seconds"]) for line in results]


def cluster_times(runs: int) -> tuple[list[float], list[float]]:
    """Microseconds of one encoding: ours, and ``bytes()``, in turn."""
    message = outbound(Service("catalog", LIMITS), LIMITS)
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(_microseconds(lambda: codec.encode(message), 2000))
        theirs.append(_microseconds(lambda: bytes(message), 50))
    return ours, theirs


def _microseconds(work: Callable[[], object], count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        work()
    return 1e6 * (time.perf_counter() - begun) / count


def ticks(services: int, groups: int, callers: int, runs: int) -> list[float]:
    """Milliseconds of each tick; no two ticks have a value in common."""
    callees = [[f"svc-{n}" for n in range(services) if (n + g) % groups < callers] for g in range(groups)]
    times = []
    for run in range(1, runs + 2):
        begun = time.perf_counter()
        for group, names in enumerate(callees):
            _renew(group, names, run)
        times.append(1e3 * (time.perf_counter() - begun))
    return times[1:]  # the first compiles and fills caches


def _renew(group: int, names: list[str], run: int) -> bytes:
    values = limits_values({name: Limits(100 + run, 200 + run, 300 + run, 1 + run) for name in names})
    lease = lease_of(RuntimeLayer(LIMITS_LAYER, values, ttl=15.0))
    return codec.delta_part(RUNTIME, LIMITS_LAYER, lease.version, lease.resource.body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=100, help="groups of sidecars")
    parser.add_argument("--callers", type=int, default=4, help="groups that call each service")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cold:
        print(json.dumps(cold_snapshot(options.services)))
        return
    report(options)


def report(options: argparse.Namespace) -> None:
    ours, theirs = cluster_times(options.runs)
    rows = [
        ("encode a cluster", ours, "us", CLUSTER_BUDGET_US),
        ("bytes() of the same cluster", theirs, "us", None),
        (
            f"snapshot of {options.services} services, cold",
            cold_snapshots(options.services, options.runs),
            "s",
            SNAPSHOT_BUDGET_S,
        ),
        (
            f"limits of {options.services} services to {options.groups} groups",
            ticks(options.services, options.groups, options.callers, options.runs),
            "ms",
            TICK_BUDGET_MS,
        ),
    ]
    print(f"{'WHAT':<44}{'MEDIAN':>9}{'BEST':>9}{'WORST':>9}{'BUDGET':>9}  UNIT")
    for what, times, unit, budget in rows:
        allowed = "-" if budget is None else f"{budget:g}"
        print(f"{what:<44}{statistics.median(times):>9.2f}{min(times):>9.2f}{max(times):>9.2f}{allowed:>9}  {unit}")
    if options.json:
        document: dict[str, Any] = {
            what: {"unit": unit, "budget": budget, "runs": times} for what, times, unit, budget in rows
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
