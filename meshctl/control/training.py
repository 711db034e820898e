"""One training: learn from series, hold the result against the champion, and keep it as a new generation.

Pure of processes: the child that :mod:`meshctl.control.trainer` starts runs it, and so does ``meshctl forecast
train``. Whether the new generation is promoted is decided by :mod:`meshctl.control.retraining`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forecasting import artifacts
from forecasting.artifacts import Arrays, Artifact
from forecasting.base import MEDIAN, Forecaster
from forecasting.batch import Batch
from forecasting.bundle import SCORED, Bundle, BundleSettings, Progress, kept, restored, stored, train, train_or_load
from forecasting.errors import ArtifactError, ForecastingError
from forecasting.evaluate.stats import geometric_mean, relative_wape
from forecasting.registry import Registry, Swap
from forecasting.series import FloatArray, IntArray, Series, last_known, masked_mean
from meshctl.control.watch import references

MOST_WINDOWS, ALL_WINDOWS, FEWEST_WINDOWS = 400, 20_000, 20
"""Windows that champion and challenger are compared in: of one series at most, of all, and of one in any case."""

LEAST_WINDOWS = 50
"""Under so many, over all series, nobody wins."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do. ``cache`` holds models by the data that made them: None trains in any case. ``seeded``: the series
    stand for a past that has no date yet, so their time of day means nothing.
    """

    settings: BundleSettings
    registry: Path
    reason: str
    now: float
    seeded: bool = False
    cache: Path | None = None


def learn(series: Sequence[Series], order: Order, progress: Progress, clock: Callable[[], float]) -> int:
    """Train, compare, keep; the number of the new generation. Raises ForecastingError."""
    began = clock()
    cached = False
    if order.cache is not None:
        bundle, cached = train_or_load(series, order.settings, order.cache, progress, clock)
    else:
        bundle = train(series, order.settings, progress, clock)
    registry = Registry(order.registry)
    arrays, card = stored(bundle)
    card |= {
        "trained": order.now,
        "reason": order.reason,
        "cached": cached,
        "drift": {} if order.seeded else {name: one.as_dict() for name, one in references(series).items()},
        "contest": compared(bundle, registry, series, order.settings),
        "seconds": round(clock() - began, 3),
    }
    return registry.add(arrays, card).number


# -- champion and challenger -----------------------------------------------------------------------------------------


def compared(
    challenger: Bundle, registry: Registry, series: Sequence[Series], settings: BundleSettings
) -> dict[str, Any] | None:
    """``contest`` with the champion of ``registry``; None where none can be used: the challenger stands alone."""
    try:
        champion = registry.champion()
        if champion is None or misfit(champion.artifact, series[0].step, series[0].season, settings.horizon):
            return None
        return {"champion": champion.generation.number} | contest(
            challenger, restored(champion.artifact), series, settings
        )
    except ArtifactError:
        return None


def misfit(artifact: Artifact, step: float, season: int, horizon: int) -> str:
    """Why models cannot forecast for these settings; empty if they can."""
    card = artifact.card
    told = {(float(one["step"]), int(one["season"])) for one in card.get("data", {}).get("series", [])}
    reach = card.get("settings", {}).get("horizon")
    if reach != horizon:
        return f"it forecasts {reach} steps ahead, forecast.horizon is {horizon}"
    if told != {(step, season)}:
        return f"it learned from another controller.tick or forecast.day than {step:g} s and {season} ticks"
    return ""


def contest(challenger: Bundle, champion: Bundle, series: Sequence[Series], settings: BundleSettings) -> dict[str, Any]:
    """Both on the same windows, of which neither has been trained on: relative WAPE, as the geometric mean over series
    and the steps 1, 5 and 12. ``ratio`` is the challenger's over the champion's; None where too little can be compared.
    """
    mine, theirs, windows = [], [], 0
    most = max(FEWEST_WINDOWS, min(MOST_WINDOWS, ALL_WINDOWS // max(1, len(series))))
    for one in series:
        counts = _fresh_windows(one, champion.card, settings, most)
        if len(counts):
            windows += len(counts)
            for a, b in _errors(one, counts, challenger, champion, settings.horizon):
                mine.append(a)
                theirs.append(b)
    enough = windows >= LEAST_WINDOWS and bool(mine)
    errors = (geometric_mean(mine), geometric_mean(theirs)) if enough else (math.nan, math.nan)
    ratio = errors[0] / errors[1] if enough and errors[1] > 0 else math.nan
    told = zip(("challenger_error", "champion_error", "ratio"), (*errors, ratio), strict=True)
    return {"windows": windows, **{name: round(value, 4) if math.isfinite(value) else None for name, value in told}}


def _fresh_windows(series: Series, champion: Mapping[str, Any], settings: BundleSettings, most: int) -> IntArray:
    """Counts of values after what either of the two was trained on."""
    length = len(series.values)
    begin = kept(length, settings)
    for known in champion["data"]["series"]:
        if known["name"] == series.name:
            until = _trained_until(known, champion["settings"])
            begin = max(begin, math.ceil((until - series.start) / series.step - 1e-6))
    counts = np.arange(begin, length - settings.horizon + 1)
    return counts[:: max(1, len(counts) // most)]


def _trained_until(known: Mapping[str, Any], settings: Mapping[str, Any]) -> float:
    steps = round((known["end"] - known["start"]) / known["step"])
    return float(known["start"] + known["step"] * kept(steps, BundleSettings(holdout=float(settings["holdout"]))))


def _errors(
    series: Series, counts: IntArray, challenger: Bundle, champion: Bundle, horizon: int
) -> Iterator[tuple[float, float]]:
    batch = Batch.at(series, counts, horizon)
    actual, last = batch.actual(), last_known(batch.newest(480))
    one, other = consensus(challenger.models, batch), consensus(champion.models, batch)
    actual = np.where(np.isfinite(one) & np.isfinite(other), actual, np.nan)
    for step in (step - 1 for step in SCORED if step <= horizon):
        pair = tuple(relative_wape(actual[:, step], told[:, step], last) for told in (one, other))
        if all(math.isfinite(error) and error > 0 for error in pair):
            yield pair[0], pair[1]


def consensus(models: Sequence[Forecaster], batch: Batch) -> FloatArray:
    """The mean of the models' medians, ``(N, H)``: what a mixture with equal weights says."""
    return masked_mean(np.stack([model.predict(batch)[:, :, MEDIAN] for model in models]), axis=0)


def wins(contest: Mapping[str, Any] | None, margin: float) -> bool:
    """Whether a challenger takes over: always where there is no champion, else by at least ``margin``."""
    if contest is None:
        return True
    ratio = contest.get("ratio")
    return ratio is not None and float(ratio) <= 1.0 - margin


def judge(registry: Registry, number: int, margin: float, now: float) -> tuple[str, Swap | None]:
    """Promote generation ``number`` if it wins; what to say about it, and the swap. Raises ForecastingError."""
    card = registry.load(number).card
    contest = card.get("contest")
    text = verdict(number, contest)
    if not wins(contest, margin):
        return f"{text}: not promoted, it must be better by {margin:.0%}", None
    scores = {"contest": contest, "models": card.get("scores")}
    return f"{text}: promoted", registry.promote(number, str(card.get("reason", "")), scores, now)


def verdict(number: int, contest: Mapping[str, Any] | None) -> str:
    """Challenger against champion in words."""
    if contest is None:
        return f"generation {number} has no champion to beat"
    against = f"generation {number} against {contest['champion']}"
    if contest.get("ratio") is None:
        return f"{against}: {contest['windows']} windows are too few to compare"
    return (
        f"{against}: error {contest['challenger_error']:.3f} : {contest['champion_error']:.3f} "
        f"of last value's, ratio {contest['ratio']:.3f} over {contest['windows']} windows"
    )


# -- an order on disk ------------------------------------------------------------------------------------------------


def write(folder: Path, series: Sequence[Series], order: Order) -> None:
    """Put an order where a child finds it: plain arrays and JSON. Raises ArtifactError."""
    about = [{"name": s.name, "start": s.start, "step": s.step, "season": s.season} for s in series]
    told = asdict(order) | {"registry": str(order.registry), "cache": order.cache and str(order.cache)}
    arrays: Arrays = {str(number): one.values for number, one in enumerate(series)}
    artifacts.save(folder, arrays, {"series": about, "order": told})


def read(folder: Path) -> tuple[list[Series], Order]:
    """The reverse of ``write``. Raises ArtifactError."""
    found = artifacts.load(folder)
    told = dict(found.card["order"])
    told["settings"] = BundleSettings(**told["settings"])
    told["registry"], told["cache"] = Path(told["registry"]), told["cache"] and Path(told["cache"])
    series = [
        Series(about["name"], about["start"], about["step"], found.arrays[str(number)], about["season"])
        for number, about in enumerate(found.card["series"])
    ]
    return series, Order(**told)


__all__ = ["ForecastingError", "Order", "contest", "judge", "learn", "misfit", "read", "verdict", "wins", "write"]
