"""Verdicts: no verdict without proof, and what counts as a deviation."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from chaos.experiment import Experiment
from chaos.faults import Fault
from chaos.journal import FaultRun, JournalReport
from chaos.score import Counts, Window
from chaos.verdict import Evidence, ExperimentResult, judge, split, window_step, windows_from

START = 1000.0
EXPERIMENT = Experiment("t", "catalog", "frontend", (Fault("abort", 30), Fault("delay", 30, delay=0.4)))
ABORT = FaultRun("f1", START, START + 10, START + 18, before=5, proof=40)
DELAY = FaultRun("f2", START + 18, START + 28, START + 48, before=0, proof=35)
REPORT = JournalReport("completed", True, True, START - 2, START + 50, (ABORT, DELAY))


def evidence(abort: int = 0, delay: int = 0, control: int = 0, requests: int = 100) -> Evidence:
    """Windows of 5 s from before to after; bad responses of the treatment arm during each fault."""

    def window(time: float) -> Window:
        bad = abort if START < time <= START + 15 else delay if START + 18 < time <= START + 33 else 0
        return Window(time, Counts(requests, bad), Counts(requests, control))

    windows = tuple(window(START - 20 + 5 * number) for number in range(15))
    return Evidence(windows, 0.99, {"f1": 50, "f2": 40})


def verdict(proof: Evidence, report: JournalReport = REPORT) -> ExperimentResult:
    return judge(EXPERIMENT, report, proof, np.random.default_rng(0))


def test_a_contained_fault_passes_with_full_marks() -> None:
    result = verdict(evidence())
    assert (result.status, result.score, result.lower) == ("passed", 100.0, 100.0)
    assert all(finding.holds for finding in result.findings)


def test_the_proof_is_what_the_counter_gained() -> None:
    assert [fault.injected for fault in verdict(evidence()).faults] == [45, 40]


def test_exposure_is_injected_faults_per_treated_request() -> None:
    fault = verdict(evidence()).faults[0]
    assert fault.treatment.requests == 300
    assert fault.expected == pytest.approx(45 / 300)
    assert fault.share == pytest.approx(45 / 300 / 0.3)


def test_losses_beyond_the_slo_deviate() -> None:
    result = verdict(evidence(abort=10))
    assert result.status == "deviated"
    assert result.reason == "not true: frontend met its SLO in the treatment arm under abort"
    assert result.faults[0].gap == pytest.approx(0.1)
    assert result.faults[0].interval[0] > 0


def test_the_score_is_the_weakest_faults() -> None:
    result = verdict(evidence(abort=1, delay=6))
    scores = [fault.score.value for fault in result.faults if fault.score]
    assert result.score == pytest.approx(min(scores), abs=0.06)


def test_errors_of_both_arms_are_a_blast_radius_and_no_effect_of_the_arm() -> None:
    result = verdict(evidence(abort=10, delay=10, control=10))
    assert result.status == "deviated"
    assert "control arm" in result.reason
    assert "treatment arm" not in result.reason


def test_a_few_errors_within_chance_pass() -> None:
    assert verdict(evidence(abort=1)).status == "passed"


def test_without_proof_there_is_no_verdict() -> None:
    unproven = replace(REPORT, faults=(replace(ABORT, proof=5), replace(DELAY, proof=0)))
    result = verdict(replace(evidence(), counters={}), unproven)
    assert result.status == "inconclusive"
    assert "no injected fault" in result.reason
    assert result.score is None


def test_one_unproven_fault_leaves_the_experiment_inconclusive() -> None:
    result = verdict(evidence(), replace(REPORT, faults=(ABORT, FaultRun(None, 0, 0, 0, error="HTTP 409"))))
    assert result.status == "inconclusive"
    assert result.reason == "delay: it was not injected: HTTP 409"
    assert result.score == 100.0  # of the fault that was proven


def test_a_proven_deviation_is_a_verdict_even_so() -> None:
    report = replace(REPORT, faults=(ABORT, FaultRun(None, 0, 0, 0, error="HTTP 409")))
    assert verdict(evidence(abort=20), report).status == "deviated"


def test_too_few_requests_are_inconclusive() -> None:
    result = verdict(evidence(requests=5))
    assert result.status == "inconclusive"
    assert "only 15 requests" in result.reason


@pytest.mark.parametrize("gate", [False, None])
def test_a_gate_that_was_not_met_is_inconclusive(gate: bool | None) -> None:
    report = JournalReport("failed", gate, None, START, START, (FaultRun(None, 0, 0, 0),) * 2)
    result = verdict(evidence(), report)
    assert result.status == "inconclusive"
    assert "before" in result.reason


def test_a_mesh_that_does_not_recover_deviates() -> None:
    result = verdict(evidence(), replace(REPORT, recovered=False))
    assert (result.status, result.findings[-1].holds) == ("deviated", False)


@pytest.mark.parametrize("status", ["aborted", "interrupted", "None"])
def test_an_experiment_that_did_not_end_failed(status: str) -> None:
    assert verdict(evidence(), replace(REPORT, status=status)).status == "failed"


def test_windows_belong_to_the_fault_that_they_overlap() -> None:
    windows = [Window(START + 5 * number, Counts(1, 0), Counts(1, 0)) for number in range(6)]
    fault, recovery = split(windows, FaultRun("f", START + 1, START + 9, START + 20), 5.0)
    assert [w.time - START for w in fault] == [5, 10]
    assert [w.time - START for w in recovery] == [15, 20]


def test_the_step_is_the_median_distance() -> None:
    arms = {"requests": 3.0, "errors": 1.0, "slow": 0.6}
    document = {"windows": [{"time": t, "treatment": arms, "control": arms} for t in (10, 5, 15, 40)]}
    windows = windows_from(document)
    assert [w.time for w in windows] == [5, 10, 15, 40]
    assert windows[0].treatment == Counts(3, 2)
    assert window_step(windows) == 5.0
    assert window_step(windows[:1]) == 5.0


def test_bad_responses_never_exceed_requests() -> None:
    arms = {"requests": 3, "errors": 3, "slow": 3}
    assert windows_from({"windows": [{"time": 0, "treatment": arms, "control": arms}]})[0].control == Counts(3, 3)


def test_the_document_is_json_and_keeps_what_was_measured() -> None:
    document = json.loads(json.dumps(verdict(evidence(abort=10)).document(), allow_nan=False))
    assert document["faults"][0]["arms"]["treatment"] == {"requests": 300, "bad": 30, "bad_ratio": 0.1}
    assert document["score"] is not None
    assert (document["service"], document["entry"]) == ("catalog", "frontend")
