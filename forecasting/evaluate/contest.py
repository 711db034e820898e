"""Who takes part in a backtest, and what each said: models by name, every one asked about the same origins.

A process that works on one series makes its contestants from their names, so nothing but names and numbers travels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from forecasting.base import MEDIAN, QUANTILES, Forecaster
from forecasting.batch import Batch
from forecasting.calendar import Holidays
from forecasting.errors import ForecastingError
from forecasting.evaluate.backtest import last_values
from forecasting.series import FloatArray, IntArray, Series, clean

BASELINE = "last+residuals"
"""The contestant that quantiles are measured against."""

RESIDUALS = 500
"""Newest residuals of every step ahead that the baseline's quantiles are taken from."""

LEAST_RESIDUALS = 20
"""Under so many known residuals the baseline tells its median only."""


class UnknownModelError(ForecastingError):
    """No contestant has this name; the message lists those that there are."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a contestant said about N windows, and the wall-clock seconds that it took, training included.

    ``values (N, H, Q)`` follow ``QUANTILES``, NaN where it was silent. A mixture also tells the ``weights (N, M)`` of
    its ``members`` at every origin.
    """

    values: FloatArray
    seconds: float
    weights: FloatArray | None = None
    members: tuple[str, ...] = ()


Run = Callable[[Series, IntArray, int], Outcome]
"""``run(series, counts (N,), horizon)``. It must use values before each count only."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A name and what runs under it."""

    name: str
    run: Run


def contestants(names: Sequence[str] = (), holidays: Holidays | None = None) -> list[Contestant]:
    """The contestants called ``names``, in that order and once each; the usual ones for no name. Those that know about
    ``holidays`` are told.

    Raises UnknownModelError.
    """
    runs = {**CONTESTANTS, **_told(holidays)}
    unknown = [name for name in names if name not in CONTESTANTS]
    if unknown:
        raise UnknownModelError(f"no model is called {unknown[0]!r}; choose from {', '.join(CONTESTANTS)}")
    return [Contestant(name, runs[name]) for name in dict.fromkeys(names or USUAL)]


def run_model(make: Callable[[], Forecaster], series: Series, counts: IntArray, horizon: int) -> Outcome:
    """The outcome of a model that needs no training."""
    began = time.perf_counter()
    values = make().predict(Batch.at(series, counts, horizon))
    return Outcome(values, time.perf_counter() - began)


class LastResiduals:
    """Last value as the median; around it, quantiles of what last value erred by lately, for every step ahead.

    The residual of step ``h`` is ``v[s + h - 1] - last(s)`` for origins ``s``; at origin ``t`` it is known for
    ``s <= t - h``. The empirical quantile is the inverse of the distribution function (Hyndman & Fan 1996, type 1).
    """

    name = BASELINE

    def predict(self, batch: Batch) -> FloatArray:
        """Silent where a window holds no value; the median only under ``LEAST_RESIDUALS`` residuals."""
        told = np.full((len(batch), batch.horizon, len(QUANTILES)), np.nan)
        for series, rows, counts in batch.groups():
            told[rows] = _around_last(series, counts, batch.horizon)
        return told


def _around_last(series: Series, counts: IntArray, horizon: int) -> FloatArray:
    """``(N, H, Q)`` for the windows of one series."""
    values = clean(series.values)
    seen = np.concatenate([[0], np.isfinite(values).cumsum()])
    last = np.where(seen > 0, last_values(series, np.arange(len(values) + 1)), np.nan)  # (T + 1,) by count
    told = np.empty((len(counts), horizon, len(QUANTILES)))
    for h in range(1, horizon + 1):
        residuals = values[h - 1 :] - last[: max(0, len(values) - h + 1)]  # index = origin
        told[:, h - 1] = last[counts, None] + _quantiles(_newest(residuals, counts - h + 1))
    told[..., :MEDIAN] = np.minimum(told[..., :MEDIAN], told[..., MEDIAN, None])
    told[..., MEDIAN:] = np.maximum(told[..., MEDIAN:], told[..., MEDIAN, None])
    return np.maximum(told, 0.0)


def _newest(residuals: FloatArray, stops: IntArray) -> FloatArray:
    """``residuals[stop - RESIDUALS : stop]`` for every stop, NaN before the first: ``(N, RESIDUALS)``."""
    padded = np.concatenate([np.full(RESIDUALS, np.nan), residuals])
    return np.lib.stride_tricks.sliding_window_view(padded, RESIDUALS)[np.maximum(stops, 0)]


def _quantiles(residuals: FloatArray) -> FloatArray:
    """``(N, K)`` to ``(N, Q)``: 0 for the median, NaN elsewhere where too few are known."""
    ordered = np.sort(residuals, axis=1)  # NaN goes to the end
    count = np.isfinite(residuals).sum(axis=1)[:, None]
    rank = np.ceil(np.array(QUANTILES) * count - 1e-9).astype(np.int64) - 1
    found = np.take_along_axis(ordered, np.clip(rank, 0, np.maximum(count - 1, 0)), axis=1)
    found = np.where(count >= LEAST_RESIDUALS, found, np.nan)
    found[:, MEDIAN] = 0.0
    return np.asarray(found)


def _untrained(name: str) -> Run:
    return partial(run_model, partial(_make, name))


def _make(name: str) -> Forecaster:
    from forecasting.models import MODELS  # noqa: PLC0415 - a name alone imports no model

    return MODELS[name]()


def _mixture(series: Series, counts: IntArray, horizon: int, *, holidays: Holidays | None) -> Outcome:
    from forecasting.evaluate.walk import run_mixture  # noqa: PLC0415 - torch takes seconds to import

    return run_mixture(series, counts, horizon, holidays=holidays)


def _learned(name: str, series: Series, counts: IntArray, horizon: int) -> Outcome:
    from forecasting.evaluate.walk import run_learned  # noqa: PLC0415 - as above

    return run_learned(name, series, counts, horizon)


def _covariates(holidays: Holidays | None) -> Forecaster:
    from forecasting.models.covariates import CovariateModel  # noqa: PLC0415 - a name alone imports no model

    return CovariateModel(holidays)


def _told(holidays: Holidays | None) -> dict[str, Run]:
    """The contestants that look at what is known beside a series."""
    return {
        "covariates": partial(run_model, partial(_covariates, holidays)),
        "mixture": partial(_mixture, holidays=holidays),
    }


CONTESTANTS: Mapping[str, Run] = {
    "last": _untrained("last"),
    BASELINE: partial(run_model, LastResiduals),
    "seasonal_naive": _untrained("seasonal_naive"),
    "ewma": _untrained("ewma"),
    "linear": partial(_learned, "linear"),
    "boosting": partial(_learned, "boosting"),
    "lstm": partial(_learned, "lstm"),
    **_told(None),
    "ets": _untrained("ets"),
    "theta": _untrained("theta"),
    "sarimax": _untrained("sarimax"),
    "prophet": _untrained("prophet"),
}
"""Every contestant by name, in the order of the report. To add one, add a line."""

USUAL = ("last", BASELINE, "seasonal_naive", "ewma", "mixture")
"""Those that take part where no names are given: the others are slow, or need an extra."""
