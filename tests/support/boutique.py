"""A real mesh: requests per minute of Online Boutique's services, and who calls whom."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from forecasting.series import FloatArray


def read(shared_data: Path) -> tuple[dict[str, FloatArray], list[tuple[str, str]]]:
    """Rates of every service that was measured, and edges between those; skips where the traces are absent."""
    rates, edges = (shared_data / "multi" / f"online_boutique_{name}.csv" for name in ("rpm_1min_wide", "edges"))
    if not (rates.exists() and edges.exists()):
        pytest.skip(f"no traces of a whole mesh in {rates.parent}")
    with rates.open() as file:
        rows = list(csv.DictReader(file))
    columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0] if name != "timestamp"}
    known = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    with edges.open() as file:
        pairs = [(row["Source"], row["Target"]) for row in csv.DictReader(file)]
    return known, [edge for edge in pairs if edge[0] in known and edge[1] in known]


def only_parents(edges: list[tuple[str, str]]) -> dict[str, str]:
    """Of each child with one parent only, that parent: its total is its edge's calls."""
    parents: dict[str, list[str]] = {}
    for parent, child in edges:
        parents.setdefault(child, []).append(parent)
    return {child: each[0] for child, each in parents.items() if len(each) == 1}
