"""Prophet itself, and what is said where it is not installed."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from importlib import util
from typing import Any

import numpy as np
import pytest

from forecasting.base import MEDIAN, QUANTILES
from forecasting.batch import Batch
from forecasting.errors import ForecastingError
from forecasting.models import prophet as module
from forecasting.models.prophet import MissingPackageError, Prophet, seeded
from forecasting.series import FloatArray, Series
from tests.conftest import ROOT

NAN = float("nan")


def one(values: FloatArray | list[float], season: int = 1, horizon: int = 6) -> FloatArray:
    """``(H, Q)`` at the end of ``values``; no warning gets out."""
    series = Series("shop", 1e6, 5.0, np.asarray(values, dtype=np.float64), season)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = Prophet(samples=200).predict(Batch.now([series], horizon))
    assert told.shape == (1, horizon, len(QUANTILES))
    return np.asarray(told[0])


def noisy(length: int, season: int) -> FloatArray:
    return np.asarray(curve(0, length, season) + np.random.default_rng(0).normal(0, 3, length))


def curve(first: int, last: int, season: int) -> FloatArray:
    return np.asarray(60 + 40 * np.sin(2 * np.pi * np.arange(first, last) / season))


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"needs package prophet.*pip install 'meshctl\[prophet\]'") as raised:
        Prophet()
    assert isinstance(raised.value, ForecastingError)


def test_the_package_is_not_imported_before_it_is_asked() -> None:
    code = "import sys, forecasting.models.prophet; print([n for n in ('prophet', 'pandas') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_global_generator_is_put_back() -> None:
    np.random.seed(7)
    expected = np.random.random(2).tolist()
    np.random.seed(7)
    seen = [np.random.random()]
    with seeded(1):
        np.random.random(5)
    assert [*seen, np.random.random()] == expected


@pytest.mark.extras("prophet")
def test_no_history_upsets_it(odd: Series) -> None:
    told = one(odd.values, odd.season)
    known = np.isfinite(odd.values).sum()
    if known < 24 or 2 * known < len(odd.values):
        assert np.isnan(told).all()
        return
    assert np.isfinite(told).all()
    assert (told >= 0).all()
    assert (np.diff(told, axis=1) >= 0).all()


@pytest.mark.extras("prophet")
@pytest.mark.parametrize("season", [24, 96])
def test_it_learns_a_season(season: int) -> None:
    told = one(noisy(300, season), season)
    assert np.abs(told[:, MEDIAN] - curve(300, 306, season)).mean() < 4
    assert 5 < (told[:, 3] - told[:, 0]).mean() < 15  # 3.3 deviations of 3


@pytest.mark.extras("prophet")
def test_it_learns_a_week() -> None:
    week = np.repeat([1.0, 1.0, 1.0, 1.0, 1.0, 0.4, 0.4], 24)
    values = noisy(24 * 28, 24) * np.tile(week, 4)
    told = one(values, 24, 24 * 7)[:, MEDIAN]
    assert told[24 * 5 :].mean() < 0.7 * told[: 24 * 5].mean()


@pytest.mark.extras("prophet")
def test_under_two_seasons_nothing_seasonal_is_fitted() -> None:
    values = noisy(100, 51)
    np.testing.assert_array_equal(one(values, 51), one(values, 1))


@pytest.mark.extras("prophet")
def test_the_same_history_gets_the_same_forecast_and_nobody_hears_of_it(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    values = noisy(100, 24)
    values[[20, 50, 51]] = NAN
    with caplog.at_level(logging.DEBUG):
        first = one(values, 24)
    np.testing.assert_array_equal(first, one(values, 24))
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name.startswith(("prophet", "cmdstanpy"))] == []


@pytest.mark.extras("prophet")
def test_a_long_history_is_thinned_and_ends_with_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    package = module._package()
    rows: list[int] = []
    fit = package.Prophet.fit

    def counted(self: Any, table: Any, **settings: Any) -> Any:
        rows.append(len(table))
        return fit(self, table, **settings)

    monkeypatch.setattr(package.Prophet, "fit", counted)
    series = Series("shop", 1e6, 5.0, noisy(1000, 100), 100)
    told = Prophet(history=300, samples=100).predict(Batch.now([series], 6))
    assert rows == [250]  # every fourth
    assert np.abs(told[0, :, MEDIAN] - curve(1000, 1006, 100)).mean() < 4


@pytest.mark.extras("prophet")
def test_a_stan_failure_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("optimization failed")

    monkeypatch.setattr(module._package().Prophet, "fit", fail)
    assert np.isnan(one(noisy(100, 24), 24)).all()
