"""The Forecaster protocol and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from forecasting.batch import Batch
from forecasting.errors import QuantileError
from forecasting.series import FloatArray, Series

QUANTILES: tuple[float, ...] = (0.05, 0.5, 0.9, 0.95, 0.99)
MEDIAN = QUANTILES.index(0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Quantiles of one series, made at ``origin`` (seconds since the epoch, the end of the newest value).

    ``values`` has shape ``(H, Q)``: row ``h`` is the step that starts at ``origin + h*step``; columns follow
    ``quantiles`` and never decrease from left to right. Rates are in the unit of the series and never negative.
    """

    series: str
    model: str
    origin: float
    step: float
    quantiles: tuple[float, ...]
    values: FloatArray

    def at(self, horizon: int, quantile: float) -> float:
        """The quantile of step ``horizon`` (1 is the next step)."""
        return float(self.values[horizon - 1, column(self.quantiles, quantile)])

    def peak(self, steps: int, quantile: float) -> float:
        """The largest quantile over the next ``steps`` steps."""
        return float(self.values[:steps, column(self.quantiles, quantile)].max())


def column(quantiles: tuple[float, ...], quantile: float) -> int:
    """Where ``quantile`` stands. Raises QuantileError where it was not forecast."""
    if quantile not in quantiles:
        raise QuantileError(f"quantile {quantile} was not forecast; choose one of {', '.join(map(str, quantiles))}")
    return quantiles.index(quantile)


def lawful(values: FloatArray) -> FloatArray:
    """What ``Forecast.values`` promises, for any array ``(..., Q)``: not negative, never decreasing along the last
    axis. A quantile that is unknown stays so and does not touch the others.
    """
    return np.where(np.isnan(values), np.nan, np.fmax.accumulate(np.maximum(values, 0.0), axis=-1))


def forecast_of(series: Series, model: str, values: FloatArray) -> Forecast:
    """The forecast of ``series`` from its end: ``values`` has shape ``(H, len(QUANTILES))``."""
    return Forecast(series.name, model, series.end, series.step, QUANTILES, lawful(values))


class Forecaster(Protocol):
    """A model. It must accept any window and answer NaN where it has too little history."""

    @property
    def name(self) -> str: ...

    def predict(self, batch: Batch) -> FloatArray:
        """Quantiles ``(N, H, len(QUANTILES))`` of every window; NaN around a median that is all a model knows."""


def forecasts(model: Forecaster, series: Sequence[Series], horizon: int) -> list[Forecast | None]:
    """What ``model`` says at the end of every series; None where it is silent about it."""
    told = model.predict(Batch.now(series, horizon))
    silent = np.asarray(np.isnan(told[:, :, MEDIAN]).any(axis=1))
    return [
        None if no else forecast_of(one, model.name, rows) for one, rows, no in zip(series, told, silent, strict=True)
    ]


def medians(values: FloatArray) -> FloatArray:
    """Point forecasts ``(N, H)`` as an answer ``(N, H, Q)``: the median, and nothing around it."""
    told = np.full((*values.shape, len(QUANTILES)), np.nan)
    told[..., MEDIAN] = np.maximum(values, 0.0)
    return told
