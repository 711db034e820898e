"""Synthetic series, and a network that has seen one of them for a moment."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pytest

from forecasting.models.lstm import Lstm
from forecasting.series import FloatArray, Series
from forecasting.training import TrainSettings, train

SEASON = 96


class Make(Protocol):
    def __call__(self, values: FloatArray | list[float], name: str = "shop", start: float = 1e6) -> Series: ...


class Wave(Protocol):
    def __call__(self, length: int, seed: int = 0, noise: float = 5.0) -> FloatArray: ...


def _make(values: FloatArray | list[float], name: str = "shop", start: float = 1e6) -> Series:
    return Series(name, start, 5.0, np.asarray(values, dtype=np.float64), SEASON)


def _wave(length: int, seed: int = 0, noise: float = 5.0) -> FloatArray:
    rng = np.random.default_rng(seed)
    day = 60 + 40 * np.sin(2 * np.pi * np.arange(length) / SEASON)
    return np.maximum(0.0, day + rng.normal(0, noise, length))


ODD: dict[str, list[float]] = {
    "empty": [],
    "one-point": [4.0],
    "three-points": [3.0, 5.0, 4.0],
    "constant": [7.0] * 150,
    "all-zero": [0.0] * 150,
    "gaps-only": [float("nan")] * 150,
    "huge": [1e300, 2e300, 5e307] * 50,
    "infinite": [float("inf"), 1.0, float("-inf")] * 50,
    "negative": [-5.0, 3.0] * 75,
    "tiny": [1e-300, 3e-300] * 75,
    "zero-then-a-jump": [0.0] * 140 + [1e6] * 10,
    "gaps-inside": [1.0, float("nan"), 3.0, 2.0] * 40,
    "gap-at-the-end": [1.0, 2.0] * 70 + [float("nan")] * 20,
}


@pytest.fixture(scope="session")
def make() -> Make:
    """A series of 5 s steps and days of 96 steps."""
    return _make


@pytest.fixture(scope="session")
def wave() -> Wave:
    """A daily curve with noise: last value errs by the noise and by the slope, so there is something to learn."""
    return _wave


@pytest.fixture(params=list(ODD))
def odd(request: pytest.FixtureRequest) -> Series:
    return _make(ODD[request.param], name=request.param)


@pytest.fixture(scope="session")
def lstm() -> Lstm:
    """Trained on seven days of the wave, 120 steps."""
    settings = TrainSettings(steps=120, seconds=60, threads=1, batch=128, hidden=16)
    return train([_make(_wave(7 * SEASON))], settings, lambda done, total, text: None)
