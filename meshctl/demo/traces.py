"""Replays: a recorded trace in, request rates out.

A replay takes what follows a moment of a trace, lets it pass ``speedup`` times as fast, and scales it to a mean
rate. What
lies before that moment is the past that models may learn from. Files are read by :mod:`meshctl.sources.trace`.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import numpy as np

from meshctl.errors import UsageError
from meshctl.sources import trace as recorded

from .errors import TraceError

#: Where the replay of the shipped trace starts; data/SOURCES.md says why.
DEFAULT_START = datetime(1995, 7, 26, 10, 45, tzinfo=UTC)
#: Of another trace, this share is the past.
PAST_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Trace:
    """``values[i]`` is the count in ``[start + i * step, start + (i + 1) * step)``; ``start`` is UTC, ``step`` in
    seconds.
    """

    path: Path
    start: datetime
    step: float
    values: tuple[float, ...]

    def index(self, moment: datetime) -> int:
        """The row that holds ``moment``; raises :class:`TraceError` if the trace does not."""
        row = math.floor((moment - self.start).total_seconds() / self.step)
        if not 0 <= row < len(self.values):
            span = f"{self.start.isoformat()} to {self.moment(len(self.values)).isoformat()}"
            raise TraceError(f"{self.path}: {moment.isoformat()} is not in the trace; expected a moment in {span}")
        return row

    def moment(self, row: int) -> datetime:
        """The start of a row (which may lie beyond the trace)."""
        return datetime.fromtimestamp(self.start.timestamp() + row * self.step, UTC)


@dataclass(frozen=True, slots=True)
class Replay:
    """What the load generator shall offer: ``rates[i]`` requests per second for ``step`` seconds each.

    ``until`` is where the past ends in the trace, ``past_rate`` the mean rate of the past at the same scale.
    """

    trace: Trace
    until: datetime
    step: float
    rates: tuple[float, ...]
    past_rate: float


def default_path() -> Path:
    """The shipped trace (NASA-HTTP, July 1995, by the minute)."""
    return Path(str(resources.files("meshctl.demo").joinpath("data", "nasa_jul95_1min.csv.gz")))


def read(path: Path) -> Trace:
    """A trace with a regular step. Raises :class:`TraceError` that names the file, the row and the column."""
    try:
        found = recorded.read(path)
    except UsageError as error:
        raise TraceError(str(error)) from error
    except zlib.error as error:
        raise TraceError(f"{path}: damaged gzip data ({error}); expected a CSV file, gzipped or not") from error
    steps = np.diff(found.times)
    if (odd := np.flatnonzero(np.abs(steps - steps[0]) > 1e-3)).size:
        row = int(odd[0]) + 3  # the header, counting from one, and the row after the gap
        raise TraceError(
            f"{path}:{row}: timestamp: expected {steps[0]:g} s after the row before, got {steps[odd[0]]:g} s;"
            " a replay needs a regular step (fill gaps before)"
        )
    start = datetime.fromtimestamp(float(found.times[0]), UTC)
    return Trace(path, start, float(steps[0]), tuple(found.values.tolist()))


def start_of_replay(trace: Trace, start: datetime | None) -> datetime:
    """``start``, or for the shipped trace its documented one, or else the last fifth of the trace."""
    if start is not None:
        return start if start.tzinfo else start.replace(tzinfo=UTC)
    if trace.path == default_path():
        return DEFAULT_START
    return trace.moment(int(len(trace.values) * PAST_SHARE))


def replay(trace: Trace, *, until: datetime, rate: float, speedup: float, duration: float) -> Replay:
    """Rates of the ``duration`` seconds from ``until`` on, scaled to the mean ``rate``.

    Raises :class:`TraceError` if the trace ends before, is silent there, or has no past.
    """
    first, step = trace.index(until), trace.step / speedup
    count = max(1, math.ceil(duration / step - 1e-9))
    window = trace.values[first : first + count]
    if len(window) < count or first == 0:
        raise TraceError(
            f"{trace.path}: {duration:g} s at speed-up {speedup:g} from {until.isoformat()} need {count} rows of"
            f" {trace.step:g} s, and a past; the trace has {len(window)}, and {first} rows before."
            " Start elsewhere, or lower the speed-up"
        )
    if not (mean := sum(window) / count):
        raise TraceError(f"{trace.path}: silent from row {first + 2} to {first + count + 1}; start elsewhere")
    scale = rate / mean
    rates = tuple(value * scale for value in window)
    return Replay(trace, until, step, rates, scale * sum(trace.values[:first]) / first)
