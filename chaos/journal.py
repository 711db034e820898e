"""Chaos Toolkit's journal, read for what it proves.

"completed" with exit code 0 also stands for an experiment that never started because its gate was not met, so the
gates are read from ``steady_states``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chaos.errors import RunnerError


@dataclass(frozen=True, slots=True)
class FaultRun:
    """What happened to one fault of the experiment.

    ``started``, ``ended`` and ``watched`` (end of what belongs to its recovery) are seconds since the epoch.
    ``before`` and ``proof`` are Envoy's injection counter at both ends. ``error`` says why it was not injected.
    """

    id: str | None
    started: float
    ended: float
    watched: float
    before: int = 0
    proof: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class JournalReport:
    """``status`` is Chaos Toolkit's own word; ``gate`` and ``recovered`` say whether the hypothesis held before and
    after (None: not asked).
    """

    status: str
    gate: bool | None
    recovered: bool | None
    started: float
    ended: float
    faults: tuple[FaultRun, ...]


def read(path: Path) -> Mapping[str, Any]:
    """The journal at ``path``. Raises :class:`RunnerError`."""
    try:
        journal = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunnerError(f"Chaos Toolkit left no readable journal at {path}: {error}") from error
    if not isinstance(journal, dict):
        raise RunnerError(f"Chaos Toolkit's journal at {path} is no JSON object")
    return journal


def parse(journal: Mapping[str, Any], faults: int) -> JournalReport:
    """The report of a journal of an experiment with ``faults`` faults."""
    runs = {str(run["activity"]["name"]): run for run in journal.get("run") or ()}
    states = journal.get("steady_states") or {}
    ended = _moment(journal.get("end")) or _moment(journal.get("start")) or 0.0
    return JournalReport(
        status=str(journal.get("status")),
        gate=_met(states.get("before")),
        recovered=_met(states.get("after")),
        started=_moment(journal.get("start")) or ended,
        ended=ended,
        faults=tuple(_fault(runs, index, ended) for index in range(faults)),
    )


def _fault(runs: Mapping[str, Mapping[str, Any]], index: int, end: float) -> FaultRun:
    inject, finish, settled = (runs.get(f"{name}-{index}") for name in ("inject", "end", "settled"))
    output = (inject or {}).get("output")
    if not isinstance(output, Mapping):
        return FaultRun(None, end, end, end, error=_failure(inject))
    stop = (finish or {}).get("output") or {}
    ended = float(stop.get("time") or output["expires"])
    watched = _moment((settled or {}).get("end")) or end
    proof = int((runs.get(f"proof-{index}") or {}).get("output") or 0)
    return FaultRun(output["id"], float(output["started"]), ended, max(watched, ended), int(output["before"]), proof)


def _failure(run: Mapping[str, Any] | None) -> str:
    if run is None:
        return "the experiment ended before it"
    lines = [line.strip() for line in run.get("exception") or () if line.strip()]
    return lines[-1].removeprefix("chaoslib.exceptions.ActivityFailed: ") if lines else "it gave no answer"


def _met(state: Mapping[str, Any] | None) -> bool | None:
    return None if not state else state.get("steady_state_met") is True


def _moment(text: str | None) -> float | None:
    """Seconds since the epoch; the journal's times are in UTC, with or without saying so."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
