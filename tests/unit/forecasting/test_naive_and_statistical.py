"""Last value, last season and the EWMA: what they say, and when they keep silent. The registry of models."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from forecasting import models
from forecasting.base import MEDIAN, QUANTILES, Forecaster
from forecasting.batch import Batch
from forecasting.models import MODELS
from forecasting.models.naive import NORMAL, LastValue, SeasonalNaive, spread
from forecasting.models.statistical import Ewma, smooth
from forecasting.series import FloatArray, Series
from tests.conftest import ROOT
from tests.unit.forecasting.conftest import SEASON, Make, Wave

NAN = float("nan")
PAGE = ROOT / "docs" / "how-to" / "add-a-forecasting-model.md"
QUICK = [LastValue(), SeasonalNaive(), Ewma(), Ewma(0.3)]
OPTIONAL = {"prophet"}


def one(model: Forecaster, series: Series, horizon: int) -> FloatArray:
    """``(H, Q)`` at the end of ``series``."""
    told = model.predict(Batch.now([series], horizon))
    assert told.shape == (1, horizon, len(QUANTILES))
    return np.asarray(told[0])


def assert_lawful(told: FloatArray) -> None:
    assert np.isfinite(told).all()
    assert (told >= 0).all()
    assert (np.diff(told, axis=-1) >= 0).all()


def test_last_value_repeats_the_newest_known_value(make: Make) -> None:
    assert one(LastValue(), make([1.0, 8.0, NAN]), 3)[:, MEDIAN].tolist() == [8.0] * 3


def test_last_value_spreads_with_the_steps(make: Make, wave: Wave) -> None:
    told = one(LastValue(), make(wave(200)), 12)
    widths = told[:, 3] - told[:, 1]
    assert (np.diff(widths) >= 0).all()
    assert widths[-1] > widths[0] > 0


def test_the_spread_is_the_root_mean_square_of_differences() -> None:
    np.testing.assert_allclose(spread(np.array([[0.0, 3.0, NAN, 7.0]]), 2), [[3.0, 4.0]])


def test_the_spread_of_whole_rows_does_not_depend_on_gaps_in_others() -> None:
    whole = np.array([[1.0, 4.0, 2.0, 9.0]])
    both = np.concatenate([whole, [[1.0, NAN, NAN, 2.0]]])
    np.testing.assert_allclose(spread(both, 3)[:1], spread(whole, 3))
    np.testing.assert_allclose(spread(whole, 1), np.sqrt((9 + 4 + 49) / 3))


def test_last_value_always_answers(odd: Series) -> None:
    assert_lawful(one(LastValue(), odd, 12))


def test_last_season_repeats_it(make: Make) -> None:
    values = np.arange(2.0 * SEASON)
    np.testing.assert_array_equal(one(SeasonalNaive(), make(values), 5)[:, MEDIAN], SEASON + np.arange(5.0))


def test_less_than_a_season_is_no_season(make: Make, wave: Wave) -> None:
    assert np.isnan(one(SeasonalNaive(), make(wave(SEASON - 1)), 12)).all()
    assert np.isfinite(one(SeasonalNaive(), make(wave(SEASON)), 12)[:, MEDIAN]).all()


def test_one_season_tells_a_median_and_nothing_around_it(make: Make, wave: Wave) -> None:
    told = one(SeasonalNaive(), make(wave(SEASON)), 4)
    around = np.arange(len(QUANTILES)) != MEDIAN
    assert np.isnan(told[:, around]).all()
    assert np.isfinite(told[:, MEDIAN]).all()


def test_the_spread_of_a_season_is_that_of_seasonal_differences(make: Make) -> None:
    values = np.concatenate([np.full(SEASON, 50.0), np.full(SEASON, 54.0)])  # differences over a season: 4
    told = one(SeasonalNaive(), make(values), 3)
    np.testing.assert_allclose(told, np.broadcast_to(54.0 + 4.0 * NORMAL, told.shape))


def test_a_gap_a_season_ago_takes_the_season_before(make: Make) -> None:
    values = np.concatenate([np.full(SEASON, 50.0), np.full(SEASON, 54.0)])
    values[SEASON + 1] = NAN
    told = one(SeasonalNaive(), make(values), 3)
    assert told[:, MEDIAN].tolist() == [54.0, 50.0, 54.0]
    assert told[1, -1] - told[1, MEDIAN] == pytest.approx(np.sqrt(2) * (told[0, -1] - told[0, MEDIAN]))


def test_steps_beyond_a_season_take_the_same_step(make: Make) -> None:
    series = Series("shop", 0.0, 5.0, np.array([1.0, 2.0, 3.0] * 4), 3)
    assert one(SeasonalNaive(), series, 9)[:, MEDIAN].tolist() == [1.0, 2.0, 3.0] * 3
    assert np.isnan(one(SeasonalNaive(), series, 10)[9]).all()  # more than three seasons ahead


def test_last_season_is_silent_or_lawful(odd: Series) -> None:
    told = one(SeasonalNaive(), odd, 12)
    spoken = np.isfinite(told[:, MEDIAN])
    season_ago = odd.values[len(odd.values) - SEASON :][:12] if len(odd.values) >= SEASON else np.full(12, NAN)
    np.testing.assert_array_equal(spoken, np.isfinite(season_ago))
    assert_lawful(told[spoken])


def test_ewma_keeps_silent_or_answers_well(odd: Series) -> None:
    told = one(Ewma(), odd, 12)
    if np.isfinite(odd.values).sum() >= Ewma.minimum:
        assert_lawful(told)
    else:
        assert np.isnan(told).all()


def test_ewma_of_a_constant_is_the_constant(make: Make) -> None:
    np.testing.assert_allclose(one(Ewma(), make([7.0] * 30), 5), 7.0)


def test_ewma_follows_its_formula(make: Make) -> None:
    values = [float(v) for v in range(1, 15)]
    level, errors = values[0], []
    for value in values[1:]:
        errors.append(value - level)
        level += 0.3 * (value - level)
    told = one(Ewma(0.3), make(values), 2)
    sigma = np.sqrt(np.mean(np.square(errors[8:])))
    np.testing.assert_allclose(told[0], level + sigma * NORMAL)
    np.testing.assert_allclose(told[1], level + sigma * np.sqrt(1 + 0.3**2) * NORMAL)


def test_a_gap_leaves_the_level_alone(make: Make) -> None:
    values = [5.0, 9.0] * 10
    gapped = [*values[:10], NAN, NAN, *values[10:]]
    whole, holed = (one(Ewma(0.4), make(v), 1) for v in (values, gapped))
    np.testing.assert_allclose(whole, holed)


def test_tuning_smooths_noise_and_follows_a_ramp(make: Make) -> None:
    noise = np.random.default_rng(1).normal(100, 10, 240)
    calm, quick = one(Ewma(), make(noise), 1), one(Ewma(), make(np.arange(240.0)), 1)
    assert abs(calm[0, MEDIAN] - 100) < 5
    assert quick[0, MEDIAN] == 239.0


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.5, NAN])
def test_a_factor_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be above 0"):
        Ewma(alpha)


def test_smoothing_starts_at_the_first_known_value() -> None:
    values = [NAN, NAN, 4.0, *[6.0] * 9]
    level, absolute, square = smooth(np.array([values]), np.array([0.5]))
    last = 2.0 / 2**8  # the first eight errors do not count
    np.testing.assert_allclose([level[0, 0], absolute[0, 0], square[0, 0]], [6 - last / 2, last, last**2])


def test_smoothing_of_nothing_is_zero() -> None:
    assert [part.shape for part in smooth(np.empty((3, 0)), np.array([0.5, 1.0]))] == [(2, 3)] * 3
    assert not any(part.any() for part in smooth(np.full((2, 5), NAN), np.array([0.5])))


@pytest.mark.parametrize("model", QUICK, ids=lambda model: model.name)
def test_many_windows_are_answered_as_each_alone(model: Forecaster, make: Make, wave: Wave) -> None:
    many = [make(wave(90, seed=1)), make([1.0]), make(wave(300, seed=2)), make([]), make([NAN, *wave(200, seed=3)])]
    together = model.predict(Batch.now(many, 4))
    for series, answer in zip(many, together, strict=True):
        np.testing.assert_allclose(one(model, series, 4), answer)


@pytest.mark.parametrize("model", QUICK, ids=lambda model: model.name)
def test_a_window_inside_a_history_does_not_see_what_follows(model: Forecaster, make: Make, wave: Wave) -> None:
    series = make(wave(400))
    counts = np.array([0, 1, 20, 150, 250, 399])
    inside = model.predict(Batch.at(series, counts, 6))
    for count, answer in zip(counts, inside, strict=True):
        np.testing.assert_allclose(one(model, series.until(int(count)), 6), answer)


@pytest.mark.parametrize("model", QUICK, ids=lambda model: model.name)
def test_no_windows_are_no_answers(model: Forecaster) -> None:
    assert model.predict(Batch.now([], 7)).shape == (0, 7, len(QUANTILES))


@pytest.mark.parametrize(
    "name", [one if one not in OPTIONAL else pytest.param(one, marks=pytest.mark.extras(one)) for one in sorted(MODELS)]
)
def test_the_registry_makes_models_of_that_name(name: str) -> None:
    assert MODELS[name]().name == name


def test_the_registry_imports_no_library() -> None:
    code = (
        "import sys; from forecasting.models import MODELS; MODELS['last'](); MODELS['ewma']();"
        "print([name for name in ('statsmodels', 'pandas', 'prophet', 'torch', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_about_adding_a_model_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module, line, trial = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "drift.py").write_text(module)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "forecasting.models.drift", raising=False)
    added = eval("{" + line.strip() + "}", {"_lazy": models._lazy})
    monkeypatch.setitem(MODELS, *added.popitem())
    told: dict[str, FloatArray] = {}
    exec(trial, told)
    sys.modules.pop("forecasting.models.drift")
    assert told["told"].shape == (1, 12, len(QUANTILES))
    assert np.isfinite(told["told"][0, :, MEDIAN]).all()
    assert 0 < told["error"] < 1
