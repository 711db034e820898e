"""What Chaos Toolkit does: thin synchronous calls of our API, which owns deadlines and leases.

``configuration`` is what :func:`chaos.experiment.to_chaostoolkit` wrote. A failed call raises, and Chaos Toolkit
records it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from chaos.client import Api, ApiConfig, segment
from chaos.faults import Fault, Kind, injected

Configuration = Mapping[str, Any]


def api(configuration: Configuration) -> Api:
    """The API of an experiment's configuration."""
    timeout = float(configuration.get("meshctl_timeout") or 10.0)
    return Api(ApiConfig(configuration["meshctl_url"], configuration.get("meshctl_token_file"), timeout))


def inject(
    *,
    service: str,
    kind: Kind,
    percent: int,
    treatment_percent: int,
    duration: float,
    status: int = 503,
    delay: float = 0.0,
    configuration: Configuration | None = None,
) -> dict[str, Any]:
    """Start a fault. Returns its id, when it started, and the proof counter's value before it had an effect."""
    settings, client = configuration or {}, api(configuration or {})
    fault = Fault(kind, percent, treatment_percent, duration, status, delay)
    started = time.time()
    created = client.post("/v1/faults", fault.request(service, settings.get("meshctl_experiment")))
    before = injected(client.get(f"/v1/faults/{segment(created['id'])}"), kind)
    return {"id": str(created["id"]), "kind": kind, "started": started, "expires": created["expires"], "before": before}


def end(configuration: Configuration | None = None) -> dict[str, Any]:
    """Delete this experiment's active faults; none being active is success. Returns their ids and the time."""
    client = api(configuration or {})
    ids = [str(fault["id"]) for fault in active(client, (configuration or {}).get("meshctl_experiment"))]
    for fault_id in ids:
        client.delete(f"/v1/faults/{segment(fault_id)}")
    return {"ended": ids, "time": time.time()}


def active(client: Api, experiment: int | str | None) -> list[dict[str, Any]]:
    """The active faults that belong to ``experiment``; a fault that names no experiment counts as its own."""
    mine = {None, "", experiment}
    return [fault for fault in client.get("/v1/faults")["faults"] if fault.get("experiment") in mine]
