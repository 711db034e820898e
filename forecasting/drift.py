"""Drift of a series, named by its cause: what changed against the time that the models were trained on.

"The error went up" does not say what to do. A new level or a shifted day asks for training again, a hole in the
telemetry asks for the telemetry to be repaired (and for no training). Each series is compared with a ``Reference``
kept from training time, in blocks of a 24th to a 48th of a day:

- level: a two-sided CUSUM (Page, Biometrika 41, 1954) of clipped, robustly standardised block means, in Hinkley's form
  that also estimates the onset (Biometrika 58, 1971); a suspicion is named after a day, if it holds all day long,
- season: the rank correlation of the newest day with the reference day stays low; the best circular shift says by how
  much it moved,
- variance: the log ratio of the median absolute successive difference (von Neumann, Annals of Mathematical Statistics
  12, 1941), which neither levels nor days disturb,
- telemetry hole: the share of values missing in the newest quarter of a day,
- skill, coverage: readings that stay on the wrong side of a line, while nothing in the data explains it.

Everything happens on square roots of rates: counting noise is as wide there at any level (Anscombe, Biometrika 35,
1948), and a burst weighs less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

import numpy as np

from forecasting.errors import ForecastingError
from forecasting.series import FloatArray, Series, clean, masked_mean

Cause = Literal["level", "season", "variance", "telemetry hole", "skill", "coverage"]

MOST_BINS: Final = 48
LEAST_BINS: Final = 12

SLACK, CLIP, LIMIT = 0.75, 3.0, 12.0
"""CUSUM in standard deviations: what is forgiven per block, what one block counts at most, and what is a suspicion.
A burst must fill six blocks to raise one, and it fades within a day."""

LEAST_LEVEL: Final = math.log(1.15)
"""A level that moved by less than 15 % is no drift, however sure it is: forecasts adapt to that by themselves."""

SAME_SIDE: Final = 0.75
"""The share of blocks of a day on the same side of the expectation that makes a new level of it."""

LEAST_VARIANCE: Final = math.log(1.5)

BEYOND, MOST_MOVE = 1.3, math.log(3.0)
"""A level or a variance must move this many times (in logarithms) as far as it did at training time, when weekends and
busy days came and went; but a move by a factor of 3 is always one."""

SEASONAL: Final = 0.3
"""A day whose profile explains less than this, or correlates less with the other days, has no shape to lose."""

FAINT: Final = 1e-6
"""The least level, so that ratios to it exist: a request in eleven days."""

NEGLIGIBLE: Final = 0.02
"""The least spread and noise, in square roots relative to that of the level: less (4 % of a rate) matters to nobody."""

SHAPE_LOSS: Final = 0.2
"""The correlation with the reference day that may be lost beyond what noise explains."""

HOLE, HOLE_OVER = 0.5, 0.2
"""Missing share beyond the usual that is a hole, and below which it has ended."""

MARGIN: Final = 0.05
"""A skill or a coverage has recovered when it is better than its line by this."""


class DriftError(ForecastingError):
    """A series too short to take a reference from, a reference of another series, or a damaged one."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One shift of one series.

    ``size`` depends on the cause. level, variance: now / before - 1. season: the correlation lost. telemetry hole: the
    share missing. skill: the skill. coverage: coverage - nominal. ``since`` is the estimated onset in seconds since
    the epoch; ``evidence`` is a sentence for people.
    """

    series: str
    cause: Cause
    size: float
    since: float
    evidence: str


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
    roots = np.sqrt(_block_means(values))
    usual = _columns_median(roots)
    if not (np.isfinite(roots).sum(axis=0) >= 2).all():
        raise DriftError(f"{series.name}: a drift reference needs every part of the day to be known on at least 2 days")
    level = max(float((usual**2).mean()), FAINT)
    least = NEGLIGIBLE * math.sqrt(level)
    noise = _noise(values.reshape(-1), np.tile(np.repeat(usual, width), days), width).reshape(days, bins)
    noises = np.maximum([_median(day) for day in noise], least)
    shapes, explained = _shapes(roots), _explained(roots, usual)
    seasonal = _is_seasonal(explained, float(np.median(shapes)))
    return Reference(
        series=series.name,
        step=series.step,
        season=series.season,
        level=level,
        profile=tuple((usual**2 / level if usual.any() else np.ones(bins)).tolist()),
        explained=explained,
        spread=max(_deviation(roots - usual) * math.sqrt(days / (days - 1)), least),
        restless=_restless(roots, usual, bins if seasonal else bins // 4),
        noise=max(_median(noise), least),
        noisiest=float(np.nanmax(np.abs(np.log(noises / max(_median(noise), least))))),
        shape=float(np.median(shapes)),
        shapeless=float(shapes.min()),
        known=float(np.isfinite(values).mean()),
        silent=float((roots == 0.0).mean()),
    )


class Detector:
    """Watches one series. It keeps one day of blocks and the values of the open block: a few kilobytes.

    One shift gives one report: after it, the detector is quiet for a day, measures level and variance from where they
    are now, and reports a hole, a season, a skill or a coverage again only when it had recovered in between. Skill
    and coverage are reported only while no cause was found in the data; a new model means a new reference and a new
    detector.
    """

    __slots__ = (
        "_active",
        "_bad",
        "_dwell",
        "_gain",
        "_known",
        "_named",
        "_next",
        "_noise",
        "_noise_base",
        "_noise_gain",
        "_noise_log",
        "_onset",
        "_open",
        "_quiet",
        "_roots",
        "_sums",
        "_usual",
        "nominal",
        "reference",
    )

    def __init__(self, reference: Reference, nominal: float = 0.9) -> None:
        """``nominal`` is what the coverage that ``observe`` is told should be (0.9: of the 5 % to 95 % interval)."""
        bins = len(reference.profile)
        self.reference, self.nominal = reference, nominal
        self._usual = reference.usual
        self._roots, self._noise = np.full(bins, np.nan), np.full(bins, np.nan)
        self._known = np.full(bins, reference.known)
        self._open = np.empty(0)  # the value before the open block, and the block's values so far
        self._next: int | None = None  # the number of the next step
        self._gain = self._noise_gain = 1.0  # square roots now / at training time; the same when noise was measured
        self._noise_base, self._noise_log = reference.noise, 0.0  # what it is compared with; log ratio to the reference
        self._sums, self._onset = [0.0, 0.0], [0, 0]  # CUSUM upwards and downwards
        self._dwell = {"season": 0, "variance": 0}
        self._active: set[Cause] = set()
        self._bad: dict[Cause, float] = {}  # since when a reading is on the wrong side
        self._quiet = -1  # no report before this block
        self._named = False

    def observe(self, newest: Series, skill: float | None = None, coverage: float | None = None) -> Drift | None:
        """Take in what is new in ``newest`` (a whole history or its end: what was seen before is skipped, what lies
        between is missing), and the newest readings, where there are any.

        ``skill`` is 1 - loss / loss of the baseline, ``coverage`` the share of values that fell into their interval.
        Tell at most a day at a time: of several shifts in one call the first is returned. Raises DriftError for another
        series, step or season.
        """
        self._check(newest)
        found: Drift | None = None
        for number, values in self._blocks(newest):
            drift = self._block(number, values)
            found = found or drift
        return found or self._readings(newest.end, skill, coverage)

    def _check(self, newest: Series) -> None:
        told, kept = (newest.name, newest.step, newest.season), self.reference
        if told != (kept.series, kept.step, kept.season):
            raise DriftError(
                f"{newest.name}: step {newest.step:g} s, season {newest.season} against the reference of "
                f"{kept.series}: step {kept.step:g} s, season {kept.season}; make a new reference"
            )

    def _blocks(self, newest: Series) -> list[tuple[int, FloatArray]]:
        """Blocks that are complete now: their number, and their values with the one before in front."""
        width, last = self.reference.width, newest.first + len(newest.values)
        begin = self._next
        if begin is None or newest.first - begin > 2 * self.reference.season:  # a longer silence says no more than this
            begin = newest.first if begin is None else newest.first - 2 * self.reference.season
            begin += -begin % width
            self._open = np.array([np.nan])
        if last <= begin:
            return []
        gap = np.full(max(0, newest.first - begin), np.nan)
        fresh = clean(newest.values[max(0, begin - newest.first) :])
        row = np.concatenate([self._open, gap, fresh])
        first, count = last - (len(row) - 1), (len(row) - 1) // width
        self._open, self._next = row[count * width :].copy(), last
        return [(first // width + n, row[n * width : (n + 1) * width + 1]) for n in range(count)]

    def _block(self, number: int, values: FloatArray) -> Drift | None:
        """Block ``number`` has ended: take it in, then ask every test in order of how much it explains."""
        place = number % len(self._usual)
        self._store(place, values)
        hole = self._hole(number)
        if hole is not None:
            return self._reported(number, hole)
        if "telemetry hole" in self._active or np.isnan(self._roots[place]):
            return None
        if "season" not in self._active:
            self._accumulate(number, place)
        for test in (self._season, self._level, self._variance):
            found = test(number)
            if found is not None:
                return self._reported(number, found)
        return None

    def _reported(self, number: int, drift: Drift) -> Drift:
        self._quiet, self._named = number + len(self._usual), True
        return drift

    def _store(self, place: int, values: FloatArray) -> None:
        block = values[1:]
        known = np.isfinite(block)
        self._roots[place] = math.sqrt(_block_means(block[None])[0])
        before = self._usual[[place - 1] + [place] * len(block)]
        self._noise[place] = _noise(values, before, len(values))[0]
        self._known[place] = known.mean()
        if self._roots[place] == 0.0 and self._usual[place] > 0.0 and self.reference.silent < 0.01:
            # Nothing but zeros where there never were any: the requests are not counted, or do not reach the mesh.
            self._roots[place] = self._noise[place] = np.nan
            self._known[place] = 0.0
        self._noise_log = self._noise_ratio()

    def _hole(self, number: int) -> Drift | None:
        window = (number - np.arange(len(self._known) // 4)) % len(self._known)
        usual, missing = 1.0 - self.reference.known, 1.0 - self._known[window]
        share = float(missing.mean())
        if share <= usual + HOLE_OVER:
            self._active.discard("telemetry hole")
        if "telemetry hole" in self._active or share < usual + min(HOLE, (1.0 - usual) / 2) or number < self._quiet:
            return None
        self._active.add("telemetry hole")
        self._sums, self._dwell = [0.0, 0.0], dict.fromkeys(self._dwell, 0)
        since = self._time(number - int(np.flatnonzero(missing > usual + HOLE_OVER)[-1]))
        hours = len(window) * self.reference.width * self.reference.step / 3600
        text = f"{share:.0%} of the values of the last {hours:.3g} h are missing or 0; usually it is {usual:.0%}"
        return self._drift("telemetry hole", share, since, text)

    def _accumulate(self, number: int, place: int) -> None:
        """One step of the CUSUM in both directions."""
        spread = self.reference.spread * max(1.0, self._gain) * max(1.0, math.exp(self._noise_log))
        z = (self._roots[place] - self._gain * self._usual[place]) / spread
        for side, sign in enumerate((1.0, -1.0)):
            if self._sums[side] == 0.0:
                self._onset[side] = number
            rise = min(max(sign * float(z), -CLIP), CLIP) - SLACK
            self._sums[side] = min(max(self._sums[side] + rise, 0.0), 2 * LIMIT)

    def _level(self, number: int) -> Drift | None:
        side = int(self._sums[1] > self._sums[0])
        age, bins = number + 1 - self._onset[side], len(self._usual)
        if self._sums[side] < LIMIT or age < self.reference.patience or number < self._quiet:
            return None
        if self._dwell["season"] > 0 and age < 2 * bins:  # the shape is in doubt: whose shift it is shows tomorrow
            return None
        window = (number - np.arange(min(age, bins))) % bins
        move = self._move(window, 1.0 if side == 0 else -1.0)
        self._sums = [0.0, 0.0]
        if abs(move) < min(max(LEAST_LEVEL, BEYOND * self.reference.restless), MOST_MOVE):
            return None
        before = float(((self._gain * self._usual) ** 2).mean())
        self._gain *= math.exp(move / 2)
        now = before * math.exp(move)
        change = f"{math.expm1(move):+.0%}" if move < math.log(100.0) else f"{math.exp(move):.3g} times as much"
        text = f"the mean over the day went from {before:.4g} to {now:.4g} ({change}) and stays there"
        return self._drift("level", math.expm1(move), self._time(self._onset[side]), text)

    def _move(self, window: FloatArray | Any, sign: float) -> float:
        """The log ratio of the rates in ``window`` to what was expected; 0 where they are not all day on one side."""
        told, expected = self._roots[window], self._gain * self._usual[window]
        heard = np.isfinite(told) & (expected >= 0.25 * expected.mean())
        if not heard.any():
            return 0.0
        same = (sign * (told - expected)[heard] > 0.0).mean()
        ratio = max(float(told[heard].mean()), math.sqrt(FAINT)) / float(expected[heard].mean())
        return 2.0 * math.log(ratio) if same >= SAME_SIDE else 0.0

    def _season(self, number: int) -> Drift | None:
        known = np.isfinite(self._roots)
        if not self.reference.seasonal or known.mean() < 0.75:
            return None
        rank = _correlation(self._roots[known], self._usual[known])
        expected = self._expected_shape()
        lost = expected - rank
        self._dwell["season"] = self._dwell["season"] + 1 if lost > SHAPE_LOSS else 0
        if lost < SHAPE_LOSS / 2:
            self._active.discard("season")
        if self._dwell["season"] < 1.25 * len(known) or "season" in self._active or number < self._quiet:
            return None
        self._active.add("season")
        self._sums = [0.0, 0.0]
        since = self._time(number + 1 - self._dwell["season"])
        return self._drift("season", expected - rank, since, self._shape_text(rank))

    def _expected_shape(self) -> float:
        """The lowest usual correlation; noise f times as wide lets ``r`` fall to ``1 / sqrt(1 + f**2 (r**-2 - 1))``."""
        usual = min(max(self.reference.shapeless, 0.05), 1.0)
        wider = max(1.0, math.exp(self._noise_log))
        return 1.0 / math.sqrt(1.0 + wider**2 * (usual**-2 - 1.0))

    def _shape_text(self, rank: float) -> str:
        bins = len(self._usual)
        told = np.where(np.isfinite(self._roots), self._roots, np.nanmean(self._roots))
        shifted = [_correlation(told, np.roll(self._usual, shift)) for shift in range(bins)]
        best = int(np.argmax(shifted))
        hours = (best - bins * (best > bins // 2)) * self.reference.width * self.reference.step / 3600
        usual = self.reference.shape
        text = f"the day has another shape: its correlation with the usual day is {rank:.2f}, not {usual:.2f}"
        if shifted[best] > max(0.5, rank + SHAPE_LOSS):
            text += f"; moved {abs(hours):.3g} h {'later' if hours > 0 else 'earlier'} it would be {shifted[best]:.2f}"
        return text

    def _noise_ratio(self) -> float:
        """Log ratio of the newest day's noise to the reference; 0 while less than half a day is known."""
        if np.isfinite(self._noise).mean() < 0.5:
            return 0.0
        least = NEGLIGIBLE * math.sqrt(self.reference.level)
        return math.log(max(_median(self._noise), least) / self.reference.noise)

    def _variance(self, number: int) -> Drift | None:
        change = self._noise_log - math.log(self._noise_base / self.reference.noise)
        level = max(float(masked_mean(self._roots)), math.sqrt(FAINT)) / (self._noise_gain * float(self._usual.mean()))
        explained = abs(math.log(level))  # noise in proportion to the level is none of its own
        excess = math.copysign(max(0.0, abs(change) - explained), change)
        if number < self._quiet and "variance" in self._active:  # the day that is measured becomes all new only now
            self._noise_base *= math.exp(change)
            self._noise_gain *= level
            return None
        self._active.discard("variance")
        limit = min(max(LEAST_VARIANCE, BEYOND * self.reference.noisiest), MOST_MOVE)
        self._dwell["variance"] = self._dwell["variance"] + 1 if abs(excess) > limit else 0
        if self._dwell["variance"] < len(self._usual) // 4 or number < self._quiet:
            return None
        since = self._time(number + 1 - self._dwell["variance"] - len(self._usual) // 2)
        self._active.add("variance")
        self._dwell["variance"] = 0
        text = f"values vary {math.exp(change):.2g} times as much from step to step as before, around the same day"
        return self._drift("variance", math.expm1(change), since, text)

    def _readings(self, now: float, skill: float | None, coverage: float | None) -> Drift | None:
        worse = self._stays_bad("skill", skill, 0.0, now)
        off = self._stays_bad("coverage", coverage, self.nominal - 0.1, now)
        if worse is not None and skill is not None:
            text = f"forecasts lose more than the baseline (skill {skill:.2f}), and nothing in the data explains it"
            return self._drift("skill", skill, worse, text)
        if off is not None and coverage is not None:
            text = f"{coverage:.0%} of the values fall into an interval for {self.nominal:.0%}"
            return self._drift("coverage", coverage - self.nominal, off, text)
        return None

    def _stays_bad(self, cause: Cause, reading: float | None, line: float, now: float) -> float | None:
        """Since when ``reading`` is below ``line``, if that is worth a report: for a quarter of a day."""
        if reading is None or not math.isfinite(reading):
            return None
        if reading > line + MARGIN:
            self._bad.pop(cause, None)
            self._active.discard(cause)
        elif reading < line:
            self._bad.setdefault(cause, now)
        since = self._bad.get(cause, now)
        patience = self.reference.season * self.reference.step / 4
        if now - since < patience or self._named or cause in self._active:
            return None
        self._active.add(cause)
        return since

    def _time(self, block: int) -> float:
        return block * self.reference.width * self.reference.step

    def _drift(self, cause: Cause, size: float, since: float, text: str) -> Drift:
        return Drift(self.reference.series, cause, size, since, text)


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


def _block_means(values: FloatArray) -> FloatArray:
    """Means along the last axis; NaN where less than half is known."""
    return np.where(np.isfinite(values).mean(axis=-1) >= 0.5, masked_mean(values), np.nan)


def _noise(values: FloatArray, usual: FloatArray, width: int) -> FloatArray:
    """The mean absolute difference of successive square roots, usual ones removed, per ``width`` values."""
    rest = np.sqrt(values) - usual
    return masked_mean(np.abs(np.diff(rest, prepend=np.nan)).reshape(-1, width))


def _explained(roots: FloatArray, usual: FloatArray) -> float:
    """The share of the variance of ``(days, B)`` that the profile ``(B,)`` explains, adjusted for having been taken
    from these days, and from robust deviations: single bursts and holes do not hide a day's shape.
    """
    rest, whole = _deviation(roots - usual), _deviation(roots - _median(roots))
    adjusted = rest**2 * len(roots) / (len(roots) - 1)
    return max(0.0, 1.0 - adjusted / whole**2) if whole > 0.0 else 0.0


def _restless(roots: FloatArray, usual: FloatArray, patience: int) -> float:
    """The largest log ratio of rates to the profile ``(B,)``, over windows of ``patience`` blocks."""
    end = roots.size // patience * patience
    told, expected = (one.reshape(-1)[:end].reshape(-1, patience) for one in (roots, np.tile(usual, len(roots))))
    heard = np.isfinite(told).mean(axis=1) >= 0.5
    expected = masked_mean(np.where(np.isfinite(told), expected, np.nan))[heard]
    least = math.sqrt(FAINT)
    ratio = np.maximum(masked_mean(told)[heard], least) / np.maximum(expected, least)
    return float(2.0 * np.abs(np.log(ratio)).max(initial=0.0))


def _shapes(roots: FloatArray) -> FloatArray:
    """The rank correlation of each day ``(days, B)`` with the profile of the others."""
    told = []
    for number, day in enumerate(roots):
        others = _columns_median(np.delete(roots, number, axis=0))
        known = np.isfinite(day) & np.isfinite(others)
        told.append(_correlation(day[known], others[known]) if known.mean() >= 0.75 else np.nan)
    return np.array([one for one in told if np.isfinite(one)] or [0.0])


def _correlation(one: FloatArray, other: FloatArray) -> float:
    """Spearman's rank correlation; 0 where either does not vary."""
    x, y = _ranks(one), _ranks(other)
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / size if size > 0.0 else 0.0


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks around 0; equal values share theirs."""
    order = np.sort(values)
    return (np.searchsorted(order, values) + np.searchsorted(order, values, side="right") - len(values)) / 2.0


def _columns_median(table: FloatArray) -> FloatArray:
    return np.array([_median(column) for column in table.T])


def _median(values: FloatArray) -> float:
    known = np.sort(values[np.isfinite(values)])
    return float(known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2.0 if len(known) else math.nan


def _deviation(values: FloatArray) -> float:
    """1.4826 times the median absolute value: the standard deviation of normal residuals, whatever the outliers."""
    return 1.4826 * _median(np.abs(values))
