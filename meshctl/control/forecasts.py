"""Forecasts of every service's demand: history in, :class:`~meshctl.model.Demand` out.

The learned model is trained (or loaded from its cache) in a thread at start. Until it is ready the simple ones
forecast and reactive rules act; the state says so. The mesh never waits for a model.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from forecasting.base import Forecaster
from forecasting.ensemble import Selected, Selector
from forecasting.errors import ForecastingError
from forecasting.models.naive import LastValue
from forecasting.models.statistical import Ewma
from forecasting.series import FloatArray, Series
from meshctl.config import MeshConfig
from meshctl.control.journal import Journal
from meshctl.history.database import Database
from meshctl.history.series import SeriesStore
from meshctl.model import Demand, Observation, ServiceObservation
from meshctl.sources import trace

Progress = Callable[[int, int, str], None]

_DEMAND = "demand/"
#: Shortest stored history, in steps, that is worth training on.
_TRAINABLE = 500


@dataclass(frozen=True, slots=True)
class ModelState:
    """Where the learned model stands."""

    state: Literal["none", "loading", "training", "ready", "failed"]
    detail: str
    cached: bool = False


class Forecasts:
    """Keeps the series, the selector and the last forecasts of one mesh."""

    def __init__(self, config: MeshConfig, database: Database, journal: Journal, cache: Path) -> None:
        self.model = ModelState("loading", "not begun")
        self.selected: dict[str, Selected] = {}
        self.demand: dict[str, Demand] = {}
        self.made = 0
        self._config = config
        self._database = database
        self._journal = journal
        self._cache = cache
        self._step = config.controller.tick
        self._store = SeriesStore(self._step, _capacity(config))
        self._seed: FloatArray | None = None
        self._known: set[str] = set()  # series begin with the first request, not with zeros before it
        self._selector = self._select([LastValue(), Ewma()])

    # -- start ---------------------------------------------------------------------------------------------------

    async def prepare(self, now: float, progress: Progress) -> None:
        """Take up stored history (or read the seed trace), then train or load the learned model."""
        await asyncio.to_thread(self._restore, now)
        if self._config.forecast.train_seconds == 0:
            self.model = ModelState("none", "forecast.train_seconds is 0: no learned model")
            return
        series = self._training_series()
        if not series:
            longest = max((len(one.values) for one in self._series()), default=0)
            self.model = ModelState("none", f"{longest} of {_TRAINABLE} steps of history: too little to train on")
            self._journal.event("model", "lstm", f"{self.model.detail}; reactive rules act")
            return
        await self._train(series, progress)

    async def _train(self, series: Sequence[Series], progress: Progress) -> None:
        self.model = ModelState(
            "training", f"on {sum(len(one.values) for one in series)} steps of {len(series)} series"
        )
        try:
            lstm, cached, seconds = await asyncio.to_thread(_train_or_load, series, self._config, self._cache, progress)
        except ForecastingError as error:
            self.model = ModelState("failed", str(error))
            self._journal.event("model", "lstm", f"no learned model: {error}; reactive rules act")
            return
        self._selector = self._select([LastValue(), Ewma(), lstm])
        how = "loaded from the cache" if cached else f"trained in {seconds:.1f} s"
        self.model = ModelState("ready", f"{how} on {len(series)} series", cached)
        self._journal.event("model", "lstm", f"lstm {self.model.detail}", cached=cached)

    def _restore(self, now: float) -> None:
        since = now - _capacity(self._config) * self._step
        for name in self._database.series_names():
            times, values = self._database.load_samples(name, since)
            if name.startswith(_DEMAND):
                self._known.add(name)
                for moment, value in zip(times, values, strict=True):
                    self._store.add(name, float(moment), float(value))
        history = self._config.forecast.history
        if history is not None and _DEMAND + history.service not in self._store.names():
            self._seed = _seed_values(self._config)

    # -- each tick -----------------------------------------------------------------------------------------------

    async def update(self, observation: Observation, *, masked: frozenset[str]) -> Mapping[str, Demand]:
        """Add the tick's demand (services in ``masked`` get a gap) and forecast every service."""
        self._plant_seed(observation)
        self._record(observation, masked)
        series = [one for one in self._series() if one.name in observation.services]
        chosen = await asyncio.to_thread(self._selector.update, series)
        self.selected = {
            one.name: selected for one, selected in zip(series, chosen, strict=True) if selected is not None
        }
        self.made += len(self.selected)
        steps = max(1, math.ceil(self._config.scaling.startup / self._step) + 1)
        self.demand = {
            name: _demand(
                name, selected, observation.services[name], min(steps, self._config.forecast.horizon), self._config
            )
            for name, selected in self.selected.items()
        }
        return self.demand

    def _plant_seed(self, observation: Observation) -> None:
        """The recorded past ends where the first traffic begins, so that the two make one series."""
        history = self._config.forecast.history
        if self._seed is None or history is None or observation.services[history.service].demand <= 0.0:
            return
        name, start = _DEMAND + history.service, observation.time - self._step * (len(self._seed) + 1)
        self._store.preload(name, start, self._seed)
        times = start + self._step * (np.arange(len(self._seed)) + 0.5)
        self._database.append_samples([(name, float(t), float(v)) for t, v in zip(times, self._seed, strict=True)])
        self._seed = None

    def _record(self, observation: Observation, masked: frozenset[str]) -> None:
        moment = observation.time - self._step / 2
        rows = []
        for name, seen in observation.services.items():
            if name not in masked and (seen.demand > 0.0 or _DEMAND + name in self._known):
                self._known.add(_DEMAND + name)
                self._store.add(_DEMAND + name, moment, seen.demand)
                rows.append((_DEMAND + name, moment, seen.demand))
            rows += [(f"{what}/{name}", moment, value) for what, value in _measures(seen).items() if value is not None]
        self._database.append_samples(rows)

    def _series(self) -> list[Series]:
        season = max(1, round(self._config.forecast.day / self._step))
        found = []
        for name in sorted(self._store.names()):
            start, values = self._store.get(name)
            found.append(Series(name.removeprefix(_DEMAND), start, self._step, values, season))
        return found

    def _training_series(self) -> list[Series]:
        season = max(1, round(self._config.forecast.day / self._step))
        if self._seed is not None:
            return [Series("seed", 0.0, self._step, self._seed, season)]
        return [one for one in self._series() if np.isfinite(one.values).sum() >= _TRAINABLE]

    def _select(self, models: Sequence[Forecaster]) -> Selector:
        return Selector(models, horizon=self._config.forecast.horizon)


def _capacity(config: MeshConfig) -> int:
    """Steps kept in memory: what was recorded, at most 30 days, at least one."""
    day = max(1, round(config.forecast.day / config.controller.tick))
    return min(30 * day, 600_000)


def _seed_values(config: MeshConfig) -> FloatArray:
    """The recorded past at the tick's resolution, scaled to the configured mean rate."""
    history = config.forecast.history
    if history is None:
        return np.empty(0)
    past = trace.read(history.trace).before(history.until)
    values = trace.resample(past.values, config.controller.tick / history.step)
    return np.asarray(values * (history.rate / max(float(past.values.mean()), 1e-12)))


def _train_or_load(
    series: Sequence[Series], config: MeshConfig, cache: Path, progress: Progress
) -> tuple[Forecaster, bool, float]:
    from forecasting.training import TrainSettings, train_or_load  # noqa: PLC0415 - torch takes seconds to import

    settings = TrainSettings(seconds=config.forecast.train_seconds, horizon=config.forecast.horizon)
    lstm, cached = train_or_load(series, settings, cache, progress)
    return lstm, cached, float(lstm.card.get("seconds", 0.0))


def _measures(seen: ServiceObservation) -> dict[str, float | None]:
    """What else is kept on disk, by series prefix."""
    measures: dict[str, float | None] = {"errors": seen.errors, "p99": seen.p99, "ready": float(seen.ready)}
    return measures | {f"business/{name}": value for name, value in seen.business.items()}


def _demand(name: str, selected: Selected, seen: ServiceObservation, steps: int, config: MeshConfig) -> Demand:
    quantile = config.limits.quantile
    return Demand(
        service=name,
        model=selected.model,
        skilled=selected.skilled,
        reason=selected.reason,
        expected=selected.forecast.at(1, 0.5),
        upper=selected.forecast.at(1, quantile),
        peak=selected.peak(steps, quantile),
    )
