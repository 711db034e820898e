"""The report of a run: facts (JSON) out of what was recorded. Pure; :mod:`.page` draws it.

:func:`summarize` also judges whether the mesh ran as meant: every sidecar connected, no NACK, the load finished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from .leadtime import scale_ups
from .statistics import quantile

Json = dict[str, Any]
VERSION = 1


def summarize(run: Mapping[str, Any]) -> Json:
    """The report as JSON: everything that was recorded, and what follows from it."""
    judged = problems(run)
    return {
        "version": VERSION,
        "ok": not judged,
        "problems": judged,
        "summary": {
            "duration": run["options"]["duration"],
            "policy": run["config"]["policy"],
            "load": load(run),
            "slo": slo(run),
            "sidecars": sidecars(run),
            "xds": xds(run["statuses"]),
            "control": control(run),
            "forecasts": {name: forecast_quality(run["ticks"], name) for name in run["config"]["services"]},
            "scale_ups": [step.document() for step in scale_ups(run)],
            "replica_seconds": replica_seconds(run),
            "usage": run["usage"],
            "experiment": run["experiment"],
            "replicas_lost": sum(replica["phase"] == "failed" for replica in run["replicas"]),
            "control_plane_starts": run["control_plane_starts"],
        },
        "run": dict(run),
    }


def problems(run: Mapping[str, Any]) -> list[str]:
    """Why the mesh did not run as meant; empty if it did."""
    found = []
    seen = sidecars(run)
    if not run["load"].get("finished"):
        found.append("the load did not finish")
    if not seen["expected"] or seen["connected"] < seen["expected"]:
        found.append(f"{seen['connected']} of {seen['expected']} sidecars were connected at the end")
    if nacks := sum(xds(run["statuses"])["nacks"].values()):
        found.append(f"sidecars rejected {nacks} configurations (NACK)")
    if not run["ticks"]:
        found.append("the control plane made no tick with traffic")
    if error := (run["experiment"] or {}).get("error"):
        found.append(f"the experiment did not run: {error}")
    return found


def sidecars(run: Mapping[str, Any]) -> Json:
    """Envoys that should be and that were connected when the load ended, the ingress included."""
    expected = [replica["node_id"] for replica in run["replicas"] if replica["phase"] == "ready"]
    connected = {proxy["node_id"] for proxy in run["proxies"] if proxy["connected"]}
    return {"expected": len(expected), "connected": len(connected.intersection(expected))}


def xds(statuses: Sequence[Json]) -> Json:
    """Pushes, ACKs and NACKs by type, summed over the incarnations of the control plane."""
    return {
        **{what: _sum(status.get(what) or {} for status in statuses) for what in ("pushes", "acks", "nacks")},
        "heartbeats": sum(status.get("heartbeats") or 0 for status in statuses),
    }


def control(run: Mapping[str, Any]) -> Json:
    """What the loop did. Durations of ticks in milliseconds."""
    durations = sorted(tick["duration_ms"] for tick in run["ticks"] if tick.get("duration_ms") is not None)
    return {
        "ticks": len(run["ticks"]),
        "tick_p50_ms": quantile(durations, 0.5),
        "tick_p99_ms": quantile(durations, 0.99),
        "forecasts": sum(status.get("forecasts") or 0 for status in run["statuses"]),
        "decisions": _sum(status.get("decisions") or {} for status in run["statuses"]),
        "model": run["statuses"][-1].get("model") if run["statuses"] else None,
    }


def load(run: Mapping[str, Any]) -> Json:
    """The generator's summary, with the rate that it reached (requests per second)."""
    found: Json = dict(run["load"])
    if found.get("seconds"):
        found["rate"] = found["sent"] / found["seconds"]
    return found


def slo(run: Mapping[str, Any]) -> Json:
    """The entry's objective against what users of the ingress saw: the generator's answers, and the control plane's
    count.

    Good requests are answered by 200; ``latency`` is the objective's percentile, measured from when a request was due.
    """
    goal = run["config"]["services"][run["config"]["entry"]]
    sent, ok = run["load"].get("scheduled") or 0, run["load"].get("ok") or 0
    p95 = run["load"].get("p95")
    return {
        "service": run["config"]["entry"],
        "objective": {key.removeprefix("slo_"): value for key, value in goal.items() if key.startswith("slo_")},
        "availability": 100.0 * ok / sent if sent else None,
        "p95": p95,
        "available": 100.0 * ok / sent >= goal["slo_availability"] if sent else None,
        "fast": p95 <= goal["slo_latency"] if p95 is not None and goal["slo_percentile"] == 95 else None,
        "control_plane": run["slo"],
    }


def forecast_quality(ticks: Sequence[Json], name: str) -> Json:
    """Forecasts of the next tick against it: WAPE (and last value's), and the share under the 95 % quantile."""
    pairs = [(a, b) for a, b in _pairs(ticks, name) if a.get("expected") is not None and b.get("demand") is not None]
    actual = sum(b["demand"] for _, b in pairs)
    if not pairs or not actual:
        return {"steps": len(pairs), "wape": None, "wape_last_value": None, "coverage_95": None, "skilled_share": None}
    return {
        "steps": len(pairs),
        "wape": sum(abs(a["expected"] - b["demand"]) for a, b in pairs) / actual,
        "wape_last_value": sum(abs(a["demand"] - b["demand"]) for a, b in pairs) / actual,
        "coverage_95": sum(b["demand"] <= a["upper"] for a, b in pairs) / len(pairs),
        "skilled_share": sum(bool(a["skilled"]) for a, _ in pairs) / len(pairs),
    }


def replica_seconds(run: Mapping[str, Any]) -> dict[str, float]:
    """Ready replicas, summed over time: what the mesh cost. By service."""
    tick = run["config"]["tick"]
    total: Counter[str] = Counter()
    for record in run["ticks"]:
        for name, seen in record["services"].items():
            total[name] += (seen.get("ready") or 0) * tick
    return dict(total)


def _pairs(ticks: Sequence[Json], name: str) -> Iterable[tuple[Json, Json]]:
    """Consecutive ticks of one service; a gap (a restart, a silent tick) breaks the chain."""
    for before, after in pairwise(ticks):
        if after["tick"] == before["tick"] + 1 and name in before["services"] and name in after["services"]:
            yield before["services"][name], after["services"][name]


def _sum(tables: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for table in tables:
        total.update(table)
    return dict(sorted(total.items()))
