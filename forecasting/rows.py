"""State of many series as one dataclass of arrays: row n of every array belongs to series n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any, TypeVar

import numpy as np

from forecasting.series import IntArray

T = TypeVar("T")

SHARED = {"shared": True}
"""Metadata of a field that all rows have in common."""


def taken(state: T, rows: IntArray | slice) -> T:
    """Some of the rows, copied where ``rows`` is an array. Nested dataclasses follow."""
    return type(state)(*(_taken(part, getattr(state, part.name), rows) for part in fields(state)))  # type: ignore[arg-type]


def _taken(part: Field[Any], value: Any, rows: IntArray | slice) -> Any:
    if part.metadata.get("shared"):
        return value
    return value[rows] if isinstance(value, np.ndarray) else taken(value, rows)


def put_back(state: Any, rows: IntArray, part: Any) -> None:
    """The inverse of ``taken``: write the rows of ``part`` to where they were in ``state``, in place."""
    for one in fields(state):
        mine, theirs = getattr(state, one.name), getattr(part, one.name)
        if isinstance(mine, np.ndarray) and not one.metadata.get("shared"):
            mine[rows] = theirs
        elif is_dataclass(mine):
            put_back(mine, rows, theirs)


def chunks(rows: IntArray, size: int) -> list[IntArray]:
    """``rows (N,)`` in order, about equal parts of at most ``size``: bounds memory. Nothing where there are none."""
    return np.array_split(rows, -(-len(rows) // size)) if len(rows) else []


def joined(states: Sequence[T]) -> T:
    """All rows of all ``states`` (at least one), in order."""
    first = states[0]
    return type(first)(*(_joined(part, [getattr(one, part.name) for one in states]) for part in fields(first)))  # type: ignore[arg-type]


def _joined(part: Field[Any], values: Sequence[Any]) -> Any:
    if part.metadata.get("shared"):
        return values[0]
    return np.concatenate(values) if isinstance(values[0], np.ndarray) else joined(values)
