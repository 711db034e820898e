"""Traces: a CSV file in, request rates out.

A trace is a regular series of counts (``timestamp,value``). A replay takes what follows a moment, lets it pass
``speedup`` times as fast, and scales it to a mean rate; what lies before that moment is the past that models may
learn from.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from .errors import TraceError

#: The most bytes that an unpacked trace may have.
MAX_BYTES = 256 * 1024 * 1024
HEADER = ["timestamp", "value"]
#: Where the replay of the shipped trace starts; data/SOURCES.md says why.
DEFAULT_START = datetime(1995, 7, 26, 10, 30, tzinfo=UTC)


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
            raise TraceError(
                f"{self.path}: {moment.isoformat()} is not in the trace ({self._span()}); choose a moment in it"
            )
        return row

    def moment(self, row: int) -> datetime:
        """The start of a row (which may lie beyond the trace)."""
        return datetime.fromtimestamp(self.start.timestamp() + row * self.step, UTC)

    def _span(self) -> str:
        return f"{self.start.isoformat()} to {self.moment(len(self.values)).isoformat()}"


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

    def later(self, seconds: float) -> Replay:
        """The replay as it is after ``seconds``: rows that have passed are gone (whole rows only)."""
        passed = min(int(seconds / self.step), len(self.rates) - 1)
        return Replay(self.trace, self.until, self.step, self.rates[passed:], self.past_rate)


def default_path() -> Path:
    """The shipped trace (NASA-HTTP, July 1995, by the minute)."""
    return Path(str(resources.files("meshctl.demo").joinpath("data", "nasa_jul95_1min.csv.gz")))


def read(path: Path) -> Trace:
    """A trace from a CSV file, gzipped or not. Raises :class:`TraceError`."""
    rows = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    times: list[datetime] = []
    values: list[float] = []
    try:
        _check_header(path, next(rows, []))
        for number, moment, value in _rows(path, rows):
            _check_step(path, number, times, moment)
            times.append(moment)
            values.append(value)
    except csv.Error as error:
        raise TraceError(
            f"{path}: row {len(times) + 2}: not CSV ({error}); expected rows of timestamp,value"
        ) from error
    if len(times) < 2:
        raise TraceError(
            f"{path}: {len(times)} rows of data; expected at least 2 (a regular step needs two timestamps)"
        )
    return Trace(path, times[0], (times[1] - times[0]).total_seconds(), tuple(values))


def start_of_replay(trace: Trace, start: datetime | None) -> datetime:
    """``start``, or for the shipped trace its documented one, or else the last fifth of the trace."""
    if start is not None:
        return start
    if trace.path == default_path():
        return DEFAULT_START
    return trace.moment(int(len(trace.values) * 0.8))


def replay(trace: Trace, *, until: datetime, rate: float, speedup: float, duration: float, lead: float = 0.0) -> Replay:
    """Rates from ``until`` on, scaled so that the ``duration`` seconds after the first ``lead`` seconds have the
    mean ``rate``.

    The rates cover ``lead + duration`` seconds and a spare ``lead``. Raises :class:`TraceError` if the trace ends
    before that, is silent there, or has no past.
    """
    first, step = trace.index(until), trace.step / speedup
    begin, count = first + int(lead / step), max(1, math.ceil(duration / step))
    window = trace.values[begin : begin + count]
    if len(window) < count or first == 0:
        raise TraceError(
            f"{trace.path}: a replay of {duration:g} s at speed-up {speedup:g} from {until.isoformat()} needs {count} rows"
            f" of {trace.step:g} s and some before them; the trace has {len(window)} and {first}."
            " Start elsewhere, or lower the speed-up"
        )
    if not (mean := sum(window) / count):
        raise TraceError(f"{trace.path}: silent from row {begin + 2} to {begin + count + 1}; start elsewhere")
    scale = rate / mean
    rates = tuple(value * scale for value in trace.values[first : begin + count + int(lead / step)])
    return Replay(trace, until, step, rates, scale * sum(trace.values[:first]) / first)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise TraceError(f"{path}: more than {MAX_BYTES} bytes; expected a trace of counts per minute or so")
        return data.decode("utf-8")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TraceError(f"{path}: damaged gzip data ({error}); expected a CSV file, gzipped or not") from error
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: byte {error.start} is not UTF-8; expected a CSV file of timestamp,value") from error
    except OSError as error:
        raise TraceError(
            f"{path}: cannot be read ({error.strerror}); expected a CSV file of timestamp,value"
        ) from error


def _check_header(path: Path, row: list[str]) -> None:
    if row != HEADER:
        raise TraceError(f"{path}: row 1: expected the header timestamp,value, got {','.join(row) or 'nothing'}")


def _rows(path: Path, rows: Iterator[list[str]]) -> Iterator[tuple[int, datetime, float]]:
    for number, row in enumerate(rows, start=2):
        if len(row) != 2:
            raise TraceError(f"{path}: row {number}: expected 2 columns (timestamp,value), got {len(row)}")
        yield number, _moment(path, number, row[0]), _count(path, number, row[1])


def _moment(path: Path, number: int, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TraceError(
            f"{path}: row {number}, column timestamp: expected ISO 8601 such as 1995-07-01T04:00:00Z, got {text!r}"
        ) from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _count(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise TraceError(f"{path}: row {number}, column value: expected a number of at least 0, got {text!r}")
    return value


def _check_step(path: Path, number: int, times: list[datetime], moment: datetime) -> None:
    if not times:
        return
    expected = times[1] - times[0] if len(times) > 1 else None
    step = moment - times[-1]
    if step.total_seconds() <= 0 or (expected is not None and step != expected):
        wanted = f"{expected.total_seconds():g} s" if expected is not None else "some time"
        raise TraceError(
            f"{path}: row {number}, column timestamp: expected {wanted} after the row before,"
            f" got {step.total_seconds():g} s; a trace has a regular step (fill gaps before)"
        )
