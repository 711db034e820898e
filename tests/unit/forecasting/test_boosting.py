"""Forests: the packed arrays say what scikit-learn says, and nothing comes from the future."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.ensemble import HistGradientBoostingRegressor

from forecasting.base import MEDIAN, QUANTILES
from forecasting.batch import Batch
from forecasting.errors import LeakError
from forecasting.evaluate.backtest import backtest, check_causal
from forecasting.features import A, Features, Float32Array, S
from forecasting.models import boosting, boosting_training
from forecasting.models.boosting import (
    DEPTH,
    FIGURES,
    KNOTS,
    UNKNOWN,
    UPPER,
    UPPER_KNOTS,
    Boosting,
    between,
    design,
    upper_design,
)
from forecasting.models.boosting_training import (
    LARGEST,
    SETTINGS,
    TAILS,
    fit,
    fit_upper,
    grow,
    pack,
    stacked,
    together,
)
from forecasting.models.linear import windows
from forecasting.series import FloatArray, Series
from tests.unit.forecasting.conftest import NAN, SEASON, H, Make, Wave, assert_blind, futures

pytestmark = pytest.mark.slow

FEW: Mapping[str, Any] = {**SETTINGS, "max_iter": 8, "max_bins": 8}

NEAR: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}
"""Leaves are kept to three digits."""


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forests of eight trees, on coarse figures."""
    monkeypatch.setattr(boosting_training, "SETTINGS", FEW)
    monkeypatch.setattr(boosting_training, "TAILS", {q: {**one, "max_iter": 8} for q, one in TAILS.items()})


def grown(rows: int, seed: int, **changes: Any) -> tuple[HistGradientBoostingRegressor, Float32Array]:
    """A fit to random figures, a fifth of them unknown, and the table that it was fitted on."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(rows, 6)).astype(np.float32)
    table[:, 5] = np.round(table[:, 5])  # ties fall on edges
    target = table[:, 0] * 3 + np.sign(table[:, 1]) + rng.normal(size=rows)
    table[rng.random(table.shape) < 0.2] = UNKNOWN
    model = HistGradientBoostingRegressor(**{**FEW, "max_features": 1.0, "max_bins": 63, **changes}, random_state=seed)
    return model.fit(table, target), table


def median(model: Boosting, series: Sequence[Series], horizon: int = H) -> FloatArray:
    return np.asarray(model.predict(Batch.now(series, horizon))[..., MEDIAN])


# -- packing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "changes"),
    [
        (1000, {}),
        (1000, {"max_iter": 60, "max_bins": 255}),
        (300, {"max_leaf_nodes": 3}),  # lopsided: leaves on several levels
        (300, {"max_depth": 1}),
        (100, {"min_samples_leaf": 40}),
        (40, {}),  # too few rows for any edge
        (500, {"loss": "squared_error"}),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_packed_forests_say_what_scikit_learn_says(rows: int, changes: dict[str, Any], seed: int) -> None:
    model, table = grown(rows, seed, **changes)
    rng = np.random.default_rng(seed + 100)
    fresh = rng.normal(0, 3, (500, 6)).astype(np.float32)
    fresh[rng.random(fresh.shape) < 0.3] = UNKNOWN
    for rows_asked in (table, fresh):
        packed = pack(model)(rows_asked, np.zeros(len(rows_asked), dtype=np.int64))
        np.testing.assert_allclose(packed, model.predict(rows_asked), **NEAR)


def test_trees_that_stop_early_are_among_them() -> None:
    """Otherwise the test above proves nothing about them."""
    lopsided = pack(grown(300, 0, max_leaf_nodes=3)[0])
    assert np.isinf(lopsided.edge).any()
    assert np.isfinite(lopsided.edge[0, :, 0]).all()
    assert np.isinf(pack(grown(40, 0)[0]).edge).all()


def test_figures_on_an_edge_go_left_as_they_do_there() -> None:
    model, _ = grown(1000, 3)
    packed = pack(model)
    edges = packed.edge[np.isfinite(packed.edge)]
    for shift in (-np.inf, None, np.inf):
        column = edges if shift is None else np.nextafter(edges, np.float32(shift))
        table = np.repeat(column[:, None], 6, axis=1)
        found = packed(table, np.zeros(len(table), dtype=np.int64))
        np.testing.assert_allclose(found, model.predict(table), **NEAR)


def test_each_row_walks_its_own_forest() -> None:
    models = [grown(400, seed)[0] for seed in (0, 1, 2)]
    table = grown(200, 9)[1]
    which = np.random.default_rng(0).integers(3, size=200)
    found = stacked([pack(model) for model in models])(table, which)
    expected = np.stack([model.predict(table) for model in models])[which, np.arange(200)]
    np.testing.assert_allclose(found, expected, **NEAR)


def test_the_forests_of_a_series_are_those_of_scikit_learn(make: Make, wave: Wave, few: None) -> None:
    told, target = windows(make(wave(3 * SEASON)), 2)
    for knot, packed in zip((1, 2), fit(told, target, seed=5), strict=True):
        table, wanted = design(told, knot), (target[:, knot - 1] - told.last) / told.scale
        known = np.isfinite(wanted)
        model = HistGradientBoostingRegressor(**FEW, random_state=5)
        weight = told.scale[known] / told.scale[known].mean()  # busy hours count more, as in the WAPE
        model.fit(table[known], wanted[known], sample_weight=weight)
        found = packed(table, np.zeros(len(table), dtype=np.int64))
        np.testing.assert_allclose(found, model.predict(table), **NEAR)


# -- upper quantiles -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def above(make: Make, wave: Wave) -> Boosting:
    """Forests for all quantiles of one series."""
    return grow("shop", *windows(make(wave(9 * SEASON)), H))


def test_upper_quantiles_are_covered_about_as_often_as_they_say(above: Boosting, make: Make, wave: Wave) -> None:
    fresh = make(wave(14 * SEASON, seed=11))
    batch = Batch.at(fresh, np.arange(9 * SEASON, 14 * SEASON - H), H)
    told, actual = above.predict(batch), batch.actual()
    for knot in UPPER_KNOTS:
        share = {q: float((actual[:, knot - 1] <= told[:, knot - 1, QUANTILES.index(q)]).mean()) for q in UPPER}
        assert 0.8 < share[0.9] < 0.97
        assert share[0.99] > share[0.9]
        assert share[0.99] > 0.93


def test_quantiles_are_in_order_and_what_no_forest_tells_is_unknown(above: Boosting, make: Make, wave: Wave) -> None:
    told = above.predict(Batch.now([make(wave(400)), make(wave(400), "cart")], H))
    assert (np.diff(told[0, :, MEDIAN:], axis=1) >= 0).all()
    assert np.isnan(told[0, :, : QUANTILES.index(0.5)]).all()
    assert np.isnan(told[1]).all()


def test_without_upper_forests_only_the_median_is_told(forest: Boosting, make: Make, wave: Wave) -> None:
    told = forest.predict(Batch.now([make(wave(400))], H))
    assert np.isfinite(told[..., MEDIAN]).all()
    assert np.isnan(np.delete(told, MEDIAN, axis=2)).all()


def test_forests_of_extreme_quantiles_have_fewer_levels(make: Make, wave: Wave, few: None) -> None:
    upper = fit_upper(*windows(make(wave(300)), H))
    assert {level: [one.depth for one in forests] for level, forests in upper.items()} == {
        0.9: [DEPTH] * len(UPPER_KNOTS),
        0.99: [DEPTH - 1] * len(UPPER_KNOTS),
    }


def test_models_of_single_series_are_put_together(make: Make, wave: Wave, few: None) -> None:
    series = [make(wave(300)), make(wave(300, seed=1) * 9, "cart")]
    alone = [grow(one.name, *windows(one, H)) for one in series]
    batch = Batch.now(series, H)
    both = together(alone).predict(batch)
    for row, model in enumerate(alone):
        np.testing.assert_array_equal(both[row], model.predict(batch)[row])


def test_leaves_beyond_the_largest_small_float_are_cut() -> None:
    table = np.arange(200.0)[:, None]
    model = HistGradientBoostingRegressor(**{**FEW, "max_features": 1.0, "learning_rate": 1.0})
    leaf = pack(model.fit(table, np.where(table[:, 0] < 100, 0.0, 1e9))).leaf
    assert np.isfinite(leaf).all()
    assert leaf.max() == np.float16(LARGEST)


# -- steps between knots ---------------------------------------------------------------------------------------------


def test_steps_between_knots_are_interpolated() -> None:
    values = np.array([[0.0, 10.0, 40.0, 110.0]])
    expected = [[0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 110, 110]]
    np.testing.assert_allclose(between(values, KNOTS, 14), expected)


def test_a_single_knot_is_level() -> None:
    np.testing.assert_array_equal(between(np.array([[3.0], [5.0]]), [1], 3), [[3] * 3, [5] * 3])


def test_knots_themselves_are_what_their_forests_say(forest: Boosting, make: Make, wave: Wave) -> None:
    batch = Batch.now([make(wave(400))], H)
    told = forest.predict(batch)[0, :, MEDIAN]
    seen: Features = batch.memo["features"]
    for knot, packed in zip(KNOTS, forest.knots, strict=True):
        value = seen.last + seen.scale * packed(design(seen, knot), np.array([0]))
        assert told[knot - 1] == pytest.approx(value[0])


# -- odd series, sizes, names ----------------------------------------------------------------------------------------


def test_it_beats_last_value_on_days_that_it_has_not_seen(forest: Boosting, make: Make, wave: Wave) -> None:
    other = make(wave(10 * SEASON, seed=7))
    result = backtest(forest, other, np.arange(8 * SEASON, 10 * SEASON - H), H)
    assert [result.relative_wape(h) < limit for h, limit in ((1, 0.95), (5, 0.7), (12, 0.5))] == [True] * 3


def test_nothing_that_trees_see_is_unknown(odd: Series) -> None:
    told, _ = windows(odd, H)
    for step in (1, H):
        for table, width in ((design(told, step), S + A), (upper_design(told, step), FIGURES)):
            assert table.shape == (len(told.last), width)
            assert np.isfinite(table).all()
            assert (table >= UNKNOWN).all()  # nothing known lies below what is unknown


def test_odd_series_are_fitted_without_complaint(odd: Series, few: None) -> None:
    series = replace(odd, name="shop")
    told = median(Boosting(["shop"], fit(*windows(series, H))), [series])
    assert np.isfinite(told).all()
    assert (told >= 0).all()


def test_odd_series_are_answered(forest: Boosting, odd: Series) -> None:
    told = median(forest, [replace(odd, name="shop")])
    assert np.isfinite(told).all()
    assert (told >= 0).all()


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_stays(make: Make, few: None, value: float) -> None:
    series = make([value] * 150)
    np.testing.assert_allclose(median(Boosting(["shop"], fit(*windows(series, H))), [series]), value, atol=1e-6)


def test_a_knot_without_targets_says_the_last_value(make: Make, wave: Wave, few: None) -> None:
    series = make(wave(300))
    told, target = windows(series, 2)
    target[:, 1] = NAN
    said = median(Boosting(["shop"], fit(told, target)), [series], 2)[0]
    assert said[1] == series.values[-1]
    assert said[0] != series.values[-1]


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_size_of_a_series_does_not_matter(forest: Boosting, make: Make, wave: Wave, factor: float) -> None:
    batches = [Batch.at(make(wave(600) * f), np.arange(300, 600), H) for f in (1.0, factor)]
    told, scaled = (forest.predict(batch)[..., MEDIAN] for batch in batches)
    off = np.abs(scaled / factor - told) / told  # a figure that falls on an edge may go the other way
    assert np.quantile(off, 0.99) < 1e-3
    assert off.max() < 0.2


def test_others_series_do_not_matter(forest: Boosting, make: Make, wave: Wave) -> None:
    shop, cart = make(wave(400)), make(wave(400, seed=1) * 50, "cart")
    twice = Boosting(["cart", "shop"], [stacked([one, one]) for one in forest.knots])
    np.testing.assert_array_equal(median(twice, [shop, cart])[0], median(forest, [shop])[0])
    unknown = median(forest, [cart, shop])
    assert np.isnan(unknown[0]).all()
    np.testing.assert_array_equal(unknown[1], median(forest, [shop])[0])


def test_the_same_seed_grows_the_same_forests(make: Make, wave: Wave, few: None) -> None:
    told = windows(make(wave(300)), 1)
    one, two, other = (fit(*told, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.edge, two.edge)
    np.testing.assert_array_equal(one.leaf, two.leaf)
    assert not np.array_equal(one.leaf, other.leaf)


def test_a_short_horizon_has_fewer_knots(make: Make, wave: Wave, few: None) -> None:
    series = make(wave(300))
    forests = fit(*windows(series, 3))
    assert len(forests) == 2  # at 1 and 2
    assert np.isfinite(median(Boosting(["shop"], forests), [series], 3)).all()


def test_chunks_change_nothing(forest: Boosting, make: Make, wave: Wave, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> FloatArray:
        return forest.predict(Batch.at(make(wave(300)), np.arange(100, 300), H))

    whole = told()
    monkeypatch.setattr(boosting, "CHUNK", 7)
    np.testing.assert_array_equal(told(), whole)


def test_trees_fit_their_arrays(forest: Boosting) -> None:
    for packed in forest.knots:
        trees = packed.leaf.shape[:2]
        assert trees == (1, 50)
        assert packed.figure.shape == packed.edge.shape == (*trees, 2**DEPTH - 1)
        assert packed.leaf.shape == (*trees, 2**DEPTH)
        assert packed.figure.max() < S + A


# -- the future ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(futures())
def test_it_cannot_see_the_future(forest: Boosting, pair: tuple[Series, Series]) -> None:
    assert_blind(forest, *pair)


def test_it_is_grown_on_the_past_only(make: Make, wave: Wave, few: None) -> None:
    def honest(series: Sequence[Series], cut: int) -> Boosting:
        return Boosting(["shop"], fit(*windows(series[0].until(cut), 1)))

    def leaking(series: Sequence[Series], cut: int) -> Boosting:
        return Boosting(["shop"], fit(*windows(series[0], 1)))

    whole = [make(wave(400))]
    check_causal(honest, whole, 1, 350)
    with pytest.raises(LeakError, match="shop: the forecast at value 350"):
        check_causal(leaking, whole, 1, 350)
