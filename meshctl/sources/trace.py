"""Recorded traces: CSV of ``timestamp,value``, plain or gzipped, read strictly. Further columns, where they are asked
for, were measured beside the value.

A row that cannot be meant is an error that names the row; nothing is guessed, skipped or filled in, except that the
caller may aggregate rows to a coarser step.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from meshctl.errors import UsageError

_HEADER = ["timestamp", "value"]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """``times`` (seconds since the epoch, rising) and ``values`` (counts or rates, not negative), both shape
    ``(N,)``. ``beside``: further columns by name, ``(N,)``, NaN where nothing was measured.
    """

    times: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    beside: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def before(self, moment: datetime | None) -> Trace:
        """The rows before ``moment``; all of them for None."""
        if moment is None:
            return self
        return self._where(self.times < moment.timestamp())

    def since(self, moment: datetime) -> Trace:
        """The rows at or after ``moment``."""
        return self._where(self.times >= moment.timestamp())

    def _where(self, keep: npt.NDArray[np.bool_]) -> Trace:
        return Trace(self.times[keep], self.values[keep], {name: one[keep] for name, one in self.beside.items()})


def read(path: Path, *, beside: bool = False) -> Trace:
    """Read ``path``; raises :class:`~meshctl.errors.UsageError` naming the file, the row and what was expected.

    ``beside``: whether there may be further columns; an empty cell in one of them is NaN.
    """
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            reader = csv.reader(file)
            names = _names(path, next(reader, []), beside)
            rows = list(_rows(path, reader, names))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a CSV trace: {error}") from error
    if len(rows) < 2:
        raise UsageError(f"{path}: expected at least two rows of timestamp,value, got {len(rows)}")
    times, values, *columns = np.array(rows, dtype=np.float64).T
    return Trace(times, values, dict(zip(names[len(_HEADER) :], columns, strict=True)))


def _names(path: Path, header: Sequence[str], beside: bool) -> list[str]:
    """The columns: timestamp, value, and further ones where they are allowed."""
    names = [name.strip() for name in header]
    further = names[len(_HEADER) :]
    if names[: len(_HEADER)] != _HEADER or (further and not beside):
        raise UsageError(f"{path}:1: expected the header {','.join(_HEADER)!r}, got {','.join(header)!r}")
    if "" in further or len(set(names)) < len(names):
        raise UsageError(f"{path}:1: every column needs a name of its own, got {','.join(header)!r}")
    return names


def _rows(path: Path, lines: Iterator[list[str]], names: Sequence[str]) -> Iterator[tuple[float, ...]]:
    previous = -math.inf
    for number, row in enumerate(lines, start=2):
        if not row:
            continue
        if len(row) != len(names):
            raise UsageError(
                f"{path}:{number}: expected {len(names)} columns ({','.join(names)}), got {len(row)}: {','.join(row)!r}"
            )
        moment, value = _moment(path, number, row[0]), _value(path, number, row[1])
        if moment <= previous:
            raise UsageError(f"{path}:{number}: timestamp {row[0]!r} is not later than the row before; sort the file")
        previous = moment
        further = zip(names[len(_HEADER) :], row[len(_HEADER) :], strict=True)
        yield moment, value, *(_beside(path, number, name, text) for name, text in further)


def _moment(path: Path, number: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"{path}:{number}: timestamp: expected ISO 8601 or seconds since the epoch, got {text!r}"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _value(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{path}:{number}: value: expected a number, got {text!r}") from None
    if not math.isfinite(value) or value < 0.0:
        raise UsageError(f"{path}:{number}: value: expected a finite number of at least 0, got {text!r}")
    return value


def _beside(path: Path, number: int, name: str, text: str) -> float:
    """Any finite number; NaN for an empty cell."""
    try:
        value = float(text) if text.strip() else math.nan
    except ValueError:
        value = math.inf
    if math.isinf(value) or (math.isnan(value) and text.strip()):
        raise UsageError(f"{path}:{number}: {name}: expected a finite number or nothing, got {text!r}")
    return value


def resample(values: Iterable[float], rows_per_step: float) -> npt.NDArray[np.float64]:
    """Means over ``rows_per_step`` rows (may be fractional), aligned to the *end*; a partial first step is dropped.

    Raising the resolution repeats rows: a trace says nothing about what happened within one of them.
    """
    rows = np.asarray(list(values), dtype=np.float64)
    steps = int(len(rows) / rows_per_step)
    edges = len(rows) - rows_per_step * np.arange(steps, -1, -1)
    total = np.concatenate([[0.0], np.cumsum(rows)])
    at = np.interp(edges, np.arange(len(total)), total)
    means: npt.NDArray[np.float64] = np.diff(at) / rows_per_step
    return means
