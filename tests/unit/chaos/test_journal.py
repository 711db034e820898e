"""What is read from a journal, and what a broken one costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chaos.errors import RunnerError
from chaos.journal import parse, read


def activity(
    name: str, output: object = None, end: str = "2026-11-25T10:00:30+00:00", **more: object
) -> dict[str, Any]:
    return {"activity": {"name": name}, "status": "succeeded", "output": output, "end": end, **more}


INJECT = activity("inject-0", {"id": "f1", "kind": "abort", "started": 5.0, "expires": 20.0, "before": 2})
END = activity("end-0", {"ended": ["f1"], "time": 15.0})


def journal(*runs: dict[str, Any], **more: object) -> dict[str, Any]:
    span = {"start": "2026-11-25T10:00:00+00:00", "end": "2026-11-25T10:01:00"}
    return {
        "status": "completed",
        "run": list(runs),
        "steady_states": {"before": {"steady_state_met": True}},
        **span,
        **more,
    }


def test_a_fault_is_read_from_its_activities() -> None:
    fault = parse(journal(INJECT, activity("proof-0", 40), END, activity("settled-0", 99)), 1).faults[0]
    assert (fault.id, fault.started, fault.ended, fault.before, fault.proof) == ("f1", 5.0, 15.0, 2, 40)
    assert fault.watched == 1795600830.0


def test_a_fault_that_nobody_ended_ended_by_its_deadline() -> None:
    assert parse(journal(INJECT), 1).faults[0].ended == 20.0


def test_a_refused_fault_keeps_the_reason() -> None:
    failed = activity("inject-0", exception=["Traceback\n", "chaoslib.exceptions.ActivityFailed: HTTP 409\n"])
    fault = parse(journal(failed), 1).faults[0]
    assert (fault.id, fault.error) == (None, "HTTP 409")


def test_a_fault_that_was_never_reached_says_so() -> None:
    assert parse(journal(), 2).faults[1].error == "the experiment ended before it"


@pytest.mark.parametrize(
    ("state", "met"), [({"steady_state_met": True}, True), ({"steady_state_met": None}, False), (None, None)]
)
def test_gates_are_read_from_the_steady_states(state: dict[str, Any] | None, met: bool | None) -> None:
    report = parse(journal(steady_states={"before": state, "after": state}), 0)
    assert (report.gate, report.recovered) == (met, met)


def test_times_without_a_zone_are_utc() -> None:
    report = parse(journal(), 0)
    assert report.ended - report.started == 60.0


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_an_unreadable_journal_is_an_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "journal.json"
    if content:
        path.write_text(content)
    with pytest.raises(RunnerError, match=str(path)):
        read(path)
