"""Rolling-origin backtests: fit on the past, forecast, move on. Pure.

A model gets copies that end at the origin, so it cannot reach the future through them. What it could reach otherwise
(a figure taken over the whole series before the cut, say) is what ``check_causal`` looks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forecasting.base import QUANTILES, Forecaster
from forecasting.errors import LeakError
from forecasting.evaluate.stats import coverage, relative_wape
from forecasting.series import FloatArray, Series, clean, last_known, newest

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
        told = self.values[:, step - 1, QUANTILES.index(0.5)]
        return relative_wape(self.actual[:, step - 1], told, self.last)

    def coverage(self, step: int, quantile: float) -> float:
        """Share of actual values at or below the quantile."""
        return coverage(self.actual[:, step - 1], self.values[:, step - 1, QUANTILES.index(quantile)])


def backtest(forecaster: Forecaster, series: Sequence[Series], horizon: int, cut: int, stride: int = 1) -> Backtest:
    """Forecast every series at origins ``cut, cut + stride, ...`` while ``horizon`` values follow."""
    pasts, actual = [], []
    for one in series:
        for origin in range(cut, len(one.values) - horizon + 1, stride):
            pasts.append(one.until(origin))
            actual.append(clean(one.values[origin : origin + horizon]))
    silence = np.full((horizon, len(QUANTILES)), np.nan)
    told = [silence if one is None else one.values for one in forecaster.forecast(pasts, horizon)]
    shape = (len(pasts), horizon)
    last = last_known(newest(pasts, max((len(one.values) for one in pasts), default=0)))
    return Backtest(np.reshape(actual, shape), np.reshape(told, (*shape, len(QUANTILES))), last)


def check_causal(fit: Fit, series: Sequence[Series], horizon: int, cut: int) -> None:
    """Fit and forecast at ``cut``, then again with every later value changed. Raises LeakError where that changes the
    forecast.
    """
    pasts = [one.until(cut) for one in series]
    honest = fit(series, cut).forecast(pasts, horizon)
    changed = fit([disturbed(one, cut) for one in series], cut).forecast(pasts, horizon)
    for one, before, after in zip(series, honest, changed, strict=True):
        if (before is None) != (after is None) or (
            before is not None and after is not None and not np.allclose(before.values, after.values)
        ):
            raise LeakError(f"{one.name}: the forecast at value {cut} depends on later values; fit on the past only")


def disturbed(series: Series, cut: int) -> Series:
    """The same past, another future: reversed, tripled and shifted."""
    values = series.values.copy()
    values[cut:] = values[cut:][::-1] * 3.0 + 7.0
    return replace(series, values=values)
