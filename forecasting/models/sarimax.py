"""Seasonal ARIMA with covariates, by statsmodels.

Box & Jenkins 1970; for short seasons the airline model's seasonal part (0,1,1), for longer ones Fourier terms as
covariates (dynamic harmonic regression: Hyndman & Athanasopoulos, chapter 10.5), for those that the history does not
hold twice a seasonal profile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from statsmodels.tsa.statespace.sarimax import SARIMAX

from forecasting.batch import Batch
from forecasting.errors import ForecastingError
from forecasting.models.naive import normal
from forecasting.models.statistical import Past, deseasonalised, each
from forecasting.series import FloatArray

ORDER = (1, 1, 1)

SHORT = 12
"""Steps of the longest season that has states of its own: the cost of a fit grows with their square."""

HARMONICS = 4
"""Pairs of Fourier terms: a morning peak and an evening peak of different height and width need about four."""

ITERATIONS = 50

Covariates = Callable[[FloatArray], FloatArray]
"""From begins of intervals ``(T,)``, seconds since the epoch, to figures ``(T, K)`` that are known ahead of time."""


class CovariateError(ForecastingError):
    """The covariates have the wrong shape or unknown figures."""


@dataclass(frozen=True, slots=True)
class Sarimax:
    """Fits the newest ``history`` values of every window (up to 2 s each); silent below ``minimum`` known ones.

    ``covariates`` are functions of time: a holiday, a sale, a deployment. A column that does not vary within a history
    has no effect there. Gaps inside are left to the Kalman filter, which goes on without them. Without two known
    seasons nothing seasonal is fitted.
    """

    covariates: Covariates | None = None
    history: int = 600
    minimum: int = 24
    name: str = "sarimax"

    def predict(self, batch: Batch) -> FloatArray:
        """Quantiles ``(N, H, Q)`` of the model's normal forecast distribution. Raises CovariateError."""
        return each(batch, self._fit, self.history, self.minimum)

    def _fit(self, past: Past) -> FloatArray:
        within = 2 * past.season <= self.history
        values, shape = (past.values[-self.history :], 0.0) if within else deseasonalised(past, self.history)
        season = past.season if within else 1
        mean, sigma = _forecast(values, self._figures(past, season, len(values)), season, past.steps)
        return normal(mean + shape, sigma)

    def _figures(self, past: Past, season: int, count: int) -> FloatArray:
        """Covariates and Fourier terms of ``count`` values and of the steps to be forecast: ``(count + steps, K)``."""
        times = past.times()[-(count + past.steps) :]
        parts = [fourier(len(times), season)] if season > SHORT else []
        parts += [checked(self.covariates(times), len(times))] if self.covariates is not None else []
        return _standard(np.concatenate([np.empty((len(times), 0)), *parts], axis=1), count)


def _forecast(values: FloatArray, figures: FloatArray, season: int, steps: int) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of every step, ``(steps,)`` each."""
    inside, ahead = figures[: len(values)], figures[len(values) :]
    some = figures.shape[1] > 0
    seasonal = (0, 1, 1, season) if 1 < season <= SHORT else (0, 0, 0, 0)
    model = SARIMAX(values, exog=inside if some else None, order=ORDER, seasonal_order=seasonal, concentrate_scale=True)
    fitted = model.fit(disp=False, maxiter=ITERATIONS)
    told = fitted.get_forecast(steps, exog=ahead if some else None)
    return np.asarray(told.predicted_mean, dtype=np.float64), np.asarray(told.se_mean, dtype=np.float64)


def fourier(count: int, season: int) -> FloatArray:
    """Sines and cosines of the first harmonics of ``season`` at ``count`` steps: ``(count, 2 * HARMONICS)``."""
    angle = 2 * np.pi * np.arange(count)[:, None] * np.arange(1, HARMONICS + 1) / season
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def checked(figures: FloatArray, count: int) -> FloatArray:
    """``figures`` as float64 of shape ``(count, K)``. Raises CovariateError."""
    table = np.asarray(figures, dtype=np.float64)
    if table.ndim != 2 or len(table) != count:
        raise CovariateError(
            f"Sarimax.covariates gave shape {table.shape} for {count} times; return one row per time: ({count}, K)"
        )
    if not np.isfinite(table).all():
        row, figure = np.argwhere(~np.isfinite(table))[0]
        raise CovariateError(
            f"Sarimax.covariates gave {table[row, figure]} in row {row}, column {figure}; "
            "every figure must be known, also for times to come"
        )
    return table


def _standard(figures: FloatArray, count: int) -> FloatArray:
    """Columns of mean 0 and deviation 1 over the first ``count`` rows; those that do not vary there are left out."""
    inside = figures[:count]
    varied = np.ptp(inside, axis=0) > 0 if count else np.zeros(figures.shape[1], dtype=bool)
    return np.asarray((figures[:, varied] - inside[:, varied].mean(axis=0)) / inside[:, varied].std(axis=0))
