"""Linear regression on lags and seasonal lags, one per series and step ahead, that minimises the absolute error.

Least absolute deviations by iteratively reweighted least squares (Schlossmacher 1973), with a ridge penalty that
keeps collinear lags apart and the slopes of short, noisy histories small. It is the strongest single linear method on
traffic: what lies far out, a burst or a hole, does not pull the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecasting.base import medians
from forecasting.batch import Batch
from forecasting.features import CLOCK, A, Features, S, features
from forecasting.rows import chunks, taken
from forecasting.series import FloatArray, IntArray, Series

ROUNDS = 12
"""Reweightings: the loss moves by less than a thousandth after them."""

PENALTY = 300.0
"""Ridge penalty in standardised columns, as if so many rows spoke for slopes of 0, where nothing is explained; it falls
with the square of the share that is not. A short noisy history cannot tell eighty figures apart
(``benchmarks.forecast_young``).
"""

APART = 1e-3
"""What is always added to it, as a share of the rows: it keeps collinear figures apart."""

FAR = 20.0
"""Figures are cut here, in units of the window's scale."""

F = S - 1 + A - CLOCK
"""Figures that it reads: all but lag 1, which is 0, and the clock."""

CHUNK = 256
"""Windows that are worked out at once: bounds memory."""

FIRST = 24
"""Values that come before the first origin."""

WINDOWS = 30_000
"""Newest origins that are learned from."""

ROWS = 12_000
"""Of them, those that the linear model reads."""


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """``weights (G, H, 1 + F)``: a constant and one weight per figure, for each of the G series in ``names``."""

    names: Sequence[str]
    weights: FloatArray
    name: str = "linear"

    def predict(self, batch: Batch) -> FloatArray:
        """Medians of the series that it was fitted on; silent about others, and beyond the horizon of the fit."""
        seen, places = features(batch), placed(self.names, batch)
        values = np.full((len(batch), batch.horizon), np.nan)
        rows = np.flatnonzero(places >= 0)
        for part in chunks(rows, CHUNK):
            told = _apply(self.weights[places[part], : batch.horizon], design(taken(seen, part)))
            values[part, : told.shape[1]] = seen.last[part, None] + seen.scale[part, None] * told
        return medians(values)


def _apply(weights: FloatArray, table: FloatArray) -> FloatArray:
    """``weights (N, H, 1 + F)`` and ``table (N, H or more, F)`` give ``(N, H)``."""
    slopes, constant = weights[:, :, 1:], weights[:, :, 0]
    return np.asarray(np.einsum("nhf,nhf->nh", table[:, : weights.shape[1]], slopes) + constant)


def placed(names: Sequence[str], batch: Batch) -> IntArray:
    """Where each window's series stands in ``names``, -1 where it does not: ``(N,)``."""
    places = {name: place for place, name in enumerate(names)}
    return np.array([places.get(one.name, -1) for one in batch.series], dtype=np.int64)[batch.owner]


def design(told: Features) -> FloatArray:
    """``(N, H, F)``: what is unknown counts as the last value. Clock times are no linear figures and are left out."""
    ahead = told.ahead[:, :, :-CLOCK]
    shared = np.repeat(told.shared[:, None, 1:], ahead.shape[1], axis=1)  # lag 1 is the last value: always 0
    table = np.concatenate([shared, ahead], axis=2).astype(np.float64)
    return np.clip(np.nan_to_num(table, nan=0.0), -FAR, FAR)


def windows(one: Series, horizon: int) -> tuple[Features, FloatArray]:
    """What models of a single series learn from: features and what came ``(N, H)``, of the newest origins."""
    last = len(one.values)
    batch = Batch.at(one, np.arange(max(FIRST, last - WINDOWS), last), horizon)
    return features(batch), batch.actual()


def enough(one: Series, horizon: int, least: int) -> bool:
    """Whether about ``least`` of the newest ``ROWS`` windows have a target that is known at every step ahead."""
    return int(np.isfinite(one.values[-ROWS:]).sum()) >= least + horizon


def fit(told: Features, target: FloatArray) -> FloatArray:
    """Weights ``(H, 1 + F)`` for windows of one series; ``target (N, H)`` in the series' unit, NaN = gap.

    A step without any known target has weights of 0: the last value.
    """
    if not len(target):
        return np.zeros((target.shape[1], 1 + F))
    table = design(taken(told, slice(-ROWS, None)))
    wanted = ((target - told.last[:, None]) / told.scale[:, None])[-ROWS:]
    importance = told.scale[-ROWS:] / told.scale.mean()
    return np.stack([_fit_step(table[:, h], wanted[:, h], importance) for h in range(target.shape[1])])


def _fit_step(table: FloatArray, wanted: FloatArray, importance: FloatArray) -> FloatArray:
    """``table (N, F)``, ``wanted`` and ``importance (N,)`` give ``(1 + F,)``."""
    known = np.isfinite(wanted)
    if not known.any():
        return np.zeros(1 + table.shape[1])
    table = table[known]
    mean, spread = table.mean(axis=0), table.std(axis=0) + 1e-6
    weights = _absolute((table - mean) / spread, wanted[known], importance[known])
    slopes = weights[1:] / spread
    return np.concatenate([[weights[0] - slopes @ mean], slopes])


def _absolute(table: FloatArray, wanted: FloatArray, importance: FloatArray) -> FloatArray:
    """Constant and slopes ``(1 + F,)`` of least absolute deviations on standardised columns: least squares in which a
    row's weight is divided by its error, until the two are the same.

    The penalty is that of ridge regression with slopes of a given size in mind, which is noise over signal, squared
    (Hoerl & Kennard 1970): ``noise`` is the error as a share of last value's.
    """
    plain = np.concatenate([np.ones((len(table), 1)), table], axis=1)
    slopes = np.diag(np.arange(plain.shape[1]) > 0).astype(float)  # not the constant
    weights, share, noise = np.zeros(plain.shape[1]), importance, 0.0
    # Weighted: the first values after a long silence are a billion times their window's scale, and would make all
    # other errors count as small.
    usual = np.average(np.abs(wanted), weights=importance) + 1e-9
    typical = np.median(importance * np.abs(wanted)) + 1e-9
    for _ in range(ROUNDS):
        heavy = plain * share[:, None]
        penalty = (PENALTY * noise**2 + APART * len(table)) * share.mean()
        weights = np.linalg.solve(heavy.T @ plain + penalty * slopes, heavy.T @ wanted)
        error = np.abs(wanted - plain @ weights)
        noise = min(1.0, float(np.median(importance * error) / typical))
        share = importance / np.maximum(error, 0.01 * usual)
        share *= len(share) / share.sum()
    return np.asarray(weights)
