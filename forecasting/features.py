"""What the network is told about a series at an origin. Pure arrays; the same code serves training and forecasting.

An *origin* ``t`` is a number of values: everything before index ``t`` is known, index ``t`` is the first step ahead.
Every look-up is masked to indices below ``t``, so a window cut from a longer history equals one from a history that
ends there.

Shapes: B windows, W steps back, H steps ahead, P steps around a target. Everything is relative to the window's own
scale (the mean of its newest 32 values) and log1p-compressed, so one network serves series of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from forecasting.series import FloatArray, IntArray, Series, clean, fill_forward, masked_mean

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
SUMMARY = len(SPANS) + 5
AHEAD = 2 * (len(DAY_WIDTHS) + len(WEEK_WIDTHS))
CANDIDATES = len(SPANS) + len(DAY_WIDTHS) + len(WEEK_WIDTHS)

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Raw values around origins: ``recent (B, W)``, ``day`` and ``week (B, W+H+2P)`` one season and seven earlier.

    No clock time: what a day looks like is told by yesterday, so a recorded past may be replayed at any date.
    """

    recent: FloatArray
    day: FloatArray
    week: FloatArray


@dataclass(frozen=True, slots=True)
class Features:
    """``recent (B, W, CHANNELS)``, ``summary (B, SUMMARY)``, ``ahead (B, H, AHEAD)``, ``candidates (B, H,
    CANDIDATES)``.

    ``scale (B,)`` turns compressed values back: ``value = scale * expm1(z)``. ``noise (B,)`` is how restless the
    window is.
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
    day = seasonal(raw.day, recent, window, horizon, DAY_WIDTHS)
    week = seasonal(raw.week, recent, window, horizon, WEEK_WIDTHS)
    told = compress(np.concatenate([day, week], axis=2), scale)  # (B, H, 2 * widths), NaN = unknown
    levels = compress(means, scale)
    z = compress(recent, scale)
    noise = np.abs(np.diff(z[:, -32:], axis=1)).mean(axis=1)
    return Features(
        _recent(z, raw, scale, window),
        _summary(z, levels, noise, raw, told),
        np.nan_to_num(told - levels[:, 3][:, None, None]).astype(np.float32),  # 0 = unknown
        _candidates(told, levels, horizon),
        noise.astype(np.float32),
        scale,
    )


def scales(raw: Blocks) -> FloatArray:
    """``(B,)``: the mean of the newest 32 values, kept above a twentieth of the longer mean so that a lull divides
    nothing by 0.
    """
    near = np.nan_to_num(masked_mean(raw.recent[:, -32:]))
    far = np.nan_to_num(masked_mean(np.concatenate([raw.recent, raw.day], axis=1)))
    return np.maximum(np.maximum(near, 0.05 * far), 1e-9)


def compress(values: FloatArray, scale: FloatArray) -> FloatArray:
    """``log1p(values / scale)``, cut at ``LOUDEST``; ``scale (B,)`` goes with the first axis."""
    shape = (len(scale),) + (1,) * (values.ndim - 1)
    return np.minimum(np.log1p(values / scale.reshape(shape)), LOUDEST)


def seasonal(block: FloatArray, recent: FloatArray, window: int, horizon: int, widths: Sequence[int]) -> FloatArray:
    """Means around the targets one or seven seasons ago, raw and adjusted to today's level: ``(B, H, 2 * widths)``,
    NaN = unknown.

    The adjustment is the ratio of the newest 32 values to the same steps then, within a factor of 4.
    """
    then = masked_mean(block[:, AROUND : AROUND + window][:, -32:])
    now = recent[:, -32:].mean(axis=1)
    ratio = np.clip((now + 1e-12) / (np.nan_to_num(then, nan=1.0) + 1e-12), 0.25, 4.0)
    raw = np.stack([_centred(block[:, window:], width, horizon) for width in widths], axis=2)  # (B, H, widths)
    raw = np.where(np.isfinite(then)[:, None, None], raw, np.nan)
    return np.concatenate([raw, raw * ratio[:, None, None]], axis=2)


def _centred(block: FloatArray, width: int, horizon: int) -> FloatArray:
    """Means of ``width`` values around each target; ``block (B, H + 2P)`` gives ``(B, H)``. Unknown values do not
    count.
    """
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


def _summary(z: FloatArray, levels: FloatArray, noise: FloatArray, raw: Blocks, told: FloatArray) -> Float32Array:
    known = np.asarray(np.isfinite(told).any(axis=1))  # (B, 2 * widths)
    single = (
        known[:, len(DAY_WIDTHS) - 1],  # the widest mean says whether there is a yesterday at all
        known[:, -1],
        np.isfinite(raw.recent).mean(axis=1),
        noise,
        np.abs(z[:, -1] - z[:, -4:].mean(axis=1)),
    )
    relative = levels - z[:, -8:].mean(axis=1, keepdims=True)
    return np.concatenate([relative, np.stack(single, axis=1)], axis=1).astype(np.float32)


def _candidates(told: FloatArray, levels: FloatArray, horizon: int) -> Float32Array:
    """Recent means and the adjusted seasonal means; an unknown one is replaced by the mean of 16 steps."""
    days, weeks = len(DAY_WIDTHS), len(WEEK_WIDTHS)
    adjusted = np.concatenate([told[:, :, days : 2 * days], told[:, :, -weeks:]], axis=2)
    recent = np.repeat(levels[:, None, :], horizon, axis=1)
    known = np.where(np.isfinite(adjusted), adjusted, recent[:, :, 4:5])
    return np.concatenate([recent, known], axis=2).astype(np.float32)
