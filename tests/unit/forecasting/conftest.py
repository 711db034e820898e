"""Synthetic series, histories with two futures, and models that have seen one series for a moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Protocol

import numpy as np
import pytest
from hypothesis import strategies as st

from forecasting.base import Forecaster
from forecasting.batch import Batch
from forecasting.models import boosting_training, linear
from forecasting.models.boosting import Boosting
from forecasting.models.linear import Linear
from forecasting.models.lstm import Lstm
from forecasting.series import FloatArray, Series
from forecasting.training import TrainSettings, train
from tests.support import extras

NAN = float("nan")
H = 12

SEASON = 96


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    extras.prepare(config, items)


@pytest.fixture(autouse=True)
def extra(request: pytest.FixtureRequest) -> Iterator[None]:
    """``@pytest.mark.extras("ray")``: package ray can be imported, by processes that the test starts as well."""
    mark = request.node.get_closest_marker("extras")
    with extras.importable(mark.args[0]) if mark else nullcontext():
        yield


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


SPECIAL = np.array([NAN, NAN, 0.0, float("inf"), float("-inf"), -3.0, 1e300, 5e-324])


@st.composite
def futures(draw: st.DrawFn, most: int = 700) -> tuple[Series, Series]:
    """A past of any kind (gaps, infinities, bursts, short seasons, real days) and the same with a future."""
    season = draw(st.sampled_from([1, 3, 8, 20, SEASON, 288]))
    step = draw(st.sampled_from([5.0, 86_400.0 / season]))
    count, later = draw(st.integers(0, most)), draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    values = rng.gamma(0.7, 50.0, count + later)
    odd = rng.random(count + later) < draw(st.sampled_from([0.0, 0.05, 0.6]))
    values[odd] = rng.choice(SPECIAL, odd.sum())
    whole = Series("shop", 1e9, step, values, season)
    return whole.until(count), whole


def assert_blind(model: Forecaster, past: Series, whole: Series) -> None:
    """The model says the same at the end of ``past``, whether nothing, something or anything comes after it."""
    count = np.array([len(past.values)])
    other = whole.values.copy()
    other[len(past.values) :] = 1e6 - np.nan_to_num(other[len(past.values) :], posinf=7.0, neginf=3.0)
    alone = model.predict(Batch.now([past], H))
    for series in (whole, replace(whole, values=other)):
        np.testing.assert_array_equal(model.predict(Batch.at(series, count, H)), alone)


def quiet(done: int, total: int, text: str) -> None:
    """A caller that draws no bar."""


@pytest.fixture(scope="session")
def lstm() -> Lstm:
    """Trained on seven days of the wave, 150 steps."""
    settings = TrainSettings(steps=150, batch=64, hidden=16, horizon=H)
    return train([_make(_wave(7 * SEASON))], settings, quiet)


@pytest.fixture(scope="session")
def fitted() -> Linear:
    """Fitted to nine days of the wave."""
    return Linear(["shop"], linear.fit(*linear.windows(_make(_wave(9 * SEASON)), H))[None])


@pytest.fixture(scope="session")
def forest() -> Boosting:
    """Grown on nine days of the wave: smaller trees of coarser figures than usual, in a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boosting_training, "SETTINGS", {**boosting_training.SETTINGS, "max_iter": 50, "max_bins": 16})
        return Boosting(["shop"], boosting_training.fit(*linear.windows(_make(_wave(9 * SEASON)), H)))


@pytest.fixture(scope="session")
def learned(lstm: Lstm, fitted: Linear, forest: Boosting) -> Mapping[str, Forecaster]:
    """All of them by name; each knows the series ``shop``."""
    return {model.name: model for model in (lstm, fitted, forest)}
