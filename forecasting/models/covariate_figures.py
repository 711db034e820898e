"""What the regression on covariates is told about a window, see ``covariates``. Pure arrays.

The same code serves fitting and forecasting, and every look-up is masked to what a window knows.

Shapes: N windows, H steps ahead, C covariates, F figures about a window, S figures about each of its steps, G series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from forecasting.batch import Batch
from forecasting.calendar import Holidays
from forecasting.features import scales
from forecasting.series import BoolArray, FloatArray, IntArray, fill_forward, masked_mean

FAR = 10.0
"""Figures and changes are cut here, in units of the window's scale."""

LAGS = 6
"""Newest values of a covariate that are told one by one."""

BEFORE = (12, 24)
"""Older ones are told as means, up to so many steps back."""

STALE = 12
"""Steps for which the newest value of a covariate stands in for those that are missing: exporters are slower than
ticks. Then it is unknown."""

OWN = 48
"""The series' own newest values that are read."""

OWN_LAGS = (2, 3, 4, 6)
OWN_MEANS = (3, 6, 12, 24, 48)

LEVEL = 12
"""Values whose mean is the level of now, of yesterday and of last week."""

FACTOR = 4.0
"""Yesterday is taken to be at most this many times as busy as today, or as quiet."""

DAILY, WEEKLY = 3, 2
"""Harmonics of the day and of the week. A fit of under two days (weeks) does without."""

SHARED = 1 + len(OWN_LAGS) + len(OWN_MEANS) + 1 + 2 + 2 * (DAILY + WEEKLY)
"""Figures about a window besides its covariates."""

AHEAD = 4
"""Figures about each step ahead."""

EACH = LAGS + len(BEFORE)
"""Figures per covariate."""


@dataclass(frozen=True, slots=True, eq=False)
class Usual:
    """What is usual for one series and its covariates.

    ``level`` and ``spread``: mean and standard deviation of the series; ``centre`` and ``width (C,)`` of its
    covariates, NaN of those that never vary. ``effect`` and ``effects (C,)``: what holidays multiply them by, 1 where
    that is not known; ``learned``: whether it is for the series.
    """

    level: float
    spread: float
    centre: FloatArray
    width: FloatArray
    effect: float
    effects: FloatArray
    learned: bool

    @property
    def festive(self) -> bool:
        """Whether holidays matter to the series or to a covariate."""
        return self.learned or bool((self.effects != 1.0).any())


class Told(NamedTuple):
    """``shared (N, F)`` and ``ahead (N, H, S)``: ``(value - last) / scale``, 0 = unknown. ``last`` and ``scale (N,)``.

    ``known (N,)``: whether any covariate is. ``factor (N, H or 1)``: the effect of holidays on each step.
    ``concerned (N, H)``: whether a step, or what it is compared with, falls on one.
    """

    shared: FloatArray
    ahead: FloatArray
    last: FloatArray
    scale: FloatArray
    known: BoolArray
    factor: FloatArray
    concerned: BoolArray


def figures(batch: Batch, usual: Sequence[Usual], place: IntArray, holidays: Holidays | None) -> Told:
    """What is told about the windows of ``batch``; ``place (N,)`` says which of ``usual`` is each one's."""
    marks = Marks.of(batch, holidays if any(one.festive for one in usual) else None)
    effect = np.array([one.effect for one in usual])[place]
    own = batch.newest(OWN) / marks.factor(effect, -OWN, 0)
    recent = fill_forward(own, np.nan_to_num(masked_mean(own)))
    last, scale = np.where(np.isfinite(own).any(axis=1), recent[:, -1], np.nan), scales(own)
    days = [_days_ago(batch, marks, effect, ago) for ago in (1, 7)]
    level = np.array([one.level for one in usual])[place, None]
    beside = _beside(batch, usual, place, marks)
    values = [_recent(recent), level, *(masked_mean(day[:, :LEVEL])[:, None] for day in days)]
    told = _relative(np.concatenate(values, axis=1), last, scale)
    constant = np.ones((len(batch), 1))
    return Told(
        shared=np.concatenate([constant, told, _harmonics(batch), _relative(beside, last, scale)], axis=1),
        ahead=_relative(_ahead(days, recent), last, scale),
        last=last,
        scale=scale,
        known=np.asarray(np.isfinite(beside).any(axis=1)),
        factor=marks.factor(effect, 0, batch.horizon),
        concerned=marks.concerned(batch.horizon),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Which steps around the origins of N windows are holidays. ``now``: the absolute number of the first step ahead,
    ``season`` and ``step`` (seconds): ``(N,)`` each.
    """

    now: FloatArray
    season: IntArray
    step: FloatArray
    holidays: Holidays | None

    @classmethod
    def of(cls, batch: Batch, holidays: Holidays | None) -> Marks:
        return cls(np.rint(batch.first_ahead / batch.step), batch.season, batch.step, holidays)

    def on(self, first: int, last: int, ago: int = 0) -> BoolArray:
        """Whether steps ``first`` to ``last - 1`` (0 is the first ahead), so many days ago, are: ``(N, last -
        first)``.
        """
        if self.holidays is None:
            return np.zeros((len(self.now), last - first), dtype=np.bool_)
        numbers = (self.now - ago * self.season)[:, None] + np.arange(first, last)
        return np.isfinite(self.holidays.begins(numbers * self.step[:, None]))

    def factor(self, effect: FloatArray, first: int, last: int, ago: int = 0) -> FloatArray:
        """``effect (N,)`` on holidays, 1 on other days: ``(N, last - first)``; ``(N, 1)`` where there are none."""
        if self.holidays is None:
            return np.ones((len(self.now), 1))
        return np.where(self.on(first, last, ago), effect[:, None], 1.0)

    def concerned(self, horizon: int) -> BoolArray:
        """Whether a step ahead, now, or the same time yesterday or a week ago is a holiday: ``(N, H)``."""
        return self.on(-1, 0) | self.on(0, horizon) | self.on(0, horizon, 1) | self.on(0, horizon, 7)


def _days_ago(batch: Batch, marks: Marks, effect: FloatArray, ago: int) -> FloatArray:
    """Values from ``LEVEL`` steps before the origin to the horizon, so many days ago, without the effect of holidays:
    ``(N, LEVEL + H)``, NaN where unknown.
    """
    values = batch.seasons_ago(ago, -LEVEL, batch.horizon) / marks.factor(effect, -LEVEL, batch.horizon, ago)
    return np.where(batch.season[:, None] > 1, values, np.nan)


def _recent(recent: FloatArray) -> FloatArray:
    """Newest values and means of ``recent (N, OWN)``: ``(N, ...)``."""
    means = [recent[:, -count:].mean(axis=1) for count in OWN_MEANS]
    return np.concatenate([recent[:, [-lag for lag in OWN_LAGS]], np.stack(means, axis=1)], axis=1)


def _ahead(days: Sequence[FloatArray], recent: FloatArray) -> FloatArray:
    """Earlier days at the time of each step, as they were and at today's level: ``(N, H, S)``."""
    now = recent[:, -LEVEL:].mean(axis=1)[:, None]
    found = []
    for day in days:
        then, values = masked_mean(day[:, :LEVEL])[:, None], day[:, LEVEL:]
        ratio = np.clip(now, then / FACTOR, then * FACTOR) / np.where(then > 0.0, then, np.nan)
        found += [values, values * ratio]
    return np.stack(found, axis=2)


def _harmonics(batch: Batch) -> FloatArray:
    """Sines and cosines of the time of day and of week at the origin: ``(N, 2 * (DAILY + WEEKLY))``.

    With weights per step ahead they are as good as those at the target: a shift of time turns each pair.
    """
    now, parts = np.rint(batch.first_ahead / batch.step), []
    for days, most in ((1, DAILY), (7, WEEKLY)):
        period = days * batch.season
        angle = 2.0 * np.pi * (now % period / period)[:, None] * np.arange(1, most + 1)
        parts += [np.sin(angle), np.cos(angle)]
    return np.concatenate(parts, axis=1)


def _beside(batch: Batch, usual: Sequence[Usual], place: IntArray, marks: Marks) -> FloatArray:
    """Covariates in the unit of the series, so that all have one size: ``(N, C * EACH)``, NaN where unknown.

    Without the effect of holidays, moved and stretched to the series' own mean and standard deviation. C is the largest
    number of covariates of any series.
    """
    most = max(len(one.centre) for one in usual)
    centre, width, effects = (_padded([getattr(one, name) for one in usual], most) for name in _COLUMNS)
    raw = np.full((len(batch), most, BEFORE[-1] + STALE), np.nan)
    for one, rows, counts in batch.groups():
        if one.covariates is not None:
            raw[rows, : len(one.covariates.names)] = one.covariates.before(counts, raw.shape[2])
    if marks.holidays is not None:
        raw /= np.where(marks.on(-raw.shape[2], 0)[:, None], effects[place, :, None], 1.0)
    standard = (_held(raw)[..., STALE:] - centre[place, :, None]) / width[place, :, None]
    level, spread = (np.array([getattr(one, name) for one in usual])[place, None, None] for name in ("level", "spread"))
    return _lagged(level + spread * standard).reshape(len(batch), most * EACH)


_COLUMNS = ("centre", "width", "effects")
"""Fields of ``Usual`` with one entry per covariate."""


def _padded(rows: Sequence[FloatArray], most: int) -> FloatArray:
    """``(G, most)``, NaN behind the end of each row."""
    table = np.full((len(rows), most), np.nan)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table


def _held(raw: FloatArray) -> FloatArray:
    """``raw (..., W)`` in which a gap of at most ``STALE`` steps takes the value before it."""
    known = np.isfinite(raw)
    place = np.arange(raw.shape[-1])
    source = np.maximum.accumulate(np.where(known, place, -STALE - 1), axis=-1)
    found = np.take_along_axis(raw, np.maximum(source, 0), axis=-1)
    return np.where(place - source <= STALE, found, np.nan)


def _lagged(values: FloatArray) -> FloatArray:
    """The newest ``LAGS`` of ``values (N, C, BEFORE[-1])``, newest first, and means of older ones: ``(N, C, EACH)``."""
    edges = zip((LAGS, *BEFORE), BEFORE, strict=False)
    count = values.shape[2]
    means = [masked_mean(values[..., count - far : count - near])[..., None] for near, far in edges]
    return np.concatenate([values[..., : -LAGS - 1 : -1], *means], axis=2)


def _relative(values: FloatArray, last: FloatArray, scale: FloatArray) -> FloatArray:
    """``(value - last) / scale`` of ``values (N, ...)``, cut at ``FAR``; what is unknown counts as the last value."""
    shape = (-1,) + (1,) * (values.ndim - 1)
    return np.nan_to_num(np.clip((values - last.reshape(shape)) / scale.reshape(shape), -FAR, FAR))
