"""What the HTTP API says: the control plane's values as plain JSON. Pure; times in seconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from forecasting.drift import Drift
from forecasting.errors import ArtifactError
from forecasting.gates import Gate
from forecasting.graph import Ratio
from forecasting.outlook import Ahead
from forecasting.registry import Generation, Registry, Swap
from forecasting.selected import Selected
from meshctl.config import MeshConfig
from meshctl.control.faults import FaultRecord
from meshctl.control.loop import Loop
from meshctl.control.timeline import live_limit, live_sidecars
from meshctl.model import EdgeObservation, ServiceObservation
from xds.canary import GroupStatus
from xds.server import Board
from xds.status import NodeStatus, TypeStatus


def service(loop: Loop, seen: ServiceObservation, good_ratio: float | None) -> dict[str, Any]:
    """One row of ``/v1/services``."""
    slo = loop.config.services[seen.service].slo
    demand = loop.forecasts.demand.get(seen.service)
    limit = loop.plan and live_limit(loop.plan, seen.service, live_sidecars(loop.replicas))
    return {
        "name": seen.service,
        "demand": seen.demand,
        "rate": seen.rate,
        "errors": seen.errors,
        "rate_limited": seen.rate_limited,
        "p50": seen.p50,
        "p99": seen.p99,
        "in_flight": seen.in_flight,
        "ready": sum(r.service == seen.service and r.phase == "ready" for r in loop.replicas),
        "desired": loop.desired().get(seen.service, seen.desired),
        "cpu": seen.cpu,
        "memory": seen.memory,
        "limit": limit,
        "forecast": demand and asdict(demand),
        "slo": {**slo.model_dump(), "good_ratio": good_ratio},
        "business": dict(seen.business),
    }


def edge(loop: Loop, seen: EdgeObservation, caller_demand: float) -> dict[str, Any]:
    """One row of ``/v1/graph``; ``ratio`` is calls per request of the caller."""
    limits = loop.plan and loop.plan.limits.get((seen.caller, seen.callee))
    return {
        "caller": seen.caller,
        "callee": seen.callee,
        "demand": seen.demand,
        "errors": seen.errors,
        "p50": seen.p50,
        "p99": seen.p99,
        "ratio": seen.demand / caller_demand if caller_demand > 0.0 else None,
        "limit": limits.max_requests if limits else None,
    }


def forecast(selected: Selected, drift: Drift | None, now: float) -> dict[str, Any]:
    """One row of ``/v1/forecasts``. ``drift`` is what was found since the models in use were taken."""
    made = selected.forecast
    return {
        "service": made.series,
        "model": selected.model,
        "skilled": selected.skilled,
        "reason": selected.reason,
        "origin": made.origin,
        "step": made.step,
        "quantiles": list(made.quantiles),
        "values": made.values.round(4).tolist(),
        "peaks": selected.peaks.round(4).tolist(),
        "weights": dict(selected.weights),
        "gates": [gate(one, made.step) for one in selected.gates],
        "skill": dict(selected.skill),
        "losses": {name: dict(losses) for name, losses in selected.losses.items()},
        "scored": selected.scored,
        "coverage": selected.coverage,
        "drift": drift and asdict(drift),
        "age": now - made.origin,
    }


def ahead(one: Ahead, now: float) -> dict[str, Any]:
    """One of ``outlook`` of a row of ``/v1/forecasts``: an hour or a day in coarser steps that agree with the row."""
    chosen, made = one.selected, one.forecast
    return {
        "span": one.span,
        "model": chosen.model,
        "skilled": chosen.skilled,
        "reason": chosen.reason,
        "origin": made.origin,
        "step": made.step,
        "quantiles": list(made.quantiles),
        "values": made.values.round(4).tolist(),
        "weights": dict(chosen.weights),
        "gates": [gate(one, made.step) for one in chosen.gates],
        "coverage": chosen.coverage,
        "age": now - made.origin,
    }


def callers(measured: Mapping[str, Ratio]) -> dict[str, Any]:
    """``callers`` of a row of ``/v1/forecasts``: by caller, the calls that one of its requests causes, and the standard
    error of that.
    """
    return {name: {"ratio": round(one.value, 6), "error": round(one.error, 6)} for name, one in measured.items()}


def gate(one: Gate, step: float) -> dict[str, Any]:
    """Whether the mixture may act on a bucket of steps; ``since``: its last move, null if it never moved."""
    since = one.since * step if one.since >= 0 else None
    return {"steps": one.steps, "open": one.open, "skill": one.skill, "scored": one.scored, "since": since}


def models(registry: Registry) -> dict[str, Any]:
    """``/v1/models``: generations and swaps, newest first. Reads the disk."""
    swaps = registry.history()
    champion = registry.active()
    return {
        "champion": champion,
        "previous": _previous(swaps),
        "generations": [_generation(registry, one, champion) for one in reversed(registry.generations())],
        "swaps": [asdict(swap) for swap in reversed(swaps)],
    }


def _previous(swaps: Sequence[Swap]) -> int | None:
    """What an undo would go back to, if it can be used."""
    lineage: list[int] = []
    for swap in swaps:
        if swap.kind == "undo" and swap.after in lineage:
            del lineage[lineage.index(swap.after) + 1 :]
        else:
            lineage = [*(number for number in lineage if number != swap.after), swap.after]
    return lineage[-2] if len(lineage) > 1 else None


def _generation(registry: Registry, one: Generation, champion: int | None) -> dict[str, Any]:
    try:
        card, error = registry.load(one.number).card, None
    except ArtifactError as refused:
        card, error = {}, str(refused)
    state = "damaged" if error else "champion" if one.number == champion else "kept"
    told = {name: card.get(name) for name in ("trained", "reason", "seconds", "cached", "scores", "contest")}
    series = [about["name"] for about in card.get("data", {}).get("series", [])]
    return {"generation": one.number, "state": state, "series": series, **told, "error": error}


def proxy(node: NodeStatus, now: float) -> dict[str, Any]:
    """One row of ``/v1/proxies``, and ``/v1/proxies/{node}``."""
    return {
        "node_id": node.node_id,
        "group": node.group,
        "connected": node.connected,
        "since": node.since,
        "envoy_version": node.user_agent_version,
        "types": {name: type_status(status, now) for name, status in node.types.items()},
    }


def type_status(status: TypeStatus, now: float) -> dict[str, Any]:
    """One type of one node. ``behind`` is for how long (seconds) it has lacked a change, None if it lacks none;
    ``quarantined`` are resources that are kept from it because it rejected them."""
    return {
        "state": status.state,
        "desired": status.desired,
        "sent": status.sent,
        "acked": status.acked,
        "age": None if status.at is None else max(0.0, now - status.at),
        "behind": None if status.since is None else max(0.0, now - status.since),
        "quarantined": list(status.quarantined),
        "error": status.error,
    }


def rollout(group: GroupStatus, now: float) -> dict[str, Any]:
    """One of ``rollouts`` of ``/v1/status``: a group in which not every proxy has what was published last."""
    return {
        "group": group.group,
        "state": group.state,
        "canary": group.canary or None,
        "types": list(group.types),
        "waiting": group.waiting,
        "age": max(0.0, now - group.since),
        "error": group.error,
    }


def fault(record: FaultRecord, now: float) -> dict[str, Any]:
    """One fault; ``injected`` are Envoy's own counters since the fault began."""
    return {
        "id": record.id,
        **asdict(record.fault),
        "started": record.started,
        "expires": record.ends,
        "nodes": list(record.nodes),
        "experiment": record.experiment,
        "active": record.active(now),
        "injected": {"aborts": record.aborts, "delays": record.delays},
    }


def objective(config: MeshConfig, name: str) -> float:
    """The share of answers that must be good: in time *and* without error."""
    slo = config.services[name].slo
    return slo.percentile / 100.0 * slo.availability / 100.0


def slo(config: MeshConfig, name: str, window: float, counts: tuple[float, float]) -> dict[str, Any]:
    """``/v1/slo/{service}``; ``ok`` is None without traffic."""
    requests, good = counts
    ratio = good / requests if requests else None
    goal = objective(config, name)
    return {
        "service": name,
        "window": window,
        "requests": requests,
        "good": good,
        "good_ratio": ratio,
        "objective": goal,
        "ok": None if ratio is None else ratio >= goal,
    }


def sent(board: Board) -> dict[str, int]:
    """Responses sent by type, heartbeats aside."""
    return {name: count for (name, outcome), count in sorted(board.pushes.items()) if outcome == "sent"}
