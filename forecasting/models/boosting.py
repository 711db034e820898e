"""Gradient-boosted trees, one forest per series and knot of the horizon, packed into plain arrays.

scikit-learn's HistGradientBoostingRegressor grows them (Friedman 2001, with the histograms of Ke et al. 2017,
LightGBM): for the median by absolute error, for upper quantiles by pinball loss (Koenker & Bassett 1978). What is kept
are complete binary trees in a few arrays. A forest in that form is stored without pickle, and a thousand services'
forests are walked at once. Steps between knots are interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from forecasting.base import MEDIAN, QUANTILES, lawful
from forecasting.batch import Batch
from forecasting.features import A, Features, Float32Array, S, features
from forecasting.models.linear import placed
from forecasting.rows import chunks, taken
from forecasting.seasons import ADJUSTED
from forecasting.series import FloatArray, IntArray

KNOTS = (1, 2, 5, 12)
"""Steps ahead that have forests of their own."""

UPPER_KNOTS = (1, 5, 12)
"""Those of the upper quantiles, which change less from step to step."""

UPPER = (0.9, 0.99)
"""The upper quantiles that forests are grown for."""

BETWEEN = (0.95, np.log(2.0) / np.log(10.0))
"""The quantile between them, and how far it lies from the lower to the upper one where the tail is exponential."""

FIGURES = S + A + ADJUSTED
"""Figures that a tree may ask for."""

DEPTH = 4
"""Levels of the median's trees. Those of the extreme quantile have fewer: rare misses tell little."""

UNKNOWN = np.float32(-1e6)
"""Stands for an unknown figure: below everything known, so that one comparison serves both."""

CHUNK = 512
"""Windows that are walked at once: bounds memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Forests:
    """G forests of T trees with D levels. ``figure (G, T, 2**D - 1)`` is compared with ``edge`` (same shape) at each
    inner node, at most the edge goes left; ``leaf (G, T, 2**D)`` are the values (three digits of each: hundreds are
    added up); ``base (G,)`` is added.
    """

    figure: npt.NDArray[np.int8]
    edge: Float32Array
    leaf: npt.NDArray[np.float16]
    base: FloatArray

    @property
    def depth(self) -> int:
        """Levels of inner nodes, D."""
        return int(self.leaf.shape[2]).bit_length() - 1

    def __call__(self, table: Float32Array, which: IntArray) -> FloatArray:
        """``table (N, F)``, row n through forest ``which[n]``: ``(N,)``."""
        figure, edge, leaf, values = (part.reshape(-1) for part in (self.figure, self.edge, self.leaf, table))
        rows = np.arange(len(table))[:, None] * table.shape[1]
        trees = which[:, None] * self.leaf.shape[1] + np.arange(self.leaf.shape[1])  # (N, T)
        first, node = trees * (2**self.depth - 1), np.zeros_like(trees)
        for _ in range(self.depth):
            here = first + node  # flat places: taking by them is twice as fast as by three indices
            node = 2 * node + 1 + (values.take(rows + figure.take(here)) > edge.take(here))
        leaves = leaf.take(trees * 2**self.depth + node - (2**self.depth - 1))
        return np.asarray(self.base[which] + leaves.sum(axis=1, dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class Boosting:
    """One ``Forests`` per knot, each with a forest for every series in ``names``: ``knots`` those of the median,
    ``upper`` those of the quantiles of ``UPPER`` (at ``UPPER_KNOTS``), of which there may be none.
    """

    names: Sequence[str]
    knots: Sequence[Forests]
    upper: Mapping[float, Sequence[Forests]] = field(default_factory=dict)
    name: str = "boosting"

    def predict(self, batch: Batch) -> FloatArray:
        """The median and the upper quantiles of the series that it was fitted on; silent about others."""
        seen, values = features(batch), np.full((len(batch), batch.horizon, len(QUANTILES)), np.nan)
        values[..., MEDIAN] = self._walked(batch, KNOTS, self.knots, design)
        for level, forests in self.upper.items():
            values[..., QUANTILES.index(level)] = self._walked(batch, UPPER_KNOTS, forests, upper_design)
        low, high = (values[..., QUANTILES.index(level)] for level in UPPER)
        values[..., QUANTILES.index(BETWEEN[0])] = low + BETWEEN[1] * (high - low)
        return lawful(seen.last[:, None, None] + seen.scale[:, None, None] * values)

    def _walked(self, batch: Batch, knots: Sequence[int], forests: Sequence[Forests], table: Design) -> FloatArray:
        """What one kind of forests says, ``(value - last) / scale``, at every step: ``(N, H)``."""
        seen, places = features(batch), placed(self.names, batch)
        steps = [k for k in knots if k <= batch.horizon][: len(forests)]
        values = np.full((len(batch), len(steps)), np.nan)
        for part in chunks(np.flatnonzero(places >= 0), CHUNK):
            for column, (step, forest) in enumerate(zip(steps, forests, strict=False)):
                values[part, column] = forest(table(taken(seen, part), step), places[part])
        return between(values, steps, batch.horizon)


def between(values: FloatArray, knots: Sequence[int], horizon: int) -> FloatArray:
    """``(N, K)`` at the knots to ``(N, H)``, linear between them and level after the last."""
    steps = np.arange(1, horizon + 1)
    right = np.clip(np.searchsorted(knots, steps), 1, len(knots) - 1) if len(knots) > 1 else np.zeros(horizon, int)
    left = np.maximum(right - 1, 0)
    places = np.array(knots, dtype=float)
    share = np.clip((steps - places[left]) / np.maximum(places[right] - places[left], 1.0), 0.0, 1.0)
    return np.asarray(values[:, left] * (1.0 - share) + values[:, right] * share)


def design(told: Features, step: int) -> Float32Array:
    """What the median's trees see of step ``step``: ``(N, S + A)``, nothing unknown."""
    table = np.concatenate([told.shared, told.ahead[:, step - 1]], axis=1)
    return np.where(np.isfinite(table), table, UNKNOWN)


def upper_design(told: Features, step: int) -> Float32Array:
    """What the trees of upper quantiles see: earlier seasons at today's level as well, which no tree can work out.

    The median's trees do not: they err no less with them, and the mixture, whose LSTM knows those already, errs more.
    """
    return np.concatenate([design(told, step), told.candidates[:, step - 1, -ADJUSTED:]], axis=1)


Design = Callable[[Features, int], Float32Array]
"""What trees see of a step."""
