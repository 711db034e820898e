"""The Theta method, by statsmodels: the winner of the M3 competition.

Assimakopoulos & Nikolopoulos 2000, The theta model: a decomposition approach to forecasting. Hyndman & Billah 2003,
Unmasking the Theta method, show that it is simple exponential smoothing with half the linear trend as drift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from statsmodels.tsa.forecasting.theta import ThetaModel

from forecasting.batch import Batch
from forecasting.models.naive import normal
from forecasting.models.statistical import Past, bridged, deseasonalised, each
from forecasting.series import FloatArray


@dataclass(frozen=True, slots=True)
class Theta:
    """Fits the newest ``history`` values of every window (about 100 ms each); silent below ``minimum`` known ones.

    A season is taken out by a profile first, and only where two seasons are known. Gaps inside are bridged by straight
    lines: the smoothing knows none.
    """

    history: int = 480
    minimum: int = 24
    name: str = "theta"

    def predict(self, batch: Batch) -> FloatArray:
        """Quantiles ``(N, H, Q)`` of the equivalent ARIMA(0,1,1) with drift."""
        return each(batch, self._fit, self.history, self.minimum)

    def _fit(self, past: Past) -> FloatArray:
        values, shape = deseasonalised(past, self.history)
        fitted = ThetaModel(bridged(values), deseasonalize=False).fit()
        mean = np.asarray(fitted.forecast(past.steps, theta=2), dtype=np.float64)
        return normal(mean + shape, _sigma(float(fitted.sigma2), float(fitted.params["alpha"]), past.steps))


def _sigma(variance: float, alpha: float, steps: int) -> FloatArray:
    """Standard deviation of every step, ``(steps,)``: ``variance * (1 + (h - 1) * alpha^2)`` as of simple smoothing.

    ``prediction_intervals`` of statsmodels has ``1 + (alpha - 1)^2`` in place of ``alpha^2``, which grows fastest where
    the level moves least.
    """
    return np.asarray(np.sqrt(variance * (1.0 + np.arange(steps) * alpha**2)))
