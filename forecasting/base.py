"""The Forecaster protocol and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from forecasting.series import FloatArray, Series

QUANTILES: tuple[float, ...] = (0.05, 0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Quantiles of one series, made at ``origin`` (seconds since the epoch, the end of the newest value).

    ``values`` has shape ``(H, Q)``: row ``h`` is the step that starts at ``origin + h*step``; columns follow ``quantiles``
    and never decrease from left to right. Rates are in the unit of the series and never negative.
    """

    series: str
    model: str
    origin: float
    step: float
    quantiles: tuple[float, ...]
    values: FloatArray

    def at(self, horizon: int, quantile: float) -> float:
        """The quantile of step ``horizon`` (1 is the next step)."""
        return float(self.values[horizon - 1, self.quantiles.index(quantile)])

    def peak(self, steps: int, quantile: float) -> float:
        """The largest quantile over the next ``steps`` steps."""
        return float(self.values[:steps, self.quantiles.index(quantile)].max())


class Forecaster(Protocol):
    """A model. It must accept any series and answer None where it has too little history."""

    @property
    def name(self) -> str: ...

    @property
    def minimum(self) -> int:
        """Values that a series must have before this model answers."""

    def forecast(self, series: Sequence[Series], horizon: int) -> list[Forecast | None]:
        """Forecast every series ``horizon`` steps ahead, in order; None where there is too little history."""
