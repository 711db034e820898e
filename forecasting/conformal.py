"""Quantiles that keep their promise: learned online from past misses, per series, step and quantile. Pure arrays.

*Quantile tracking* (Gibbs & Candes 2021, Adaptive conformal inference under distribution shift; Angelopoulos, Candes &
Tibshirani 2023, Conformal PID control): after each outcome a quantile moves up by ``rate * level`` if reality lay above
it and down by ``rate * (1 - level)`` if not, in units of a usual error. Whatever the data do, even if they are chosen
by an adversary, the share of misses tends to ``1 - level``: over T outcomes that come h steps after they were forecast
it is off by at most ``(spread + h * rate) / (rate * T)``, where ``spread`` is the range of the outcomes and the start.
After a shift by D usual errors upwards the quantile is back within ``D / (rate * level)`` outcomes (+ h), downwards
within ``D / (rate * (1 - level))``. A fast rate follows a shift at once and widens; a slow one is sharp; so several
compete, and an online mixture weighs them by their pinball loss (Zaffran et al. 2022, Adaptive conformal predictions
for time series: aggregation over learning rates).

Shapes: N series, H steps ahead, U = len(LEVELS) quantiles beside the median, K spreads that compete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from zlib import crc32

import numpy as np
import numpy.typing as npt

from forecasting.base import MEDIAN, QUANTILES
from forecasting.memory import NEVER
from forecasting.series import BoolArray, FloatArray, IntArray

LEVELS: FloatArray = np.array([q for q in QUANTILES if q != 0.5])
BESIDE = [n for n, q in enumerate(QUANTILES) if q != 0.5]
U = len(LEVELS)

WINDOW = 300
"""Past misses that the empirical quantiles are taken from."""

LEAST = 20
"""Misses below which there are no empirical quantiles."""

TURNS = 8
"""Empirical quantiles are worked out anew for every eighth series in turn: they move slowly, and sorting is dear."""

TRACKED_RATE, SCALED_RATE = 0.1, 0.03
"""Of the two spreads that are tracked."""

RATE = 0.05
"""Of the last calibration, one step ahead: about 20 misses in a row move a quantile by a usual error."""

SETTLED, LEAST_RATE = 200, 0.02
"""Intervals from which on the last calibration slows down, and where that ends: what competes before it follows changes
by itself by then, and a fast last word would only add noise.
"""

PACE = 0.5
"""How fast the weights of the competing spreads are learned, as a share of the usual rates: misses of an upper quantile
are rare and large, and one says little about which spread is right. One step ahead, as ``RATE``.
"""

FADE = 1.0 - 0.5 ** (1.0 / 30.0)
"""The mean miss that tracked quantiles are measured in forgets half in 30 intervals."""

KEPT = 0.5 ** (1.0 / WINDOW)
"""What is left of the largest miss after an interval: a spread in units of a usual error, which may have grown since,
must not be wider than any miss was.
"""

START: FloatArray = np.array([-1.6, 1.3, 1.7, 2.6])
"""Where tracked quantiles begin, in units of a usual error: those of a bell with heavy tails."""

NOTHING = 1e-9
"""What is told below this is 0: it is what the smallest scale leaves where a series never had any value but 0."""

LEARNED = ("lstm", "boosting")
"""Models whose own quantiles compete."""

SPREADS = ("lstm", "lstm tracked", "boosting", "residuals", "tracked", "last")
"""Names of the K ways to say quantiles that compete."""


def settling(age: FloatArray) -> FloatArray:
    """Rates of the last calibration ``(N,)`` by ``age (N,)``, intervals learned from: ``RATE``, then falling with the
    root of the age (Angelopoulos, Barber & Bates 2024, Online conformal prediction with decaying step sizes) down to
    ``LEAST_RATE``, so that it never stops learning.
    """
    return np.clip(RATE * np.sqrt(SETTLED / np.maximum(age, 1.0)), LEAST_RATE, RATE)


def patient(rate: float | FloatArray, horizon: int, age: FloatArray | float = np.inf) -> FloatArray:
    """``rate`` (a number, or ``(N, 1, 1)``) for every step ahead, ``(H, 1)``: ``rate / sqrt(h)``, as what was said h
    steps ahead is judged h steps late. Until then the same miss is made, and learned from, again and again; the root is
    what keeps the regret of late gradients least (Quanrud & Khashabi 2015, Online learning with adversarial delays).

    By ``age (N,)``, intervals learned from, ``(N, H, 1)``: who has learned little yet learns faster, and slows down to
    that, as in ``settling``.
    """
    late = np.minimum(np.arange(1.0, horizon + 1.0), 1.0 + np.asarray(age)[..., None] / LEAST)
    return np.asarray(rate / np.sqrt(late)[..., None])


@dataclass(slots=True, eq=False)
class Tracker:
    """``shift (N, H, U)``: how far each quantile stands from its base, in units."""

    shift: FloatArray

    @classmethod
    def at(cls, count: int, horizon: int, start: FloatArray) -> Tracker:
        """All series and steps start at ``start (U,)``."""
        return cls(np.tile(start, (count, horizon, 1)).astype(np.float64))

    def move(self, told: FloatArray, actual: FloatArray, rate: float | FloatArray, levels: FloatArray = LEVELS) -> None:
        """Learn from ``told (N, H, U)`` and ``actual (N, H)``; ``rate`` fits ``(N, H, U)``. NaN teaches nothing."""
        known = np.isfinite(told) & np.isfinite(actual)[..., None]
        self.shift = self.shift + np.where(known, rate * ((actual[..., None] > told) - (1.0 - levels)), 0.0)


@dataclass(slots=True, eq=False)
class Residuals:
    """Past misses in units, ``past (N, H, WINDOW)``, NaN = none; ``next (N,)`` is where the next one goes, and
    ``quantile (N, H, U)`` what they say (NaN with fewer than ``LEAST``).
    """

    past: npt.NDArray[np.float32]
    next: IntArray
    quantile: FloatArray

    @classmethod
    def empty(cls, count: int, horizon: int) -> Residuals:
        """No miss yet."""
        past = np.full((count, horizon, WINDOW), np.nan, dtype=np.float32)
        return cls(past, np.zeros(count, dtype=np.int64), np.full((count, horizon, U), np.nan))

    def add(self, miss: FloatArray, moved: BoolArray) -> None:
        """Keep ``miss (N, H)`` of the series that ``moved (N,)``; a gap (NaN) takes a place, too."""
        rows = np.flatnonzero(moved)
        self.past[rows, :, self.next[rows]] = miss[rows]
        self.next = np.where(moved, (self.next + 1) % WINDOW, self.next)

    def refresh(self, rows: IntArray) -> None:
        """Work out the quantiles of some series."""
        self.quantile[rows] = empirical(self.past[rows])


def empirical(past: npt.NDArray[np.float32]) -> FloatArray:
    """Quantiles along the last axis, ``(..., W)`` to ``(..., U)``; NaN (without a warning) where fewer than ``LEAST``
    values are known.
    """
    if past.shape[-1] < LEAST:
        return np.full((*past.shape[:-1], U), np.nan)
    ordered = np.sort(past, axis=-1)  # NaN last
    count = np.isfinite(past).sum(axis=-1)
    place = LEVELS * np.maximum(count - 1, 0)[..., None]
    low = place.astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0)[..., None])
    below = np.take_along_axis(ordered, low, axis=-1)
    found = below + (place - low) * (np.take_along_axis(ordered, high, axis=-1) - below)
    return np.where((count >= LEAST)[..., None], found, np.nan)


def differences(recent: FloatArray, horizon: int) -> FloatArray:
    """Quantiles of the h-step differences in ``recent (N, W)``: the spread of last value, ``(N, H, U)``."""
    parts = []
    for h in range(1, horizon + 1):
        change = recent[:, h:] - recent[:, :-h] if h < recent.shape[1] else np.empty((len(recent), 0))
        padded = np.pad(change, ((0, 0), (LEAST, 0)), constant_values=np.nan)
        parts.append(empirical(padded.astype(np.float32)))
    return np.stack(parts, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Centre:
    """What quantiles are put around: the mixture's ``median`` and last value, ``last`` (both ``(N, H)``); ``learned (N,
    L, H, Q)``, what each of ``LEARNED`` said (NaN where it is silent); ``unit (N,)``.
    """

    median: FloatArray
    last: FloatArray
    learned: FloatArray
    unit: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Around:
    """Quantiles around the medians: the ``spread (N, K, H, U)`` that compete, their ``blend (N, H, U)``, that
    ``calibrated (N, H, U)``, and that complete, which is ``served``, ``(N, H, Q)``.
    """

    spread: FloatArray
    blend: FloatArray
    calibrated: FloatArray
    served: FloatArray


@dataclass(slots=True, eq=False)
class Spreads:
    """The K ways to put quantiles around a median, which compete; see ``SPREADS``.

    ``differences (N, H, U)``: quantiles of last value's changes. ``miss (N, H)``: how much the median misses by lately,
    NaN before the first; ``largest (N, H)``: the most that it did, forgotten slowly. ``phase (N,)`` says at which of
    ``TURNS`` ticks a series has its turn to be worked out anew, ``turn (N,)`` which turn was its last.
    """

    residuals: Residuals
    differences: FloatArray
    miss: FloatArray
    largest: FloatArray
    tracked: Tracker
    scaled: Tracker
    phase: IntArray
    turn: IntArray

    @classmethod
    def fresh(cls, names: Sequence[str], horizon: int) -> Spreads:
        """Nothing learned yet. A series' turn depends on its own name only: no other one can move it."""
        count = len(names)
        return cls(
            residuals=Residuals.empty(count, horizon),
            differences=np.zeros((count, horizon, U)),
            miss=np.full((count, horizon), np.nan),
            largest=np.zeros((count, horizon)),
            tracked=Tracker.at(count, horizon, 1.5 * START),
            scaled=Tracker.at(count, horizon, np.sign(LEVELS - 0.5)),
            phase=np.array([crc32(name.encode()) % TURNS for name in names], dtype=np.int64),
            turn=np.full(count, NEVER),
        )

    def refresh(self, next_: IntArray, recent: FloatArray) -> None:
        """Work out anew what is dear to work out, of the series whose turn it is when interval ``next_ (N,)`` is next.

        ``recent (N, W)``: the newest values.
        """
        turn = (next_ + self.phase) // TURNS
        rows = np.flatnonzero(turn != self.turn)
        if len(rows):
            self.residuals.refresh(rows)
            self.differences[rows] = np.nan_to_num(differences(recent[rows], self.miss.shape[1]))
        self.turn = turn

    def around(self, centre: Centre) -> FloatArray:
        """Quantiles ``(N, K, H, U)`` in the order of ``SPREADS``; NaN = has nothing to say yet."""
        median, unit = centre.median[..., None], centre.unit[:, None, None]
        network, forests = np.moveaxis(centre.learned, 1, 0)
        gap = network[..., BESIDE] - network[..., MEDIAN, None]
        miss = np.where(np.isfinite(self.miss), self.miss, centre.unit[:, None])[..., None]
        most = self.largest[..., None]
        return np.stack(
            [
                network[..., BESIDE],
                median + (np.abs(gap) + 0.1 * unit) * self.scaled.shift,
                forests[..., BESIDE],
                median + np.clip(unit * self.residuals.quantile, -most, most),
                median + (miss + 0.2 * unit) * self.tracked.shift,
                centre.last[..., None] + self.differences,
            ],
            axis=1,
        )

    def learn(
        self, spread: FloatArray, actual: FloatArray, miss: FloatArray, unit: FloatArray, moved: BoolArray
    ) -> None:
        """``actual (N, H)`` has come where ``spread (N, K, H, U)`` was told, and ``miss (N, H)`` from the median, in
        the series' unit (``unit (N, H)``: of an error). NaN teaches nothing.
        """
        horizon = actual.shape[1]
        scaled, tracked = patient(SCALED_RATE, horizon), patient(TRACKED_RATE, horizon)
        self.scaled.move(spread[:, SPREADS.index("lstm tracked")], actual, scaled)
        self.tracked.move(spread[:, SPREADS.index("tracked")], actual, tracked)
        self.residuals.add(miss / unit, moved)
        size = np.abs(miss)
        fading = np.where(np.isfinite(self.miss), self.miss + FADE * (size - self.miss), size)
        self.miss = np.where(np.isfinite(size), fading, self.miss)
        self.largest = np.where(np.isfinite(size), np.fmax(size, KEPT * self.largest), self.largest)


@dataclass(slots=True, eq=False)
class Corrections:
    """The last calibration: how far what is returned is moved so that it keeps its promise, whoever made it.

    It learns from the quantiles as it moved them, before they are put in order (``complete``): one that is held by the
    median would be moved toward it for as long as a series rests, and miss for as long once it does not. What is
    returned lies no nearer to the median than what was learned from, so it holds as often at least.
    """

    served: Tracker
    peaks: Tracker

    @classmethod
    def fresh(cls, count: int, horizon: int) -> Corrections:
        """Nothing is moved yet."""
        return cls(*(Tracker.at(count, horizon, np.zeros(U)) for _ in range(2)))


def maxima(values: FloatArray) -> FloatArray:
    """Quantiles of maxima as the quantiles of single steps ``values (N, H, Q)`` suggest them, ``(N, H, Q)``: row k - 1
    is that of the next k steps.

    Steps that move together have a maximum with the quantiles of the highest of them; independent ones reach its q
    quantile where each stays below its quantile at ``q ** (1 / k)``. Taken is ``q ** (1 / sqrt(k))``, between the two,
    as where a change lasts for a few steps. What is not so is for ``Corrections`` to learn.
    """
    highest = np.empty_like(values)
    for row, (low, part) in enumerate(zip(*_within(values.shape[1]), strict=True)):
        known = values[:, : row + 1]
        below = known[..., low]
        highest[:, row] = (below + part * (known[..., low + 1] - below)).max(axis=1)
    return highest


@cache
def _within(horizon: int) -> tuple[IntArray, FloatArray]:
    """Where among ``QUANTILES`` the levels ``q ** (1 / sqrt(k))`` lie: the one below, and how far to the next, both
    ``(horizon, Q)``. Between and beyond them tails are taken to be exponential.
    """
    known = -np.log1p(-np.array(QUANTILES))
    wanted = -np.log1p(-(np.array(QUANTILES) ** (1.0 / np.sqrt(np.arange(1.0, horizon + 1.0)))[:, None]))
    low = np.clip(np.searchsorted(known, wanted, side="right") - 1, 0, len(known) - 2)
    return low, np.asarray((wanted - known[low]) / np.diff(known)[low])


def complete(median: FloatArray, beside: FloatArray) -> FloatArray:
    """All quantiles ``(N, H, Q)`` of a median ``(N, H)`` and the others ``(N, H, U)``: lower ones at most the median,
    upper ones at least; none negative, none crossing, and none so small that it means nothing (``floored``).
    """
    values = np.empty((*median.shape, len(QUANTILES)))
    values[..., MEDIAN] = np.maximum(median, 0.0)
    values[..., BESIDE] = beside
    above = np.maximum.accumulate(values[..., MEDIAN:], axis=-1)
    below = np.minimum.accumulate(values[..., MEDIAN::-1], axis=-1)[..., ::-1]
    return floored(np.concatenate([below[..., :-1], above], axis=-1))


def floored(values: FloatArray) -> FloatArray:
    """``values`` of any shape with 0 for what is below ``NOTHING``; NaN stays."""
    return np.where(values < NOTHING, 0.0, values)
