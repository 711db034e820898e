"""Answers of the HTTP API, as the control plane gives them, at the moment :data:`NOW`."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

NOW = 1_795_600_800.0


def _type(state: str, age: float | None, error: str | None = None) -> Json:
    versions = dict.fromkeys(("desired", "sent", "acked"), "3f2a9c01d45be677")
    return {"state": state, **versions, "age": age, "behind": None, "quarantined": [], "error": error}


def _types(rtds: Json, age: float = 132.0) -> Json:
    return {**{name: _type("SYNCED", age) for name in ("cds", "eds", "lds", "rds")}, "rtds": rtds}


def _proxy(node: str, group: str, connected: bool, since: float, types: Json) -> Json:
    known = {"node_id": node, "group": group, "connected": connected, "since": since}
    return {**known, "envoy_version": "1.40.0" if connected else None, "types": types}


BEHIND = {**_type("STALE", 7.0), "desired": "88d0c2e6a91b4f35", "sent": "88d0c2e6a91b4f35", "behind": 12.0}
REJECTED = {**_type("NACKED", 9.0, "cart: no such thing"), "quarantined": ["cart"]}
NACK = _type("NACKED", 12.4, "layer limits: value is no number")

PROXIES = [
    _proxy("catalog-1", "catalog", True, NOW - 3725, _types(_type("SYNCED", 4.2))),
    _proxy("catalog-2", "catalog", True, NOW - 95, _types(BEHIND)),
    _proxy("recommendation-1", "recommendation", True, NOW - 200_000, {**_types(NACK), "cds": REJECTED}),
    _proxy("frontend-1", "frontend", False, NOW - 8, {}),
    _proxy("ingress-0", "ingress", True, NOW - 2, _types(_type("NOT-SENT", None))),
]

STATUS: Json = {
    "name": "online-boutique",
    "version": "0.1.0",
    "started": NOW - 7384,
    "tick": {"interval": 5.0, "count": 1476, "last_ms": 21.4, "p50_ms": 19.8, "p99_ms": 48.3},
    "paused": False,
    "dry_run": False,
    "policy": "predictive",
    "proxies": {"connected": 9, "expected": 9},
    "pushes": {"rtds": 1201, "cds": 12, "eds": 33},
    "acks": {"rtds": 1201, "cds": 12, "eds": 33},
    "nacks": {},
    "heartbeats": 5012,
    "rollouts": [],
    "forecasts": 8856,
    "decisions": {"applied": 301, "held": 1420},
    "model": {"state": "ready", "detail": "lstm of 2,311 weights", "cached": True},
    "config": {"file": "mesh.yaml", "loaded": NOW - 600, "error": None},
    "pid": 4242,
}


def _service(name: str, demand: float, forecast: Json | None, ratio: float | None) -> Json:
    slo = {"latency": 0.8, "availability": 99.0, "percentile": 95.0, "good_ratio": ratio}
    load = {"demand": demand, "rate": demand - 0.5, "errors": 0.25, "rate_limited": 0.0, "in_flight": 1.234}
    latency = {"p50": 0.0123, "p99": 1.25}
    replicas = {"ready": 2, "desired": 3, "cpu": 0.4321, "memory": 120_000_000, "limit": 24.0}
    return {"name": name, **load, **latency, **replicas, "forecast": forecast, "slo": slo, "business": {}}


SERVICES = [
    _service(
        "frontend", 31.5, {"model": "mixture", "skilled": True, "expected": 33.0, "upper": 41.2, "peak": 55.0}, 0.9987
    ),
    _service("catalog", 1234.5, None, None),
]


def _ahead(span: str, step: float, steps: int) -> Json:
    """One span of a forecast: medians that rise by 1 per step."""
    return {
        "span": span,
        "model": "mixture",
        "skilled": True,
        "reason": "steps 1: beats last value (skill +0.31 over 60 scored ticks)",
        "origin": NOW - 45,
        "step": step,
        "quantiles": [0.05, 0.5, 0.95],
        "values": [[20.0 + n, 33.0 + n, 41.5 + n] for n in range(steps)],
        "weights": {"profile3": 0.7, "ewma": 0.3},
        "gates": [{"steps": "1", "open": True, "skill": 0.31, "scored": 60, "since": NOW - 900}],
        "coverage": 0.938,
        "age": 45.0,
    }


FORECASTS: list[Json] = [
    {
        "service": "frontend",
        "model": "mixture",
        "skilled": True,
        "reason": "steps 1: beats last value (skill +0.12 over 60 scored ticks); steps 2-5: loses to last value",
        "origin": NOW - 3,
        "step": 5.0,
        "quantiles": [0.05, 0.5, 0.95],
        "values": [[20.0, 33.0, 41.2], [21.0, 35.0, 55.5]],
        "peaks": [[20.0, 33.0, 41.2], [22.0, 36.0, 56.0]],
        "weights": {"lstm": 0.61, "linear": 0.3, "ewma": 0.09},
        "callers": {},
        "gates": [
            {"steps": "1", "open": True, "skill": 0.12, "scored": 60, "since": NOW - 200},
            {"steps": "2-5", "open": False, "skill": -0.031, "scored": 60, "since": None},
        ],
        "skill": {"lstm": 0.12, "ewma": -0.031, "mixture": 0.1},
        "losses": {"last": {"1": 2.5, "2-5": 4.0}},
        "scored": 60,
        "coverage": 0.942,
        "drift": {
            "series": "frontend",
            "cause": "telemetry hole",
            "size": 0.61,
            "since": NOW - 7300,
            "evidence": "61% of the values of the last 6 h are missing or 0; usually it is 0%",
        },
        "outlook": [_ahead("1h", 60.0, 60), _ahead("1d", 900.0, 96)],
        "age": 3.1,
    },
    {
        "service": "cart",
        "model": "last",
        "skilled": False,
        "reason": "12 of 20 scored ticks: too little history",
        "origin": NOW - 3,
        "step": 5.0,
        "quantiles": [0.05, 0.5, 0.95],
        "values": [],
        "peaks": [],
        "weights": {},
        "callers": {"checkout": {"ratio": 0.1042, "error": 0.0021}, "frontend": {"ratio": 1.8, "error": 0.013}},
        "gates": [{"steps": "1", "open": False, "skill": None, "scored": 12, "since": None}],
        "skill": {"lstm": None},
        "losses": {},
        "scored": 12,
        "coverage": None,
        "drift": None,
        "outlook": [],
        "age": 3.1,
    },
]

MODELS: Json = {
    "champion": 2,
    "previous": 1,
    "generations": [
        {
            "generation": 3,
            "state": "kept",
            "series": ["frontend", "cart"],
            "trained": NOW - 600,
            "reason": "drift of frontend (level)",
            "seconds": 21.52,
            "cached": False,
            "scores": {"lstm": {"h1": {"relative_wape": 0.83}}, "linear": {"h1": {"relative_wape": 0.9}}},
            "contest": {
                "champion": 2,
                "windows": 800,
                "challenger_error": 0.84,
                "champion_error": 0.83,
                "ratio": 1.012,
            },
            "error": None,
        },
        {
            "generation": 2,
            "state": "champion",
            "series": ["frontend"],
            "trained": NOW - 22200,
            "reason": "forecast.retrain.every has passed",
            "seconds": 20.9,
            "cached": False,
            "scores": {"lstm": {"h1": {"relative_wape": 0.81}}},
            "contest": {"champion": 1, "windows": 400, "challenger_error": 0.81, "champion_error": 0.88, "ratio": 0.92},
            "error": None,
        },
        {
            "generation": 1,
            "state": "damaged",
            "series": [],
            "trained": None,
            "reason": None,
            "seconds": None,
            "cached": None,
            "scores": None,
            "contest": None,
            "error": "gen-000001/card.json: differs from its own digest; delete the folder and train the model again",
        },
    ],
    "swaps": [
        {
            "sequence": 2,
            "time": NOW - 22180,
            "kind": "promote",
            "before": 1,
            "after": 2,
            "reason": "forecast.retrain.every has passed",
            "scores": {"contest": {"ratio": 0.92}},
        },
        {
            "sequence": 1,
            "time": NOW - 44000,
            "kind": "promote",
            "before": None,
            "after": 1,
            "reason": "there are no learned models",
            "scores": {"contest": None},
        },
    ],
    "training": None,
}

_REPLICAS: Json = {
    "id": 301,
    "tick": 1476,
    "time": NOW - 12,
    "kind": "replicas",
    "subject": "frontend",
    "previous": 2,
    "proposed": 5,
    "chosen": 4,
    "policy": "predictive",
    "outcome": "applied",
    "reason": "the forecast's peak of 55 requests/s needs 5 replicas at 65 % of their capacity",
    "guardrails": ["max_step_up: 5 -> 4"],
}
_LIMIT: Json = {
    "id": 300,
    "tick": 1475,
    "time": NOW - 17,
    "kind": "limit",
    "subject": "frontend>catalog",
    "previous": None,
    "proposed": 12.5,
    "chosen": 12.5,
    "policy": "little",
    "outcome": "held",
    "reason": "within the dead band of 5 %",
    "guardrails": [],
}

DECISION: Json = {**_REPLICAS, "inputs": {"peak": 55.0, "capacity": 18.3, "target_utilization": 0.65, "skilled": True}}

_FACTORS = [
    {"name": "containment", "value": 0.83, "weight": 0.35, "reason": "5.00% more bad responses than control"},
    {"name": "availability", "value": 0.965, "weight": 0.25, "reason": "3.50% of good responses lost"},
    {"name": "recovery", "value": 1.0, "weight": 0.2, "reason": "recovered within 0 s; objective 30 s"},
    {"name": "budget", "value": 0.653, "weight": 0.2, "reason": "burn rate 5 of an SLO of 0.99"},
]


def _fault(kind: str, score: Json | None, problem: str | None) -> Json:
    return {
        "id": "f1",
        "kind": kind,
        "percent": 30,
        "treatment_percent": 50,
        "duration": 10.0,
        "injected": 45,
        "arms": {
            "treatment": {"requests": 150, "bad": 8, "bad_ratio": 0.0533},
            "control": {"requests": 148, "bad": 0, "bad_ratio": 0.0},
        },
        "traffic_share": 0.9867,
        "expected_loss": 0.296,
        "difference": 0.0533,
        "interval": [0.0197, 0.1017],
        "score": score,
        "problem": problem,
    }


RESULT: Json = {
    "status": "deviated",
    "reason": "not true: frontend met its SLO in the treatment arm under abort",
    "service": "catalog",
    "entry": "frontend",
    "score": 83.2,
    "score_lower": 71.0,
    "started": NOW - 120,
    "ended": NOW - 60,
    "findings": [
        {"statement": "frontend met its SLO before the experiment", "holds": True},
        {"statement": "frontend met its SLO in the treatment arm under abort", "holds": False},
        {"statement": "frontend met its SLO in the control arm under delay", "holds": None},
    ],
    "faults": [
        _fault("abort", {"value": 83.2, "lower": 71.0, "factors": _FACTORS}, None),
        _fault("delay", None, "Envoy's counters show no injected fault"),
    ],
}

EXPERIMENT: Json = {
    "id": 7,
    "title": "frontend stays within its SLO while catalog fails",
    "status": "deviated",
    "started": NOW - 120,
    "ended": NOW - 60,
    "score": 83.2,
    "spec": {"service": "catalog", "entry": "frontend"},
    "result": RESULT,
}
RUNNING: Json = {**EXPERIMENT, "id": 8, "status": "running", "ended": None, "score": None, "result": {}}

RUNTIME: Json = {
    "node_id": "catalog-1",
    "type": "runtime",
    "version": "b2",
    "resources": [
        {
            "name": "limits",
            "version": "0123456789abcdef",
            "resource": {
                "name": "limits",
                "layer": {
                    "circuit_breakers.cart.default.max_requests": 12.0,  # every number of a protobuf Struct is a double
                    "rate_limit.frontend.enforced": {"numerator": 0.0, "denominator": "HUNDRED"},
                },
            },
            "ttl": 15.0,
        },
        {"name": "chaos", "version": "fedcba9876543210", "resource": {"name": "chaos", "layer": {}}, "ttl": 5.0},
    ],
}
CLUSTERS: Json = {
    "node_id": "catalog-1",
    "type": "cluster",
    "version": "c3",
    "resources": [{"name": "cart", "version": "00112233aabbccdd", "resource": {"name": "cart"}, "ttl": None}],
}

DOCUMENTS: dict[str, Json] = {
    "/v1/status": STATUS,
    "/v1/proxies": {"proxies": PROXIES},
    "/v1/proxies/catalog-2": PROXIES[1],
    "/v1/proxies/recommendation-1": PROXIES[2],
    "/v1/proxies/catalog-1/config/runtime": RUNTIME,
    "/v1/proxies/catalog-1/config/cluster": CLUSTERS,
    "/v1/services": {"services": SERVICES, "time": NOW},
    "/v1/forecasts": {"forecasts": FORECASTS, "skipped": {}},
    "/v1/models": MODELS,
    "/v1/decisions": {"decisions": [_REPLICAS, _LIMIT]},
    "/v1/decisions/301": DECISION,
    "/v1/experiments": {"experiments": [RUNNING, EXPERIMENT]},
    "/v1/experiments/7": EXPERIMENT,
}
