"""Rolling-origin backtests: forecast at every origin, compare with what came. Pure. Tashman 2000.

Origin ``t`` knows ``values[:t]``; the target of step ``h`` is ``values[t + h - 1]``. What a model could reach besides
(a figure taken over the whole series, say, or the arrays behind its batch) is what ``check_causal`` looks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forecasting.base import MEDIAN, QUANTILES, Forecaster, column
from forecasting.batch import Batch
from forecasting.errors import LeakError
from forecasting.evaluate.stats import coverage, relative_wape
from forecasting.series import FloatArray, IntArray, Series, clean, fill_forward

Fit = Callable[[Sequence[Series], int], Forecaster]
"""``fit(series, cut)`` prepares a forecaster. It is given whole series and must use their first ``cut`` values only."""


@dataclass(frozen=True, slots=True, eq=False)
class Backtest:
    """N windows: ``actual (N, H)``, ``values (N, H, Q)`` (NaN where the model was silent), ``last (N,)``."""

    actual: FloatArray
    values: FloatArray
    last: FloatArray

    def relative_wape(self, step: int) -> float:
        """WAPE of the median ``step`` steps ahead as a share of last value's."""
        return relative_wape(self.actual[:, step - 1], self.values[:, step - 1, MEDIAN], self.last)

    def coverage(self, step: int, quantile: float) -> float:
        """Share of actual values at or below the quantile."""
        return coverage(self.actual[:, step - 1], self.values[:, step - 1, column(QUANTILES, quantile)])


def origins(length: int, horizon: int, share: float = 0.2, most: int = 400) -> IntArray:
    """Evenly spaced origins in the newest ``share`` of ``length`` values, oldest first, at most ``most``.

    The last one is ``length - horizon``, so that every target is there. Empty where the series is too short.
    """
    first = int(length * (1.0 - share))
    count = min(most, length - horizon - first)
    return np.linspace(first, length - horizon, max(0, count)).astype(np.int64)


def backtest(model: Forecaster, series: Series, counts: IntArray, horizon: int) -> Backtest:
    """Forecast ``series`` at the origins ``counts (N,)``. A target beyond its end is NaN."""
    batch = Batch.at(series, counts, horizon)
    return Backtest(batch.actual(), model.predict(batch), last_values(series, counts))


def last_values(series: Series, counts: IntArray) -> FloatArray:
    """The newest known value before each of ``counts (N,)``; 0 where there is none."""
    filled = fill_forward(clean(series.values)[None], np.zeros(1))[0]
    return np.concatenate([[0.0], filled])[counts]


def check_causal(fit: Fit, series: Sequence[Series], horizon: int, cut: int) -> None:
    """Fit and forecast at ``cut``, then again with every later value changed. Raises LeakError where that changes the
    forecast.
    """
    honest = _forecast(fit, series, horizon, cut)
    changed = _forecast(fit, [disturbed(one, cut) for one in series], horizon, cut)
    for one, before, after in zip(series, honest, changed, strict=True):
        if not np.allclose(before, after, equal_nan=True):
            raise LeakError(f"{one.name}: the forecast at value {cut} depends on later values; fit on the past only")


def disturbed(series: Series, cut: int) -> Series:
    """The same past, another future: reversed, tripled and shifted."""
    values = series.values.copy()
    values[cut:] = values[cut:][::-1] * 3.0 + 7.0
    return replace(series, values=values)


def _forecast(fit: Fit, series: Sequence[Series], horizon: int, cut: int) -> FloatArray:
    """What ``fit`` says at ``cut``, ``(N, H, Q)``. The model may reach the whole series: it must not use that."""
    owner = np.arange(len(series), dtype=np.int64)
    return fit(series, cut).predict(Batch(series, owner, np.full(len(series), cut, dtype=np.int64), horizon))
