"""What is known beside a series, as one more expert: business metrics, resource use, and public holidays.

Per series and step ahead, a ridge regression (Hoerl & Kennard, Technometrics 12, 1970) of the change to come on lags of
the covariates, the series' own newest values and means, the same time yesterday and a week ago, and harmonics of day
and week: a direct forecast of every step (Marcellino, Stock & Watson, Journal of Econometrics 135, 2006). It is fitted
anew every ``REFIT`` steps on the newest ``WINDOWS`` of which all that they forecast has come.

Public holidays are one factor per series, as in multiplicative calendar adjustment (Cleveland & Devlin, JASA 77, 1982):
what holidays were like against the same time of the weeks around them. Everything is divided by the factor before the
regression and multiplied by it afterwards, so a handful of holidays is enough, whatever the hour.

A window knows ``count`` values and ``count`` rows of covariates. What is said about it depends on these alone: a fit is
kept for speed, and which one serves a window follows from the window's own end.

It is a specialist (Freund, Schapire, Singer & Warmuth, STOC 1997): where nothing is known beside a series it sleeps, so
it can only help a mixture. A series without covariates is told about steps that a holiday concerns, and no others.

Shapes: N windows, H steps ahead, C covariates, F figures about a window, S figures about each of its steps.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from forecasting.base import QUANTILES, medians
from forecasting.batch import Batch
from forecasting.calendar import Holidays, holiday_effect
from forecasting.features import real_days
from forecasting.models.covariate_figures import (
    AHEAD,
    BEFORE,
    DAILY,
    EACH,
    FAR,
    OWN,
    SHARED,
    STALE,
    WEEKLY,
    Usual,
    figures,
)
from forecasting.series import BoolArray, FloatArray, IntArray, Series, clean, masked_mean

NAME: Final = "covariates"
"""The model's name in commands and results."""

WINDOWS = 1_440
"""Newest windows of a fit: two hours of 5 s ticks, two weeks of quarters of an hour, two months of hours."""

REFIT = 120
"""Steps between two fits of a series. Series take turns, so that a tick of many fits a few."""

PER_FIGURE = 8
"""Windows that a fit needs per figure: under so many, noise is what it would learn."""

PENALTY = 0.001
"""Ridge penalty as a share of each figure's own sum of squares: keeps collinear lags apart, hardly shrinks others."""

FINEST = 1_440
"""A day in more steps than these (minutes) knows no holidays: a forecast of ticks does not reach over midnight."""

TINY = 1e-9
"""Added to the penalty: a figure that is always 0 has a weight of 0."""

SEEN = 8
"""Newest values by which a kept fit knows the history that it was made of."""

KEPT = WINDOWS + REFIT + BEFORE[-1] + STALE
"""Steps of covariates that are ever read, besides the horizon."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What was learned of one series; ``weights (H, F + S)``, or None where too little was known."""

    usual: Usual
    weights: FloatArray | None = None


class CovariateModel:
    """The model. ``holidays``: None where none are configured."""

    name = NAME

    def __init__(self, holidays: Holidays | None = None) -> None:
        self._holidays = holidays
        self._fits: dict[tuple[str, float, int], tuple[tuple[object, Fit], ...]] = {}

    def predict(self, batch: Batch) -> FloatArray:
        """Point forecasts ``(N, H, Q)``; NaN about windows with nothing beside them, or with too little history."""
        concerned = np.array([self._concerns(one) for one in batch.series], dtype=np.bool_)
        rows = np.flatnonzero(concerned[batch.owner])
        if not len(rows):
            return np.full((len(batch), batch.horizon, len(QUANTILES)), np.nan)
        values = np.full((len(batch), batch.horizon), np.nan)
        values[rows] = self._told(_part(batch, concerned, rows))
        return medians(values)

    def _concerns(self, one: Series) -> bool:
        return one.covariates is not None or self._calendar(one) is not None

    def _calendar(self, one: Series) -> Holidays | None:
        """The holidays, where this series can know them."""
        return self._holidays if one.season <= FINEST and real_days(one.step, one.season) else None

    def _told(self, batch: Batch) -> FloatArray:
        """Medians ``(N, H)``."""
        fits, place = self._served(batch)
        weights = stacked(fits, batch.horizon)
        told = figures(batch, [one.usual for one in fits], place, self._holidays)
        change = np.einsum("nf,nhf->nh", told.shared, weights[place, :, : told.shared.shape[1]])
        change += np.einsum("nhs,nhs->nh", told.ahead, weights[place, :, told.shared.shape[1] :])
        values = told.last[:, None] + told.scale[:, None] * np.clip(change, -FAR, FAR)
        learned = np.array([one.usual.learned for one in fits])[place]
        heard = told.known[:, None] | (told.concerned & learned[:, None])
        return np.where(heard, np.maximum(values, 0.0) * told.factor, np.nan)

    # -- fits ----------------------------------------------------------------------------------------------------

    def _served(self, batch: Batch) -> tuple[list[Fit], IntArray]:
        """The fits that serve a batch, and which of them serves each window: ``(N,)``."""
        phases = np.array([one.first - zlib.crc32(one.name.encode()) for one in batch.series])[batch.owner]
        edges = batch.count - (batch.count + phases) % REFIT
        pairs, place = np.unique(np.stack([batch.owner, edges], axis=1), axis=0, return_inverse=True)
        fits = [self._fit(batch.series[owner], edge, batch.horizon) for owner, edge in pairs.tolist()]
        return fits, place.reshape(-1)

    def _fit(self, one: Series, edge: int, horizon: int) -> Fit:
        """The fit on the first ``edge`` values of a series; the last two (a replay runs beside ticks) are kept."""
        names = () if one.covariates is None else one.covariates.names
        about = (one.first + edge, names, one.values[: max(edge, 0)][-SEEN:].tobytes())
        key = (one.name, one.step, horizon)
        kept = self._fits.get(key, ())
        for known, fit in kept:
            if known == about:
                return fit
        fresh = fitted(one, edge, horizon, self._calendar(one))
        self._fits[key] = ((about, fresh), *kept[:1])
        return fresh


def _part(batch: Batch, concerned: BoolArray, rows: IntArray) -> Batch:
    """The windows ``rows (N',)`` of a batch, all of the series ``concerned``."""
    if concerned.all():
        return batch
    places = np.cumsum(concerned) - 1
    series = [one for one, heard in zip(batch.series, concerned, strict=True) if heard]
    return Batch(series, places[batch.owner[rows]], batch.count[rows], batch.horizon)


def fitted(one: Series, edge: int, horizon: int, holidays: Holidays | None) -> Fit:
    """What the first ``edge`` values of a series, and as many rows of its covariates, teach."""
    usual = _usual(one, max(edge, 0), holidays)
    counts = _windows(one, edge, horizon)
    least = PER_FIGURE * (SHARED + EACH * len(usual.centre) + AHEAD)
    if len(counts) < least or not (usual.learned or len(usual.centre)):
        return Fit(usual)
    batch = Batch.at(one, counts, horizon)
    told = figures(batch, [usual], np.zeros(len(counts), dtype=np.int64), holidays)
    change = (batch.actual() / told.factor - told.last[:, None]) / told.scale[:, None]
    known = np.isfinite(change).all(axis=1)
    if known.sum() < least:
        return Fit(usual)
    shared = told.shared * _resolved(one, len(counts), told.shared.shape[1])
    return Fit(usual, ridge(shared[known], told.ahead[known], np.clip(change[known], -FAR, FAR)))


def _windows(one: Series, edge: int, horizon: int) -> IntArray:
    """Counts of the newest windows all of whose steps ahead have come at ``edge``, and that know some covariate where
    the series has any, oldest first.
    """
    first = max(OWN // 2, edge - horizon - WINDOWS + 1)
    if one.covariates is not None:
        begun = np.flatnonzero(np.isfinite(one.covariates.values).any(axis=1))
        first = max(first, one.covariates.begin + int(begun[0]) + 1) if len(begun) else edge
    return np.arange(first, max(first, edge - horizon + 1))


def _resolved(one: Series, windows: int, count: int) -> FloatArray:
    """1 for every figure but 0 for harmonics that ``windows`` do not show twice: ``(count,)``."""
    kept = np.ones(count)
    first = SHARED - 2 * (DAILY + WEEKLY)
    if windows < 2 * one.season:
        kept[first : first + 2 * DAILY] = 0.0
    if windows < 14 * one.season:
        kept[first + 2 * DAILY : SHARED] = 0.0
    return kept


def ridge(shared: FloatArray, ahead: FloatArray, change: FloatArray) -> FloatArray:
    """Least squares of ``change (N, H)`` on ``shared (N, F)`` and each step's own ``ahead (N, H, S)``, with a penalty:
    ``(H, F + S)``. The normal equations of all steps have the products of ``shared`` in common.
    """
    (n, f), (_, h, s) = shared.shape, ahead.shape
    gram = np.empty((h, f + s, f + s))
    gram[:, :f, :f] = shared.T @ shared
    gram[:, :f, f:] = np.moveaxis((shared.T @ ahead.reshape(n, h * s)).reshape(f, h, s), 1, 0)
    gram[:, f:, :f] = np.swapaxes(gram[:, :f, f:], 1, 2)
    each = np.ascontiguousarray(np.moveaxis(ahead, 1, 0))  # (H, N, S)
    gram[:, f:, f:] = np.swapaxes(each, 1, 2) @ each
    right = np.concatenate([change.T @ shared, (change.T[:, None] @ each)[:, 0]], axis=1)
    diagonal = np.arange(f + s)
    gram[:, diagonal, diagonal] = gram[:, diagonal, diagonal] * (1.0 + PENALTY) + TINY * n
    return np.asarray(np.linalg.solve(gram, right[..., None])[..., 0])


def stacked(fits: Sequence[Fit], horizon: int) -> FloatArray:
    """The weights of all fits, ``(G, H, F + S)`` with the largest F; NaN where a fit has none."""
    most = max(len(fit.usual.centre) for fit in fits)
    table = np.zeros((len(fits), horizon, SHARED + EACH * most + AHEAD))
    for row, fit in zip(table, fits, strict=True):
        if fit.weights is None:
            row[:] = np.nan
            continue
        row[:, : fit.weights.shape[1] - AHEAD] = fit.weights[:, :-AHEAD]
        row[:, -AHEAD:] = fit.weights[:, -AHEAD:]
    return table


def _usual(one: Series, edge: int, holidays: Holidays | None) -> Usual:
    """What is usual for the first ``edge`` values, by the newest ``WINDOWS``; holidays by all of them."""
    effect = _effect(one, one.values[:edge], 0, holidays)
    level, spread = _moments(clean(one.values[max(0, edge - WINDOWS) : edge])[:, None])
    beside = np.empty((0, 0)) if one.covariates is None else one.covariates.until(edge).values
    begin = 0 if one.covariates is None else one.covariates.begin
    effects = [_effect(one, column, begin, holidays) for column in beside.T]
    centre, width = _moments(beside[-WINDOWS:])
    return Usual(
        level=float(np.nan_to_num(level[0])),
        spread=float(np.nan_to_num(spread[0])),
        centre=centre,
        width=width,
        effect=1.0 if effect is None else effect,
        effects=np.array([1.0 if each is None else each for each in effects]),
        learned=effect is not None,
    )


def _moments(table: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of the known values of each column, ``(C,)``; NaN where nothing varies."""
    mean = masked_mean(table, axis=0)
    spread = np.sqrt(masked_mean((table - mean) ** 2, axis=0))
    return mean, np.where(spread > 0.0, spread, np.nan)


def _effect(one: Series, values: FloatArray, begin: int, holidays: Holidays | None) -> float | None:
    """The effect of holidays on ``values (T,)`` of the intervals from ``begin`` on; None where it cannot be told."""
    if holidays is None:
        return None
    times = (one.first + begin + np.arange(len(values))) * one.step
    return holiday_effect(values, holidays.begins(times), one.season)
