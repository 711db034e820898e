"""What the xDS server and the journal report, turned into counters, metrics and one event line per tick."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from meshctl.control.journal import Journal
from meshctl.model import Decision
from meshctl.server.metrics import Metrics
from xds.status import XdsEvent

_SLOW_LANE = ("cds", "eds", "lds", "rds")


class XdsWatch:
    """Makes metrics of what happens on streams; slow-lane pushes of a tick become one event, a NACK one each."""

    def __init__(self, metrics: Metrics) -> None:
        self.journal: Journal | None = None
        self.decisions: Counter[str] = Counter()
        self._metrics = metrics
        self._fresh: Counter[str] = Counter()
        self._sent: dict[tuple[str, str], float] = {}

    def on_xds(self, event: XdsEvent) -> None:
        """Called by the server, in its event loop."""
        if event.kind in ("connect", "disconnect"):
            self._say(event.kind, event)
            self._sent = {key: at for key, at in self._sent.items() if key[0] != event.node_id}
            return
        if event.kind == "refused":
            self._say("platform", event)
            return
        outcome = {"push": "sent", "ack": "ack", "nack": "nack"}[event.kind]
        self._metrics.add("meshctl_xds_pushes_total", xds_type=event.type, outcome=outcome)
        if event.kind == "push":
            self._fresh[event.type] += 1
            self._sent[(event.node_id, event.type)] = event.time
            return
        sent = self._sent.pop((event.node_id, event.type), None)
        if event.kind == "ack" and sent is not None:
            self._metrics.observe("meshctl_proxy_convergence_duration_seconds", event.time - sent, xds_type=event.type)
        if event.kind == "nack":
            self._metrics.add("meshctl_xds_nacks_total", xds_type=event.type)
            self._say("nack", event)

    def on_journal(self, record: Mapping[str, Any]) -> None:
        """Called by the journal for each decision and event."""
        decision = record.get("decision")
        if isinstance(decision, Decision):
            self.decisions[decision.outcome] += 1
            self._metrics.add(
                "meshctl_decisions_total", policy=decision.policy, outcome=decision.outcome, kind=decision.kind
            )
            for rule in decision.guardrails:
                self._metrics.add("meshctl_guardrail_blocks_total", rule=rule)

    def flush(self) -> None:
        """One event for the slow-lane pushes since the last call; what RTDS sends every tick is no news."""
        pushed = {name: count for name, count in sorted(self._fresh.items()) if name in _SLOW_LANE}
        self._fresh.clear()
        if pushed and self.journal is not None:
            text = ", ".join(f"{name} to {count}" for name, count in pushed.items())
            self.journal.event("push", "xds", f"pushed {text} sidecars", **pushed)

    def _say(self, kind: Any, event: XdsEvent) -> None:
        if self.journal is None:
            return
        message = event.message or f"{event.node_id} {kind}ed"
        self.journal.event(kind, event.node_id, message, type=event.type, version=event.version)
