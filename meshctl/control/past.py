"""What is known of every service's demand, and beside it: stored history, a recorded trace that seeds it, and what
every tick adds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from forecasting.calendar import Covariates
from forecasting.models.covariates import KEPT
from forecasting.series import FloatArray, Series
from meshctl.config import MeshConfig
from meshctl.history.database import Database
from meshctl.history.series import SeriesStore
from meshctl.model import Observation, ServiceObservation
from meshctl.sources import trace

DEMAND = "demand/"
BUSINESS = "business/"
RESOURCES = ("cpu/", "memory/")
"""Series names begin with these, and end with the service."""

MEASURES = 12
"""Business metrics and resources kept in memory per service, the first that come: made-up names must not fill it."""

TRAINABLE = 500
"""Known steps that a series needs to be trained on."""


class Past:
    """The demand of one mesh, in steps of one tick; beside it, business metrics of the services that report some, and
    what these services use of CPU and memory. What a service uses follows its demand: by itself it tells nothing.
    """

    def __init__(self, config: MeshConfig, database: Database) -> None:
        self.step = config.controller.tick
        self.season = max(1, round(config.forecast.day / self.step))
        self._config = config
        self._database = database
        self._store = SeriesStore(self.step, _capacity(config))
        self._beside = SeriesStore(self.step, KEPT + config.forecast.horizon)
        self._metrics: dict[str, tuple[str, ...]] = {}  # by service, names in the store of what is beside its demand
        self._seed: FloatArray | None = None
        self._known: set[str] = set()  # series begin with the first request, not with zeros before it

    @property
    def seeded(self) -> bool:
        """Whether a recorded trace stands for the history: there is none of the mesh's own yet."""
        return self._seed is not None

    @property
    def informed(self) -> bool:
        """Whether any service has reported a business metric."""
        return bool(self._metrics)

    def restore(self, now: float) -> None:
        """Take up stored history, or read the seed trace. Reads the disk."""
        since = now - _capacity(self._config) * self.step
        names = self._database.series_names()
        for name in names:
            if name.startswith(DEMAND):
                times, values = self._database.load_samples(name, since)
                self._known.add(name)
                for moment, value in zip(times, values, strict=True):
                    self._store.add(name, float(moment), float(value))
        for name in sorted(names, key=lambda one: not one.startswith(BUSINESS)):  # resources count beside metrics only
            self._restore_beside(name, now - self._beside.capacity * self.step)
        history = self._config.forecast.history
        if history is not None and DEMAND + history.service not in self._store.names():
            self._seed = _seed_values(self._config)

    def plant(self, observation: Observation) -> str | None:
        """The recorded past ends where the first traffic begins, so that the two make one series; whose it became."""
        history = self._config.forecast.history
        if self._seed is None or history is None or observation.services[history.service].demand <= 0.0:
            return None
        name, start = DEMAND + history.service, observation.time - self.step * (len(self._seed) + 1)
        self._store.preload(name, start, self._seed)
        times = start + self.step * (np.arange(len(self._seed)) + 0.5)
        self._database.append_samples([(name, float(t), float(v)) for t, v in zip(times, self._seed, strict=True)])
        self._seed = None
        return history.service

    def record(self, observation: Observation, masked: frozenset[str]) -> None:
        """Add one tick; services in ``masked`` get a gap."""
        moment = observation.time - self.step / 2
        rows = []
        for name, seen in observation.services.items():
            if name not in masked and (seen.demand > 0.0 or DEMAND + name in self._known):
                self._known.add(DEMAND + name)
                self._store.add(DEMAND + name, moment, seen.demand)
                rows.append((DEMAND + name, moment, seen.demand))
                self._record_beside(seen, moment)
            measures = _measures(seen) | self._heard(seen)
            rows += [(f"{what}/{name}", moment, value) for what, value in measures.items() if value is not None]
        self._database.append_samples(rows)

    def _heard(self, seen: ServiceObservation) -> dict[str, float]:
        """What is observed beside a service's demand, by series prefix; nothing where there never was a metric."""
        return _beside(seen) if seen.business or seen.service in self._metrics else {}

    def _record_beside(self, seen: ServiceObservation, moment: float) -> None:
        for what, value in self._heard(seen).items():
            if math.isfinite(value):
                self._keep(f"{what}/{seen.service}", seen.service, [(moment, value)])

    def _restore_beside(self, name: str, since: float) -> None:
        """Only what was observed while demand was: what a fault distorted has no demand beside it."""
        service = name.rpartition("/")[2]
        if name.startswith((BUSINESS, *RESOURCES)) and DEMAND + service in self._known:
            times, values = self._database.load_samples(name, since)
            clear = np.isin(times, self._database.load_samples(DEMAND + service, since)[0])
            self._keep(name, service, zip(times[clear].tolist(), values[clear].tolist(), strict=True))

    def _keep(self, name: str, service: str, samples: Iterable[tuple[float, float]]) -> None:
        """Keep a measure in memory, where there is room. It is listed last: ticks read while history is restored."""
        names = self._metrics.get(service, ())
        room = len(names) < MEASURES and (bool(names) or name.startswith(BUSINESS))
        if name not in names and not room:
            return
        for moment, value in samples:
            self._beside.add(name, moment, value)
        if name not in names and name in self._beside.names():
            self._metrics[service] = (*names, name)

    def series(self) -> list[Series]:
        """Every service's demand, sorted by name."""
        return [self._one(name) for name in sorted(self._store.names())]

    def training_series(self, now: float) -> list[Series]:
        """What is long enough to be trained on; the seed, as if it ended at ``now``, while there is one."""
        history = self._config.forecast.history
        if self._seed is not None and history is not None:
            start = (math.floor(now / self.step) - len(self._seed)) * self.step
            return [Series(history.service, start, self.step, self._seed, self.season)]
        return [one for one in self.series() if np.isfinite(one.values).sum() >= TRAINABLE]

    def longest(self) -> int:
        """Steps of the longest series."""
        return max((len(one.values) for one in self.series()), default=0)

    def _one(self, name: str) -> Series:
        start, values = self._store.get(name)
        service = name.removeprefix(DEMAND)
        one = Series(service, start, self.step, values, self.season)
        return replace(one, covariates=self._covariates(one)) if service in self._metrics else one

    def _covariates(self, one: Series) -> Covariates:
        """What is known beside the newest values of a series, on its grid."""
        names = self._metrics[one.name]
        begin = max(0, len(one.values) - self._beside.capacity)
        start, count = one.start + begin * one.step, len(one.values) - begin
        table = np.stack([self._beside.on_grid(name, start, count) for name in names], axis=1)
        return Covariates(tuple(name.removesuffix(f"/{one.name}") for name in names), table, begin)


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


def _measures(seen: ServiceObservation) -> dict[str, float | None]:
    """What else is kept on disk, by series prefix."""
    return {"errors": seen.errors, "p99": seen.p99, "ready": float(seen.ready)}


def _beside(seen: ServiceObservation) -> dict[str, float]:
    """What may foretell demand, by series prefix: business metrics, and resources unless the platform reports none."""
    resources = {"cpu": seen.cpu, "memory": float(seen.memory)}
    business = {f"business/{name}": value for name, value in seen.business.items()}
    return business | {name: value for name, value in resources.items() if value > 0.0}
