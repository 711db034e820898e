"""What a series was like at training time: the reference that drift is measured against, kept with the models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np

from forecasting.drift import statistics
from forecasting.errors import ForecastingError
from forecasting.series import FloatArray, Series, clean

MOST_BINS: Final = 48
LEAST_BINS: Final = 12

SEASONAL: Final = 0.3
"""A day whose profile explains less than this, or correlates less with the other days, has no shape to lose."""


class DriftError(ForecastingError):
    """A series too short to take a reference from, a reference of another series, or a damaged one."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a series was like at training time. ``B`` bins per day, bin ``b`` of block ``n`` is ``n % B``; a block is
    ``season / B`` steps long and counted from the epoch.

    ``level``: mean rate. ``profile (B,)``: the usual rate per bin divided by ``level``. ``explained``: the share of the
    variance of block means that it explains. ``spread``: the robust standard deviation of block means around it.
    ``restless``: the largest log ratio of rates to it, over windows of ``patience`` blocks. ``noise``: the usual
    absolute difference of successive steps. ``noisiest``: the largest log ratio of a day's noise to that. ``shape``:
    the usual rank correlation of a day with the other days, ``shapeless`` the lowest. ``known``: the share of values
    that were there. ``silent``: the share of blocks with nothing but zeros. Spread and noise are those of square roots.
    """

    series: str
    step: float
    season: int
    level: float
    profile: tuple[float, ...]
    explained: float
    spread: float
    restless: float
    noise: float
    noisiest: float
    shape: float
    shapeless: float
    known: float
    silent: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Reference:
        """The reverse of ``as_dict``. Raises DriftError where a field is missing or wrong."""
        try:
            numbers = {one.name: float(told[one.name]) for one in fields(cls) if one.type == "float"}
            profile, season = tuple(float(one) for one in told["profile"]), int(told["season"])
            if not all(map(math.isfinite, [*numbers.values(), *profile])) or not profile or season % len(profile):
                raise ValueError("profile or a number")
            return cls(series=str(told["series"]), season=season, profile=profile, **numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise DriftError(f"drift reference: {error} is missing or wrong; make it again by training") from error

    @property
    def width(self) -> int:
        """Steps per block."""
        return self.season // len(self.profile)

    @property
    def usual(self) -> FloatArray:
        """The usual square root of the rate per bin, ``(B,)``."""
        return np.sqrt(self.level * np.array(self.profile))

    @property
    def seasonal(self) -> bool:
        """Whether days have a shape to compare."""
        return _is_seasonal(self.explained, self.shape)

    @property
    def patience(self) -> int:
        """Blocks from a suspicion's onset to its naming: a day, so that a shifted day shows both its sides; a quarter
        of one where days have no shape.
        """
        return len(self.profile) if self.seasonal else len(self.profile) // 4


def reference(series: Series) -> Reference:
    """What ``series`` is like. Raises DriftError for less than two days of known values, and for a day that cannot be
    cut into 12 to 48 equal blocks.
    """
    values = _whole_days(series, _bins(series))  # (days, B, width)
    days, bins, width = values.shape
    roots = np.sqrt(statistics.block_means(values))
    usual = statistics.columns_median(roots)
    if not (np.isfinite(roots).sum(axis=0) >= 2).all():
        raise DriftError(f"{series.name}: a drift reference needs every part of the day to be known on at least 2 days")
    level = max(float((usual**2).mean()), statistics.FAINT)
    least = statistics.NEGLIGIBLE * math.sqrt(level)
    noise, noisiest = _noise(values, np.tile(np.repeat(usual, width), days), least)
    shapes, explained = statistics.shapes(roots), statistics.explained(roots, usual)
    seasonal = _is_seasonal(explained, float(np.median(shapes)))
    return Reference(
        series=series.name,
        step=series.step,
        season=series.season,
        level=level,
        profile=tuple((usual**2 / level if usual.any() else np.ones(bins)).tolist()),
        explained=explained,
        spread=max(statistics.deviation(roots - usual) * math.sqrt(days / (days - 1)), least),
        restless=statistics.restless(roots, usual, bins if seasonal else bins // 4),
        noise=noise,
        noisiest=noisiest,
        shape=float(np.median(shapes)),
        shapeless=float(shapes.min()),
        known=float(np.isfinite(values).mean()),
        silent=float((roots == 0.0).mean()),
    )


def _noise(values: FloatArray, usual: FloatArray, least: float) -> tuple[float, float]:
    """The usual noise of ``values (days, B, width)`` and the largest log ratio of a day's to it; ``least`` at least."""
    days, bins, width = values.shape
    noise = statistics.noise(values.reshape(-1), usual, width).reshape(days, bins)
    noises = np.maximum([statistics.median(day) for day in noise], least)
    whole = max(statistics.median(noise), least)
    return whole, float(np.nanmax(np.abs(np.log(noises / whole))))


def _bins(series: Series) -> int:
    """The most equal blocks that a day can be cut into."""
    fitting = [n for n in range(LEAST_BINS, MOST_BINS + 1) if series.season % n == 0]
    if not fitting:
        raise DriftError(
            f"{series.name}: a day of {series.season} steps cannot be cut into {LEAST_BINS} to {MOST_BINS} equal "
            "blocks; choose a step that divides the day"
        )
    return fitting[-1]


def _whole_days(series: Series, bins: int) -> FloatArray:
    skipped = -series.first % series.season
    days = max(0, (len(series.values) - skipped) // series.season)
    if days < 2:
        raise DriftError(f"{series.name}: a drift reference needs 2 whole days of values, not {days}")
    return clean(series.values[skipped : skipped + days * series.season]).reshape(days, bins, -1)


def _is_seasonal(explained: float, shape: float) -> bool:
    return explained >= SEASONAL and shape >= SEASONAL
