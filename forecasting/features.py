"""What the learned models are told about a window. Pure arrays; the same code serves training and forecasting.

What a model is told matters more than what it is: recent values and their means and medians, and what came around the
same time yesterday, last week and an hour ago. Everything is relative to the window's own level and scale, so one
model serves series of any size.

Shapes: N windows, H steps ahead, S figures about the window, A figures about each step ahead, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forecasting.batch import Batch
from forecasting.seasons import (
    ADJUSTED,
    BASES,
    DAY_WIDTHS,
    DAYS,
    EARLIER,
    LEVEL,
    MIXED,
    MOVED_WIDTHS,
    WEEK_WIDTHS,
    WINDOW,
    Seasons,
    adjusted,
    compared,
    means_before,
    seasons,
)
from forecasting.series import FloatArray, fill_forward, masked_mean

RECENT = 480
"""Values that recent figures are taken from."""

TINY = 1e-9
"""No scale is smaller: a series of zeros has figures, too."""

LAGS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 18, 24)
MEANS = (3, 6, 12, 24, 48, 96, 192)
MEDIANS = (5, 12, 24, 48, 96)
THEN = (1, 6, 24)
SPREADS = (8, 32, 128)
HOUR_WIDTHS = (1, 3)

DAY_SECONDS, HOUR_SECONDS, WEEK_SECONDS = 86_400, 3_600, 7 * 86_400

_BEFORE = tuple(f"mean of {n} yesterday" for n in THEN)
_ABOVE = tuple(f"mean of {n} above {season}" for season in EARLIER for n in BASES)
_AROUND = (
    *(f"{d} days before, width {w}" for d in DAYS for w in DAY_WIDTHS),
    *(f"a week before, width {w}" for w in WEEK_WIDTHS),
)
_MOVED = tuple(f"mean of {n} moved like {season}, width {w}" for season in EARLIER for n in BASES for w in MOVED_WIDTHS)

SEASONAL = frozenset((*_BEFORE, *_ABOVE, *_AROUND, *_MOVED))
"""Figures that a series without a yesterday does not have."""

SHARED = (
    *(f"lag {n}" for n in LAGS),
    *(f"mean of {n}" for n in MEANS),
    *(f"median of {n}" for n in MEDIANS),
    *_BEFORE,
    *(f"restlessness of {n}" for n in SPREADS),
    "level against the long mean",
    *_ABOVE,
)
AHEAD = (
    *_AROUND,
    *(f"an hour before, width {w}" for w in HOUR_WIDTHS),
    *_MOVED,
    "time of day",
    "time of hour",
    "day of week",
)
CLOCK = 3
"""The last columns of ``AHEAD`` are clock times, not values."""

S, A = len(SHARED), len(AHEAD)

OTHERWISE = 24
"""Values whose mean stands in for a season that is unknown."""

SIMPLE = 1 + len(MEANS) + len(MEDIANS)
"""Candidates before this one need no season."""

CANDIDATES = SIMPLE + len(MIXED) + ADJUSTED

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


def newest(batch: Batch) -> FloatArray:
    """The newest ``RECENT`` values of every window ``(N, RECENT)``: a view, do not write to it."""
    return batch.newest(RECENT)


def _features(batch: Batch) -> Features:
    raw = newest(batch)
    scale, recent = scales(raw), fill_forward(raw, np.nan_to_num(masked_mean(raw)))
    last, past = recent[:, -1], seasons(batch)
    above, shifted = compared(recent, past)
    ahead = np.concatenate([*past.around, past.weekly, _hour(batch, raw), shifted], axis=2)
    return Features(
        _shared(recent, past, above, scale).astype(np.float32),
        np.concatenate([_relative(ahead, last, scale), _clock(batch)], axis=2).astype(np.float32),
        _relative(_candidates(recent, past, shifted), last, scale).astype(np.float32),
        recent[:, -WINDOW:],
        past.day[:, :WINDOW],
        last,
        scale,
    )


def _shared(recent: FloatArray, past: Seasons, above: FloatArray, scale: FloatArray) -> FloatArray:
    """Figures about the window, ``(N, S)`` in the order of ``SHARED``; ``above (N, ...)`` earlier seasons."""
    lags = recent[:, [-n for n in LAGS]]
    level = np.concatenate([lags, _means(recent), _medians(recent), means_before(past.day, THEN)], axis=1)
    long = np.log(scale / np.maximum(recent.mean(axis=1), TINY))[:, None]
    spreads, extra = _spreads(recent) / scale[:, None], above / scale[:, None]
    return np.concatenate([_relative(level, recent[:, -1], scale), spreads, np.clip(long, -5.0, 5.0), extra], axis=1)


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


def _candidates(recent: FloatArray, past: Seasons, shifted: FloatArray) -> FloatArray:
    """Simple forecasts that a network may mix, ``(N, H, CANDIDATES)``: recent means and medians; some of the means
    ``shifted`` like earlier seasons, ``(N, H, MOVED)``; seasons at today's level. What is unknown is the mean of
    ``OTHERWISE`` values.
    """
    means = _means(recent)
    simple = np.concatenate([recent[:, -1:], means, _medians(recent)], axis=1)
    seasonal = np.concatenate([shifted[:, :, MIXED], adjusted(recent, past)], axis=2)
    otherwise = means[:, MEANS.index(OTHERWISE), None, None]
    seasonal = np.where(np.isfinite(seasonal), np.maximum(seasonal, 0.0), otherwise)
    return np.concatenate([np.repeat(simple[:, None, :], seasonal.shape[1], axis=1), seasonal], axis=2)
