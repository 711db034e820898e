"""What the xDS server and the journal report, turned into counters, metrics and one event line per tick.

Pushes and ACKs are too many for a call each: the server counts them itself, and they are looked up once per tick.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from meshctl.control.journal import Journal
from meshctl.model import Decision
from meshctl.server.metrics import Metrics
from xds.canary import NoticeKind
from xds.status import EventKind, XdsEvent

#: Pushed every tick.
_FAST_LANE = "rtds"
#: What canaries and pre-flight do.
ROLLOUTS: tuple[NoticeKind, ...] = get_args(NoticeKind)
#: Of what the server tells as it happens.
KINDS: tuple[EventKind, ...] = (
    *("connect", "disconnect", "nack", "refused", "denied", "limited", "certificate"),
    *ROLLOUTS,
)


_JOURNAL_KINDS = {"refused": "platform", "certificate": "security"}
_REFUSALS = frozenset({"denied", "limited"})


class Throttle:
    """One line per key and ``window`` seconds, of at most ``most`` keys: whoever is refused tries again at once."""

    def __init__(self, window: float = 60.0, most: int = 100) -> None:
        self._window = window
        self._most = most
        self._since: dict[tuple[str, ...], tuple[float, int]] = {}

    def take(self, key: tuple[str, ...], now: float) -> int | None:
        """How many were swallowed since the last line of this key; None for one that is swallowed itself."""
        since, swallowed = self._since.get(key, (-math.inf, 0))
        if now - since < self._window:
            self._since[key] = (since, swallowed + 1)
            return None
        if key not in self._since and len(self._since) >= self._most:
            self._since = {each: entry for each, entry in self._since.items() if now - entry[0] < self._window}
            if len(self._since) >= self._most:
                return None
        self._since[key] = (now, 0)
        return swallowed


class XdsWatch:
    """Makes events of what happens on streams; slow-lane pushes of a tick become one event, a NACK one each."""

    def __init__(self, metrics: Metrics) -> None:
        self.journal: Journal | None = None
        self.decisions: Counter[str] = Counter()
        self._metrics = metrics
        self._told: Counter[str] = Counter()
        self._refusals = Throttle()

    def on_xds(self, event: XdsEvent) -> None:
        """Called by the server, in its event loop, for :data:`KINDS`."""
        if event.kind in _REFUSALS:
            before = self._refusals.take((event.kind, event.version, event.node_id), event.time)
            if before is not None:
                more = f" (and {before} more since the last such line)" if before else ""
                self._say("security", replace(event, message=event.message + more))
            return
        if event.kind in ROLLOUTS:
            self._rollout(event)
            return
        self._say(_JOURNAL_KINDS.get(event.kind, event.kind), event)

    def on_journal(self, record: Mapping[str, Any]) -> None:
        """Called by the journal for each decision and event."""
        if record["kind"] in ("drift", "model"):
            self._forecaster(record)
        decision = record.get("decision")
        if isinstance(decision, Decision):
            self.decisions[decision.outcome] += 1
            self._metrics.add(
                "meshctl_decisions_total", policy=decision.policy, outcome=decision.outcome, kind=decision.kind
            )
            for rule in decision.guardrails:
                self._metrics.add("meshctl_guardrail_blocks_total", rule=rule)

    def _forecaster(self, record: Mapping[str, Any]) -> None:
        """What happened to the models, and to what they learned from."""
        data = record["data"]
        if record["kind"] == "drift":
            self._metrics.add("meshctl_forecast_drift_total", service=record["subject"], cause=data["cause"])
        if "swap" in data:
            self._metrics.add("meshctl_forecast_swaps_total", kind=data["swap"])
        if "training_seconds" in data:
            seconds, outcome = data["training_seconds"], data["outcome"]
            self._metrics.observe("meshctl_forecast_training_seconds", seconds, outcome=outcome)

    def flush(self, sent: Mapping[str, int]) -> None:
        """One event for the slow-lane pushes since the last call; what RTDS sends every tick is no news.

        ``sent`` counts responses since the start, by short type.
        """
        now = Counter({name: count for name, count in sent.items() if name != _FAST_LANE})
        pushed = dict(sorted((now - self._told).items()))
        self._told = now
        if pushed and self.journal is not None:
            text = ", ".join(f"{name} to {count}" for name, count in pushed.items())
            self.journal.event("push", "xds", f"pushed {text} sidecars", **pushed)

    def _rollout(self, event: XdsEvent) -> None:
        outcome = event.kind.removeprefix("canary-")
        self._metrics.add("meshctl_xds_rollouts_total", outcome=outcome)
        if self.journal is not None:
            self.journal.event("rollout", event.node_id, f"{outcome}: {event.message}", outcome=outcome)

    def _say(self, kind: Any, event: XdsEvent) -> None:
        if self.journal is None:
            return
        message = event.message or f"{event.node_id} {kind}ed"
        self.journal.event(kind, event.node_id or "xds", message, type=event.type, version=event.version)
