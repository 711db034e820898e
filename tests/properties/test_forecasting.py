"""Whatever a series holds, forecasts are finite, ordered, not negative, and do not depend on what comes later or on
which other series there are; and tracked quantiles keep their promise against any sequence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting.base import MEDIAN, QUANTILES, forecasts
from forecasting.batch import Batch
from forecasting.conformal import BESIDE, LEVELS, NOTHING, START, Tracker, U, complete
from forecasting.ensemble import Selector
from forecasting.features import Features, features
from forecasting.mixture import Mixture
from forecasting.models.naive import LastValue
from forecasting.models.statistical import Ewma
from forecasting.selected import Selected
from forecasting.series import CEILING, FloatArray, Series, clean

SPECIAL = st.sampled_from([0.0, float("nan"), float("inf"), float("-inf"), -1.0, 1e300, 5e-324])
VALUES = st.lists(st.floats(0, 1e6) | SPECIAL, max_size=80).map(lambda found: np.array(found, dtype=np.float64))
SEASONS = st.integers(1, 30)
OUTCOMES = st.lists(st.floats(-50, 50), min_size=1, max_size=300)


def series(values: FloatArray, season: int = 24, name: str = "s") -> Series:
    return Series(name, 1e9, 5.0, values, season)


def check(table: FloatArray) -> None:
    assert np.isfinite(table).all()
    assert (table >= 0).all()
    assert (np.diff(table, axis=-1) >= 0).all()


@settings(deadline=None)
@given(VALUES, st.integers(1, 14))
def test_models_are_lawful(values: FloatArray, horizon: int) -> None:
    for model in (LastValue(), Ewma(), Ewma(0.5)):
        (forecast,) = forecasts(model, [series(values)], horizon)
        assert (forecast is not None) == (np.isfinite(values).sum() >= model.minimum)
        if forecast is not None:
            assert forecast.values.shape == (horizon, len(QUANTILES))
            check(forecast.values)


# -- the selector ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(VALUES, st.integers(1, 8), st.data())
def test_the_selector_survives_any_history_and_any_pace(values: FloatArray, horizon: int, data: st.DataObject) -> None:
    selector = Selector([Ewma()], horizon, least=5, replay=10)
    for count in data.draw(st.lists(st.integers(0, len(values)), max_size=6)):
        (selected,) = selector.update([series(values[:count])])
        check(selected.forecast.values)
        check(selected.peaks)
        assert (np.diff(selected.peaks, axis=0) >= 0).all()
        assert selected.skilled == any(gate.open for gate in selected.gates)
        assert selected.model == ("mixture" if set(selected.weights) - {"last"} else "last")
        assert sum(selected.weights.values()) > 0.98
        assert selected.reason
        known = clean(values[:count])[np.isfinite(values[:count])]
        assert selected.skilled == any(selected.may_act(step) for step in range(1, horizon + 1))
        between = selected.forecast.values[:, MEDIAN]  # the models are means of what came, and so is their mixture
        assert (between <= known.max(initial=0.0) * (1 + 1e-9)).all()
        assert (between >= known.min(initial=CEILING) * (1 - 1e-9) - NOTHING).all() or not len(known)


@settings(max_examples=15, deadline=None)
@given(st.lists(VALUES, min_size=2, max_size=4), st.data())
def test_what_is_said_does_not_depend_on_the_other_series(tables: list[FloatArray], data: st.DataObject) -> None:
    among, alone = (Selector([Ewma()], 4, least=5, replay=10) for _ in range(2))
    count = len(tables[0]) // 2
    for _ in range(5):
        count = data.draw(st.integers(count, len(tables[0])))
        mine = series(tables[0][:count], name="mine")
        others = [
            series(table[: data.draw(st.integers(0, len(table)))], name=str(n))
            for n, table in enumerate(tables[1:])
            if data.draw(st.booleans())
        ]
        given_ = data.draw(st.permutations([mine, *others]))
        found = among.update(given_)[[one.name for one in given_].index("mine")]
        assert _told(found) == _told(alone.update([mine])[0])


@settings(max_examples=15, deadline=None)
@given(VALUES, VALUES, st.integers(0, 20))
def test_what_was_said_does_not_depend_on_what_comes(past: FloatArray, future: FloatArray, more: int) -> None:
    selector = Selector([Ewma()], 4, least=5, replay=10)
    (selected,) = selector.update([series(past)])
    told, whole = _told(selected), np.concatenate([past, future])
    selector.update([series(whole[: len(past) + more])])
    assert _told(selected) == told
    assert _told(Selector([Ewma()], 4, least=5, replay=10).update([series(whole).until(len(past))])[0]) == told


def _told(selected: Selected) -> tuple[object, ...]:
    arrays = selected.forecast.values.tolist(), selected.peaks.tolist()
    return selected.reason, selected.gates, dict(selected.weights), dict(selected.losses), selected.coverage, arrays


# -- promises --------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(OUTCOMES, st.sampled_from([0.03, 0.05, 0.1]), st.integers(1, 12))
def test_tracked_quantiles_keep_their_promise_on_any_sequence(outcomes: list[float], rate: float, delay: int) -> None:
    above = _tracked(outcomes, rate, delay)
    spread = max(*outcomes, *START) - min(*outcomes, *START)
    bound = (spread + delay * rate) / (rate * len(above))
    assert (np.abs(above.mean(axis=0) - (1.0 - LEVELS)) <= bound + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(st.floats(1, 20), st.sampled_from([0.05, 0.1]), st.integers(0, U - 1), st.randoms(use_true_random=False))
def test_an_adversary_who_sees_the_quantile_cannot_break_it(
    size: float, rate: float, level: int, chance: object
) -> None:
    tracker, misses, count = Tracker.at(1, 1, np.zeros(U)), 0, 2000
    for _ in range(count):  # always a hair beyond the quantile, on the side that hurts, as far as the range allows
        said = tracker.shift[0, 0, level]
        value = min(said + 1e-6, size) if LEVELS[level] > 0.5 else max(said - 1e-6, -size)
        misses += int(value > said)
        tracker.move(tracker.shift, np.array([[value]]), rate)
    assert abs(misses / count - (1.0 - LEVELS[level])) <= (size + rate) / (rate * count) + 1e-9


def _tracked(outcomes: Sequence[float], rate: float, delay: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Whether each outcome lay above the quantiles ``(T, U)`` that were said ``delay`` steps before its end."""
    tracker, above = Tracker.at(1, 1, START), []
    said = deque([tracker.shift] * delay, maxlen=delay)
    for value in outcomes:
        told = said[0]
        above.append(value > told[0, 0])
        tracker.move(told, np.array([[value]]), rate)
        said.append(tracker.shift)
    return np.array(above)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e9), min_size=U, max_size=U), st.floats(0, 1e9))
def test_completed_quantiles_are_lawful_whatever_they_are_made_of(beside: list[float], median: float) -> None:
    found = complete(np.array([[median]]), np.array([[beside]]))
    check(found)
    assert found[0, 0, MEDIAN] == (median if median >= NOTHING else 0.0)
    np.testing.assert_array_equal(complete(found[..., MEDIAN], found[..., BESIDE]), found)


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0, 1e6) | st.just(float("nan")), min_size=4, max_size=4), max_size=40))
def test_weights_are_convex_whatever_comes(rows: list[list[float]]) -> None:
    mixture = Mixture.fresh(np.full((1, 3, 1), 1 / 3), np.array([0.5]))
    for *experts, actual in rows:
        told = np.array(experts)[None, :, None]
        mixed, weights = mixture.mixed(told)
        awake = np.isfinite(told)
        np.testing.assert_allclose(weights.sum(), float(awake.any()), atol=1e-9)
        assert (weights >= 0).all()
        assert not weights[~awake].any()
        if awake.any():
            assert np.nanmin(told) * (1 - 1e-9) <= mixed[0, 0] <= np.nanmax(told) * (1 + 1e-9)
        mixture.learn(told, mixed, np.array([[actual]]), np.full((1, 1), 3.0))


# -- what models are told --------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(VALUES, VALUES, SEASONS)
def test_features_do_not_see_the_future(past: FloatArray, future: FloatArray, season: int) -> None:
    whole = series(np.concatenate([past, future]), season)
    origin = np.array([len(past)])
    one, other = (features(Batch.at(s, origin, 6)) for s in (whole, replace(whole, values=past)))
    for item in fields(Features):
        np.testing.assert_array_equal(getattr(one, item.name), getattr(other, item.name))


@settings(deadline=None)
@given(VALUES)
def test_cleaning_leaves_rates_and_gaps(values: FloatArray) -> None:
    cleaned = clean(values)
    known = np.isfinite(cleaned)
    np.testing.assert_array_equal(known, np.isfinite(values))
    assert ((cleaned[known] >= 0) & (cleaned[known] <= CEILING)).all()
    np.testing.assert_array_equal(clean(cleaned), cleaned)
