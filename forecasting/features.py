"""What the network is told about a series at an origin. Pure arrays; the same code serves training and forecasting.

An *origin* ``t`` is a number of values: everything before index ``t`` is known, index ``t`` is the first step ahead. Every
look-up is masked to indices below ``t``, so a window cut from a longer history equals one from a history that ends there.

Shapes: B windows, W steps back, H steps ahead, P steps around a target. Everything is relative to the window's own
scale (the mean of its newest 32 values) and log1p-compressed, so one network serves series of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from forecasting.series import BoolArray, FloatArray, IntArray, Series, clean, fill_forward, masked_mean

AROUND = 15
"""P: steps before and after a target that yesterday's and last week's means may reach."""

SPANS = (1, 2, 4, 8, 16, 32)
"""Recent means that the forecast is mixed from."""

DAY_WIDTHS = (1, 5, 15, 31)
WEEK_WIDTHS = (5, 31)
"""Centred widths of the means around the same time yesterday and last week."""

LOUDEST = 6.0
"""Compressed values are cut here: e^6 = 400 times the window's own scale."""

CHANNELS = 6
SUMMARY = len(SPANS) + 7
AHEAD = 2 * (len(DAY_WIDTHS) + len(WEEK_WIDTHS)) + 2
CANDIDATES = len(SPANS) + len(DAY_WIDTHS) + len(WEEK_WIDTHS)

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Raw values around origins: ``recent (B, W)``, ``day`` and ``week (B, W+H+2P)`` one season and seven earlier.

    ``phase (B,)`` is the time of day of the first step ahead, ``pace (B,)`` one step, both as fractions of a day.
    """

    recent: FloatArray
    day: FloatArray
    week: FloatArray
    phase: FloatArray
    pace: FloatArray


@dataclass(frozen=True, slots=True)
class Features:
    """``recent (B, W, CHANNELS)``, ``summary (B, SUMMARY)``, ``ahead (B, H, AHEAD)``, ``candidates (B, H, CANDIDATES)``.

    ``scale (B,)`` turns compressed values back: ``value = scale * expm1(z)``. ``noise (B,)`` is how restless the window is.
    """

    recent: Float32Array
    summary: Float32Array
    ahead: Float32Array
    candidates: Float32Array
    noise: Float32Array
    scale: FloatArray


def blocks(series: Series, origins: IntArray, window: int, horizon: int) -> Blocks:
    """Look up (and clean) what surrounds ``origins`` (B,) in ``series``."""
    values, season = series.values, max(1, series.season)
    back = np.arange(-window, 0)
    near = np.arange(-window - AROUND, horizon + AROUND)
    return Blocks(
        known_at(values, origins, back),
        known_at(values, origins, near - season),
        known_at(values, origins, near - 7 * season),
        ((series.first + origins) % season) / season,
        np.full(len(origins), 1.0 / season),
    )


def joined(parts: Sequence[Blocks]) -> Blocks:
    """Many series' blocks as one."""
    return Blocks(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Blocks)))


def known_at(values: FloatArray, origins: IntArray, offsets: IntArray) -> FloatArray:
    """``values[origin + offset]`` where that lies in the past of the origin, else NaN: ``(B, len(offsets))``."""
    index = origins[:, None] + offsets
    inside = (index >= 0) & (index < np.minimum(origins, len(values))[:, None])
    if len(values) == 0:
        return np.full(index.shape, np.nan)
    return clean(np.where(inside, values[np.clip(index, 0, len(values) - 1)], np.nan))


def features(raw: Blocks, horizon: int) -> Features:
    """Turn raw blocks into what the network reads."""
    window = raw.recent.shape[1]
    scale = scales(raw)
    recent = fill_forward(raw.recent, scale)
    means = np.stack([recent[:, -span:].mean(axis=1) for span in SPANS], axis=1)  # (B, spans)
    day, day_known = seasonal(raw.day, recent, window, horizon, DAY_WIDTHS)
    week, week_known = seasonal(raw.week, recent, window, horizon, WEEK_WIDTHS)
    z = compress(recent, scale)
    noise = np.abs(np.diff(z[:, -32:], axis=1)).mean(axis=1)
    return Features(
        _recent(z, raw, scale, window),
        _summary(z, means, scale, noise, raw, day_known, week_known),
        _ahead(raw, day, week, scale, means, horizon),
        _candidates(means, day, week, scale, horizon),
        noise.astype(np.float32),
        scale,
    )


def scales(raw: Blocks) -> FloatArray:
    """``(B,)``: the mean of the newest 32 values, kept above a twentieth of the longer mean so that a lull divides nothing by 0."""
    near = np.nan_to_num(masked_mean(raw.recent[:, -32:]))
    far = np.nan_to_num(masked_mean(np.concatenate([raw.recent, raw.day], axis=1)))
    return np.maximum(np.maximum(near, 0.05 * far), 1e-9)


def compress(values: FloatArray, scale: FloatArray) -> FloatArray:
    """``log1p(values / scale)``, cut at ``LOUDEST``; ``scale (B,)`` goes with the first axis."""
    shape = (len(scale),) + (1,) * (values.ndim - 1)
    return np.minimum(np.log1p(values / scale.reshape(shape)), LOUDEST)


def seasonal(
    block: FloatArray, recent: FloatArray, window: int, horizon: int, widths: Sequence[int]
) -> tuple[FloatArray, BoolArray]:
    """Means around the targets one or seven seasons ago, raw and adjusted to today's level: ``(B, H, 2 * widths)``, NaN = unknown.

    The adjustment is the ratio of the newest 32 values to the same steps then, within a factor of 4.
    """
    then = masked_mean(block[:, AROUND : AROUND + window][:, -32:])
    now = recent[:, -32:].mean(axis=1)
    ratio = np.clip((now + 1e-12) / (np.nan_to_num(then, nan=1.0) + 1e-12), 0.25, 4.0)
    raw = np.stack([_centred(block[:, window:], width, horizon) for width in widths], axis=2)  # (B, H, widths)
    raw = np.where(np.isfinite(then)[:, None, None], raw, np.nan)
    return np.concatenate([raw, raw * ratio[:, None, None]], axis=2), np.isfinite(raw[:, :, -1]).any(axis=1)


def _centred(block: FloatArray, width: int, horizon: int) -> FloatArray:
    """Means of ``width`` values around each target; ``block (B, H + 2P)`` gives ``(B, H)``. Unknown values do not count."""
    first = AROUND - width // 2
    known = np.isfinite(block)
    sums = np.cumsum(np.pad(np.where(known, block, 0.0), ((0, 0), (1, 0))), axis=1)
    counts = np.cumsum(np.pad(known, ((0, 0), (1, 0))), axis=1)
    low, high = slice(first, first + horizon), slice(first + width, first + width + horizon)
    total, count = sums[:, high] - sums[:, low], counts[:, high] - counts[:, low]
    return np.where(count > 0, np.maximum(total, 0.0) / np.maximum(count, 1), np.nan)


def _recent(z: FloatArray, raw: Blocks, scale: FloatArray, window: int) -> Float32Array:
    then = raw.day[:, AROUND : AROUND + window]
    known = np.isfinite(then)
    yesterday = np.where(known, compress(np.nan_to_num(then), scale) - np.log(2.0), 0.0)
    steps = np.diff(z, axis=1, prepend=z[:, :1])
    channels = (z - np.log(2.0), z - z[:, -1:], steps, np.isfinite(raw.recent), yesterday, known)
    return np.stack(channels, axis=2).astype(np.float32)


def _summary(
    z: FloatArray,
    means: FloatArray,
    scale: FloatArray,
    noise: FloatArray,
    raw: Blocks,
    day_known: BoolArray,
    week_known: BoolArray,
) -> Float32Array:
    angle = 2 * np.pi * raw.phase
    single = (
        np.sin(angle),
        np.cos(angle),
        day_known,
        week_known,
        np.isfinite(raw.recent).mean(axis=1),
        noise,
        np.abs(z[:, -1] - z[:, -4:].mean(axis=1)),
    )
    levels = compress(means, scale) - z[:, -8:].mean(axis=1, keepdims=True)
    return np.concatenate([levels, np.stack(single, axis=1)], axis=1).astype(np.float32)


def _ahead(
    raw: Blocks, day: FloatArray, week: FloatArray, scale: FloatArray, means: FloatArray, horizon: int
) -> Float32Array:
    angle = 2 * np.pi * (raw.phase[:, None] + np.arange(horizon) * raw.pace[:, None])
    both = np.concatenate([day, week], axis=2)
    level = compress(means[:, 3], scale)[:, None, None]
    told = np.where(np.isfinite(both), compress(np.nan_to_num(both), scale) - level, 0.0)
    return np.concatenate([told, np.sin(angle)[:, :, None], np.cos(angle)[:, :, None]], axis=2).astype(np.float32)


def _candidates(means: FloatArray, day: FloatArray, week: FloatArray, scale: FloatArray, horizon: int) -> Float32Array:
    """Recent means and the adjusted seasonal means; an unknown one is replaced by the mean of 16 steps."""
    adjusted = np.concatenate([day[:, :, len(DAY_WIDTHS) :], week[:, :, len(WEEK_WIDTHS) :]], axis=2)
    level = np.repeat(means[:, None, :], horizon, axis=1)
    known = np.where(np.isfinite(adjusted), adjusted, level[:, :, 4:5])
    return compress(np.concatenate([level, known], axis=2), scale).astype(np.float32)
