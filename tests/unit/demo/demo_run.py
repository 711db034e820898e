"""A recorded run, made up: small enough to reckon with by hand."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
BEGAN = 1000.0


def tick(number: int, demand: float, ready: int = 1, hpa: int = 1, **more: Any) -> Json:
    """One tick of 2 s; replicas serve 10 per second each at the target (concurrency 4, 0.2 s, 0.5)."""
    frontend = {
        "demand": demand,
        "rate": demand,
        "errors": 0.0,
        "p50": 0.2,
        "p99": 0.3,
        "service_time": 0.2,
        "in_flight": demand * 0.2,
        "ready": ready,
        "desired": ready,
        "limit": 12,
        "expected": demand + 1.0,
        "upper": demand + 3.0,
        "peak": demand + 5.0,
        "model": "lstm",
        "skilled": True,
        "hpa": hpa,
    }
    return {
        "tick": number,
        "time": BEGAN + 2.0 * number,
        "duration_ms": 10.0 + number,
        "services": {"frontend": {**frontend, **more}},
    }


def run(**changes: Any) -> Json:
    """Ten ticks; demand is 8, and 16 from the sixth; the second replica is asked for at 4 s and ready at 9 s."""
    ticks = [tick(n, 8.0 if n < 6 else 16.0, ready=1 if n < 5 else 2, hpa=1 if n < 7 else 2) for n in range(1, 11)]
    recorded: Json = {
        "options": {"duration": 20.0, "speedup": 60.0, "rate": 12.0},
        "trace": {"file": "nasa.csv.gz", "from": "1995-07-26T10:45:00+00:00", "seconds_per_row": 1.0},
        "config": {
            "name": "shop",
            "entry": "frontend",
            "tick": 2.0,
            "policy": "predictive",
            "target_utilization": 0.5,
            "startup": 6.0,
            "visits": {"frontend": 1.0},
            "services": {
                "frontend": {
                    "concurrency": 4,
                    "min": 1,
                    "max": 4,
                    "slo_latency": 0.8,
                    "slo_percentile": 95.0,
                    "slo_availability": 99.0,
                }
            },
        },
        "began": BEGAN,
        "interrupted": False,
        "ticks": ticks,
        "events": [
            {
                "id": 1,
                "time": BEGAN + 4,
                "kind": "scale",
                "subject": "frontend",
                "message": "frontend <1 -> 2>",
                "data": {},
            },
            {"id": 2, "time": BEGAN + 5, "kind": "push", "subject": "xds", "message": "pushed", "data": {}},
            {"id": 3, "time": BEGAN + 6, "kind": "fault", "subject": "catalog", "message": "abort", "data": {}},
        ],
        "statuses": [status(1.0, pushes=3), status(2.0, pushes=4)],
        "services": [],
        "proxies": [{"node_id": f"frontend-{n}", "connected": True} for n in range(2)],
        "slo": {"ok": True},
        "scale_events": [{"time": BEGAN + 4.0, "service": "frontend", "previous": 1, "desired": 2}],
        "replicas": [
            life("frontend-0", BEGAN - 20.0, BEGAN - 18.0),
            life("frontend-1", BEGAN + 4.0, BEGAN + 9.0),
        ],
        "notes": [{"time": BEGAN + 9, "subject": "frontend-1", "message": "ready"}],
        "control_plane_starts": 1,
        "usage": {
            "seconds": 20.0,
            "machine_cores": 2,
            "cores": 0.5,
            "share_of_machine": 0.25,
            "share_of_two_cores": 0.25,
            "components": {
                "services": {"cores": 0.5, "share_of_two_cores": 0.25, "memory": 2**20, "memory_peak": 2**21}
            },
        },
        "load": {
            "seconds": 20.0,
            "finished": True,
            "scheduled": 200,
            "sent": 200,
            "late": 0,
            "ok": 199,
            "errors": {"503": 1},
            "p50": 0.2,
            "p95": 0.4,
            "p99": 0.5,
        },
        "load_lines": [
            {"time": BEGAN + n, "scheduled": 10, "sent": 10, "ok": 10, "errors": {}, "p50": 0.2, "p99": None}
            for n in range(1, 21)
        ],
        "experiment": None,
    }
    return {**recorded, **changes}


def status(started: float, pushes: int) -> Json:
    return {
        "started": started,
        "pushes": {"cds": pushes, "eds": 1},
        "acks": {"cds": pushes},
        "nacks": {},
        "heartbeats": 5,
        "forecasts": 10,
        "decisions": {"applied": 2, "held": 3},
        "model": {"state": "ready"},
    }


def life(node_id: str, asked_at: float, ready_at: float | None, phase: str = "ready") -> Json:
    return {
        "node_id": node_id,
        "service": node_id.rpartition("-")[0],
        "phase": phase,
        "asked_at": asked_at,
        "started_at": asked_at,
        "ready_at": ready_at,
        "reason": "",
    }
