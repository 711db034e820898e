"""The resilience score of one fault (pure: numbers in, numbers out; chance is an argument).

Two arms of user requests ran at the same time: only the treatment arm could meet the fault. Per window both arms'
requests and bad responses (5xx, or slower than the SLO allows) were counted. The score is a weighted geometric mean
of four factors from 0 to 1,

    S = 100 * containment^0.35 * (1 - D)^0.25 * recovery^0.20 * budget^0.20

so that one dead factor is not averaged away:

- *containment* = max(0, 1 - (err_T - err_C) / exposure): how much of what was injected did not reach users. Exposure
  is the traffic share on the edge times the fault probability, that is injected faults per user request of the
  treatment arm (at most 1);
- *1 - D*: D is the mean loss of good responses against control over the windows of fault and recovery (after the fault
  there is no treatment arm any more: everybody against no loss at all);
- *recovery* = 2^(-t / objective): t is the time from the end of the fault to the first window whose loss is within
  the SLO;
- *budget* = max(0, 1 - burn / 14.4): burn = (err_T - err_C) / (1 - SLO); 14.4 is the burn rate that pages
  (Google SRE Workbook, "Alerting on SLOs").

Decisions use the lower bound: the 5 % quantile of the score when windows of the fault, and requests in every window,
are drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WEIGHTS: Mapping[str, float] = {"containment": 0.35, "availability": 0.25, "recovery": 0.20, "budget": 0.20}

#: The burn rate at which an error budget of 30 days is gone in 2 days.
PAGING_BURN = 14.4

BOOTSTRAP = 2000
LOWER = 0.05


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests of one arm in one window; ``bad`` of them failed or were slow."""

    requests: int
    bad: int

    @property
    def ratio(self) -> float:
        return self.bad / self.requests if self.requests else 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.requests + other.requests, self.bad + other.bad)


@dataclass(frozen=True, slots=True)
class Window:
    """Both arms over the seconds before ``time`` (seconds since the epoch)."""

    time: float
    treatment: Counts
    control: Counts


@dataclass(frozen=True, slots=True)
class Target:
    """What the factors are measured by: ``exposure`` (0 to 1), ``slo`` as a ratio, the recovery ``objective`` and the
    windows' ``step`` in seconds."""

    exposure: float
    slo: float
    objective: float
    step: float


@dataclass(frozen=True, slots=True)
class Factor:
    """One factor of a score: its value from 0 to 1, its exponent, and how it came about."""

    name: str
    value: float
    weight: float
    reason: str


@dataclass(frozen=True, slots=True)
class Score:
    """``value`` and its ``lower`` bound, 0 to 100, and the factors that made the value."""

    value: float
    lower: float
    factors: tuple[Factor, ...]


@dataclass(frozen=True, slots=True)
class _Draws:
    """B draws of W windows, (B, W) each: requests and bad responses of both arms; the first ``fault`` windows are the
    fault's.
    """

    requests: Floats
    bad: Floats
    control_requests: Floats
    control_bad: Floats
    fault: int


def total(windows: Sequence[Window]) -> tuple[Counts, Counts]:
    """Treatment and control over all windows."""
    zero = Counts(0, 0)
    return sum((w.treatment for w in windows), zero), sum((w.control for w in windows), zero)


def score(
    fault: Sequence[Window], recovery: Sequence[Window], target: Target, generator: np.random.Generator
) -> Score | None:
    """The score of one fault from its windows and those that were watched after it.

    None where either arm had no request during the fault, or nothing was injected: there is nothing to measure then.
    """
    treatment, control = total(fault)
    if not (treatment.requests and control.requests and target.exposure > 0):
        return None
    measured = _observed(fault, recovery)
    factors = _factors(measured, target)
    drawn = _combine(_factors(_resampled(measured, generator), target))
    value = float(_combine(factors)[0])
    lower = min(value, float(np.quantile(drawn, LOWER)))
    return Score(value, lower, _explained(factors, measured, target))


def _observed(fault: Sequence[Window], recovery: Sequence[Window]) -> _Draws:
    windows = [*fault, *recovery]

    def row(values: Sequence[int]) -> Floats:
        return np.asarray([values], dtype=np.float64)  # (1, W)

    return _Draws(
        row([w.treatment.requests for w in windows]),
        row([w.treatment.bad for w in windows]),
        row([w.control.requests for w in windows]),
        row([w.control.bad for w in windows]),
        len(fault),
    )


def _resampled(seen: _Draws, generator: np.random.Generator) -> _Draws:
    """Draw the fault's windows with replacement (recovery keeps its order), then the requests of every window."""
    windows = seen.requests.shape[1]
    picked = np.tile(np.arange(windows), (BOOTSTRAP, 1))  # (B, W)
    picked[:, : seen.fault] = generator.integers(0, seen.fault, size=(BOOTSTRAP, seen.fault))

    def draw(requests: Floats, bad: Floats) -> tuple[Floats, Floats]:
        count = requests[0][picked]
        ratio = np.divide(bad[0], requests[0], out=np.zeros(windows), where=requests[0] > 0)
        return count, generator.binomial(count.astype(np.int64), ratio[picked]).astype(np.float64)

    return _Draws(*draw(seen.requests, seen.bad), *draw(seen.control_requests, seen.control_bad), seen.fault)


def _factors(draws: _Draws, target: Target) -> dict[str, Floats]:
    """The four factors, (B,) each."""
    excess = _excess(draws)
    loss = _loss(draws)
    return {
        "containment": np.clip(1 - excess / target.exposure, 0, 1),
        "availability": 1 - _mean_loss(loss),
        "recovery": np.exp2(-_recovery_time(draws, loss, target) / target.objective),
        "budget": np.clip(1 - _burn(excess, target) / PAGING_BURN, 0, 1),
    }


def _excess(draws: _Draws) -> Floats:
    """err_T - err_C over the fault, (B,)."""
    during = slice(0, draws.fault)
    treatment = draws.bad[:, during].sum(axis=1) / np.maximum(draws.requests[:, during].sum(axis=1), 1)
    control = draws.control_bad[:, during].sum(axis=1) / np.maximum(draws.control_requests[:, during].sum(axis=1), 1)
    return np.asarray(treatment - control)


def _loss(draws: _Draws) -> Floats:
    """Share of good responses lost, (B, W).

    Against control where both arms had requests. The treatment arm ends with its fault, so a window of recovery in
    which only one arm is left is taken as it is: what the fault left behind (ejected hosts, full queues) then harms
    everybody. NaN elsewhere.
    """
    both = (draws.requests > 0) & (draws.control_requests > 0)
    good = 1 - draws.bad / np.maximum(draws.requests, 1)
    control = 1 - draws.control_bad / np.maximum(draws.control_requests, 1)
    lost = np.divide(control - good, control, out=np.zeros_like(good), where=control > 0)
    everybody = draws.requests + draws.control_requests
    alone = (everybody > 0) & (np.arange(everybody.shape[1]) >= draws.fault)
    pooled = np.where(alone, (draws.bad + draws.control_bad) / np.maximum(everybody, 1), np.nan)
    return np.where(both, np.clip(lost, 0, 1), pooled)


def _mean_loss(loss: Floats) -> Floats:
    seen = np.isfinite(loss)
    return np.asarray(np.where(seen, loss, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1))


def _recovery_time(draws: _Draws, loss: Floats, target: Target) -> Floats:
    """Seconds from the end of the fault to the first window within the SLO, (B,); all that was watched where there is
    none.
    """
    after = loss[:, draws.fault :]
    if after.shape[1] == 0:
        return np.zeros(loss.shape[0])
    recovered = after <= 1 - target.slo + 1e-9  # NaN compares false: a window without traffic proves nothing
    first = np.where(recovered.any(axis=1), recovered.argmax(axis=1), after.shape[1])
    return np.asarray(first * target.step, dtype=np.float64)


def _burn(excess: Floats, target: Target) -> Floats:
    return np.maximum(excess, 0) / max(1 - target.slo, 1e-6)


def _combine(factors: Mapping[str, Floats]) -> Floats:
    product = np.asarray(100.0)
    for name, weight in WEIGHTS.items():
        product = product * factors[name] ** weight
    return product


def _explained(factors: Mapping[str, Floats], seen: _Draws, target: Target) -> tuple[Factor, ...]:
    excess, loss = float(_excess(seen)[0]), _loss(seen)
    time = float(_recovery_time(seen, loss, target)[0])
    watched = (seen.requests.shape[1] - seen.fault) * target.step
    reasons = {
        "containment": f"{excess:.2%} more bad responses than control; {target.exposure:.2%} of requests met the fault",
        "availability": f"{float(_mean_loss(loss)[0]):.2%} of good responses lost over fault and recovery",
        "recovery": f"recovered {_recovery_text(time, watched)}; objective {target.objective:g} s",
        "budget": f"burn rate {float(_burn(np.asarray([excess]), target)[0]):.3g} of an SLO of {target.slo:.4g}",
    }
    return tuple(Factor(name, float(factors[name][0]), weight, reasons[name]) for name, weight in WEIGHTS.items())


def _recovery_text(time: float, watched: float) -> str:
    if watched == 0:
        return "unknown: nothing was watched after the fault"
    return f"not within the {watched:g} s watched" if time >= watched else f"within {time:g} s"


def score_document(value: Score) -> dict[str, Any]:
    """The score as JSON."""
    factors = [
        {"name": f.name, "value": round(f.value, 4), "weight": f.weight, "reason": f.reason} for f in value.factors
    ]
    return {"value": round(value.value, 1), "lower": round(value.lower, 1), "factors": factors}
