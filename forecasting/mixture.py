"""Weights of experts, learned online. Pure arrays.

Bernstein online aggregation (Wintenberger 2017, Optimal learning with Bernstein online aggregation) with the gradient
trick and one learning rate per expert, which tunes itself: the mixture loses to the best fixed convex combination by
no more than a logarithm of the number of experts. For quantiles the loss is the pinball loss, weights per quantile
(Berrisch & Ziel 2021, CRPS learning). An expert that is silent sleeps: it neither gains nor loses (Gaillard, Stoltz &
van Erven 2014).

Shapes: N services, M experts, J outcomes that have weights of their own (steps ahead, or steps times quantiles).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from forecasting.rows import SHARED
from forecasting.series import BoolArray, FloatArray

LIMIT = 5.0
"""Losses are cut here, in units of the series' own noise: one burst must not decide the weights for good."""


@dataclass(slots=True, eq=False)
class Mixture:
    """``prior (N, M, J)`` are the weights before anything was learned; ``level (J,)`` the quantile of each outcome;
    ``pace (J,)``, at most 1, slows their learning rates down.

    ``regret``, ``square`` and ``top (N, M, J)``: what following the expert would have gained so far (with its second
    order), the sum of squares and the largest of the single gains. ``rate (N, M, J)``: the learning rates that follow.
    """

    prior: FloatArray
    level: FloatArray = field(metadata=SHARED)
    pace: FloatArray = field(metadata=SHARED)
    regret: FloatArray
    square: FloatArray
    top: FloatArray
    rate: FloatArray

    @classmethod
    def fresh(cls, prior: FloatArray, level: FloatArray, pace: float | FloatArray = 1.0) -> Mixture:
        """Nothing learned yet."""
        pace = np.broadcast_to(pace, level.shape)
        regret, square, top = np.zeros((3, *prior.shape))  # views apart: rows of each may be written to
        one = np.ones(prior.shape)
        return cls(prior, level, pace, regret, square, top, pace * _rates(prior, one, one))

    def weights(self, awake: BoolArray | None = None) -> FloatArray:
        """Convex weights ``(N, M, J)`` of the experts ``awake`` (same shape, None = all); 0 where all sleep."""
        log = np.log(np.maximum(self.prior, 1e-12) * self.rate)
        log += self.rate * self.regret
        if awake is not None and not awake.all():
            log[~awake] = -np.inf
        log -= np.maximum(log.max(axis=1, keepdims=True), -1e300)
        raw = np.exp(log, out=log)
        return np.asarray(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-300))

    def mixed(self, told: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The forecast ``(N, J)`` from the experts' ``(N, M, J)`` (NaN = asleep, or all are), and the weights."""
        awake = np.isfinite(told)
        weights = self.weights(awake)
        mixed = np.einsum("nmj,nmj->nj", weights, np.where(awake, told, 0.0))
        return np.where(awake.any(axis=1), mixed, np.nan), weights

    def learn(self, told: FloatArray, mixed: FloatArray, actual: FloatArray, unit: FloatArray) -> None:
        """What ``mixed (N, J)`` was made of ``told (N, M, J)`` for has come: ``actual (N, J)``, NaN = unknown.

        ``unit (N, J)`` is the size of a usual error.
        """
        slope = (actual < mixed) - self.level  # of the pinball loss at the mixture
        gain = (slope / unit)[:, None] * (mixed[:, None] - told)
        gain = np.clip(np.where(np.isfinite(actual)[:, None] & ~np.isnan(gain), gain, 0.0), -LIMIT, LIMIT)
        square = gain**2
        self.regret = self.regret + gain - self.rate * square
        self.top = np.maximum(self.top, np.abs(gain))
        self.square = self.square + square
        self.rate = self.pace * _rates(self.prior, np.maximum(self.top, 1.0), np.maximum(self.square, 1.0))


def _rates(prior: FloatArray, top: FloatArray, square: FloatArray) -> FloatArray:
    """Learning rates: ``sqrt(log(1/prior) / square)``, at most half of the inverse of the largest gain."""
    logs = -np.log(np.clip(prior, 1e-6, 0.99))
    return np.asarray(np.minimum(0.5 / top, np.sqrt(logs / square)))


def common(weights: FloatArray, age: FloatArray, default: FloatArray) -> FloatArray:
    """Global weights ``(M, J)`` that new services start from: the mean of ``weights (N, M, J)``, each service counted
    by its ``age (N,)`` (scored intervals, up to 500), and ``default (M, J)`` counted as one service.
    """
    share = np.minimum(age, 500.0) / 500.0
    total = np.einsum("n,nmj->mj", share, weights) + default
    return np.asarray(total / total.sum(axis=0))
