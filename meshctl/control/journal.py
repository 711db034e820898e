"""What happened and why: decisions before they are applied, events as they come. Stored, logged, and counted by
listeners.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Literal

import structlog

from meshctl.history.database import Database
from meshctl.model import Decision, Plan

EventKind = Literal[
    "decision",
    "push",
    "nack",
    "scale",
    "fault",
    "connect",
    "disconnect",
    "config",
    "model",
    "drift",
    "gate",
    "experiment",
    "platform",
    "control",
    "security",
    "rollout",
]
Listener = Callable[[Mapping[str, Any]], None]

_WARNINGS = frozenset({"nack", "platform", "security"})


class Journal:
    """Writes decisions and events to the database and one line each to the log."""

    def __init__(self, database: Database, clock: Callable[[], float], *listeners: Listener) -> None:
        self._database = database
        self._clock = clock
        self._listeners = listeners
        self._log = structlog.get_logger("meshctl.journal")

    def event(self, kind: EventKind, subject: str, message: str, **data: Any) -> int:
        """Record one event; returns its id."""
        record = {"time": self._clock(), "kind": kind, "subject": subject, "message": message, "data": data}
        self._tell(record)
        log = self._log.warning if kind in _WARNINGS else self._log.info
        log(message, kind=kind, subject=subject, **data)
        return self._database.record_event(record)

    def plan(self, plan: Plan) -> None:
        """Record the decisions of ``plan``; called before any of them is applied.

        What leaves a limit as it is is counted but not stored: a thousand services would fill the disk with it.
        """
        for decision in plan.decisions:
            self._tell({"kind": "decision", "decision": decision})
        kept = [decision for decision in plan.decisions if decision.kind == "replicas" or decision.outcome != "held"]
        identities = self._database.record_decisions([decision_record(plan, decision) for decision in kept])
        for decision, identity in zip(kept, identities, strict=True):
            if decision.changes:
                self.event(
                    "decision",
                    decision.subject,
                    describe(decision),
                    id=identity,
                    tick=plan.tick,
                    policy=decision.policy,
                )

    def _tell(self, record: Mapping[str, Any]) -> None:
        for listener in self._listeners:
            listener(record)


def decision_record(plan: Plan, decision: Decision) -> dict[str, Any]:
    """A decision as the database and the API hold it."""
    return {"tick": plan.tick, "time": plan.time, **asdict(decision)}


def describe(decision: Decision) -> str:
    """One line: ``replicas frontend 2 -> 3: ...``."""
    previous = "none" if decision.previous is None else f"{decision.previous:g}"
    return f"{decision.kind} {decision.subject} {previous} -> {decision.chosen:g}: {decision.reason}"
