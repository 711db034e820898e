"""One fault at a time, with an end; arms and service levels counted per tick."""

from __future__ import annotations

import pytest

from meshctl.control.arms import Arms, good, slow
from meshctl.control.faults import MAX_DURATION, FaultBoard, FaultConflictError
from meshctl.sources.windows import NodeWindow, Totals
from xds.model import Fault

ABORT = Fault("catalog", "abort", percent=30, treatment_percent=50)


def test_a_second_fault_waits_for_the_first() -> None:
    board = FaultBoard()
    first = board.inject(ABORT, ["catalog-0"], duration=10.0, now=100.0)
    with pytest.raises(FaultConflictError, match="end it first"):
        board.inject(ABORT, ["catalog-0"], duration=10.0, now=105.0)
    assert board.inject(ABORT, ["catalog-0"], duration=10.0, now=110.0).id != first.id


def test_a_fault_ends_by_itself_by_hand_and_at_the_latest_after_the_maximum() -> None:
    board = FaultBoard()
    record = board.inject(ABORT, ["catalog-0"], duration=1e9, now=0.0)
    assert record.ends == MAX_DURATION
    assert board.end(record.id, 5.0) is not None
    assert board.active(5.0) is None
    assert board.end("unknown", 5.0) is None


def test_only_the_callee_and_the_ingress_are_concerned() -> None:
    board = FaultBoard()
    record = board.inject(ABORT, ["catalog-0"], duration=10.0, now=100.0)
    callee = board.layer("catalog", ingress=False, ttl=5.0, now=101.0)
    assert callee.values["fault.http.abort.abort_percent"] == 30
    assert callee.expires_at == record.ends
    assert board.layer("ingress", ingress=True, ttl=5.0, now=101.0).values == {"chaos.treatment": 50}
    assert board.layer("frontend", ingress=False, ttl=5.0, now=101.0).values == {}
    after = board.layer("catalog", ingress=False, ttl=5.0, now=110.0)
    assert (after.values, after.expires_at) == ({}, None)


def test_injection_is_proven_by_the_callees_own_counters() -> None:
    board = FaultBoard()
    record = board.inject(ABORT, ["catalog-0"], duration=10.0, now=100.0)
    groups = {"catalog-0": "catalog", "frontend-0": "frontend"}
    board.count({"catalog-0": NodeWindow(aborts=3), "frontend-0": NodeWindow(aborts=99)}, groups)
    board.count({"catalog-0": NodeWindow(aborts=2, delays=1)}, groups)
    found = board.get(record.id)
    assert found is not None
    assert (found.aborts, found.delays) == (5, 1)


def arm(requests: float, errors: float = 0.0, slow_ones: int = 0) -> Totals:
    made = Totals(requests=requests, completed=requests, errors=errors)
    made.add_times(1.0, int(requests), (0.1, 0.5), (int(requests) - slow_ones, 0, slow_ones))
    return made


def test_slow_answers_are_interpolated_within_their_bucket() -> None:
    totals = Totals(completed=10)
    totals.add_times(1.0, 10, (0.1, 0.5), (4, 4, 2))
    assert slow(totals, 0.5) == 2
    assert slow(totals, 0.3) == pytest.approx(2 + 4 * 0.5)
    assert slow(totals, 0.05) == pytest.approx(6 + 4 * 0.5)
    assert good(totals, 0.5) == 8


def test_arms_are_summed_over_the_asked_time_only() -> None:
    arms = Arms()
    for time in (10.0, 12.0, 14.0):
        node = NodeWindow(covered=2.0)
        node.arms[("frontend", "treatment")] = arm(10, errors=4)
        node.arms[("frontend", "control")] = arm(20, slow_ones=2)
        arms.add(time, {"ingress-0": node})
    found = arms.since("frontend", 10.0, 14.0, latency=0.5)
    assert found["arms"]["treatment"]["requests"] == 20
    assert found["arms"]["treatment"]["errors"] == 8
    assert found["arms"]["control"]["slow"] == 4
    assert [window["time"] for window in found["windows"]] == [12.0, 14.0]
    assert arms.slo("frontend", 0.0, latency=0.5) == (90, 90 - 12 - 6)


def test_a_service_behind_others_is_judged_by_its_callers() -> None:
    arms = Arms()
    node = NodeWindow(covered=2.0)
    node.clusters["catalog"] = arm(10, errors=1)
    arms.add(10.0, {"frontend-0": node})
    assert arms.slo("catalog", 0.0, latency=0.5) == (10, 9)
