"""Growing the forests of ``forecasting.models.boosting`` with scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from forecasting.features import Features
from forecasting.models.boosting import DEPTH, KNOTS, Forests, design
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
    "max_features": 0.7,
}


def fit(told: Features, target: FloatArray, seed: int = 0) -> list[Forests]:
    """One forest per knot for windows of one series; ``target (N, H)`` in the series' unit, NaN = gap."""
    wanted = (target - told.last[:, None]) / told.scale[:, None]
    return [_fit_step(told, wanted[:, knot - 1], knot, seed) for knot in KNOTS if knot <= target.shape[1]]


def _fit_step(told: Features, wanted: FloatArray, knot: int, seed: int) -> Forests:
    known = np.flatnonzero(np.isfinite(wanted))[-ROWS:]
    if not len(known):
        return _blank(SETTINGS["max_iter"])
    table = design(told, knot)[known]
    model = HistGradientBoostingRegressor(**SETTINGS, random_state=seed)
    model.fit(table, wanted[known], sample_weight=told.scale[known] / told.scale[known].mean())
    return pack(model)


def _blank(trees: int) -> Forests:
    """One forest that says 0 (the last value) about everything."""
    inner, outer = (1, trees, 2**DEPTH - 1), (1, trees, 2**DEPTH)
    return Forests(
        np.zeros(inner, dtype=np.int16),
        np.full(inner, np.inf, dtype=np.float32),
        np.zeros(outer, dtype=np.float32),
        np.zeros(1),
    )


def pack(model: HistGradientBoostingRegressor) -> Forests:
    """The trees of a fitted model as arrays. Depends on scikit-learn's private layout, so a test compares both on the
    same rows.
    """
    trees = [stage[0].nodes for stage in model._predictors]
    packed = _blank(len(trees))
    for number, nodes in enumerate(trees):
        for place, depth, node in _unfolded(nodes):
            if node["is_leaf"]:  # above the last level it fills everything below it
                width = 2 ** (DEPTH - depth)
                first = (place + 1) * width - 2**DEPTH
                packed.leaf[0, number, first : first + width] = node["value"]
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
