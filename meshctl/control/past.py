"""What is known of every service's demand: stored history, a recorded trace that seeds it, and what every tick adds."""

from __future__ import annotations

import math

import numpy as np

from forecasting.series import FloatArray, Series
from meshctl.config import MeshConfig
from meshctl.history.database import Database
from meshctl.history.series import SeriesStore
from meshctl.model import Observation, ServiceObservation
from meshctl.sources import trace

DEMAND = "demand/"

TRAINABLE = 500
"""Known steps that a series needs to be trained on."""


class Past:
    """The demand of one mesh, in steps of one tick."""

    def __init__(self, config: MeshConfig, database: Database) -> None:
        self.step = config.controller.tick
        self.season = max(1, round(config.forecast.day / self.step))
        self._config = config
        self._database = database
        self._store = SeriesStore(self.step, _capacity(config))
        self._seed: FloatArray | None = None
        self._known: set[str] = set()  # series begin with the first request, not with zeros before it

    @property
    def seeded(self) -> bool:
        """Whether a recorded trace stands for the history: there is none of the mesh's own yet."""
        return self._seed is not None

    def restore(self, now: float) -> None:
        """Take up stored history, or read the seed trace. Reads the disk."""
        since = now - _capacity(self._config) * self.step
        for name in self._database.series_names():
            if name.startswith(DEMAND):
                times, values = self._database.load_samples(name, since)
                self._known.add(name)
                for moment, value in zip(times, values, strict=True):
                    self._store.add(name, float(moment), float(value))
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
            rows += [(f"{what}/{name}", moment, value) for what, value in _measures(seen).items() if value is not None]
        self._database.append_samples(rows)

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
        return Series(name.removeprefix(DEMAND), start, self.step, values, self.season)


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
    measures: dict[str, float | None] = {"errors": seen.errors, "p99": seen.p99, "ready": float(seen.ready)}
    return measures | {f"business/{name}": value for name, value in seen.business.items()}
