"""What is known about the days and beside the series: holidays, and covariates on a series' grid.

A covariate is aligned the way a series is cut: entry ``i`` belongs to interval ``i`` and was known at its end. So a
window that knows ``count`` values knows ``count`` entries, and none of them comes from its future.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import holidays
import numpy as np
import numpy.typing as npt

from forecasting.errors import ForecastingError
from forecasting.series import BoolArray, FloatArray, IntArray, Series, masked_mean

COUNTRY = "forecast.holidays.country"
SUBDIVISION = "forecast.holidays.subdivision"
ZONE = "forecast.holidays.zone"

DAY = 86_400.0
YEARS = (1, 9999)
"""Years that have a date."""


WEEKS = (-2, -1, 1, 2)
"""Weeks around a holiday that say what an ordinary day would have been."""

LEAST_HOLIDAYS = 2
"""Under so many holidays seen nothing is said about the next."""

MOST = 10.0
"""The factor of holidays lies between its inverse and this."""


class CalendarError(ForecastingError):
    """A country, a subdivision or a time zone that nobody knows, or covariates that do not fit together."""


class SettingError(CalendarError):
    """``setting`` (one of ``COUNTRY``, ``SUBDIVISION``, ``ZONE``) is wrong; ``problem`` says how, and what to do."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Holidays:
    """The public holidays of a place, by the clocks of ``zone``.

    ``country`` and ``subdivision`` are ISO 3166 codes as the package ``holidays`` knows them, ``zone`` a name of the tz
    database. Raises SettingError, naming the setting and near matches, where one of them is unknown.
    """

    country: str
    subdivision: str | None = None
    zone: str = "UTC"

    def __post_init__(self) -> None:
        _check(self.country, self.subdivision)
        _zone(self.zone)

    def begins(self, times: npt.ArrayLike) -> FloatArray:
        """The begin (midnight) of the holiday that each of ``times`` falls on, NaN where it falls on none.

        All are seconds since the epoch, of one shape. The holidays of a year are looked up once.
        """
        seconds = np.asarray(times, dtype=np.float64)
        spans = [span for year in _years(seconds) for span in _spans(self, year)]
        begins, ends = np.array([(-np.inf, -np.inf), *spans]).T
        place = np.maximum(np.searchsorted(begins, seconds, side="right") - 1, 0)  # NaN sorts behind the last
        return np.where(seconds < ends[place], begins[place], np.nan)


def holiday_flags(times: npt.ArrayLike, country: str, subdivision: str | None = None, zone: str = "UTC") -> BoolArray:
    """Whether each of ``times`` (seconds since the epoch, ``(T,)``) falls on a public holiday, as ``Holidays`` says.
    NaN falls on none. Raises SettingError.
    """
    return np.isfinite(Holidays(country, subdivision, zone).begins(times))


def holiday_effect(values: FloatArray, begins: FloatArray, season: int) -> float | None:
    """What holidays multiply ``values (T,)`` by; None where fewer than ``LEAST_HOLIDAYS`` can be told.

    ``begins (T,)`` tells holidays apart, NaN on other days. Each holiday of which half a day is known is compared with
    the same time of the weeks around it, as a ratio of sums; the median of the logarithms is shrunk towards 0 by how
    unsure it is (the positive-part estimator of James & Stein, 1961), so that noise has no effect.
    """
    rows = np.flatnonzero(np.isfinite(begins))
    around = rows[:, None] + 7 * season * np.array(WEEKS)
    inside = (around >= 0) & (around < len(values))
    place = np.where(inside, around, 0)
    usual = masked_mean(np.where(inside & ~np.isfinite(begins[place]), values[place], np.nan))
    both = np.isfinite(usual) & np.isfinite(values[rows])
    _, day = np.unique(begins[rows[both]], return_inverse=True)
    count, seen, expected = (np.bincount(day, one) for one in (np.ones(len(day)), values[rows[both]], usual[both]))
    told = (2 * count >= season) & (seen > 0.0) & (expected > 0.0)
    logs = np.log(seen[told] / expected[told])
    if len(logs) < LEAST_HOLIDAYS:
        return None
    middle, error = float(np.median(logs)), float(logs.var(ddof=1)) / len(logs)
    sure = max(0.0, 1.0 - error / middle**2) if middle else 0.0
    return math.exp(min(max(sure * middle, -math.log(MOST)), math.log(MOST)))


def _years(seconds: FloatArray) -> list[int]:
    """Years, by any clock, in which finite ``seconds`` lie, in order."""
    known = seconds[np.isfinite(seconds)]
    days = np.unique(np.floor(known / DAY))
    around = np.unique(np.concatenate([days - 1.0, days + 1.0])).astype("datetime64[D]")
    low, high = YEARS
    years = np.unique(around.astype("datetime64[Y]").astype(np.int64)) + 1970
    return [int(year) for year in years if low <= year < high]


@lru_cache(maxsize=1024)
def _spans(place: Holidays, year: int) -> tuple[tuple[float, float], ...]:
    """Begin and end of every holiday of ``year``, seconds since the epoch, in order. A day may have 23 or 25 hours."""
    clock = _zone(place.zone)
    days = [
        datetime(day.year, day.month, day.day, tzinfo=clock)
        for day in sorted(_year(place.country, place.subdivision, year))
    ]
    return tuple((day.timestamp(), (day + timedelta(days=1)).timestamp()) for day in days)


@lru_cache(maxsize=256)
def _year(country: str, subdivision: str | None, year: int) -> frozenset[date]:
    return frozenset(holidays.country_holidays(country, subdiv=subdivision, years=year, expand=False))


@lru_cache(maxsize=64)
def _check(country: str, subdivision: str | None) -> None:
    if country not in holidays.list_supported_countries():
        raise SettingError(COUNTRY, f"no holidays are known for {country!r}; {_countries_near(country)}")
    known = _subdivisions(country)
    if subdivision is None or subdivision in known.values():
        return
    if not known:
        raise SettingError(SUBDIVISION, f"{COUNTRY} {country!r} has no subdivisions; leave {subdivision!r} out")
    problem = f"{COUNTRY} {country!r} has no subdivision {subdivision!r}; {_near(subdivision, known)}"
    raise SettingError(SUBDIVISION, problem)


def _subdivisions(country: str) -> dict[str, str]:
    """Codes by code and by name."""
    aliases = holidays.country_holidays(country).get_subdivision_aliases()
    return {name: code for code, names in aliases.items() for name in (code, *names)}


def _countries_near(country: str) -> str:
    """Codes that look alike, and codes of the countries whose names do."""
    codes = holidays.list_supported_countries(include_aliases=False)
    names = {type(holidays.country_holidays(code)).__mro__[1].__name__: code for code in codes}
    return _near(country, {**{code: code for code in ("DE", "GB", "US", *codes)}, **names})


def _near(wrong: str, codes: Mapping[str, str]) -> str:
    """A proposal: codes of what is spelled nearly like ``wrong``, or where nothing is, the first ones as examples."""
    folded = {name.casefold(): code for name, code in codes.items()}
    close = get_close_matches(wrong.casefold().replace(" ", ""), folded, n=4)
    if close:
        return f"did you mean {' or '.join(dict.fromkeys(folded[one] for one in close))}?"
    return f"use an ISO 3166 code such as {', '.join(dict.fromkeys([*codes.values()][:3]))}"


def _zone(zone: str) -> ZoneInfo:
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        close = get_close_matches(zone, sorted(available_timezones()), n=1)
        hint = f"did you mean {close[0]}?" if close else "use a name such as Europe/Berlin"
        raise SettingError(ZONE, f"no time zone {zone!r}; {hint}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Covariates:
    """``values (T, C)``: what was measured beside a series, one column per name, NaN where it was not known.

    Row ``i`` belongs to interval ``begin + i`` of the series that it was aligned with; what lies before ``begin`` is
    not known. Raises CalendarError where names and columns do not match, or a name comes twice.
    """

    names: tuple[str, ...]
    values: FloatArray
    begin: int = 0

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            raise CalendarError(f"covariates {list(self.names)} need one column each, not shape {self.values.shape}")
        if len(set(self.names)) < len(self.names):
            raise CalendarError(f"covariates {list(self.names)}: every name may come once")

    def __getitem__(self, name: str) -> FloatArray:
        """The column of ``name``, ``(T,)``. Raises CalendarError where there is none."""
        if name not in self.names:
            raise CalendarError(f"no covariate {name!r}; choose one of {', '.join(self.names) or 'none'}")
        column: FloatArray = self.values[:, self.names.index(name)]
        return column

    def until(self, count: int) -> Covariates:
        """What belongs to the first ``count`` intervals, copied: whoever holds the result cannot reach what comes
        later.
        """
        return replace(self, values=self.values[: max(0, count - self.begin)].copy())

    def since(self, count: int) -> Covariates:
        """What belongs to the intervals from number ``count`` on, which becomes number 0 (a view)."""
        cut = max(0, count - self.begin)
        return replace(self, values=self.values[cut:], begin=max(0, self.begin - count))

    def before(self, counts: IntArray, width: int) -> FloatArray:
        """The newest ``width`` rows that windows of ``counts (N,)`` values know, NaN where unknown: ``(N, C, width)``.

        Such a window knows intervals below its count, and no others.
        """
        low, high = int(counts.min()) - width - self.begin, int(counts.max()) - self.begin
        rows = np.full((high - low, len(self.names)), np.nan)
        begin, end = max(low, 0), min(high, len(self.values))
        if begin < end:
            rows[begin - low : end - low] = self.values[begin:end]
        windows: FloatArray = np.lib.stride_tricks.sliding_window_view(rows, width, axis=0)
        return windows[counts - width - self.begin - low]


def aligned(series: Series, observed: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]) -> Covariates:
    """Covariates on the grid of ``series``, from ``{name: (times, values)}`` with times in seconds since the epoch, in
    any order and spacing.

    Interval ``i`` takes the newest known value observed within it, which is at most one step old at its end; where
    there is none it is NaN, so a covariate that is no longer measured fades to unknown instead of standing still. What
    is observed at the very end of an interval belongs to the next one. NaN and infinite values were not observed.
    Raises CalendarError where times and values differ in length.
    """
    columns = [_column(series, name, *pair) for name, pair in observed.items()]
    table = np.stack(columns, axis=1) if columns else np.empty((len(series.values), 0))
    return Covariates(tuple(observed), table)


def _column(series: Series, name: str, times: npt.ArrayLike, values: npt.ArrayLike) -> FloatArray:
    when, what = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if when.ndim != 1 or when.shape != what.shape:
        raise CalendarError(f"covariate {name!r}: {when.size} times for {what.size} values; give each value one time")
    known = np.isfinite(what) & np.isfinite(when)
    order = np.argsort(when[known], kind="stable")
    when, what = when[known][order], what[known][order]
    edges = series.start + series.step * np.arange(len(series.values) + 1)
    newest = np.searchsorted(when, edges[1:], side="left") - 1
    column = np.full(len(newest), np.nan)
    fresh = (newest >= 0) & (np.append(when, -np.inf)[newest] >= edges[:-1])
    column[fresh] = what[newest[fresh]]
    return column
