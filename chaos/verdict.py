"""From a journal and the arms' counts to a verdict (pure).

No verdict without proof of injection: where Envoy's own counter did not move, or an arm had too few requests, the
experiment is *inconclusive*. Otherwise it *deviated* when a proven fault took more of the treatment arm's good
responses than the SLO of the entry service allows, when the control arm suffered as well (the blast radius was not
the arm), or when the SLO did not hold again after recovery; else it *passed*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Literal

import numpy as np

from chaos.experiment import Experiment
from chaos.faults import Fault
from chaos.journal import FaultRun, JournalReport
from chaos.proportions import difference, wilson
from chaos.score import Counts, Score, Target, Window, score, score_document, total

Status = Literal["passed", "deviated", "inconclusive", "failed"]

#: Fewer requests than this in an arm say nothing about an SLO.
MINIMUM_REQUESTS = 20

#: Sidecars report once a second: requests of the fault's last second may be counted in the window after it.
REPORT_LAG = 1.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured: windows of both arms, the entry service's SLO as a ratio, and the final injection counter by
    fault id.
    """

    windows: tuple[Window, ...]
    slo: float
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FaultResult:
    """One fault's effect. ``share`` is the part of the treatment arm's user requests that reach the service under
    fault; ``expected`` is the loss without any protection (share x fault probability); ``gap`` is err_T - err_C with
    its interval.
    """

    fault: Fault
    id: str | None
    injected: int
    treatment: Counts
    control: Counts
    share: float
    expected: float
    gap: float
    interval: tuple[float, float]
    score: Score | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of the verdict. ``holds`` is None where it could not be judged."""

    statement: str
    holds: bool | None


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """The verdict. ``score`` and ``lower`` are those of the weakest fault; None without a proven one."""

    experiment: Experiment
    status: Status
    reason: str
    started: float
    ended: float
    faults: tuple[FaultResult, ...]
    findings: tuple[Finding, ...]
    score: float | None
    lower: float | None

    def document(self) -> dict[str, Any]:
        """The result as JSON, as it is stored and printed."""
        return {
            "status": self.status,
            "reason": self.reason,
            "service": self.experiment.service,
            "entry": self.experiment.entry,
            "score": self.score,
            "score_lower": self.lower,
            "started": self.started,
            "ended": self.ended,
            "findings": [{"statement": f.statement, "holds": f.holds} for f in self.findings],
            "faults": [_fault_document(result) for result in self.faults],
        }


def windows_from(document: Mapping[str, Any]) -> tuple[Window, ...]:
    """The windows of GET /v1/arms, in order of time. Bad responses are errors and slow ones."""
    windows = [Window(float(w["time"]), _counts(w["treatment"]), _counts(w["control"])) for w in document["windows"]]
    return tuple(sorted(windows, key=lambda window: window.time))


def judge(
    experiment: Experiment, report: JournalReport, evidence: Evidence, generator: np.random.Generator
) -> ExperimentResult:
    """The verdict on an experiment that ran to its end."""
    pairs = zip(experiment.faults, report.faults, strict=True)
    faults = tuple(_measure(experiment, fault, run, evidence, generator) for fault, run in pairs)
    findings = _findings(experiment, report, faults, evidence.slo)
    status, reason = _status(experiment, report, faults, findings)
    scores = [result.score for result in faults if result.score is not None and result.problem is None]
    weakest = min(scores, key=lambda one: one.lower, default=None)
    return ExperimentResult(
        experiment,
        status,
        reason,
        report.started,
        report.ended,
        faults,
        findings,
        None if weakest is None else round(weakest.value, 1),
        None if weakest is None else round(weakest.lower, 1),
    )


def split(windows: Sequence[Window], run: FaultRun, step: float) -> tuple[list[Window], list[Window]]:
    """The windows that overlap the fault, and those of its recovery."""
    fault = [w for w in windows if w.time > run.started and w.time - step < run.ended + REPORT_LAG]
    recovery = [w for w in windows if w.time - step >= run.ended + REPORT_LAG and w.time <= run.watched + step / 2]
    return fault, recovery


def window_step(windows: Sequence[Window]) -> float:
    """Seconds that one window covers: the median distance of their ends, 5 s where there is only one."""
    gaps = [after.time - before.time for before, after in pairwise(windows)]
    return median(gaps) if gaps else 5.0


def _measure(
    experiment: Experiment, fault: Fault, run: FaultRun, evidence: Evidence, generator: np.random.Generator
) -> FaultResult:
    step = window_step(evidence.windows)
    during, after = split(evidence.windows, run, step)
    treatment, control = total(during)
    injected = max(0, max(run.proof, evidence.counters.get(run.id or "", 0)) - run.before)
    expected = min(1.0, injected / treatment.requests) if treatment.requests else 0.0
    target = Target(expected, evidence.slo, experiment.objective, step)
    return FaultResult(
        fault=fault,
        id=run.id,
        injected=injected,
        treatment=treatment,
        control=control,
        share=min(1.0, expected / (fault.percent / 100)),
        expected=expected,
        gap=treatment.ratio - control.ratio,
        interval=difference(treatment.bad, treatment.requests, control.bad, control.requests),
        score=score(during, after, target, generator),
        problem=_problem(run, injected, treatment, control),
    )


def _problem(run: FaultRun, injected: int, treatment: Counts, control: Counts) -> str | None:
    """Why this fault allows no verdict."""
    if run.id is None:
        return f"it was not injected: {run.error}"
    if injected == 0:
        return "Envoy's counters show no injected fault"
    fewest = min(treatment.requests, control.requests)
    return f"an arm had only {fewest} requests, {MINIMUM_REQUESTS} are needed" if fewest < MINIMUM_REQUESTS else None


def _findings(
    experiment: Experiment, report: JournalReport, faults: Sequence[FaultResult], slo: float
) -> tuple[Finding, ...]:
    entry = experiment.entry
    found = [Finding(f"{entry} met its SLO before the experiment", report.gate)]
    for result in faults:
        for arm, holds in (("treatment", _within), ("control", _untouched)):
            statement = f"{entry} met its SLO in the {arm} arm under {result.fault.kind}"
            found.append(Finding(statement, holds(result, slo) if result.problem is None else None))
    return (*found, Finding(f"{entry} met its SLO after recovery", report.recovered))


def _within(result: FaultResult, slo: float) -> bool:
    """Not (surely more bad responses than the SLO allows, and surely more than control)."""
    worse = wilson(result.treatment.bad, result.treatment.requests)[0] > 1 - slo
    return not (worse and result.interval[0] > 0)


def _untouched(result: FaultResult, slo: float) -> bool:
    return wilson(result.control.bad, result.control.requests)[0] <= 1 - slo


def _status(
    experiment: Experiment, report: JournalReport, faults: Sequence[FaultResult], findings: Sequence[Finding]
) -> tuple[Status, str]:
    if report.status not in {"completed", "failed"}:
        return "failed", f"Chaos Toolkit says {report.status}"
    if report.gate is not True:
        reason = f"{experiment.entry} had no traffic or did not meet its SLO before, so nothing was injected"
        return "inconclusive", reason
    broken = [finding.statement for finding in findings if finding.holds is False]
    unproven = [f"{result.fault.kind}: {result.problem}" for result in faults if result.problem]
    if unproven and len(unproven) == len(faults):
        return "inconclusive", "; ".join(unproven)
    if broken:
        return "deviated", "; ".join(f"not true: {statement}" for statement in broken)
    if unproven:
        return "inconclusive", "; ".join(unproven)
    return "passed", f"{experiment.entry} met its SLO with faults in {experiment.service}"


def _counts(arm: Mapping[str, Any]) -> Counts:
    requests = round(arm["requests"])
    return Counts(requests, min(requests, round(arm["errors"] + arm["slow"])))


def _fault_document(result: FaultResult) -> dict[str, Any]:
    return {
        "id": result.id,
        "kind": result.fault.kind,
        "percent": result.fault.percent,
        "treatment_percent": result.fault.treatment_percent,
        "duration": result.fault.duration,
        "injected": result.injected,
        "arms": {name: _arm(counts) for name, counts in (("treatment", result.treatment), ("control", result.control))},
        "traffic_share": round(result.share, 4),
        "expected_loss": round(result.expected, 4),
        "difference": round(result.gap, 4),
        "interval": [round(bound, 4) for bound in result.interval],
        "score": None if result.score is None or result.problem else score_document(result.score),
        "problem": result.problem,
    }


def _arm(counts: Counts) -> dict[str, Any]:
    return {"requests": counts.requests, "bad": counts.bad, "bad_ratio": round(counts.ratio, 4)}
