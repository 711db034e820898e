"""The newest day of a series in blocks, taken in piece by piece: what every test of a detector looks at."""

from __future__ import annotations

import math

import numpy as np

from forecasting.drift.references import Reference
from forecasting.drift.statistics import NEGLIGIBLE, block_means, median, noise
from forecasting.series import FloatArray, Series, clean

NEVER_SILENT = 0.01
"""Where fewer blocks than this share were nothing but zeros, zeros are missing telemetry."""


class Day:
    """The newest ``B`` blocks, block ``n`` at ``n % B``, and the values of the block that is still open.

    ``usual``, ``roots``, ``noise`` and ``known (B,)``: the reference's square roots of rates; the newest ones; the
    noise within each block; the share of its values that were there. ``noise_log``: the log ratio of the newest day's
    noise to the reference, 0 while less than half a day is known.
    """

    __slots__ = ("_next", "_open", "known", "noise", "noise_log", "reference", "roots", "usual")

    def __init__(self, reference: Reference) -> None:
        bins = len(reference.profile)
        self.reference, self.usual = reference, reference.usual
        self.roots, self.noise = np.full(bins, np.nan), np.full(bins, np.nan)
        self.known = np.full(bins, reference.known)
        self.noise_log = 0.0
        self._open = np.empty(0)  # the value before the open block, and the block's values so far
        self._next: int | None = None  # the number of the next step

    def __len__(self) -> int:
        return len(self.usual)

    def complete(self, newest: Series) -> list[tuple[int, FloatArray]]:
        """Blocks that are complete now: their number, and their values with the one before in front.

        ``newest`` is a whole history or its end: what was seen before is skipped, what lies between is missing.
        """
        width, last = self.reference.width, newest.first + len(newest.values)
        begin = self._begin(newest)
        if last <= begin:
            return []
        gap = np.full(max(0, newest.first - begin), np.nan)
        fresh = clean(newest.values[max(0, begin - newest.first) :])
        row = np.concatenate([self._open, gap, fresh])
        first, count = last - (len(row) - 1), (len(row) - 1) // width
        self._open, self._next = row[count * width :].copy(), last
        return [(first // width + n, row[n * width : (n + 1) * width + 1]) for n in range(count)]

    def _begin(self, newest: Series) -> int:
        """The number of the step to go on from. A silence of more than two days says no more than one of two days."""
        begin, season = self._next, self.reference.season
        if begin is not None and newest.first - begin <= 2 * season:
            return begin
        begin = newest.first if begin is None else newest.first - 2 * season
        self._open = np.array([np.nan])
        return begin + -begin % self.reference.width

    def store(self, number: int, values: FloatArray) -> None:
        """Take in block ``number``, which is complete: ``values (1 + width,)`` with the one before in front."""
        place, block = number % len(self), values[1:]
        self.roots[place] = math.sqrt(block_means(block[None])[0])
        before = self.usual[[place - 1] + [place] * len(block)]
        self.noise[place] = noise(values, before, len(values))[0]
        self.known[place] = np.isfinite(block).mean()
        if self.roots[place] == 0.0 and self.usual[place] > 0.0 and self.reference.silent < NEVER_SILENT:
            # Nothing but zeros where there never were any: the requests are not counted, or do not reach the mesh.
            self.roots[place] = self.noise[place] = np.nan
            self.known[place] = 0.0
        self.noise_log = self._noise_log()

    def _noise_log(self) -> float:
        if np.isfinite(self.noise).mean() < 0.5:
            return 0.0
        least = NEGLIGIBLE * math.sqrt(self.reference.level)
        return math.log(max(median(self.noise), least) / self.reference.noise)

    def hears(self, number: int) -> bool:
        """Whether block ``number`` of the newest day is known."""
        return bool(np.isfinite(self.roots[number % len(self)]))

    def seconds(self, blocks: int) -> float:
        """How long so many blocks are; of a block's number, its begin since the epoch."""
        return blocks * self.reference.width * self.reference.step
