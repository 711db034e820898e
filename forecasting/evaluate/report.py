"""What a backtest found: scores and curves per series and model, as JSON and as rows of a table. Pure.

``evaluate`` is the whole work on one series, so that it can run in any process; a ``Report`` folds many of them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from forecasting.base import MEDIAN, QUANTILES, column
from forecasting.calendar import Holidays
from forecasting.errors import ForecastingError
from forecasting.evaluate import stats
from forecasting.evaluate.backtest import Backtest, last_values, origins
from forecasting.evaluate.contest import BASELINE, LastResiduals, Outcome, contestants, run_model
from forecasting.series import FloatArray, IntArray, Series, clean

T = TypeVar("T")
Json = dict[str, Any]

FORMAT = 1
"""Of the JSON document; raised whenever a figure changes its meaning, so that no older result is taken up again."""

STEPS = (1, 5, 12)
"""Steps ahead that are scored one by one."""

UPPER = (0.9, 0.99)
"""Quantiles that are scored: what capacity is planned for."""

POINTS = 200
"""Most points of a curve."""

SHOWN = 3000
"""Most values of the picture of the newest days."""


class ReportError(ForecastingError):
    """A stored report cannot be read; compute it again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What besides the data decides a result: the names of the contestants, steps ahead, most origins per series, and
    the public holidays that they know of.
    """

    models: tuple[str, ...]
    horizon: int = 12
    origins: int = 400
    holidays: Holidays | None = None


@dataclass(frozen=True, slots=True)
class UpperScore:
    """One quantile: ``pinball`` in units of the mean one-step change, ``relative_pinball`` to last value with
    residuals, ``coverage`` on average and in the worst ``stats.WINDOW`` consecutive origins.
    """

    quantile: float
    pinball: float
    relative_pinball: float
    coverage: float
    worst_window: float


@dataclass(frozen=True, slots=True)
class Score:
    """The median ``step`` steps ahead, and the upper quantiles. ``relative_wape`` is to last value."""

    step: int
    wape: float
    relative_wape: float
    mase: float
    upper: tuple[UpperScore, ...]


@dataclass(frozen=True, slots=True)
class Fan:
    """What was said at one origin (the index of the first step ahead): ``values[h][q]``."""

    origin: int
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class CoverageCurve:
    """Rolling coverage of one quantile; ``at[i]`` is the newest origin of window ``i``."""

    step: int
    quantile: float
    at: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WeightCurves:
    """How much a mixture trusted each of its members: ``values[i][m]`` at origin ``at[i]``."""

    members: tuple[str, ...]
    at: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model on one series. ``profile[h - 1]`` is the WAPE of step ``h``."""

    model: str
    seconds: float
    scores: tuple[Score, ...]
    profile: tuple[float, ...]
    fans: tuple[Fan, ...]
    coverage: tuple[CoverageCurve, ...]
    weights: WeightCurves | None


@dataclass(frozen=True, slots=True)
class SeriesReport:
    """One series: ``length`` steps of ``step`` seconds from ``start``, ``gaps`` of them unknown, ``season`` steps a
    day; ``recent`` are its newest values.
    """

    name: str
    start: float
    step: float
    season: int
    length: int
    gaps: int
    origins: int
    recent: tuple[float, ...]
    models: tuple[ModelReport, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """One model over ``series`` series. Every figure is the geometric mean over those that know it, but the worst
    window, which is the worst of all, and ``seconds``, which is the sum.
    """

    model: str
    series: int
    seconds: float
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole backtest."""

    horizon: int
    series: tuple[SeriesReport, ...]

    def summary(self) -> tuple[Summary, ...]:
        """One entry per model, in the order of the first series."""
        found: dict[str, list[ModelReport]] = {}
        for one in self.series:
            for model in one.models:
                found.setdefault(model.model, []).append(model)
        return tuple(_summary(name, models) for name, models in found.items())

    def document(self) -> Json:
        """The report as JSON; what is unknown is null."""
        summary = [_plain(asdict(one)) for one in self.summary()]
        return {
            "format": FORMAT,
            "horizon": self.horizon,
            "summary": summary,
            "series": list(map(document, self.series)),
        }

    def rows(self) -> list[Json]:
        """Rows of a table: every series, model and step, then the summary as ``ALL(n)``; None where unknown."""
        rows = [_row(one.name, model, score) for one in self.series for model in one.models for score in model.scores]
        return rows + [_row(f"ALL({one.series})", one, score) for one in self.summary() for score in one.scores]


# -- from forecasts to scores --


def evaluate(settings: Settings, series: Series) -> SeriesReport:
    """Ask every contestant about ``series`` and score the answers.

    Raises UnknownModelError, and ReportError where the series is too short for a single origin.
    """
    counts = origins(len(series.values), settings.horizon, most=settings.origins)
    if not len(counts):
        known, least = len(series.values), shortest(settings.horizon)
        raise ReportError(f"{series.name}: {known} values are too few; give {least} or more, or a shorter horizon")
    chosen = contestants(settings.models, settings.holidays)
    outcomes = {one.name: one.run(series, counts, settings.horizon) for one in chosen}
    return series_report(series, counts, settings.horizon, outcomes)


def shortest(horizon: int) -> int:
    """How many values a series needs for one origin: the newest fifth must be longer than the horizon."""
    length = 5 * horizon
    while not len(origins(length, horizon)):
        length += 1
    return length


def series_report(series: Series, counts: IntArray, horizon: int, outcomes: Mapping[str, Outcome]) -> SeriesReport:
    """Score what was said at ``counts (N,)``, oldest first."""
    values = clean(series.values)
    actual = np.lib.stride_tricks.sliding_window_view(values, horizon)[counts]
    reference = outcomes.get(BASELINE) or run_model(LastResiduals, series, counts, horizon)
    judge = _Judge(counts, actual, last_values(series, counts), reference.values, values[: counts[0]])
    return SeriesReport(
        name=series.name,
        start=series.start,
        step=series.step,
        season=series.season,
        length=len(values),
        gaps=int(np.isnan(values).sum()),
        origins=len(counts),
        recent=_floats(values[len(values) - _shown(series) :]),
        models=tuple(judge.model(name, outcome, len(values) - _shown(series)) for name, outcome in outcomes.items()),
    )


def _shown(series: Series) -> int:
    """Values in the picture of the newest days: two days, at most ``SHOWN``."""
    return min(len(series.values), SHOWN, max(2 * series.season, 48))


@dataclass(frozen=True, slots=True, eq=False)
class _Judge:
    """What all models of a series are measured against: ``actual (N, H)``, ``last (N,)``, ``reference (N, H, Q)``."""

    counts: IntArray
    actual: FloatArray
    last: FloatArray
    reference: FloatArray
    past: FloatArray

    def model(self, name: str, outcome: Outcome, since: int) -> ModelReport:
        told, horizon = outcome.values, self.actual.shape[1]
        medians = told[..., MEDIAN]
        steps = [step for step in STEPS if step <= horizon]
        return ModelReport(
            model=name,
            seconds=outcome.seconds,
            scores=tuple(self.score(told, step) for step in steps),
            profile=tuple(stats.wape(self.actual[:, h], medians[:, h]) for h in range(horizon)),
            fans=_fans(told, self.counts, since),
            coverage=tuple(self.curve(told, step, quantile) for step in steps for quantile in UPPER),
            weights=_weights(outcome, self.counts),
        )

    def score(self, told: FloatArray, step: int) -> Score:
        actual, median = self.actual[:, step - 1], told[:, step - 1, MEDIAN]
        return Score(
            step=step,
            wape=stats.wape(actual, median),
            relative_wape=Backtest(self.actual, told, self.last).relative_wape(step),
            mase=stats.mase(actual, median, self.past),
            upper=tuple(self.upper(told, step, quantile) for quantile in UPPER),
        )

    def upper(self, told: FloatArray, step: int, quantile: float) -> UpperScore:
        at = column(QUANTILES, quantile)
        actual, said = self.actual[:, step - 1], told[:, step - 1, at]
        return UpperScore(
            quantile=quantile,
            pinball=stats.scaled_pinball(actual, said, quantile, self.past),
            relative_pinball=stats.relative_pinball(actual, said, self.reference[:, step - 1, at], quantile),
            coverage=stats.coverage(actual, said),
            worst_window=stats.worst_window_coverage(actual, said),
        )

    def curve(self, told: FloatArray, step: int, quantile: float) -> CoverageCurve:
        actual, said = self.actual[:, step - 1], told[:, step - 1, column(QUANTILES, quantile)]
        rolling = stats.rolling_coverage(actual, said)
        ends = self.counts[np.isfinite(actual) & np.isfinite(said)][stats.WINDOW - 1 :]
        some = _some(len(rolling))
        return CoverageCurve(step, quantile, tuple(map(int, ends[some])), _floats(rolling[some]))


def _fans(told: FloatArray, counts: IntArray, since: int) -> tuple[Fan, ...]:
    """Origins from ``since`` on whose steps do not overlap."""
    chosen: list[int] = []
    for row, count in enumerate(counts):
        if count >= since and (not chosen or count >= counts[chosen[-1]] + told.shape[1]):
            chosen.append(row)
    return tuple(Fan(int(counts[row]), tuple(map(_floats, told[row]))) for row in chosen)


def _weights(outcome: Outcome, counts: IntArray) -> WeightCurves | None:
    if outcome.weights is None:
        return None
    some = _some(len(counts))
    values = tuple(map(_floats, outcome.weights[some]))
    return WeightCurves(tuple(outcome.members), tuple(map(int, counts[some])), values)


def _some(count: int) -> IntArray:
    """At most ``POINTS`` positions among ``count``, evenly spaced, both ends included."""
    return np.unique(np.linspace(0, max(0, count - 1), min(count, POINTS)).astype(np.int64))


def _floats(values: FloatArray) -> tuple[float, ...]:
    """For curves: seven digits are more than a picture shows, and half the size of a document."""
    return tuple(float(f"{value:.7g}") for value in values)


# -- over all series --


def _summary(name: str, models: Sequence[ModelReport]) -> Summary:
    scores = zip(*(model.scores for model in models), strict=True)
    return Summary(name, len(models), math.fsum(model.seconds for model in models), tuple(map(_mean_score, scores)))


def _mean_score(scores: Sequence[Score]) -> Score:
    upper = tuple(map(_mean_upper, zip(*(score.upper for score in scores), strict=True)))
    means = {name: stats.geometric_mean(getattr(s, name) for s in scores) for name in ("wape", "relative_wape", "mase")}
    return Score(step=scores[0].step, upper=upper, **means)


def _mean_upper(scores: Sequence[UpperScore]) -> UpperScore:
    names = ("pinball", "relative_pinball", "coverage")
    means = {name: stats.geometric_mean(getattr(score, name) for score in scores) for name in names}
    known = [score.worst_window for score in scores if math.isfinite(score.worst_window)]
    return UpperScore(quantile=scores[0].quantile, worst_window=min(known, default=math.nan), **means)


def _row(name: str, model: ModelReport | Summary, score: Score) -> Json:
    row = {"name": name, "model": model.model, **asdict(score), "seconds": model.seconds}
    for upper in row.pop("upper"):
        suffix = f"{100 * upper.pop('quantile'):g}"
        row.update({f"{key}_{suffix}": value for key, value in upper.items()})
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


# -- to JSON and back --


def digest(settings: Settings, series: Series) -> str:
    """What names a finished result: the same data and settings give the same 32 hexadecimal digits."""
    facts = [FORMAT, asdict(settings), series.name, series.start, series.step, series.season, STEPS, UPPER, QUANTILES]
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    found.update(np.ascontiguousarray(series.values, dtype=np.float64).tobytes())
    if (beside := series.covariates) is not None:
        found.update(json.dumps([beside.names, beside.begin]).encode())
        found.update(np.ascontiguousarray(beside.values, dtype=np.float64).tobytes())
    return found.hexdigest()[:32]


def document(one: SeriesReport) -> Json:
    """One series as JSON; NaN and infinity become null, because JSON has neither."""
    plain = _plain(asdict(one))
    assert isinstance(plain, dict)
    return plain


def series_of(found: object) -> SeriesReport:
    """The inverse of ``document``; null becomes NaN. Raises ReportError naming the field that is wrong."""
    return _built(SeriesReport, found, "series")


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _built(kind: type[T], found: object, where: str) -> T:
    if not isinstance(found, Mapping):
        raise ReportError(f"{where}: expected an object, got {type(found).__name__}; compute it again")
    return kind(**dict(_members(kind, found, where)))


def _members(kind: type, found: Mapping[str, object], where: str) -> Iterator[tuple[str, object]]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        if field.name not in found:
            raise ReportError(f"{where}.{field.name}: missing; compute it again")
        yield field.name, _value(hints[field.name], found[field.name], f"{where}.{field.name}")


def _value(hint: Any, found: object, where: str) -> object:
    if isinstance(hint, UnionType):
        return None if found is None else _value(get_args(hint)[0], found, where)
    if get_origin(hint) is tuple and isinstance(found, list):
        return tuple(_value(get_args(hint)[0], item, where) for item in found)
    if is_dataclass(hint) and isinstance(hint, type):
        return _built(hint, found, where)
    if hint is float and (found is None or isinstance(found, int | float)):
        return math.nan if found is None else float(found)
    if not isinstance(hint, type) or not isinstance(found, hint):
        raise ReportError(f"{where}: expected {hint}, got {found!r:.60}; compute it again")
    return found
