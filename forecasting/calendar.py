"""What is known about the days and beside the series: holidays, and covariates on a series' grid.

A covariate is aligned the way a series is cut: entry ``i`` belongs to interval ``i`` and was known at its end. So a
window that knows ``count`` values knows ``count`` entries, and none of them comes from its future.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import holidays
import numpy as np
import numpy.typing as npt

from forecasting.errors import ForecastingError
from forecasting.series import BoolArray, FloatArray, Series

COUNTRY = "forecast.holidays.country"
SUBDIVISION = "forecast.holidays.subdivision"
ZONE = "forecast.holidays.zone"

QUARTER = 900
"""Midnight falls on a whole quarter of an hour of UTC in every time zone in use (tz database, since 1972)."""


class CalendarError(ForecastingError):
    """A country, a subdivision or a time zone that nobody knows, or covariates that do not fit together."""


def holiday_flags(times: npt.ArrayLike, country: str, subdivision: str | None = None, zone: str = "UTC") -> BoolArray:
    """Whether each of ``times`` (seconds since the epoch, ``(T,)``) falls on a public holiday by the clocks of
    ``zone``. NaN falls on none. The holidays of a year are looked up once.

    ``country`` and ``subdivision`` are ISO 3166 codes as the package ``holidays`` knows them, ``zone`` a name of the tz
    database. Raises CalendarError, naming the setting and near matches, where one of them is unknown.
    """
    _check(country, subdivision)
    clock = _zone(zone)
    seconds = np.asarray(times, dtype=np.float64)
    known = np.isfinite(seconds)
    quarters, place = np.unique(np.floor(seconds[known] / QUARTER).astype(np.int64), return_inverse=True)
    flags = np.zeros(seconds.shape, dtype=np.bool_)
    flags[known] = np.array([_is_holiday(int(one), country, subdivision, clock) for one in quarters], np.bool_)[place]
    return flags


def _is_holiday(quarter: int, country: str, subdivision: str | None, clock: tzinfo) -> bool:
    day = datetime.fromtimestamp(quarter * QUARTER, clock).date()
    return day in _year(country, subdivision, day.year)


@lru_cache(maxsize=256)
def _year(country: str, subdivision: str | None, year: int) -> frozenset[date]:
    return frozenset(holidays.country_holidays(country, subdiv=subdivision, years=year, expand=False))


@lru_cache(maxsize=64)
def _check(country: str, subdivision: str | None) -> None:
    if country not in holidays.list_supported_countries():
        raise CalendarError(f"{COUNTRY}: no holidays are known for {country!r}; {_countries_near(country)}")
    known = _subdivisions(country)
    if subdivision is None or subdivision in known.values():
        return
    if not known:
        raise CalendarError(f"{SUBDIVISION}: {COUNTRY} {country!r} has no subdivisions; leave {subdivision!r} out")
    raise CalendarError(
        f"{SUBDIVISION}: {COUNTRY} {country!r} has no subdivision {subdivision!r}; {_near(subdivision, known)}"
    )


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


def _zone(zone: str) -> tzinfo:
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise CalendarError(f"{ZONE}: no time zone {zone!r}; use a name such as Europe/Berlin") from error


@dataclass(frozen=True, slots=True, eq=False)
class Covariates:
    """``values (T, C)``: what was measured beside a series, one column per name, NaN where it was not known.

    Row ``i`` belongs to interval ``i`` of the series that it was aligned with. Raises CalendarError where names and
    columns do not match, or a name comes twice.
    """

    names: tuple[str, ...]
    values: FloatArray

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
        """The first ``count`` rows, copied: whoever holds the result cannot reach what comes later."""
        return replace(self, values=self.values[:count].copy())

    def tail(self, count: int) -> Covariates:
        """The newest ``count`` rows (a view)."""
        return replace(self, values=self.values[max(0, len(self.values) - count) :])


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
