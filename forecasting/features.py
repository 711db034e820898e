"""What the learned models are told about a window. Pure arrays; the same code serves training and forecasting.

What a model is told matters more than what it is: recent values and their means and medians, and what came around the
same time yesterday, last week and an hour ago. Everything is relative to the window's own level and scale, so one
model serves series of any size.

Shapes: N windows, H steps ahead, S figures about the window, A figures about each step ahead, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forecasting.batch import Batch
from forecasting.series import FloatArray, fill_forward, masked_mean

RECENT = 480
"""Values that recent figures are taken from."""

AROUND = 15
"""Steps before and after a target that means over earlier seasons may reach."""

WINDOW = 48
"""Values that a recurrent network reads one by one."""

LEVEL = 32
"""Values whose mean is the window's scale, and the level that earlier seasons are adjusted to."""

TINY = 1e-9
"""No scale is smaller: a series of zeros has figures, too."""

LAGS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 18, 24)
MEANS = (3, 6, 12, 24, 48, 96, 192)
MEDIANS = (5, 12, 24, 48, 96)
THEN = (1, 6, 24)
SPREADS = (8, 32, 128)
DAYS = (1, 2, 3)
DAY_WIDTHS = (1, 5, 15, 31)
WEEK_WIDTHS = (1, 5, 31)
HOUR_WIDTHS = (1, 3)

DAY_SECONDS, HOUR_SECONDS, WEEK_SECONDS = 86_400, 3_600, 7 * 86_400

SHARED = (
    *(f"lag {n}" for n in LAGS),
    *(f"mean of {n}" for n in MEANS),
    *(f"median of {n}" for n in MEDIANS),
    *(f"mean of {n} yesterday" for n in THEN),
    *(f"restlessness of {n}" for n in SPREADS),
    "level against the long mean",
)
AHEAD = (
    *(f"{d} days before, width {w}" for d in DAYS for w in DAY_WIDTHS),
    *(f"a week before, width {w}" for w in WEEK_WIDTHS),
    *(f"an hour before, width {w}" for w in HOUR_WIDTHS),
    "time of day",
    "time of hour",
    "day of week",
)
CLOCK = 3
"""The last columns of ``AHEAD`` are clock times, not values."""

S, A = len(SHARED), len(AHEAD)

OTHERWISE = 24
"""Values whose mean stands in for a season that is unknown."""

SEASONAL = 2 * len(DAY_WIDTHS) + 1 + 2
"""The last candidates are earlier seasons at today's level."""

CANDIDATES = 1 + len(MEANS) + len(MEDIANS) + SEASONAL

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Features:
    """``shared (N, S)``, ``ahead (N, H, A)``, ``candidates (N, H, K)``: all ``(value - last) / scale``, NaN = unknown
    (a candidate that is unknown is the mean of 24).

    ``recent`` and ``yesterday (N, WINDOW)``: the newest values (gaps filled) and the same steps a season ago (NaN =
    unknown), raw. ``value = last + scale * figure``; ``last`` and ``scale`` are ``(N,)``.
    """

    shared: Float32Array
    ahead: Float32Array
    candidates: Float32Array
    recent: FloatArray
    yesterday: FloatArray
    last: FloatArray
    scale: FloatArray


def features(batch: Batch) -> Features:
    """Everything that is told about the windows; worked out once per batch."""
    if "features" not in batch.memo:
        batch.memo["features"] = _features(batch)
    found: Features = batch.memo["features"]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Seasons:
    """What came in earlier seasons, raw: ``day`` and ``week (N, WINDOW + H + AROUND)`` start ``WINDOW`` steps before
    the origin, one and seven seasons ago; ``around`` (one per day of ``DAYS``) and ``weekly (N, H, widths)`` are means
    around each target.
    """

    day: FloatArray
    week: FloatArray
    around: Sequence[FloatArray]
    weekly: FloatArray


def newest(batch: Batch) -> FloatArray:
    """The newest ``RECENT`` values of every window ``(N, RECENT)``: a view, do not write to it."""
    return batch.newest(RECENT)


def _features(batch: Batch) -> Features:
    raw = newest(batch)
    scale, recent = scales(raw), fill_forward(raw, np.nan_to_num(masked_mean(raw)))
    last, seasons = recent[:, -1], _seasons(batch)
    ahead = np.concatenate([*seasons.around, seasons.weekly, _hour(batch, raw)], axis=2)
    return Features(
        _shared(recent, seasons, scale).astype(np.float32),
        np.concatenate([_relative(ahead, last, scale), _clock(batch)], axis=2).astype(np.float32),
        _relative(_candidates(recent, seasons), last, scale).astype(np.float32),
        recent[:, -WINDOW:],
        seasons.day[:, :WINDOW],
        last,
        scale,
    )


def _seasons(batch: Batch) -> _Seasons:
    reach = batch.horizon + AROUND
    days = [batch.seasons_ago(ago, -WINDOW, reach) for ago in DAYS]
    week = batch.seasons_ago(7, -WINDOW, reach)
    around = [_centred(day, DAY_WIDTHS, batch.horizon) for day in days]
    return _Seasons(days[0], week, around, _centred(week, WEEK_WIDTHS, batch.horizon))


def _shared(recent: FloatArray, seasons: _Seasons, scale: FloatArray) -> FloatArray:
    """Figures about the window, ``(N, S)`` in the order of ``SHARED``."""
    lags = recent[:, [-n for n in LAGS]]
    level = np.concatenate([lags, _means(recent), _medians(recent), _then(seasons.day)], axis=1)
    long = np.log(scale / np.maximum(recent.mean(axis=1), TINY))[:, None]
    spreads = _spreads(recent) / scale[:, None]
    return np.concatenate([_relative(level, recent[:, -1], scale), spreads, np.clip(long, -5.0, 5.0)], axis=1)


def _relative(values: FloatArray, last: FloatArray, scale: FloatArray) -> FloatArray:
    """``(value - last) / scale`` for ``values (N, ...)``."""
    shape = (-1,) + (1,) * (values.ndim - 1)
    return np.asarray((values - last.reshape(shape)) / scale.reshape(shape))


def scales(raw: FloatArray) -> FloatArray:
    """``(N,)``: the mean of the newest values, kept above a twentieth of the longer mean so that a lull divides nothing
    by 0.
    """
    near = np.nan_to_num(masked_mean(raw[:, -LEVEL:]))
    far = np.nan_to_num(masked_mean(raw))
    return np.maximum(np.maximum(near, 0.05 * far), TINY)


def _means(recent: FloatArray) -> FloatArray:
    """Means of the newest values, ``(N, len(MEANS))``."""
    total = np.cumsum(recent[:, ::-1], axis=1)
    return np.asarray(total[:, [n - 1 for n in MEANS]] / np.array(MEANS))


def _medians(recent: FloatArray) -> FloatArray:
    """Medians of the newest values, ``(N, len(MEDIANS))``."""
    return np.stack([np.median(recent[:, -n:], axis=1) for n in MEDIANS], axis=1)


def _spreads(recent: FloatArray) -> FloatArray:
    """Mean absolute differences of the newest values, ``(N, len(SPREADS))``."""
    total = np.cumsum(np.abs(np.diff(recent[:, -max(SPREADS) - 1 :], axis=1))[:, ::-1], axis=1)
    return np.asarray(total[:, [n - 1 for n in SPREADS]] / np.array(SPREADS))


def _then(day: FloatArray) -> FloatArray:
    """Means of the values before the origin, a day ago: ``(N, len(THEN))``."""
    before = day[:, :WINDOW]
    return np.stack([masked_mean(before[:, -n:]) for n in THEN], axis=1)


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


def _hour(batch: Batch, raw: FloatArray) -> FloatArray:
    """Means around the same time an hour ago, ``(N, H, len(HOUR_WIDTHS))``; NaN where ``_hour_steps`` is 0."""
    told = np.full((len(batch), batch.horizon, len(HOUR_WIDTHS)), np.nan)
    hours = np.array([_hour_steps(one.step, one.season) for one in batch.series], dtype=np.int64)[batch.owner]
    for hour in np.unique(hours[hours > 0]):
        rows = hours == hour
        back = raw[rows, RECENT - hour - 1 :]  # from an hour ago on
        for number, width in enumerate(HOUR_WIDTHS):
            told[rows, :, number] = _back(back, width, batch.horizon)
    return told


def _hour_steps(step: float, season: int) -> int:
    """Steps in an hour; 0 where it has fewer than 4 or more than ``RECENT``, and where days are not real."""
    hour = round(HOUR_SECONDS / step)
    return hour if 4 <= hour < RECENT - 1 and real_days(step, season) else 0


def _back(back: FloatArray, width: int, horizon: int) -> FloatArray:
    """Means of ``width`` values around each target's time an hour ago, ``(N, H)``: column 1 of ``back`` is the first's.

    Values that have not come yet (a target more than an hour ahead) are NaN and do not count.
    """
    padded = np.pad(back, ((0, 0), (0, horizon + width)), constant_values=np.nan)
    first = 1 - width // 2
    parts = np.stack([padded[:, first + n : first + n + horizon] for n in range(width)], axis=2)
    return masked_mean(parts)


def real_days(step: float, season: int) -> bool:
    """Whether a season is a day by the clock (a replay at a higher speed has shorter ones)."""
    return abs(step * season - DAY_SECONDS) < 1e-6


def _clock(batch: Batch) -> FloatArray:
    """Time of day, of the hour, and day of the week of every step ahead, each in 0 to 1: ``(N, H, CLOCK)``.

    NaN where days are not real.
    """
    real = np.abs(batch.step * batch.season - DAY_SECONDS) < 1e-6
    time = batch.first_ahead[:, None] + batch.step[:, None] * np.arange(batch.horizon)
    parts = (
        time % DAY_SECONDS / DAY_SECONDS,
        time % HOUR_SECONDS / HOUR_SECONDS,
        np.floor(time % WEEK_SECONDS / DAY_SECONDS) / 7.0,
    )
    return np.where(real[:, None, None], np.stack(parts, axis=2), np.nan)


def _candidates(recent: FloatArray, seasons: _Seasons) -> FloatArray:
    """Simple forecasts that a network may mix, ``(N, H, CANDIDATES)``: recent means and medians, and seasons at today's
    level. A season that is unknown is the mean of ``OTHERWISE`` values.
    """
    means = _means(recent)
    simple = np.concatenate([recent[:, -1:], means, _medians(recent)], axis=1)
    seasonal = _adjusted(recent[:, -LEVEL:].mean(axis=1), seasons)
    otherwise = means[:, MEANS.index(OTHERWISE), None, None]
    seasonal = np.where(np.isfinite(seasonal), np.maximum(seasonal, 0.0), otherwise)
    return np.concatenate([np.repeat(simple[:, None, :], seasonal.shape[1], axis=1), seasonal], axis=2)


def _adjusted(now: FloatArray, seasons: _Seasons) -> FloatArray:
    """Seasons at the level ``now (N,)``: yesterday by ratio, and by difference; the mean of all days, and the last
    week, by ratio. ``(N, H, 2 * len(DAY_WIDTHS) + 1 + 2)``, NaN where unknown.
    """
    ratio, gap = _adjustments(now, masked_mean(seasons.day[:, WINDOW - LEVEL : WINDOW]))
    weeks, _ = _adjustments(now, masked_mean(seasons.week[:, WINDOW - LEVEL : WINDOW]))
    yesterday = seasons.around[0]
    average = masked_mean(np.stack([day[:, :, -2] for day in seasons.around], axis=2))
    parts = (
        yesterday * ratio[:, None, None],
        yesterday + gap[:, None, None],
        (average * ratio[:, None])[:, :, None],
        seasons.weekly[:, :, 1:] * weeks[:, None, None],
    )
    return np.concatenate(parts, axis=2)


def _adjustments(now: FloatArray, then: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How today's level differs from that of the same steps then, ``(N,)`` each: the ratio (within a factor of 4, so
    that a dead night multiplies nothing) and the difference.
    """
    ratio = np.clip((now + 1e-12) / (np.nan_to_num(then, nan=1.0) + 1e-12), 0.25, 4.0)
    return np.where(np.isfinite(then), ratio, np.nan), now - then
