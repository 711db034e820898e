"""Prophet, where it is installed: a piecewise linear trend and Fourier seasons, fitted by Stan.

Taylor & Letham 2018, Forecasting at Scale. Package ``prophet`` (an optional extra) is imported when a model is asked
for the first time, so that nobody else waits for it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from forecasting.base import QUANTILES
from forecasting.batch import Batch
from forecasting.errors import ForecastingError
from forecasting.models.statistical import Past, each
from forecasting.series import FloatArray

DAY_SECONDS = 86_400
WEEK = 7
"""Seasons in a week: a season is a day."""

SEASONS = 15
"""Newest seasons that are read: two weeks, so that the week can be told from the days, and a day to spare."""

HARMONICS = 8
WEEK_HARMONICS = 3

SEED = 1
"""The same history gets the same forecast."""

LOGGERS = ("prophet", "prophet.plot", "prophet.models", "cmdstanpy")


class MissingPackageError(ForecastingError):
    """An optional package is not installed; the message names the extra that brings it."""


@dataclass(frozen=True, slots=True)
class Prophet:
    """Fits every window anew (0.1 s to 1 s each); silent below ``minimum`` known values.

    Reads the newest ``SEASONS`` seasons, or ``history`` values where those are more. Of more than ``history`` values
    every k-th is taken, counted back from the newest: the shape stays, and so does the noise. Days and weeks are fitted
    where two of them are known; a day is the season of the series, which a replay makes shorter. Gaps are left out of
    the fit. Raises MissingPackageError where the package is not installed.
    """

    history: int = 2000
    minimum: int = 24
    samples: int = 500
    name: str = "prophet"

    def __post_init__(self) -> None:
        if importlib.util.find_spec("prophet") is None:
            raise MissingPackageError(
                "forecasting model 'prophet' needs package prophet, which is not installed: "
                "pip install 'meshctl[prophet]'"
            )

    def predict(self, batch: Batch) -> FloatArray:
        """Quantiles ``(N, H, Q)`` of draws from the model's predictive distribution."""
        return each(batch, self._fit, self.history, self.minimum, SEASONS)

    def _fit(self, past: Past) -> FloatArray:
        import pandas as pd  # noqa: PLC0415 - as slow to import as prophet itself

        times = pd.to_datetime(past.times(), unit="s")
        stride = -(-len(past.values) // self.history)
        used = np.arange(len(past.values) - 1, -1, -stride)[::-1]
        with seeded(SEED):
            model = _model(past, self.samples)
            model.fit(pd.DataFrame({"ds": times[used], "y": past.values[used]}), seed=SEED)
            ahead = pd.DataFrame({"ds": times[len(past.values) :]})
            draws = model.predictive_samples(ahead)["yhat"]  # (steps, samples)
        return np.quantile(np.asarray(draws, dtype=np.float64), QUANTILES, axis=1).T


def _model(past: Past, samples: int) -> Any:
    """A Prophet that knows the seasons of this history and no others."""
    model = _package().Prophet(
        yearly_seasonality=False, weekly_seasonality=False, daily_seasonality=False, uncertainty_samples=samples
    )
    day = past.season * past.step / DAY_SECONDS  # Prophet counts periods in days of its own clock
    if past.season > 1:
        model.add_seasonality("day", period=day, fourier_order=max(1, min(HARMONICS, past.season // 2)))
        if len(past.values) >= 2 * WEEK * past.season:
            model.add_seasonality("week", period=WEEK * day, fourier_order=WEEK_HARMONICS)
    return model


@cache
def _package() -> Any:
    """The package, its loggers quiet: what a fit is worth is judged by its answer."""
    logging.getLogger("prophet.plot").setLevel(logging.CRITICAL)  # speaks while it is imported
    import prophet  # noqa: PLC0415 - optional

    logging.getLogger("cmdstanpy").addHandler(logging.NullHandler())  # or it sets up one of its own
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return prophet


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Prophet draws from numpy's global generator: seed it inside, and put back what it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
