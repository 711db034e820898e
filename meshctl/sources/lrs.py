"""Load reports as telemetry: what a sidecar says over LRS, in the words of :mod:`meshctl.sources.traffic`.

A second source for sidecars without the OpenTelemetry stats sink, of gRPC clients for instance. It is coarser: no
latency, no retries (attempts count as requests), no proof of faults. So it counts for a sidecar only while that one
sends no OTLP; :class:`Loads` decides that, by the time that each report covers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from meshctl.sources.windows import NodeWindow
from xds.loads import ClusterLoad, LoadReport

#: A sidecar that was silent for so many of its flushes sends no OTLP any longer.
_SILENCE = 3


class Loads:
    """Load reports between two calls of :meth:`take`. Times are seconds on this process's clock."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeWindow] = defaultdict(NodeWindow)
        self._told_until: dict[str, float] = {}

    def told(self, node_id: str, now: float, flush: float) -> None:
        """The sidecar sent OTLP about the last ``flush`` seconds: the next will tell of the time until it comes."""
        self._told_until[node_id] = now + _SILENCE * flush

    def know(self, node_ids: Mapping[str, str]) -> None:
        """Forget sidecars that are no more."""
        self._told_until = {node_id: at for node_id, at in self._told_until.items() if node_id in node_ids}

    def add(self, report: LoadReport) -> bool:
        """Count a report; False if OTLP told, or will tell, of some of the time that it covers."""
        interval = max(load.interval for load in report.clusters)
        if self._told_until.get(report.node_id, float("-inf")) > report.time - interval:
            return False
        _fold(self._nodes[report.node_id], report, interval)
        return True

    def take(self, told: Mapping[str, NodeWindow]) -> dict[str, NodeWindow]:
        """The windows of sidecars that are not in ``told``; the next ones start now."""
        nodes, self._nodes = self._nodes, defaultdict(NodeWindow)
        return {node_id: window for node_id, window in nodes.items() if node_id not in told}


def _fold(window: NodeWindow, report: LoadReport, interval: float) -> None:
    window.covered += interval
    window.last_end = report.time
    for load in report.clusters:
        _add(window, load)


def _add(window: NodeWindow, load: ClusterLoad) -> None:
    """What the circuit breaker refused was never issued."""
    totals = window.clusters[load.cluster]
    totals.requests += load.issued
    totals.completed += load.succeeded + load.failed
    totals.errors += load.failed
    totals.overflow += load.dropped
