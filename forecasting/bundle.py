"""The learned models of one mesh as one thing: trained together, stored together, swapped together.

The newest share of every series (``holdout``) is never trained on: the card's scores and whatever replays that part
are out of sample.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forecasting import artifacts
from forecasting.artifacts import FORMAT, Artifact
from forecasting.base import MEDIAN, QUANTILES, Forecaster
from forecasting.batch import Batch
from forecasting.errors import ArtifactError, TrainingError
from forecasting.evaluate.stats import coverage, relative_wape
from forecasting.features import RECENT, A, S
from forecasting.models import linear
from forecasting.models.boosting import DEPTH, FIGURES, KNOTS, UPPER, UPPER_KNOTS, Boosting, Forests
from forecasting.models.linear import Linear
from forecasting.series import FloatArray, Series, clean, last_known

Progress = Callable[[int, int, str], None]
Clock = Callable[[], float]

SCORED = (1, 5, 12)
"""Steps ahead that the card reports."""


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """``seconds``: budget by the clock of ``train``; about a third goes to the network, and then linear models are
    fitted and forests grown, busiest series first, while time is left. What has begun is finished, and the busiest
    series gets a linear model whatever the time. ``horizon``: steps ahead. ``holdout``: newest share of each series
    that is kept for the scores. ``steps``: optimiser steps of the network; None derives them from its share of the
    time.
    """

    seconds: float = 60.0
    horizon: int = 12
    holdout: float = 0.1
    seed: int = 0
    steps: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Models in the order of the list, and a card that says what they learned from and how they scored."""

    models: tuple[Forecaster, ...]
    card: Mapping[str, Any]


def train(
    series: Sequence[Series], settings: BundleSettings, progress: Progress, clock: Clock = time.monotonic
) -> Bundle:
    """Learn from ``series``. Raises TrainingError where none is long enough or all are constant."""
    from forecasting.training import TrainSettings  # noqa: PLC0415 - torch takes seconds to import
    from forecasting.training import train as train_lstm  # noqa: PLC0415

    began = clock()
    past = [one.until(kept(len(one.values), settings)) for one in series]
    share = settings.seconds / 3.0
    budget = TrainSettings(seconds=share, horizon=settings.horizon, seed=settings.seed, steps=settings.steps)
    network = train_lstm(past, budget, progress, clock)
    models = [network, *_own(past, settings, progress, lambda: clock() - began)]
    card = _card(series, settings, clock() - began)
    return Bundle(tuple(models), card | {"scores": scores(models, series, settings)})


def kept(length: int, settings: BundleSettings) -> int:
    """Values of a series that may be trained on."""
    return length - int(length * settings.holdout)


def _own(
    series: Sequence[Series], settings: BundleSettings, progress: Progress, elapsed: Callable[[], float]
) -> list[Forecaster]:
    """Models of single series, busiest first, while time is left: linear ones, then forests."""
    from forecasting.models.boosting_training import LEAST  # noqa: PLC0415 - scikit-learn takes a second to import

    able = [one for one in series if linear.enough(one, settings.horizon, LEAST)]
    able.sort(key=_traffic, reverse=True)
    if not able:
        return []
    models: list[Forecaster] = [_linears(able, settings, progress, elapsed)]
    if elapsed() <= settings.seconds:
        models.append(_boostings(able, settings, progress, elapsed))
    return models


def _linears(
    series: Sequence[Series], settings: BundleSettings, progress: Progress, elapsed: Callable[[], float]
) -> Linear:
    """Linear models for the first of ``series`` (at least one), and for more while time is left."""
    weights: list[FloatArray] = []
    for number, one in enumerate(series):
        if weights and elapsed() > settings.seconds:
            break
        weights.append(linear.fit(*linear.windows(one, settings.horizon)))
        progress(number, len(series), f"linear {one.name}")
    return Linear([one.name for one in series[: len(weights)]], np.array(weights))


def _boostings(
    series: Sequence[Series], settings: BundleSettings, progress: Progress, elapsed: Callable[[], float]
) -> Boosting:
    """Forests for the first of ``series`` (at least one), and for more while time is left."""
    from forecasting.models import boosting_training  # noqa: PLC0415

    grown: list[Boosting] = []
    for number, one in enumerate(series):
        if grown and elapsed() > settings.seconds:
            break
        windows = linear.windows(one, settings.horizon)
        grown.append(boosting_training.grow(one.name, *windows, seed=settings.seed))
        progress(number, len(series), f"boosting {one.name}")
    return boosting_training.together(grown)


def _traffic(one: Series) -> float:
    return float(np.nansum(clean(one.values)))


def scores(
    models: Sequence[Forecaster], series: Sequence[Series], settings: BundleSettings, most: int = 400
) -> dict[str, Any]:
    """Out of sample, over the holdouts: relative WAPE and coverage of 0.9 and 0.99 at ``SCORED`` steps, per model."""
    batches = [batch for batch in (_holdout(one, settings, most) for one in series) if len(batch)]
    return {model.name: _scores(model, batches, settings.horizon) for model in models}


def _holdout(one: Series, settings: BundleSettings, most: int) -> Batch:
    """Evenly spaced windows that end in the holdout, with every target known to have come."""
    counts = np.arange(kept(len(one.values), settings), len(one.values) - settings.horizon + 1)
    return Batch.at(one, counts[:: max(1, len(counts) // most)], settings.horizon)


def _scores(model: Forecaster, batches: Sequence[Batch], horizon: int) -> dict[str, Any]:
    steps = [h for h in SCORED if h <= horizon]
    each = [(batch.actual(), model.predict(batch), last_known(batch.newest(RECENT))) for batch in batches]
    return {
        f"h{h}": _scored([(actual[:, h - 1], told[:, h - 1], last) for actual, told, last in each])
        for h in steps
        if each
    }


def _scored(rows: Sequence[Any]) -> dict[str, float | None]:
    each = [relative_wape(actual, told[:, MEDIAN], last) for actual, told, last in rows]
    good = [value for value in each if np.isfinite(value) and value > 0]
    actual = np.concatenate([row[0] for row in rows])
    told = np.concatenate([row[1] for row in rows])
    below = {f"below_{q}": _plain(coverage(actual, told[:, QUANTILES.index(q)])) for q in (0.9, 0.99)}
    return {"relative_wape": _plain(float(np.exp(np.mean(np.log(good))))) if good else None, **below}


def _plain(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def _card(series: Sequence[Series], settings: BundleSettings, seconds: float) -> dict[str, Any]:
    from importlib.metadata import version  # noqa: PLC0415

    return {
        "model": "bundle",
        "data": {
            "sha256": digest(series),
            "series": [
                {"name": s.name, "start": s.start, "end": s.end, "step": s.step, "season": s.season} for s in series
            ],
        },
        "settings": asdict(settings),
        "seconds": round(seconds, 3),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "torch", "scikit-learn")},
        },
    }


def digest(series: Sequence[Series]) -> str:
    """SHA-256 over names, values, steps and seasons; not over times, so that a recorded past that is replayed at
    another date finds its models again.
    """
    total = hashlib.sha256()
    for one in series:
        head = [one.name, one.step, one.season, len(one.values)]
        total.update(json.dumps(head).encode() + np.ascontiguousarray(one.values, dtype="<f8").tobytes())
    return total.hexdigest()


# -- on disk ---------------------------------------------------------------------------------------------------------


def stored(bundle: Bundle) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and card, as ``artifacts.save`` and ``Registry.add`` take them."""
    from forecasting.models.lstm import Lstm  # noqa: PLC0415

    arrays: dict[str, Any] = {}
    card = dict(bundle.card)
    for model in bundle.models:
        if isinstance(model, Lstm):
            parts, card["lstm"] = model.stored()
            arrays |= {f"lstm/{name}": part for name, part in parts.items()}
        elif isinstance(model, Linear):
            card["linear"] = {"names": list(model.names)}
            arrays["linear/weights"] = model.weights
        elif isinstance(model, Boosting):
            card["boosting"] = {
                "names": list(model.names),
                "knots": len(model.knots),
                "upper": len(model.upper[UPPER[0]]),
            }
            for kind, knots in _kinds(model).items():
                for knot, forests in enumerate(knots):
                    arrays |= {f"{kind}/{knot}/{name}": getattr(forests, name) for name in Forests.__slots__}
    return arrays, card


def restored(artifact: Artifact, threads: int = 1) -> Bundle:
    """The counterpart of ``stored``. Raises ArtifactError where arrays and card do not fit together."""
    models: list[Forecaster] = []
    if "lstm" in artifact.card:
        models.append(_lstm(artifact, threads))
    try:
        if "linear" in artifact.card:
            models.append(_linear(artifact.card["linear"], artifact.arrays))
        if "boosting" in artifact.card:
            models.append(_boosting(artifact.card["boosting"], artifact.arrays))
        _demand(bool(models), "the card names no model")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ArtifactError(f"the stored models do not fit together ({error}); train them again") from error
    return Bundle(tuple(models), artifact.card)


def _demand(met: bool, otherwise: str) -> None:
    if not met:
        raise ValueError(otherwise)


def _lstm(artifact: Artifact, threads: int) -> Forecaster:
    from forecasting.models.lstm import Lstm  # noqa: PLC0415

    own = {name.removeprefix("lstm/"): part for name, part in artifact.arrays.items() if name.startswith("lstm/")}
    return Lstm.restored(Artifact(own, artifact.card), threads)


def _linear(card: Mapping[str, Any], arrays: Mapping[str, Any]) -> Linear:
    names, weights = [str(name) for name in card["names"]], np.asarray(arrays["linear/weights"], dtype=np.float64)
    fits = weights.ndim == 3 and weights.shape[0] == len(names) and weights.shape[1] > 0
    _demand(
        fits and weights.shape[2] == 1 + linear.F, f"linear weights of shape {weights.shape} for {len(names)} series"
    )
    _demand(bool(np.isfinite(weights).all()), "a linear weight is not finite")
    return Linear(names, weights)


def _boosting(card: Mapping[str, Any], arrays: Mapping[str, Any]) -> Boosting:
    names, count, above = [str(name) for name in card["names"]], int(card["knots"]), int(card["upper"])
    _demand(1 <= count <= len(KNOTS), f"forests at {count} knots")
    _demand(1 <= above <= len(UPPER_KNOTS), f"upper forests at {above} knots")
    upper = {level: _forests(f"boosting/{level}", above, (len(names), FIGURES), arrays) for level in UPPER}
    return Boosting(names, _forests("boosting", count, (len(names), S + A), arrays), upper)


def _kinds(model: Boosting) -> dict[str, Sequence[Forests]]:
    """Forests by the path that they are stored under."""
    return {"boosting": model.knots, **{f"boosting/{level}": forests for level, forests in model.upper.items()}}


def _forests(kind: str, count: int, sizes: tuple[int, int], arrays: Mapping[str, Any]) -> list[Forests]:
    """Those of one kind; ``sizes``: how many series they are of, and how many figures they may ask for."""
    knots = [Forests(*(arrays[f"{kind}/{knot}/{name}"] for name in Forests.__slots__)) for knot in range(count)]
    for forests in knots:
        _check(forests, *sizes)
    return knots


def _check(forests: Forests, series: int, figures: int) -> None:
    """Raises ValueError for arrays that are no forests of at most ``DEPTH`` levels, one per series."""
    trees = (series, forests.leaf.shape[1])
    levels = forests.depth
    wanted = {"figure": (*trees, 2**levels - 1), "edge": (*trees, 2**levels - 1), "leaf": (*trees, 2**levels)}
    _demand(1 <= levels <= DEPTH, f"trees of {levels} levels")
    for name, shape in (wanted | {"base": (series,)}).items():
        found = getattr(forests, name).shape
        _demand(found == shape, f"{name} of the forests has shape {found}, expected {shape}")
    _demand(forests.figure.dtype.kind == "i", "figures of the forests are no whole numbers")
    inside = (forests.figure >= 0) & (forests.figure < figures)
    _demand(bool(inside.all()), "a forest asks for a figure that there is not")
    finite = np.isfinite(forests.leaf).all() and np.isfinite(forests.base).all() and not np.isnan(forests.edge).any()
    _demand(bool(finite), "a forest holds values that are not finite")


def cache_key(series: Sequence[Series], settings: BundleSettings) -> str:
    """The name under which the same data, settings and format are found again."""
    told = json.dumps([FORMAT, digest(series), asdict(settings), list(QUANTILES)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:24]


def train_or_load(
    series: Sequence[Series],
    settings: BundleSettings,
    cache_dir: Path,
    progress: Progress,
    clock: Clock = time.monotonic,
) -> tuple[Bundle, bool]:
    """The models for exactly these data and settings, and whether they came from ``cache_dir``. Damaged ones are
    trained again.
    """
    if not series:
        raise TrainingError("there is no series to learn from; record some first")
    folder = cache_dir / f"models-{cache_key(series, settings)}"
    try:
        return restored(artifacts.load(folder)), True
    except ArtifactError:
        bundle = train(series, settings, progress, clock)
        artifacts.save(folder, *stored(bundle))
        return bundle, False
