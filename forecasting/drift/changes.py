"""The tests of the data: a level, a season or a variance that is another, a hole in the telemetry.

Each is asked once per block of a ``Day``, with whether the detector is *quiet* after a report: then it takes note, and
reports nothing.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from forecasting.drift import evidence
from forecasting.drift.causes import Drift
from forecasting.drift.day import Day
from forecasting.drift.statistics import FAINT, correlation
from forecasting.series import IntArray, masked_mean

SLACK, CLIP, LIMIT = 0.75, 3.0, 12.0
"""CUSUM in standard deviations: what is forgiven per block, what one block counts at most, and what is a suspicion.
A burst must fill six blocks to raise one, and it fades within a day."""

LEAST_LEVEL: Final = math.log(1.15)
"""A level that moved by less than 15 % is no drift, however sure it is: forecasts adapt to that by themselves."""

SAME_SIDE: Final = 0.75
"""The share of blocks of a day on the same side of the expectation that makes a new level of it."""

LEAST_VARIANCE: Final = math.log(1.5)

BEYOND, MOST_MOVE = 1.3, math.log(3.0)
"""A level or a variance must move this many times (in logarithms) as far as it did at training time, when weekends and
busy days came and went; but a move by a factor of 3 is always one."""

SHAPE_LOSS: Final = 0.2
"""The correlation with the reference day that may be lost beyond what noise explains."""

HOLE, HOLE_OVER = 0.5, 0.2
"""Missing share beyond the usual that is a hole, and below which it has ended."""


class Hole:
    """The share of values missing in the newest quarter of a day; reported again only after it had ended."""

    __slots__ = ("_day", "active")

    def __init__(self, day: Day) -> None:
        self._day, self.active = day, False

    def test(self, number: int, quiet: bool) -> Drift | None:
        """Whether block ``number`` makes it a hole."""
        day = self._day
        window = (number - np.arange(len(day) // 4)) % len(day)
        usual, missing = 1.0 - day.reference.known, 1.0 - day.known[window]
        share = float(missing.mean())
        if share <= usual + HOLE_OVER:
            self.active = False
        if self.active or share < usual + min(HOLE, (1.0 - usual) / 2) or quiet:
            return None
        self.active = True
        since = day.seconds(number - int(np.flatnonzero(missing > usual + HOLE_OVER)[-1]))
        text = evidence.hole(share, usual, day.seconds(len(window)) / 3600)
        return Drift(day.reference.series, "telemetry hole", share, since, text)


class Level:
    """A two-sided CUSUM; ``gain`` is the ratio of square roots of rates now to those at training time."""

    __slots__ = ("_day", "_gain", "_onset", "_sums")

    def __init__(self, day: Day) -> None:
        self._day, self._gain = day, 1.0
        self._sums, self._onset = [0.0, 0.0], [0, 0]  # upwards and downwards

    def forget(self) -> None:
        """Drop every suspicion."""
        self._sums = [0.0, 0.0]

    def accumulate(self, number: int) -> None:
        """One step of the CUSUM in both directions."""
        day, place = self._day, number % len(self._day)
        spread = day.reference.spread * max(1.0, self._gain) * max(1.0, math.exp(day.noise_log))
        z = (day.roots[place] - self._gain * day.usual[place]) / spread
        for side, sign in enumerate((1.0, -1.0)):
            if self._sums[side] == 0.0:
                self._onset[side] = number
            rise = min(max(sign * float(z), -CLIP), CLIP) - SLACK
            self._sums[side] = min(max(self._sums[side] + rise, 0.0), 2 * LIMIT)

    def test(self, number: int, quiet: bool, doubted: bool) -> Drift | None:
        """Whether the suspicion held all day long. While the day's shape is ``doubted`` it waits for another day, which
        shows whether level or shape has changed.
        """
        side, bins = int(self._sums[1] > self._sums[0]), len(self._day)
        age = number + 1 - self._onset[side]
        if self._sums[side] < LIMIT or age < self._day.reference.patience or quiet or (doubted and age < 2 * bins):
            return None
        move = self._move((number - np.arange(min(age, bins))) % bins, 1.0 if side == 0 else -1.0)
        self.forget()
        if abs(move) < min(max(LEAST_LEVEL, BEYOND * self._day.reference.restless), MOST_MOVE):
            return None
        return self._moved(move, self._day.seconds(self._onset[side]))

    def _moved(self, move: float, since: float) -> Drift:
        """The report; the level is measured from where it is now on."""
        before = float(((self._gain * self._day.usual) ** 2).mean())
        self._gain *= math.exp(move / 2)
        text = evidence.level(before, move)
        return Drift(self._day.reference.series, "level", math.expm1(move), since, text)

    def _move(self, window: IntArray, sign: float) -> float:
        """The log ratio of the rates in ``window`` to what was expected; 0 where they are not all day on one side."""
        told, expected = self._day.roots[window], self._gain * self._day.usual[window]
        heard = np.isfinite(told) & (expected >= 0.25 * expected.mean())
        if not heard.any():
            return 0.0
        same = (sign * (told - expected)[heard] > 0.0).mean()
        ratio = max(float(told[heard].mean()), math.sqrt(FAINT)) / float(expected[heard].mean())
        return 2.0 * math.log(ratio) if same >= SAME_SIDE else 0.0


class Season:
    """The rank correlation of the newest day with the reference; reported again only after it had recovered.

    ``doubted``: whether the shape of the newest blocks is another. ``active``: whether that was reported.
    """

    __slots__ = ("_day", "_dwell", "active")

    def __init__(self, day: Day) -> None:
        self._day, self._dwell, self.active = day, 0, False

    @property
    def doubted(self) -> bool:
        return self._dwell > 0

    def forget(self) -> None:
        """Drop every suspicion."""
        self._dwell = 0

    def test(self, number: int, quiet: bool) -> Drift | None:
        """Whether the correlation was too low for a day and a quarter."""
        day, known = self._day, np.isfinite(self._day.roots)
        if not day.reference.seasonal or known.mean() < 0.75:
            return None
        rank = correlation(day.roots[known], day.usual[known])
        lost = self._expected() - rank
        self._dwell = self._dwell + 1 if lost > SHAPE_LOSS else 0
        if lost < SHAPE_LOSS / 2:
            self.active = False
        if self._dwell < 1.25 * len(day) or self.active or quiet:
            return None
        self.active = True
        since = day.seconds(number + 1 - self._dwell)
        return Drift(day.reference.series, "season", lost, since, self._evidence(rank))

    def _expected(self) -> float:
        """The lowest usual correlation; noise f times as wide lets ``r`` fall to ``1 / sqrt(1 + f**2 (r**-2 - 1))``."""
        usual = min(max(self._day.reference.shapeless, 0.05), 1.0)
        wider = max(1.0, math.exp(self._day.noise_log))
        return 1.0 / math.sqrt(1.0 + wider**2 * (usual**-2 - 1.0))

    def _evidence(self, rank: float) -> str:
        """The sentence, with the circular shift that explains it where there is one."""
        day, bins = self._day, len(self._day)
        told = np.where(np.isfinite(day.roots), day.roots, np.nanmean(day.roots))
        shifted = [correlation(told, np.roll(day.usual, shift)) for shift in range(bins)]
        best = int(np.argmax(shifted))
        text = evidence.season(rank, day.reference.shape)
        if shifted[best] > max(0.5, rank + SHAPE_LOSS):
            text += evidence.moved(day.seconds(best - bins * (best > bins // 2)) / 3600, shifted[best])
        return text


class Variance:
    """The noise of the newest day against what it was: ``base``, measured when the level stood at ``gain``."""

    __slots__ = ("_active", "_base", "_day", "_dwell", "_gain")

    def __init__(self, day: Day) -> None:
        self._day, self._base, self._gain = day, day.reference.noise, 1.0
        self._dwell, self._active = 0, False

    def forget(self) -> None:
        """Drop every suspicion."""
        self._dwell = 0

    def test(self, number: int, quiet: bool) -> Drift | None:
        """Whether the noise was another for a quarter of a day, beyond what the level explains."""
        change, level = self._change(), self._level()
        if quiet and self._active:  # the day that is measured becomes all new only now
            self._base *= math.exp(change)
            self._gain *= level
            return None
        self._active = False
        self._dwell = self._dwell + 1 if self._excess(change, level) > self._limit() else 0
        if self._dwell < len(self._day) // 4 or quiet:
            return None
        since = self._day.seconds(number + 1 - self._dwell - len(self._day) // 2)
        self._active, self._dwell = True, 0
        text = evidence.variance(change)
        return Drift(self._day.reference.series, "variance", math.expm1(change), since, text)

    def _change(self) -> float:
        """The log ratio of the noise to what it was."""
        return self._day.noise_log - math.log(self._base / self._day.reference.noise)

    def _level(self) -> float:
        """The ratio of the level to what it was when noise was measured, in square roots."""
        newest = max(float(masked_mean(self._day.roots)), math.sqrt(FAINT))
        return newest / (self._gain * float(self._day.usual.mean()))

    @staticmethod
    def _excess(change: float, level: float) -> float:
        """How far the noise moved beyond the level: noise in proportion to that is none of its own."""
        return max(0.0, abs(change) - abs(math.log(level)))

    def _limit(self) -> float:
        return min(max(LEAST_VARIANCE, BEYOND * self._day.reference.noisiest), MOST_MOVE)
