"""What earlier seasons say about a window: what came around the same time, and how the series went on from there. Pure
arrays.

Three earlier seasons are told apart (``EARLIER``): yesterday, a week ago, and the mean of the last days. They are used
in three ways: as they were; adjusted to today's level (``adjusted``); and as a change, applied to what came last
(``compared``): a seasonal random walk (Box & Jenkins 1970), which no tree can work out from values alone.

Shapes: N windows, H steps ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forecasting.batch import Batch
from forecasting.series import FloatArray, masked_mean

WINDOW = 48
"""Values that a recurrent network reads one by one; seasons begin as many steps before the origin."""

LEVEL = 32
"""Values whose mean is the window's scale, and the level that earlier seasons are adjusted to."""

AROUND = 15
"""Steps before and after a target that means over earlier seasons may reach."""

DAYS = (1, 2, 3)
DAY_WIDTHS = (1, 5, 15, 31)
WEEK_WIDTHS = (1, 5, 31)

EARLIER = ("yesterday", "a week ago", "the last days")
BASES = (1, 3, 12)
"""Newest values whose mean is compared with earlier seasons, and moved like them."""

MOVED_WIDTHS = (1, 5)
"""Values around the target that a move leads to."""

MOVED = len(EARLIER) * len(BASES) * len(MOVED_WIDTHS)

MIXED = tuple(len(BASES) * len(MOVED_WIDTHS) * season + place for season in range(len(EARLIER)) for place in (0, 3))
"""Of the moved means, those that a network may mix: the newest value to a single one, and that of 3 to that of 5. All
of them were too much alike: with them it erred more, on short histories above all.
"""

ADJUSTED = 2 * len(DAY_WIDTHS) + 1 + (len(WEEK_WIDTHS) - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Earlier:
    """One earlier season, raw, NaN = unknown: the ``level (N,)`` of the ``LEVEL`` values before the origin then,
    ``then (N, len(BASES))``, means of the newest of those, and ``target (N, H, len(MOVED_WIDTHS))``, means around each
    target.
    """

    level: FloatArray
    then: FloatArray
    target: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Seasons:
    """What came in earlier seasons, raw: ``day (N, WINDOW + H + AROUND)`` starts ``WINDOW`` steps before the origin, a
    season ago; ``around`` (one per day of ``DAYS``) and ``weekly (N, H, widths)`` are means around each target;
    ``earlier`` in the order of ``EARLIER``.
    """

    day: FloatArray
    around: Sequence[FloatArray]
    weekly: FloatArray
    earlier: Sequence[Earlier]


def seasons(batch: Batch) -> Seasons:
    """What is known about earlier seasons of every window."""
    reach = batch.horizon + AROUND
    days = [batch.seasons_ago(ago, -WINDOW, reach) for ago in DAYS]
    week = batch.seasons_ago(7, -WINDOW, reach)
    around = [_centred(day, DAY_WIDTHS, batch.horizon) for day in days]
    weekly = _centred(week, WEEK_WIDTHS, batch.horizon)
    parts = [_earlier(day, each, DAY_WIDTHS) for day, each in zip(days, around, strict=True)]
    return Seasons(days[0], around, weekly, (parts[0], _earlier(week, weekly, WEEK_WIDTHS), _mean(parts)))


def _earlier(block: FloatArray, around: FloatArray, widths: Sequence[int]) -> Earlier:
    level = masked_mean(block[:, WINDOW - LEVEL : WINDOW])
    return Earlier(level, means_before(block, BASES), around[:, :, [widths.index(w) for w in MOVED_WIDTHS]])


def means_before(block: FloatArray, lengths: Sequence[int]) -> FloatArray:
    """Means of the newest values before the origin then: ``block (N, WINDOW or more)`` gives ``(N, len(lengths))``."""
    return np.stack([masked_mean(block[:, WINDOW - n : WINDOW]) for n in lengths], axis=1)


def _mean(parts: Sequence[Earlier]) -> Earlier:
    """The mean of several seasons; those that are unknown do not count."""
    level, then, target = (
        masked_mean(np.stack([getattr(part, name) for part in parts]), axis=0) for name in Earlier.__slots__
    )
    return Earlier(level, then, target)


def _centred(block: FloatArray, widths: Sequence[int], horizon: int) -> FloatArray:
    """Means around each target: ``block (N, WINDOW + H + AROUND)`` gives ``(N, H, widths)``. Unknown values do
    not count.
    """
    known = np.isfinite(block)
    sums = np.cumsum(np.pad(np.where(known, block, 0.0), ((0, 0), (1, 0))), axis=1)
    counts = np.cumsum(np.pad(known, ((0, 0), (1, 0))), axis=1)
    result = np.empty((len(block), horizon, len(widths)))
    for number, width in enumerate(widths):
        first = WINDOW - width // 2
        low, high = slice(first, first + horizon), slice(first + width, first + width + horizon)
        count = counts[:, high] - counts[:, low]
        mean = np.maximum(sums[:, high] - sums[:, low], 0.0) / np.maximum(count, 1)
        result[:, :, number] = np.where(count > 0, mean, np.nan)
    return result


def compared(recent: FloatArray, past: Seasons) -> tuple[FloatArray, FloatArray]:
    """The newest means beside each earlier season at today's level: how far they lie above it, ``(N, len(EARLIER) *
    len(BASES))``; and where they come to if they move like it from there to the target, ``(N, H, MOVED)``. NaN where
    unknown. ``recent (N, W)``: the newest values, without gaps.
    """
    bases = np.stack([recent[:, -n:].mean(axis=1) for n in BASES], axis=1)
    level, above, moved = recent[:, -LEVEL:].mean(axis=1), [], []
    for season in past.earlier:
        ratio, _ = _adjustments(level, season.level)
        above.append(bases - ratio[:, None] * season.then)
        change = season.target[:, :, None, :] - season.then[:, None, :, None]  # (N, H, bases, widths)
        moved.append(bases[:, None, :, None] + ratio[:, None, None, None] * change)
    return np.concatenate(above, axis=1), np.stack(moved, axis=2).reshape(*past.weekly.shape[:2], MOVED)


def adjusted(recent: FloatArray, past: Seasons) -> FloatArray:
    """Seasons at today's level: yesterday by ratio, and by difference; the mean of all days, and the last week, by
    ratio. ``(N, H, ADJUSTED)``, NaN where unknown.
    """
    now, (yesterday, week, _) = recent[:, -LEVEL:].mean(axis=1), past.earlier
    ratio, gap = _adjustments(now, yesterday.level)
    weeks, _ = _adjustments(now, week.level)
    average = masked_mean(np.stack([day[:, :, -2] for day in past.around], axis=2))
    parts = (
        past.around[0] * ratio[:, None, None],
        past.around[0] + gap[:, None, None],
        (average * ratio[:, None])[:, :, None],
        past.weekly[:, :, 1:] * weeks[:, None, None],
    )
    return np.concatenate(parts, axis=2)


def _adjustments(now: FloatArray, then: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How today's level differs from that of the same steps then, ``(N,)`` each: the ratio (within a factor of 4, so
    that a dead night multiplies nothing) and the difference.
    """
    ratio = np.clip((now + 1e-12) / (np.nan_to_num(then, nan=1.0) + 1e-12), 0.25, 4.0)
    return np.where(np.isfinite(then), ratio, np.nan), now - then
