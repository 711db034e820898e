"""Which forecast may act: every model is scored against last value on every series, all the time.

Each tick the selector settles what was forecast before, gates the models by their skill, and calibrates the winner's
quantiles by its own misses. Skill = 1 - loss / loss of last value, over the same intervals; loss is the absolute
error of the median, and steps 1, 2-5 and 6-H count a third each. A model without skill does not act: last value is
returned, marked unskilled, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from forecasting.base import QUANTILES, Forecast, Forecaster, column, lawful
from forecasting.conformal import HIGH, calibrated, shifts
from forecasting.evaluate.stats import ratio
from forecasting.ledger import Ledger
from forecasting.models.naive import LastValue
from forecasting.series import FloatArray, Series, clean

SWITCH = 0.1
"""A model gives way to another one only if that has this much more skill: skill over an hour is a noisy figure."""

WORST = -1.0
"""Skill is cut here: twice last value's loss is as bad as it gets."""


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """The forecast of one series that may be acted upon if ``skilled``.

    ``model`` made it (``last`` if none has skill), ``reason`` says why. ``skill`` per model, None where it is
    unknown; ``losses`` per model: mean absolute error by bucket of steps (``1``, ``2-5``, ``6-12``), in the unit of
    the series. ``scored`` counts the intervals behind them. ``coverage`` is the share of actual values at or below
    the 0.95 quantile as returned in the past (all steps), None before the first. ``peaks`` has shape ``(H, Q)``: row
    ``k-1`` is the maximum of the next ``k`` steps.
    """

    forecast: Forecast
    model: str
    skilled: bool
    reason: str
    skill: Mapping[str, float | None]
    losses: Mapping[str, Mapping[str, float | None]]
    scored: int
    coverage: float | None
    peaks: FloatArray

    def peak(self, steps: int, quantile: float) -> float:
        """Upper quantile of the *maximum* over the next ``steps`` steps (clipped to the horizon).

        The largest of the steps' quantiles understates it (any step may be the one that surprises); so it is shifted by
        how far such maxima were missed before. With fewer than ``least`` scored maxima it is only the largest quantile.
        """
        row = min(max(steps, 1), len(self.peaks)) - 1
        return float(self.peaks[row, column(QUANTILES, quantile)])


@dataclass(slots=True, eq=False)
class _Track:
    """The selector's memory of one series. ``served`` is an extra row of the ledger: what was returned."""

    step: float
    first: int
    ledger: Ledger
    acting: str | None = None
    skill: dict[str, float | None] = field(default_factory=dict)
    scored: int = 0


YOUNG = 8
"""Known values below which nothing that is forecast counts: no model can know a spread that it has not seen."""


def counted(told: FloatArray, past: FloatArray) -> FloatArray:
    """``told``, or NaN where the series behind it was too young for its misses to mean anything."""
    return told if np.isfinite(past).sum() >= YOUNG else np.full_like(told, np.nan)


class Selector:
    """Chooses per series; ``update`` once per tick.

    ``window``: intervals that skill is measured over; ``least``: of them, how many must be scored before a model acts.
    ``enter`` and ``leave``: skill at which a model starts and stops to act (hysteresis). ``memory``: misses kept for
    calibration. ``replay``: intervals that are forecast in hindsight when a series with a history first appears; 0
    turns it off.
    """

    def __init__(
        self,
        models: Sequence[Forecaster],
        horizon: int,
        window: int = 60,
        *,
        least: int = 20,
        enter: float = 0.02,
        leave: float = -0.02,
        memory: int = 240,
        replay: int = 60,
    ) -> None:
        self._models: list[Forecaster] = [LastValue(), *(m for m in models if m.name != LastValue.name)]
        self._names = [model.name for model in self._models]
        self._horizon, self._window, self._least = horizon, window, least
        self._enter, self._leave = enter, leave
        self._memory, self._replay = max(memory, window), replay
        self._buckets = buckets(horizon)
        self._tracks: dict[str, _Track] = {}

    def warm_up(self, series: Sequence[Series], origins: int = 60) -> None:
        """Score the models on the newest ``origins`` intervals by forecasting them in hindsight, each from its own
        past.
        """
        for one in series:
            self._tracks[one.name] = self._fresh(one)
        starts = [np.arange(max(1, len(s.values) - origins - self._horizon + 1), len(s.values)) for s in series]
        pasts = [replace(s, values=s.values[:n]) for s, found in zip(series, starts, strict=True) for n in found]
        told = iter(np.moveaxis(self._ask(pasts), 1, 0))  # (M, H, Q) each
        for one, found in zip(series, starts, strict=True):
            track = self._tracks[one.name]
            for n in found:
                self._settle(track, one, int(n))
                past = one.values[: int(n)]
                track.ledger.remember(one.first + int(n), with_served(counted(next(told), past)))

    def update(self, series: Sequence[Series]) -> list[Selected]:
        """Settle, gate, forecast, calibrate: one result per series, in order. Series that are no longer given are
        forgotten.
        """
        self._tracks = {one.name: self._tracks[one.name] for one in series if one.name in self._tracks}
        self.warm_up([one for one in series if self._is_new(one)], self._replay)
        told = self._ask(series)
        return [self._select(one, told[:, number]) for number, one in enumerate(series)]

    def _is_new(self, series: Series) -> bool:
        """Unknown, back-filled, of another step, rewound, or away for longer than the memory: score it anew."""
        track = self._tracks.get(series.name)
        if track is None or track.ledger.next is None or track.step != series.step:
            return True
        if series.first < track.first - self._horizon:
            return True
        end = series.first + len(series.values)
        return not track.ledger.next <= end <= track.ledger.next + self._memory

    def _fresh(self, series: Series) -> _Track:
        return _Track(series.step, series.first, Ledger(len(self._names) + 1, self._horizon, self._memory))

    def _ask(self, series: Sequence[Series]) -> FloatArray:
        """Every model's quantiles, ``(M, N, H, Q)``; NaN where it has too little history."""
        told = np.full((len(self._models), len(series), self._horizon, len(QUANTILES)), np.nan)
        for row, model in zip(told, self._models, strict=True):
            for number, forecast in enumerate(model.forecast(series, self._horizon) if series else []):
                if forecast is not None:
                    row[number] = forecast.values
        return told

    def _settle(self, track: _Track, series: Series, count: int) -> None:
        """Score everything that the first ``count`` values of the series make known."""
        if track.ledger.next is None:
            return
        known = clean(series.values[max(0, track.ledger.next - series.first) : count])
        begin = series.first + count - len(known)
        for number in range(track.ledger.next, begin):  # trimmed away before anyone looked
            track.ledger.settle(number, float("nan"))
        for offset, actual in enumerate(known):
            track.ledger.settle(begin + offset, float(actual))

    def _select(self, series: Series, told: FloatArray) -> Selected:
        track = self._tracks[series.name]
        self._settle(track, series, len(series.values))
        errors = track.ledger.newest(self._window)
        track.skill, track.scored = self._skills(errors)
        track.acting = self._gate(track, able(self._names, told))
        hush = silence(series, self._horizon)
        row = 0 if hush or track.acting is None else self._names.index(track.acting)
        values = calibrated(told[row], shifts(track.ledger.misses[row], self._least))
        selected = Selected(
            forecast=Forecast(series.name, self._names[row], series.end, series.step, QUANTILES, values),
            model=self._names[row],
            skilled=row > 0,
            reason=hush or self._reason(track),
            skill=track.skill,
            losses=self._losses(errors),
            scored=track.scored,
            coverage=_coverage(track.ledger),
            peaks=self._peaks(track.ledger, row, told[row], values),
        )
        told, values = counted(told, series.values), counted(values, series.values)
        track.ledger.remember(series.first + len(series.values), with_served(told, values))
        return selected

    def _skills(self, errors: FloatArray) -> tuple[dict[str, float | None], int]:
        """Skill per model (last value aside) and the largest number of intervals that one of them is scored on."""
        skill: dict[str, float | None] = {}
        most = 0
        for name, mine in zip(self._names[1:], errors[1:-1], strict=True):
            both = np.isfinite(mine) & np.isfinite(errors[0])  # (H, window)
            scored = int(both[0].sum())
            most = max(most, scored)
            skill[name] = self._skill(mine, errors[0], both) if scored >= self._least else None
        return skill, most

    def _skill(self, mine: FloatArray, last: FloatArray, both: FloatArray) -> float:
        mine_h, last_h = np.where(both, mine, 0.0).sum(axis=1), np.where(both, last, 0.0).sum(axis=1)
        shares = [1.0 - ratio(float(mine_h[part].sum()), float(last_h[part].sum())) for part in self._buckets.values()]
        return float(np.mean(np.maximum(shares, WORST)))

    def _gate(self, track: _Track, able: set[str]) -> str | None:
        """The model that acts. The one that acts already stays until it loses, or another is clearly better."""
        known = {name: skill for name, skill in track.skill.items() if skill is not None and name in able}
        best = max(known, key=known.__getitem__, default=None)
        now = known.get(track.acting or "")
        if now is not None and now >= self._leave and (best is None or known[best] <= now + SWITCH):
            return track.acting
        return best if best is not None and known[best] > self._enter else None

    def _reason(self, track: _Track) -> str:
        known = {name: skill for name, skill in track.skill.items() if skill is not None}
        if track.acting is not None:
            skill = known[track.acting]
            held = "beats" if skill > self._enter else "is held against"
            return f"{track.acting} {held} last value (skill {skill:+.2f} over {track.scored} scored ticks)"
        if not known:
            return f"{track.scored} of {self._least} scored ticks: too little history"
        best = max(known, key=known.__getitem__)
        verb = "loses to" if known[best] < 0 else "does not clearly beat"
        return f"{best} {verb} last value (skill {known[best]:+.2f}, {self._enter:+.2f} needed)"

    def _losses(self, errors: FloatArray) -> dict[str, dict[str, float | None]]:
        return {
            name: {label: _mean(mine[part]) for label, part in self._buckets.items()}
            for name, mine in zip(self._names, errors[:-1], strict=True)
        }

    def _peaks(self, ledger: Ledger, row: int, told: FloatArray, values: FloatArray) -> FloatArray:
        """Calibrated maxima ``(H, Q)``: not below any single step's quantile, growing with the number of steps."""
        highest = np.maximum.accumulate(told, axis=0)
        shifted = calibrated(highest, shifts(ledger.peaks[row], self._least, median=True))
        return lawful(np.maximum.accumulate(np.maximum(shifted, np.maximum.accumulate(values, axis=0)), axis=0))


def buckets(horizon: int) -> dict[str, slice]:
    """Steps that are scored together: the next one, up to 5, and the rest; label to rows."""
    edges = [(1, 1), (2, min(5, horizon)), (6, horizon)]
    return {f"{a}" if a == b else f"{a}-{b}": slice(a - 1, b) for a, b in edges if a <= b}


def able(names: Sequence[str], told: FloatArray) -> set[str]:
    """The models that answered: ``told (M, H, Q)`` has no NaN for them."""
    return {name for name, rows in zip(names, told, strict=True) if np.isfinite(rows).all()}


def silence(series: Series, horizon: int) -> str:
    """Why nothing may be said about a series without any value over the last ``horizon`` steps; empty if it has one."""
    if np.isfinite(series.values[-horizon:]).any():
        return ""
    known = np.isfinite(series.values).any()
    return f"no value for {horizon} steps: its source is silent" if known else "no values yet"


def with_served(told: FloatArray, served: FloatArray | None = None) -> FloatArray:
    """The models' quantiles ``(M, H, Q)`` and, as one more row, what was returned (NaN where nothing was)."""
    last = np.full(told.shape[1:], np.nan) if served is None else served
    return np.concatenate([told, last[None]])


def _coverage(ledger: Ledger) -> float | None:
    served = ledger.misses[-1, :, HIGH]
    known = np.isfinite(served)
    return float((served[known] <= 0).mean()) if known.any() else None


def _mean(errors: FloatArray) -> float | None:
    known = errors[np.isfinite(errors)]
    return float(known.mean()) if len(known) else None
