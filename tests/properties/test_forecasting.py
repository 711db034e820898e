"""Whatever a series holds, forecasts are finite, ordered, not negative, and do not depend on what comes later."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting.base import QUANTILES, lawful
from forecasting.conformal import calibrated, misses, shifts
from forecasting.ensemble import Selector
from forecasting.features import Features, blocks, features
from forecasting.models.naive import LastValue
from forecasting.models.statistical import Ewma
from forecasting.series import CEILING, FloatArray, Series, clean

SPECIAL = st.sampled_from([0.0, float("nan"), float("inf"), float("-inf"), -1.0, 1e300, 5e-324])
VALUES = st.lists(st.floats(0, 1e6) | SPECIAL, max_size=80).map(lambda found: np.array(found, dtype=np.float64))
SEASONS = st.integers(1, 30)
ROWS = st.lists(st.floats(0, 1e9), min_size=len(QUANTILES), max_size=len(QUANTILES)).map(
    lambda row: lawful(np.array(row))
)


def series(values: FloatArray, season: int = 24) -> Series:
    return Series("s", 1e9, 5.0, values, season)


def check(table: FloatArray) -> None:
    assert np.isfinite(table).all()
    assert (table >= 0).all()
    assert (np.diff(table, axis=-1) >= 0).all()


@settings(deadline=None)
@given(VALUES, st.integers(1, 14))
def test_models_are_lawful(values: FloatArray, horizon: int) -> None:
    for model in (LastValue(), Ewma(), Ewma(0.5)):
        (forecast,) = model.forecast([series(values)], horizon)
        assert (forecast is not None) == (np.isfinite(values).sum() >= model.minimum)
        if forecast is not None:
            assert forecast.values.shape == (horizon, len(QUANTILES))
            check(forecast.values)


@settings(max_examples=40, deadline=None)
@given(VALUES, st.integers(1, 8), st.data())
def test_the_selector_survives_any_history_and_any_pace(values: FloatArray, horizon: int, data: st.DataObject) -> None:
    selector = Selector([Ewma()], horizon, least=5)
    lengths = data.draw(st.lists(st.integers(0, len(values)), max_size=6))
    for count in lengths:
        (selected,) = selector.update([series(values[:count])])
        check(selected.forecast.values)
        check(selected.peaks)
        assert (np.diff(selected.peaks, axis=0) >= 0).all()
        assert (selected.peaks >= np.maximum.accumulate(selected.forecast.values, axis=0)).all()
        assert selected.skilled == (selected.model != "last")
        assert selected.reason


@settings(deadline=None)
@given(VALUES, VALUES, SEASONS)
def test_features_do_not_see_the_future(past: FloatArray, future: FloatArray, season: int) -> None:
    whole = series(np.concatenate([past, future]), season)
    origin = np.array([len(past)])
    one, other = (features(blocks(s, origin, 20, 6), 6) for s in (whole, replace(whole, values=past)))
    for item in fields(Features):
        np.testing.assert_array_equal(getattr(one, item.name), getattr(other, item.name))
        assert np.isfinite(getattr(one, item.name)).all()


@settings(deadline=None)
@given(ROWS, st.lists(st.floats(0, 1e9), max_size=60))
def test_calibration_is_lawful_and_reaches_every_miss_of_few(row: FloatArray, actual: list[float]) -> None:
    past = misses(np.array(actual), np.broadcast_to(row, (len(actual), len(row)))).T
    fixed = calibrated(row, shifts(past, 1))
    check(fixed)
    if not actual:
        np.testing.assert_array_equal(fixed, row)


@settings(deadline=None)
@given(VALUES)
def test_cleaning_leaves_rates_and_gaps(values: FloatArray) -> None:
    cleaned = clean(values)
    known = np.isfinite(cleaned)
    np.testing.assert_array_equal(known, np.isfinite(values))
    assert ((cleaned[known] >= 0) & (cleaned[known] <= CEILING)).all()
    np.testing.assert_array_equal(clean(cleaned), cleaned)
