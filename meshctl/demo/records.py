"""A run as plain data: what :mod:`.report` is made from, and nothing that a process still holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from meshctl.config import MeshConfig

from .collect import Record
from .replica import Replica
from .setup import Options
from .supervisor import Supervisor
from .topology import ENTRY, visits
from .traces import Replay

Json = dict[str, Any]


def of_run(options: Options, shown: Replay, cfg: MeshConfig, supervisor: Supervisor, record: Record) -> Json:
    """The run as its parts know it."""
    return {
        "options": plain(asdict(options)),
        "trace": {"file": shown.trace.path.name, "from": shown.until.isoformat(), "seconds_per_row": shown.step},
        "config": facts(cfg),
        "ticks": record.ticks,
        "events": record.events,
        "statuses": list(record.statuses.values()),
        "services": record.services,
        "proxies": record.proxies,
        "slo": record.slo,
        "scale_events": [asdict(event) for event in supervisor.scale_events],
        "replicas": [life(replica) for replica in (*supervisor.finished, *supervisor.replicas())],
    }


def facts(cfg: MeshConfig) -> Json:
    """What the report needs of the mesh file."""
    return {
        "name": cfg.name,
        "entry": ENTRY,
        "tick": cfg.controller.tick,
        "policy": cfg.scaling.policy,
        "target_utilization": cfg.scaling.target_utilization,
        "startup": cfg.scaling.startup,
        "visits": visits(),
        "services": {
            name: {
                "concurrency": spec.concurrency,
                "min": spec.replicas.min,
                "max": spec.replicas.max,
                "slo_latency": spec.slo.latency,
                "slo_percentile": spec.slo.percentile,
                "slo_availability": spec.slo.availability,
            }
            for name, spec in cfg.services.items()
        },
    }


def life(replica: Replica) -> Json:
    """When a replica was asked for, started and ready."""
    return {
        "node_id": replica.node_id,
        "service": replica.service,
        "phase": replica.phase,
        "asked_at": replica.asked_at,
        "started_at": replica.started_at,
        "ready_at": replica.ready_at,
        "reason": replica.reason,
    }


def read_json(path: Path) -> Json:
    """The object in a file; {} if there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(path: Path) -> list[Json]:
    """The objects in a file of JSON lines; a torn last line is left out."""
    try:
        text = path.read_text()
    except OSError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def plain(value: Any) -> Any:
    """Values that JSON knows."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path | datetime) else value
