"""What Chaos Toolkit asks. A tolerance probe answers True or False and nothing else.

NaN or None in a tolerance makes Chaos Toolkit skip every rollback, and it does not compare floats; so "no traffic"
and "no answer" are False, and figures are whole numbers.
"""

from __future__ import annotations

from chaos.actions import Configuration, active, api
from chaos.client import segment
from chaos.errors import ChaosError
from chaos.faults import injected as counted

#: What :func:`good_percent` says where there was no traffic or no answer.
UNKNOWN = -1


def slo_holds(service: str, window: float = 30.0, configuration: Configuration | None = None) -> bool:
    """Whether ``service`` met its SLO over the last ``window`` seconds. Without traffic nothing is proven: False."""
    try:
        return api(configuration or {}).get(f"/v1/slo/{segment(service)}", window=window).get("ok") is True
    except ChaosError:
        return False


def good_percent(service: str, window: float = 5.0, configuration: Configuration | None = None) -> int:
    """Good answers of ``service`` over the last ``window`` seconds in whole percent, or :data:`UNKNOWN`."""
    try:
        ratio = api(configuration or {}).get(f"/v1/slo/{segment(service)}", window=window).get("good_ratio")
    except ChaosError:
        return UNKNOWN
    return int(100 * ratio) if isinstance(ratio, int | float) and 0 <= ratio <= 1 else UNKNOWN


def injected(kind: str, configuration: Configuration | None = None) -> int:
    """How often Envoy itself says it injected the active fault (a counter); 0 where no fault is active."""
    settings, client = configuration or {}, api(configuration or {})
    faults = active(client, settings.get("meshctl_experiment"))
    return max((counted(client.get(f"/v1/faults/{segment(fault['id'])}"), kind) for fault in faults), default=0)
