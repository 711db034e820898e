"""Exponential smoothing with a damped trend and a season (ETS), by statsmodels.

Hyndman, Koehler, Ord & Snyder 2008, Forecasting with Exponential Smoothing: the additive models (A,Ad,N) and (A,Ad,A),
whose forecast variance has a closed form. The damped trend: Gardner & McKenzie 1985.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

from forecasting.batch import Batch
from forecasting.models.naive import normal
from forecasting.models.statistical import Past, bridged, deseasonalised, each
from forecasting.series import FloatArray

SHORT = 48
"""Steps of the longest season that has states of its own; a longer one is taken out by a profile first."""

ITERATIONS = 100


@dataclass(frozen=True, slots=True)
class Ets:
    """Fits the newest ``history`` values of every window (about 20 ms each); silent below ``minimum`` known ones.

    Without two known seasons nothing seasonal is fitted. Gaps inside are bridged by straight lines: the smoothing
    knows none.
    """

    history: int = 480
    minimum: int = 24
    name: str = "ets"

    def predict(self, batch: Batch) -> FloatArray:
        """Quantiles ``(N, H, Q)`` of the model's normal forecast distribution."""
        return each(batch, self._fit, self.history, self.minimum)

    def _fit(self, past: Past) -> FloatArray:
        if 1 < past.season <= SHORT:
            values = past.values[-max(self.history, 2 * past.season) :]
            return normal(*_forecast(bridged(values), past.season, past.steps))
        values, shape = deseasonalised(past, self.history)
        mean, sigma = _forecast(bridged(values), 1, past.steps)
        return normal(mean + shape, sigma)


def _forecast(values: FloatArray, season: int, steps: int) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of every step, ``(steps,)`` each."""
    seasonal = {"seasonal": "add", "seasonal_periods": season} if season > 1 else {}
    model = ETSModel(  # the prediction needs an index, so a bare array will not do
        pd.Series(values), error="add", trend="add", damped_trend=True, initialization_method="heuristic", **seasonal
    )
    fitted = model.fit(disp=False, maxiter=ITERATIONS)
    told = fitted.get_prediction(start=len(values), end=len(values) + steps - 1)
    return np.asarray(told.predicted_mean, dtype=np.float64), np.sqrt(np.asarray(told.forecast_variance))
