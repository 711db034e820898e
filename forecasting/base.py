"""The Forecaster protocol and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from forecasting.errors import QuantileError
from forecasting.series import FloatArray, Series

QUANTILES: tuple[float, ...] = (0.05, 0.5, 0.9, 0.95, 0.99)


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
    axis.
    """
    return np.maximum.accumulate(np.maximum(values, 0.0), axis=-1)


def forecast_of(series: Series, model: str, values: FloatArray) -> Forecast:
    """The forecast of ``series`` from its end: ``values`` has shape ``(H, len(QUANTILES))``."""
    return Forecast(series.name, model, series.end, series.step, QUANTILES, lawful(values))


class Forecaster(Protocol):
    """A model. It must accept any series and answer None where it has too little history."""

    @property
    def name(self) -> str: ...

    @property
    def minimum(self) -> int:
        """Values that a series must have before this model answers."""

    def forecast(self, series: Sequence[Series], horizon: int) -> list[Forecast | None]:
        """Forecast every series ``horizon`` steps ahead, in order; None where there is too little history."""
