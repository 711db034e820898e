"""Small models, series and control planes for tests of what forecasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from forecasting.bundle import Bundle, BundleSettings, stored
from forecasting.models import linear
from forecasting.registry import Registry
from forecasting.series import FloatArray, Series
from meshctl.model import Observation, ServiceObservation

HORIZON = 12
DAY = 48
SETTINGS = BundleSettings(seconds=1.0, horizon=HORIZON)

BARE_MESH = """
name: shop
services:
  frontend: {replicas: {min: 1, max: 3}, calls: [catalog]}
  catalog: {calls: []}
ingress: {routes: [{prefix: /, service: frontend, rate_limit: {base: 100}}]}
controller:
  tick: 1s
  state_dir: state
  xds: {port: 0}
  http: {port: 0}
platform: {kind: dns}
"""

MESH = BARE_MESH + "forecast: {train_seconds: 1, day: 48s, retrain: {cpu_share: 1, keep: 2}}\n"


def rates(count: int, level: float = 60.0, seed: int = 0) -> FloatArray:
    """A day of ``DAY`` steps over and over, and a little noise."""
    noise = np.random.default_rng(seed).normal(0.0, 1.0, count)
    return np.asarray(level * (1.0 + 0.5 * np.sin(2 * np.pi * np.arange(count) / DAY)) + noise)


def series(count: int = 1000, name: str = "frontend", start: float = 0.0, step: float = 1.0) -> Series:
    return Series(name, start, step, rates(count), DAY)


def bundle(known: Series, good: bool = True, horizon: int = HORIZON) -> Bundle:
    """One linear model: fitted, or one that says the opposite of what comes."""
    past = known.until(round(0.9 * len(known.values)))
    weights = linear.fit(*linear.windows(past, horizon))[None]
    about = {"name": known.name, "start": known.start, "end": known.end, "step": known.step, "season": known.season}
    settings = asdict(BundleSettings(seconds=1.0, horizon=horizon))
    card = {"data": {"series": [about]}, "settings": settings, "scores": {}, "trained": known.end}
    return Bundle((linear.Linear([known.name], weights if good else -weights),), card)


def keep(registry: Registry, one: Bundle, **card: Any) -> int:
    """A new generation, not promoted."""
    arrays, about = stored(one)
    return registry.add(arrays, {**about, **card}).number


def damage(registry: Registry, number: int) -> None:
    """Flip one byte in the middle of the weights."""
    path: Path = next(one.folder for one in registry.generations() if one.number == number) / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def observation(moment: float, demand: Mapping[str, float], number: int = 1) -> Observation:
    services = {
        name: ServiceObservation(name, rate, rate, 0.0, 0.0, 0.1, 0.1, 0.2, 0.1, 1.0, 1, 1, 0.1, 1000)
        for name, rate in demand.items()
    }
    return Observation(moment, number, services, (), ())
