"""Growing the forests of ``forecasting.models.boosting`` with scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from forecasting.features import Features, Float32Array
from forecasting.models.boosting import DEPTH, KNOTS, UPPER_KNOTS, Boosting, Forests, design, upper_design
from forecasting.series import FloatArray

ROWS = 16_000
"""Newest windows that a fit reads at most."""

LEAST = 200
"""Windows below which a forest only learns noise."""

SETTINGS: Mapping[str, Any] = {
    "loss": "absolute_error",
    "max_iter": 120,
    "learning_rate": 0.06,
    "max_leaf_nodes": 16,
    "max_depth": DEPTH,
    "min_samples_leaf": 30,
    "l2_regularization": 1.0,
    "early_stopping": False,
    "max_bins": 63,
    "max_features": 0.3,
}
"""Of the medians. Few figures at each split, many of which tell nearly the same, make trees that err apart."""

_TAIL: Mapping[str, Any] = {**SETTINGS, "loss": "quantile", "max_iter": 60, "learning_rate": 0.1}

TAILS: Mapping[float, Mapping[str, Any]] = {
    0.9: {**_TAIL, "quantile": 0.9, "min_samples_leaf": 50},
    0.99: {
        **_TAIL,
        "quantile": 0.99,
        "min_samples_leaf": 100,
        "max_leaf_nodes": 6,
        "max_depth": DEPTH - 1,
        "max_features": 0.7,
    },
}
"""Of the upper quantiles: the rarer what is learned from, the fewer and the larger the leaves."""

LARGEST = 6e4
"""No leaf is larger (in units of the window's scale): the small floats that leaves are kept in end there."""


def grow(name: str, told: Features, target: FloatArray, seed: int = 0) -> Boosting:
    """All forests of one series from its windows; ``target (N, H)`` in the series' unit, NaN = gap."""
    return Boosting([name], fit(told, target, seed), fit_upper(told, target, seed))


def together(models: Sequence[Boosting]) -> Boosting:
    """The forests of several series (at least one) as one model."""
    knots = [stacked(column) for column in zip(*(model.knots for model in models), strict=True)]
    upper = {
        level: [stacked(column) for column in zip(*(model.upper[level] for model in models), strict=True)]
        for level in models[0].upper
    }
    return Boosting([name for model in models for name in model.names], knots, upper)


def fit(told: Features, target: FloatArray, seed: int = 0) -> list[Forests]:
    """One forest per knot for the medians of one series' windows; ``target (N, H)`` in its unit, NaN = gap."""
    knots, wanted = [knot for knot in KNOTS if knot <= target.shape[1]], _relative(told, target)
    return [_fit_step(told, design(told, knot), wanted[:, knot - 1], SETTINGS, seed) for knot in knots]


def fit_upper(told: Features, target: FloatArray, seed: int = 0) -> dict[float, list[Forests]]:
    """As ``fit`` for each of the upper quantiles."""
    knots, wanted = [knot for knot in UPPER_KNOTS if knot <= target.shape[1]], _relative(told, target)
    return {
        level: [_fit_step(told, upper_design(told, knot), wanted[:, knot - 1], settings, seed) for knot in knots]
        for level, settings in TAILS.items()
    }


def _relative(told: Features, target: FloatArray) -> FloatArray:
    return np.asarray((target - told.last[:, None]) / told.scale[:, None])


def _fit_step(
    told: Features, table: Float32Array, wanted: FloatArray, settings: Mapping[str, Any], seed: int
) -> Forests:
    known = np.flatnonzero(np.isfinite(wanted))[-ROWS:]
    if not len(known):
        return _blank(settings["max_iter"], settings["max_depth"])
    model = HistGradientBoostingRegressor(**settings, random_state=seed)
    model.fit(table[known], wanted[known], sample_weight=told.scale[known] / told.scale[known].mean())
    return pack(model)


def _blank(trees: int, levels: int) -> Forests:
    """One forest that says 0 (the last value) about everything."""
    inner, outer = (1, trees, 2**levels - 1), (1, trees, 2**levels)
    return Forests(
        np.zeros(inner, dtype=np.int8),
        np.full(inner, np.inf, dtype=np.float32),
        np.zeros(outer, dtype=np.float16),
        np.zeros(1),
    )


def pack(model: HistGradientBoostingRegressor) -> Forests:
    """The trees of a fitted model as arrays. Depends on scikit-learn's private layout, so a test compares both on the
    same rows.
    """
    trees, levels = [stage[0].nodes for stage in model._predictors], int(model.max_depth)
    packed = _blank(len(trees), levels)
    for number, nodes in enumerate(trees):
        for place, depth, node in _unfolded(nodes):
            if node["is_leaf"]:  # above the last level it fills everything below it
                width = 2 ** (levels - depth)
                first = (place + 1) * width - 2**levels
                packed.leaf[0, number, first : first + width] = np.clip(node["value"], -LARGEST, LARGEST)
            else:
                packed.figure[0, number, place] = node["feature_idx"]
                packed.edge[0, number, place] = _below(node["num_threshold"])
    packed.base[0] = np.ravel(model._baseline_prediction)[0]
    return packed


def _unfolded(nodes: Any) -> Iterator[tuple[int, int, Any]]:
    """Every node of a tree with its place in a complete binary tree (breadth first) and its depth."""
    pending = [(0, 0, 0)]
    while pending:
        number, place, depth = pending.pop()
        node = nodes[number]
        yield place, depth, node
        if not node["is_leaf"]:
            pending += [(node["left"], 2 * place + 1, depth + 1), (node["right"], 2 * place + 2, depth + 1)]


def stacked(forests: Sequence[Forests]) -> Forests:
    """Many series' forests as one."""
    return Forests(*(np.concatenate([getattr(one, name) for one in forests]) for name in Forests.__slots__))


def _below(edge: float) -> np.float32:
    """The largest float32 that is not above ``edge``: float32 figures fall on the same side of it."""
    near = np.float32(edge)
    return np.float32(near if float(near) <= edge else np.nextafter(near, np.float32(-np.inf)))
