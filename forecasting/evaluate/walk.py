"""The mixture in hindsight: models fitted on the past of a cut, then one tick per value through ``Selector.update``.

Models answer for all origins at once (much cheaper than one by one) and the answers are played back to the selector,
so what is judged is the code that runs in the control plane.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from forecasting.base import QUANTILES, Forecaster
from forecasting.batch import Batch
from forecasting.calendar import Holidays
from forecasting.ensemble import Selector
from forecasting.errors import TrainingError
from forecasting.evaluate.contest import Outcome
from forecasting.series import FloatArray, IntArray, Series

STEPS = 1_500
"""Optimiser steps of the network at each cut."""

LEARN = 0.8
"""Share of the values before the first origin that models learn from first; the mixture learns its weights on the rest,
which none of them has seen.
"""

LEARNED = ("lstm", "linear", "boosting")
"""Members that are trained."""

NOT_TRAINED = ("last", "ewma", "median12", "median48", "seasonal_naive")
"""Members that need no training."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A model that says again what it said: ``told[series] (T + 1, H, Q)``, row t knows t values."""

    name: str
    told: Mapping[str, FloatArray]

    def predict(self, batch: Batch) -> FloatArray:
        """By series and number of known values."""
        values = np.full((len(batch), batch.horizon, len(QUANTILES)), np.nan)
        for one, rows, counts in batch.groups():
            values[rows] = self.told[one.name][counts]
        return values


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """What the selector served, by series; row t of T + 1 knows t values (NaN before the begin).

    Forecasts and peaks ``(T + 1, H, Q)``, weights of the next step ``(T + 1, M)`` of ``members``, and whether each step
    might act ``(T + 1, H)``.
    """

    served: Mapping[str, FloatArray]
    peaks: Mapping[str, FloatArray]
    weights: Mapping[str, FloatArray]
    acting: Mapping[str, FloatArray]
    members: tuple[str, ...]


def walk(series: Sequence[Series], models: Sequence[Recorded], begins: Sequence[int], horizon: int) -> Walk:
    """One update per value from each series' ``begins`` on; those that are shorter join later, so that all end
    together.
    """
    selector = Selector(models, horizon, replay=0)
    lengths = {one.name: len(one.values) + 1 for one in series}
    q = len(QUANTILES)
    result = Walk(
        {name: np.full((length, horizon, q), np.nan) for name, length in lengths.items()},
        {name: np.full((length, horizon, q), np.nan) for name, length in lengths.items()},
        {name: np.zeros((length, len(selector.names))) for name, length in lengths.items()},
        {name: np.zeros((length, horizon)) for name, length in lengths.items()},
        selector.names,
    )
    longest = max(len(one.values) - begin for one, begin in zip(series, begins, strict=True))
    for left in range(longest, -1, -1):
        now = [
            replace(one, values=one.values[: len(one.values) - left])
            for one, begin in zip(series, begins, strict=True)
            if len(one.values) - left >= begin
        ]
        _tick(selector, now, result)
    return result


def _tick(selector: Selector, now: Sequence[Series], result: Walk) -> None:
    for one, chosen in zip(now, selector.update(now), strict=True):
        t = len(one.values)
        result.served[one.name][t] = chosen.forecast.values
        result.peaks[one.name][t] = chosen.peaks
        result.weights[one.name][t] = [chosen.weights.get(name, 0.0) for name in result.members]
        result.acting[one.name][t] = [chosen.may_act(h + 1) for h in range(len(chosen.peaks))]


def run_mixture(
    series: Series, counts: IntArray, horizon: int, steps: int = STEPS, *, holidays: Holidays | None = None
) -> Outcome:
    """A contestant: the whole mixture, learned from this series alone. Refitted once, where the origins begin."""
    began = time.perf_counter()
    last = int(counts.max()) if len(counts) else len(series.values)
    known = series.until(last)
    first = int(counts.min()) if len(counts) else last
    cuts = [int(LEARN * first), first, last + 1]
    told: dict[str, FloatArray] = {}
    for cut, after in itertools.pairwise(cuts):
        batch = Batch.at(known, np.arange(cut, after), horizon)
        for model in [*_untrained(known, holidays), *learned(known.until(cut), horizon, steps)]:
            table = told.setdefault(model.name, np.full((last + 1, horizon, len(QUANTILES)), np.nan))
            table[cut:after] = model.predict(batch)
    walked = walk([known], [Recorded(name, {series.name: table}) for name, table in told.items()], cuts[:1], horizon)
    return Outcome(
        walked.served[series.name][counts],
        time.perf_counter() - began,
        walked.weights[series.name][counts],
        walked.members,
    )


def run_learned(name: str, series: Series, counts: IntArray, horizon: int, steps: int = STEPS) -> Outcome:
    """A contestant: one of ``LEARNED`` by itself, fitted on what lies before the first origin; silent where that is too
    little.
    """
    began = time.perf_counter()
    past = series.until(int(counts.min()) if len(counts) else len(series.values))
    values = np.full((len(counts), horizon, len(QUANTILES)), np.nan)
    for model in learned(past, horizon, steps, (name,)):
        values = model.predict(Batch.at(series, counts, horizon))
    return Outcome(values, time.perf_counter() - began)


def _untrained(series: Series, holidays: Holidays | None) -> list[Forecaster]:
    """Members that need no training; what is known beside the series is one where there is anything."""
    from forecasting.models import MODELS  # noqa: PLC0415 - a name alone imports no library
    from forecasting.models.covariates import CovariateModel  # noqa: PLC0415

    beside = [CovariateModel(holidays)] if series.covariates is not None or holidays is not None else []
    return [*(MODELS[name]() for name in NOT_TRAINED), *beside]


def learned(past: Series, horizon: int, steps: int, names: Sequence[str] = LEARNED) -> list[Forecaster]:
    """Those of ``names`` that ``past`` is long enough for, and not constant, fitted on it."""
    from forecasting.models import boosting_training, linear  # noqa: PLC0415
    from forecasting.training import TrainSettings, train  # noqa: PLC0415

    models: list[Forecaster] = []
    quiet: Callable[[int, int, str], None] = lambda *_: None  # noqa: E731
    if "lstm" in names:
        with suppress(TrainingError):  # too short, or constant: the others go on without it
            models.append(train([past], TrainSettings(steps=steps, horizon=horizon), quiet))
    if len(past.values) < boosting_training.LEAST + horizon or not {"linear", "boosting"} & set(names):
        return models
    windows = linear.windows(past, horizon)
    if "linear" in names:
        models.append(linear.Linear([past.name], linear.fit(*windows)[None]))
    if "boosting" in names:
        models.append(boosting_training.grow(past.name, *windows))
    return models
