"""Simple exponential smoothing (EWMA), and what the models share that fit every window anew.

EWMA: its factor is chosen by one-step errors in the past. Hyndman & Athanasopoulos, Forecasting: Principles and
Practice (3rd edition), chapter 8.1 and (the spread) table 8.8.

The fitted models (``exponential``, ``theta``, ``sarimax``, ``prophet``) cost milliseconds to seconds per window. Each
is a function of one ``Past``; ``each`` asks it window by window and keeps its failures silent.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from forecasting.base import MEDIAN, QUANTILES, lawful
from forecasting.batch import Batch
from forecasting.models.naive import normal
from forecasting.series import BoolArray, FloatArray, Series, clean, masked_mean

HISTORY = 160
"""Values that the smoothing starts from: (1 - 0.05)^160 leaves nothing of older ones."""

ALPHAS: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Factors that compete where none is given; 1 is last value."""

SETTLE = 8
"""First errors of each series that do not count: the level is still that of the first value."""

SEASONS = 7
"""Newest seasons that a seasonal profile is taken from."""

FINEST = 48
"""A profile of more steps than these is smoothed to this resolution: half an hour of a day."""

ROUNDS = 4
"""Alternations between the levels of the seasons and the shape that they share; without gaps the first one is exact."""

FAR = 10.0
"""A median this many times above the largest value of the history is a broken fit, not a forecast."""

FAILURES = (ArithmeticError, ValueError, IndexError, RuntimeError)
"""What numerical libraries raise about data that they cannot fit (``LinAlgError`` is a ``ValueError``)."""


class Ewma:
    """Level = alpha * value + (1 - alpha) * level. A gap leaves the level alone.

    ``alpha`` in (0, 1]; None lets the one with the smallest mean absolute one-step error win, for each window anew.
    Silent below ``minimum`` known values.
    """

    name = "ewma"
    minimum = 12

    def __init__(self, alpha: float | None = None) -> None:
        if alpha is not None and not 0.0 < alpha <= 1.0:
            raise ValueError(f"alpha must be above 0 and at most 1, not {alpha}")
        self._alphas = np.array(ALPHAS if alpha is None else (alpha,))

    def predict(self, batch: Batch) -> FloatArray:
        """Quantiles ``(N, H, Q)``."""
        table = batch.newest(HISTORY)
        levels, absolute, square = smooth(table, self._alphas)  # (A, N) each
        best, rows = absolute.argmin(axis=0), np.arange(len(table))
        sigma = np.sqrt(square[best, rows])[:, None]
        growth = np.sqrt(1.0 + np.arange(batch.horizon) * self._alphas[best][:, None] ** 2)  # (N, H)
        told = normal(levels[best, rows][:, None], sigma * growth)
        told[np.isfinite(table).sum(axis=1) < self.minimum] = np.nan
        return told


def smooth(table: FloatArray, alphas: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Smooth ``(N, T)`` by every factor ``(A,)``: the levels after the last value, and the mean absolute and mean
    square one-step errors after ``SETTLE`` of them, ``(A, N)`` each; 0 where unknown.
    """
    columns = np.ascontiguousarray(table.T)  # (T, N): a step is one row, so inner loops are long
    known = np.isfinite(columns)
    rated = known & (known.cumsum(axis=0) > SETTLE + 1)  # the first known value makes no error
    filled = np.where(known, columns, 0.0)
    level = np.tile(_first_known(filled, known), (len(alphas), 1))
    absolute, square, error, scratch = (np.zeros_like(level) for _ in range(4))
    for value, here, counts in zip(filled, _weights(known), _weights(rated), strict=True):
        np.subtract(value, level, out=error)  # in place: memory is most of the cost
        if here is not None:
            error *= here
        level += np.multiply(error, alphas[:, None], out=scratch)
        if counts is not None:
            error *= counts
        absolute += np.abs(error, out=scratch)
        square += np.multiply(error, error, out=scratch)
    number = np.maximum(rated.sum(axis=0, dtype=np.float64), 1.0)
    absolute /= number
    square /= number
    return level, absolute, square


def _weights(rows: BoolArray) -> list[FloatArray | None]:
    """Each row of ``(T, N)`` as zeros and ones; None where all are ones, so that nobody multiplies by them."""
    table, full = rows.astype(np.float64), np.asarray(rows.all(axis=1))
    return [None if all_ones else row for row, all_ones in zip(table, full, strict=True)]


def _first_known(filled: FloatArray, known: BoolArray) -> FloatArray:
    """``(T, N)`` to ``(N,)``."""
    if not len(filled):
        return np.zeros(filled.shape[1])
    return np.asarray(filled[known.argmax(axis=0), np.arange(filled.shape[1])])


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """One window as a fitted model reads it.

    ``values (T,)`` reach from the first known to the newest known value, NaN = gap, in units of their mean. ``season``
    is 1 where fewer than two seasons are known: by rule nothing seasonal is fitted then. ``start`` is the begin of the
    first value (seconds since the epoch), ``step`` in seconds. ``steps`` are to be forecast after the last value: those
    of a gap before the origin, and the horizon.
    """

    values: FloatArray
    season: int
    start: float
    step: float
    steps: int

    def times(self) -> FloatArray:
        """The begin of every value and of every step to be forecast, seconds since the epoch: ``(T + steps,)``."""
        return np.asarray(self.start + self.step * np.arange(len(self.values) + self.steps))


Fit = Callable[[Past], FloatArray]
"""From a past to quantiles ``(steps, Q)``. It may raise ``FAILURES``, warn, and answer nonsense: see ``each``."""


def each(batch: Batch, fit: Fit, history: int, minimum: int, seasons: int = SEASONS) -> FloatArray:
    """Ask ``fit`` about every window: lawful quantiles ``(N, H, Q)``.

    It reads at most the newest ``history`` values, or ``seasons`` seasons where those are longer. Silent (NaN) where
    the newest ``history`` values hold fewer than ``minimum`` known ones, or more gaps than known ones; and where the
    fit fails or its answer is not finite or absurd. A history that never moved is answered by its value. Gaps before
    the origin are forecast, too, and left out of the answer, so the spread grows with the age of the newest value.
    """
    told = np.full((len(batch), batch.horizon, len(QUANTILES)), np.nan)
    for one, rows, counts in batch.groups():
        width = max(history, seasons * max(1, one.season))
        for row, count in enumerate(counts, start=rows.start):
            window = _cut(one, int(count), width)
            if _readable(window.values[-history:], minimum):
                told[row] = _ask(fit, window, batch.horizon, history)
    return told


def _cut(one: Series, count: int, width: int) -> Series:
    """The newest ``width`` of the first ``count`` values, cleaned."""
    begin = max(0, count - width)
    return replace(one, start=one.start + begin * one.step, values=clean(one.values[begin:count]))


def _readable(newest: FloatArray, minimum: int) -> bool:
    known = np.flatnonzero(np.isfinite(newest))
    return len(known) >= max(1, minimum) and 2 * len(known) >= len(newest) - known[0]


def _ask(fit: Fit, window: Series, horizon: int, history: int) -> FloatArray:
    """Quantiles ``(H, Q)`` after the end of ``window``, which has known values among the newest ``history``."""
    silence = np.full((horizon, len(QUANTILES)), np.nan)
    newest = window.values[-history:][np.isfinite(window.values[-history:])]
    if newest.min() == newest.max():
        return np.full_like(silence, newest[0])
    scale = float(newest.mean())
    past = _past(window, scale, horizon)
    try:
        with quiet():
            answer = fit(past)[-horizon:]
    except FAILURES:
        return silence
    fine = np.isfinite(answer).all() and answer[:, MEDIAN].max() <= FAR * np.nanmax(past.values)
    return lawful(answer * scale) if fine else silence


def _past(window: Series, scale: float, horizon: int) -> Past:
    known = np.flatnonzero(np.isfinite(window.values))
    first, last = int(known[0]), int(known[-1]) + 1
    season = window.season if window.season > 1 and last - first >= 2 * window.season else 1
    values = window.values[first:last] / scale
    return Past(values, season, window.start + first * window.step, window.step, len(window.values) - last + horizon)


@contextmanager
def quiet() -> Iterator[None]:
    """Fits report trouble by warnings; here their answer is judged instead. Not for several threads at once."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def bridged(values: FloatArray) -> FloatArray:
    """Gaps inside ``(T,)`` on straight lines, for models that know none. It makes the series a little too calm."""
    known = np.flatnonzero(np.isfinite(values))
    return np.interp(np.arange(len(values)), known, values[known])


def deseasonalised(past: Past, history: int) -> tuple[FloatArray, FloatArray]:
    """The newest ``history`` values without their seasonal profile, and the profile of the steps to be forecast:
    ``(T',)`` and ``(steps,)``. Without a known season nothing is taken away, and the profile is zero.
    """
    if past.season == 1:
        return past.values[-history:], np.zeros(past.steps)
    shape = profile(past.values, past.season)
    phase = np.arange(-len(past.values), past.steps) % past.season
    return (past.values - shape[phase[: len(past.values)]])[-history:], shape[phase[len(past.values) :]]


def profile(values: FloatArray, season: int) -> FloatArray:
    """The additive shape ``(season,)`` that the whole seasons at the end of ``(T,)`` share, of mean zero; entry 0 is
    the step after the last value.

    Every season has its own level, the trend between the levels is taken out, and means over the seasons remain
    (Hyndman & Athanasopoulos, chapter 3.4, with levels in place of a moving average, whose ends are unknown).
    """
    whole = len(values) // season
    table = values[len(values) - whole * season :].reshape(whole, season)
    shape, inside = np.zeros(season), (np.arange(season) - (season - 1) / 2) / season
    for _ in range(ROUNDS):
        level = masked_mean(table - shape, axis=1)
        slope = np.polyfit(np.arange(whole), bridged(level), 1)[0] if whole > 1 else 0.0
        shape = masked_mean(table - level[:, None] - slope * inside, axis=0)
        shape = _smoothed(shape, max(1, season // FINEST))
        shape -= shape.mean()
    return shape


def _smoothed(shape: FloatArray, width: int) -> FloatArray:
    """A circular moving mean over ``width`` steps (made odd); steps never seen lie between their neighbours."""
    side, season = width // 2, len(shape)
    known = np.isfinite(shape)
    sums, counts = (
        np.convolve(np.pad(part, side, mode="wrap"), np.ones(2 * side + 1), mode="valid")
        for part in (np.where(known, shape, 0.0), known.astype(np.float64))
    )
    seen = np.flatnonzero(counts > 0.5)
    return np.interp(np.arange(season), seen, sums[seen] / counts[seen], period=season)
