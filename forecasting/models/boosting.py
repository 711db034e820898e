"""Gradient-boosted trees, one forest per series and knot of the horizon, packed into plain arrays.

scikit-learn's HistGradientBoostingRegressor grows them (absolute error; Friedman 2001, with the histograms of Ke et
al. 2017, LightGBM); what is kept are complete binary trees of
``DEPTH`` levels in a few arrays. A forest in that form is stored without pickle, and a thousand services' forests are
walked at once. Steps between knots are interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forecasting.base import medians
from forecasting.batch import Batch
from forecasting.features import Features, Float32Array, features
from forecasting.models.linear import placed
from forecasting.rows import chunks, taken
from forecasting.series import FloatArray, IntArray

KNOTS = (1, 2, 5, 12)
"""Steps ahead that have forests of their own."""

DEPTH = 4
UNKNOWN = np.float32(-1e6)
"""Stands for an unknown figure: below everything known, so that one comparison serves both."""

CHUNK = 2_048
"""Windows that are walked at once: bounds memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Forests:
    """G forests of T trees. ``figure (G, T, 15)`` is compared with ``edge (G, T, 15)`` at each inner node, at most the
    edge goes left; ``leaf (G, T, 16)`` are the values; ``base (G,)`` is added.
    """

    figure: npt.NDArray[np.int16]
    edge: Float32Array
    leaf: Float32Array
    base: FloatArray

    def __call__(self, table: Float32Array, which: IntArray) -> FloatArray:
        """``table (N, F)``, row n through forest ``which[n]``: ``(N,)``."""
        figure, edge, leaf, values = (part.reshape(-1) for part in (self.figure, self.edge, self.leaf, table))
        rows = np.arange(len(table))[:, None] * table.shape[1]
        trees = which[:, None] * self.leaf.shape[1] + np.arange(self.leaf.shape[1])  # (N, T)
        first, node = trees * (2**DEPTH - 1), np.zeros_like(trees)
        for _ in range(DEPTH):
            here = first + node  # flat places: taking by them is twice as fast as by three indices
            node = 2 * node + 1 + (values.take(rows + figure.take(here)) > edge.take(here))
        leaves = leaf.take(trees * 2**DEPTH + node - (2**DEPTH - 1))
        return np.asarray(self.base[which] + leaves.sum(axis=1, dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class Boosting:
    """One ``Forests`` per knot, each with a forest for every series in ``names``."""

    names: Sequence[str]
    knots: Sequence[Forests]
    name: str = "boosting"

    def predict(self, batch: Batch) -> FloatArray:
        """Medians of the series that it was fitted on; silent about others."""
        seen, places = features(batch), placed(self.names, batch)
        steps = [k for k in KNOTS if k <= batch.horizon][: len(self.knots)]
        values = np.full((len(batch), len(steps)), np.nan)
        rows = np.flatnonzero(places >= 0)
        for part in chunks(rows, CHUNK):
            for column, (step, forests) in enumerate(zip(steps, self.knots, strict=False)):
                values[part, column] = forests(design(taken(seen, part), step), places[part])
        return medians(seen.last[:, None] + seen.scale[:, None] * between(values, steps, batch.horizon))


def between(values: FloatArray, knots: Sequence[int], horizon: int) -> FloatArray:
    """``(N, K)`` at the knots to ``(N, H)``, linear between them and level after the last."""
    steps = np.arange(1, horizon + 1)
    right = np.clip(np.searchsorted(knots, steps), 1, len(knots) - 1) if len(knots) > 1 else np.zeros(horizon, int)
    left = np.maximum(right - 1, 0)
    places = np.array(knots, dtype=float)
    share = np.clip((steps - places[left]) / np.maximum(places[right] - places[left], 1.0), 0.0, 1.0)
    return np.asarray(values[:, left] * (1.0 - share) + values[:, right] * share)


def design(told: Features, step: int) -> Float32Array:
    """What the trees see of step ``step``: ``(N, S + A)``, nothing unknown."""
    table = np.concatenate([told.shared, told.ahead[:, step - 1]], axis=1)
    return np.where(np.isfinite(table), table, UNKNOWN)
