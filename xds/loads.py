"""Load reports (LRS) as values: what a client says it sent to each cluster within one interval. Pure.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/endpoint/v3/load_report.proto
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from xds.errors import RemoteError

#: More requests than one client sends to one cluster within a day.
MAX_COUNT = 10**12
#: The longest interval (seconds) of a report that is believed.
MAX_INTERVAL = 86_400.0
MAX_CLUSTERS = 10_000
MAX_CATEGORIES = 100
MAX_NAME = 1024

_NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ClusterLoad:
    """Requests of one client to one cluster within the last ``interval`` seconds.

    ``issued``, ``succeeded``, ``failed`` and ``dropped`` are counts of this interval alone; what was issued earlier
    may end in it. ``in_progress`` is how many are open now. ``dropped`` were refused before they were sent, by the
    circuit breaker for instance; ``dropped_by`` says by which category of a drop policy.
    """

    cluster: str
    interval: float
    issued: int = 0
    succeeded: int = 0
    failed: int = 0
    in_progress: int = 0
    dropped: int = 0
    dropped_by: Mapping[str, int] = field(default_factory=lambda: _NONE)
    service_name: str = ""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What the client ``node_id`` of ``group`` (``node.cluster``) reports; ``time`` is when it arrived (seconds)."""

    node_id: str
    group: str
    time: float
    clusters: tuple[ClusterLoad, ...]


def check(clusters: tuple[ClusterLoad, ...]) -> tuple[ClusterLoad, ...]:
    """The same loads; RemoteError if one is none, or larger than anything real."""
    if len(clusters) > MAX_CLUSTERS:
        raise RemoteError(f"cluster_stats: {len(clusters)} clusters in one report; expected at most {MAX_CLUSTERS}")
    for load in clusters:
        _check_names(load)
        _check_numbers(load)
    return clusters


def _check_names(load: ClusterLoad) -> None:
    for name in (load.cluster, load.service_name, *load.dropped_by):
        if len(name) > MAX_NAME:
            raise RemoteError(f"cluster_stats: a name of {len(name)} characters; expected at most {MAX_NAME}")
    if not load.cluster:
        raise RemoteError("cluster_stats: cluster_name is empty; expected the name of a cluster")
    if len(load.dropped_by) > MAX_CATEGORIES:
        raise RemoteError(
            f"cluster_stats of {load.cluster!r}: {len(load.dropped_by)} drop categories; "
            f"expected at most {MAX_CATEGORIES}"
        )


def _check_numbers(load: ClusterLoad) -> None:
    where = f"cluster_stats of {load.cluster!r}"
    if not 0.0 < load.interval <= MAX_INTERVAL:
        raise RemoteError(
            f"{where}: load_report_interval is {load.interval:g} s; expected more than 0 and at most {MAX_INTERVAL:g} s"
        )
    counts = (load.issued, load.succeeded, load.failed, load.in_progress, load.dropped, *load.dropped_by.values())
    largest = max(counts)
    if largest > MAX_COUNT:
        raise RemoteError(f"{where}: a count of {largest} in one interval; expected at most {MAX_COUNT}")
