"""The learned models of a mesh: trained within a deadline, never on the holdout, stored and found again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from forecasting import artifacts, bundle
from forecasting.artifacts import CARD, WEIGHTS, Artifact
from forecasting.base import MEDIAN, QUANTILES, Forecaster
from forecasting.batch import Batch
from forecasting.bundle import Bundle, BundleSettings, cache_key, digest, kept, restored, stored, train, train_or_load
from forecasting.bundle import scores as scored
from forecasting.errors import ArtifactError, TrainingError
from forecasting.features import A, S
from forecasting.models import boosting_training
from forecasting.models.boosting import FIGURES, Boosting
from forecasting.models.linear import F, Linear
from forecasting.models.naive import LastValue
from forecasting.series import Series
from tests.unit.forecasting.conftest import NAN, SEASON, Make, Wave, quiet

pytestmark = pytest.mark.slow

STEPS = 2
SETTINGS = BundleSettings(seconds=60.0, horizon=STEPS, steps=5)
SIMPLE = replace(SETTINGS, horizon=1)
Arrays = Mapping[str, npt.NDArray[Any]]


@pytest.fixture(autouse=True, scope="module")
def _few() -> Any:
    """Forests of four trees, on coarse figures."""
    with pytest.MonkeyPatch.context() as patch:
        small = {"max_iter": 4, "max_bins": 8}
        patch.setattr(boosting_training, "SETTINGS", {**boosting_training.SETTINGS, **small})
        patch.setattr(boosting_training, "TAILS", {q: {**one, **small} for q, one in boosting_training.TAILS.items()})
        yield


@pytest.fixture(scope="module")
def mesh(make: Make, wave: Wave) -> list[Series]:
    """Two services with enough history (the second is busier) and one that is new."""
    return [make(wave(300), "shop"), make(wave(300, seed=1) * 9, "cart"), make(wave(60, seed=2), "new")]


@pytest.fixture(scope="module")
def simple(mesh: list[Series]) -> Arrays:
    """What is stored of models of the shop and the new one, for a single step."""
    return stored(train(mesh[::2], SIMPLE, quiet))[0]


@pytest.fixture(scope="module")
def trained(mesh: list[Series]) -> Bundle:
    return train(mesh, SETTINGS, quiet)


def by_name(found: Bundle) -> dict[str, Forecaster]:
    return {model.name: model for model in found.models}


def own(found: Bundle, name: str) -> list[str]:
    """The series that the linear models or forests know, in order."""
    model = by_name(found)[name]
    assert isinstance(model, Linear | Boosting)
    return list(model.names)


def as_stored(found: Bundle) -> Artifact:
    """What another process would read."""
    arrays, card = stored(found)
    return Artifact({name: part.copy() for name, part in arrays.items()}, json.loads(json.dumps(card)))


# -- training --------------------------------------------------------------------------------------------------------


def test_there_are_a_network_linear_models_and_forests(trained: Bundle) -> None:
    assert [model.name for model in trained.models] == ["lstm", "linear", "boosting"]
    assert own(trained, "linear") == own(trained, "boosting") == ["cart", "shop"]  # busiest first; "new" is too short


def test_every_series_is_answered_by_the_network(trained: Bundle, mesh: list[Series]) -> None:
    told = {name: model.predict(Batch.now(mesh, STEPS)) for name, model in by_name(trained).items()}
    assert np.isfinite(told["lstm"]).all()
    assert np.isfinite(told["linear"][:2, :, 1]).all()
    assert np.isfinite(told["boosting"][:2, :, 1]).all()
    assert np.isnan(told["linear"][2]).all()


def planted(series: Series, first: int) -> Series:
    """Absurd values from ``first`` on."""
    return replace(series, values=np.where(np.arange(len(series.values)) < first, series.values, 1e4))


def test_the_holdout_is_never_trained_on(mesh: list[Series], simple: Arrays) -> None:
    held = [planted(one, kept(len(one.values), SIMPLE)) for one in mesh[::2]]
    after = stored(train(held, SIMPLE, quiet))[0]
    assert after.keys() == simple.keys()
    for name, part in simple.items():
        np.testing.assert_array_equal(after[name], part, err_msg=name)


def test_what_comes_just_before_the_holdout_is_trained_on(mesh: list[Series], simple: Arrays) -> None:
    """Otherwise the test above proves nothing."""
    reached = [planted(one, kept(len(one.values), SIMPLE) - 40) for one in mesh[::2]]
    after = stored(train(reached, SIMPLE, quiet))[0]
    for name in ("lstm/outer.weight", "linear/weights", "boosting/0/leaf"):
        assert not np.array_equal(after[name], simple[name]), name


@pytest.mark.parametrize(("length", "share", "expected"), [(100, 0.1, 90), (5, 0.1, 5), (0, 0.1, 0), (100, 0.0, 100)])
def test_the_holdout_is_the_newest_share(length: int, share: float, expected: int) -> None:
    assert kept(length, replace(SETTINGS, holdout=share)) == expected


def test_the_same_seed_gives_the_same_models(mesh: list[Series], simple: Arrays) -> None:
    again, other = (stored(train(mesh[::2], replace(SIMPLE, seed=n), quiet))[0] for n in (0, 1))
    for name, part in simple.items():
        np.testing.assert_array_equal(again[name], part, err_msg=name)
    assert not np.array_equal(other["lstm/outer.weight"], simple["lstm/outer.weight"])


def test_short_series_alone_get_a_network_only(make: Make, wave: Wave) -> None:
    found = train([make(wave(100))], SETTINGS, quiet)
    assert [model.name for model in found.models] == ["lstm"]
    assert set(found.card["scores"]) == {"lstm"}
    assert [model.name for model in restored(as_stored(found)).models] == ["lstm"]


def test_odd_series_do_not_keep_others_from_learning(make: Make, wave: Wave, odd: Series) -> None:
    """An odd series may be long, and busier than all others."""
    long = replace(odd, values=np.tile(odd.values, 3)[:400])
    found = train([make(wave(100), "shop"), long], replace(SETTINGS, steps=2), quiet)
    told = by_name(found)["lstm"].predict(Batch.now([make(wave(100), "shop")], STEPS))
    assert np.isfinite(told).all()
    for name, part in stored(found)[0].items():
        assert not np.isnan(part).any(), name


def test_nothing_to_learn_is_said(make: Make) -> None:
    with pytest.raises(TrainingError, match="none of 1 series"):
        train([make([4.0] * 500)], SETTINGS, quiet)


# -- the deadline ----------------------------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch, forest: Boosting) -> None:
    """Growing a forest costs no time but that on the wall."""
    grown = replace(forest, knots=forest.knots[:STEPS])
    monkeypatch.setattr(boosting_training, "grow", lambda name, told, target, seed: replace(grown, names=[name]))


class Wall:
    """A clock that stands still but for what work costs: ``prices`` by the first word of its progress."""

    def __init__(self, **prices: float) -> None:
        self.now, self.prices, self.seen = 0.0, prices, list[str]()

    def __call__(self) -> float:
        return self.now

    def progress(self, done: int, total: int, text: str) -> None:
        self.seen.append(text)
        self.now += self.prices.get(text.partition(" ")[0], 0.0)


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(
    ("prices", "forests"),
    [
        ({"boosting": 40.0}, ["cart", "shop"]),  # the second begins at 40 of 60 seconds
        ({"boosting": 61.0}, ["cart"]),
        ({"linear": 29.0, "boosting": 10.0}, ["cart"]),
        ({"linear": 40.0}, []),
        ({"trained": 1000.0}, []),
    ],
)
def test_forests_are_grown_while_time_is_left(mesh: list[Series], prices: dict[str, float], forests: list[str]) -> None:
    wall = Wall(**prices)
    found = train(mesh, SETTINGS, wall.progress, wall)
    assert (own(found, "boosting") if forests else []) == forests
    assert ("boosting" in by_name(found)) == bool(forests)
    assert found.card["seconds"] == wall.now


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(
    ("prices", "linears"),
    [
        ({"linear": 59.0}, ["cart", "shop"]),  # the second begins at 59 of 60 seconds
        ({"linear": 61.0}, ["cart"]),
        ({"trained": 1000.0}, ["cart"]),  # the busiest has one whatever the time
    ],
)
def test_linear_models_are_fitted_while_time_is_left(
    mesh: list[Series], prices: dict[str, float], linears: list[str]
) -> None:
    wall = Wall(**prices)
    found = train(mesh, SETTINGS, wall.progress, wall)
    assert own(found, "linear") == linears
    assert [text for text in wall.seen if text.startswith("linear")] == [f"linear {name}" for name in linears]
    assert as_stored(found).card["linear"] == {"names": linears}
    told = by_name(restored(as_stored(found)))["linear"].predict(Batch.now(mesh, STEPS))[:, 0, MEDIAN]
    assert np.isfinite(told).tolist() == [one.name in linears for one in mesh]  # silent about the others


@pytest.mark.usefixtures("free")
def test_a_third_of_the_time_is_the_network_s(mesh: list[Series]) -> None:
    wall = Wall(loss=10.0)  # every tenth step tells its loss
    train(mesh, replace(SETTINGS, steps=None, seconds=60.0), wall.progress, wall)
    assert sum(text.startswith("loss") for text in wall.seen) == 2  # of the 50 that 20 seconds are worth


@pytest.mark.usefixtures("free")
def test_progress_names_what_is_done(mesh: list[Series]) -> None:
    wall = Wall()
    train(mesh, SETTINGS, wall.progress, wall)
    assert wall.seen[1:] == ["trained", "linear cart", "linear shop", "boosting cart", "boosting shop"]


# -- the card --------------------------------------------------------------------------------------------------------


def test_the_card_tells_what_was_learned_from_and_how_well(trained: Bundle, mesh: list[Series]) -> None:
    card = trained.card
    assert card["data"]["sha256"] == digest(mesh)
    shop = {"name": "shop", "start": 1e6, "end": 1e6 + 5 * 300, "step": 5.0, "season": SEASON}
    assert card["data"]["series"][0] == shop
    assert card["settings"]["steps"] == 5
    assert set(card["versions"]) == {"python", "numpy", "torch", "scikit-learn"}
    assert set(card["scores"]) == {"lstm", "linear", "boosting"}
    assert set(card["scores"]["linear"]) == {"h1"}  # of the steps 1, 5 and 12 the horizon holds one
    json.dumps(dict(card), allow_nan=False)


def test_scores_are_over_the_holdout_only(mesh: list[Series]) -> None:
    """And of last value against itself 1. It looks back 120 steps from there for its spread."""
    settings = replace(SETTINGS, horizon=12)
    found = scored([LastValue()], mesh, settings)["last"]
    assert {step: one["relative_wape"] for step, one in found.items()} == {"h1": 1.0, "h5": 1.0, "h12": 1.0}
    past = [replace(one, values=np.where(np.arange(len(one.values)) < 100, 0.0, one.values)) for one in mesh[:2]]
    assert scored([LastValue()], past, settings)["last"] == scored([LastValue()], mesh[:2], settings)["last"]


@pytest.mark.parametrize("holdout", [0.0, 0.001])
def test_without_a_holdout_there_are_no_scores(mesh: list[Series], holdout: float) -> None:
    assert scored([LastValue()], mesh, replace(SETTINGS, holdout=holdout)) == {"last": {}}


def test_a_holdout_of_gaps_is_not_scored(make: Make, wave: Wave) -> None:
    values = wave(300)
    values[250:] = NAN
    found = scored([LastValue()], [make(values)], SETTINGS)["last"]["h1"]
    assert found == {"relative_wape": None, "below_0.9": None, "below_0.99": None}


def test_the_digest_is_of_the_data_and_not_of_the_date(make: Make, wave: Wave) -> None:
    values = wave(100)
    series = make(values)
    assert digest([series]) == digest([make(values.copy(), start=5e6)])
    others = [
        [make(values + 1)],
        [make(values, "other")],
        [replace(series, season=95)],
        [replace(series, step=6.0)],
        [series, make([1.0])],
        [make([1.0]), series],
        [make(values[:-1])],
    ]
    assert len({digest([series]), *map(digest, others)}) == len(others) + 1


# -- stored and restored ---------------------------------------------------------------------------------------------


def test_restored_models_say_the_same(trained: Bundle, mesh: list[Series], tmp_path: Path) -> None:
    artifacts.save(tmp_path / "models", *stored(trained))
    again = restored(artifacts.load(tmp_path / "models"))
    assert list(by_name(again)) == list(by_name(trained))
    batches = [Batch.now(mesh, STEPS), Batch.at(mesh[1], np.arange(0, 300, 7), STEPS)]
    for name, model in by_name(again).items():
        for batch in batches:
            np.testing.assert_array_equal(model.predict(batch), by_name(trained)[name].predict(batch))
    assert again.card["scores"] == trained.card["scores"]


def test_storing_leaves_the_card_of_the_bundle_alone(trained: Bundle) -> None:
    stored(trained)
    assert "lstm" not in trained.card


DAMAGE: dict[str, tuple[str, Any]] = {
    "no linear weights": ("linear/weights", None),
    "flat linear weights": ("linear/weights", np.zeros((2, STEPS))),
    "a series too few": ("linear/weights", np.zeros((1, STEPS, 1 + F))),
    "no step": ("linear/weights", np.zeros((2, 0, 1 + F))),
    "a figure too few": ("linear/weights", np.zeros((2, STEPS, F))),
    "an unknown weight": ("linear/weights", np.full((2, STEPS, 1 + F), NAN)),
    "no edges": ("boosting/1/edge", None),
    "a forest too few": ("boosting/0/leaf", np.zeros((1, 4, 16), dtype=np.float32)),
    "a tree too few": ("boosting/0/edge", np.zeros((2, 3, 15), dtype=np.float32)),
    "flat leaves": ("boosting/0/leaf", np.zeros(2, dtype=np.float32)),
    "deep leaves": ("boosting/0/leaf", np.zeros((2, 4, 32), dtype=np.float32)),
    "no base": ("boosting/0/base", np.zeros(0)),
    "trees without a level": ("boosting/0/leaf", np.zeros((2, 4, 1), dtype=np.float16)),
    "no upper edges": ("boosting/0.9/0/edge", None),
    "an infinite upper leaf": ("boosting/0.99/0/leaf", np.full((2, 4, 8), np.inf, dtype=np.float16)),
    "a figure that there is not": ("boosting/0/figure", np.full((2, 4, 15), S + A, dtype=np.int8)),
    "an upper figure that there is not": ("boosting/0.9/0/figure", np.full((2, 4, 15), FIGURES, dtype=np.int8)),
    "a negative figure": ("boosting/0/figure", np.full((2, 4, 15), -1, dtype=np.int16)),
    "half a figure": ("boosting/0/figure", np.full((2, 4, 15), 0.5)),
    "an unknown edge": ("boosting/0/edge", np.full((2, 4, 15), NAN, dtype=np.float32)),
    "an infinite leaf": ("boosting/0/leaf", np.full((2, 4, 16), np.inf, dtype=np.float32)),
    "an unknown base": ("boosting/0/base", np.full(2, NAN)),
    "no codes": ("lstm/series.weight", None),
    "codes of too many series": ("lstm/series.weight", np.zeros((9, 8), dtype=np.float32)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_arrays_are_refused(trained: Bundle, damage: str) -> None:
    found, (name, part) = as_stored(trained), DAMAGE[damage]
    assert name in found.arrays
    arrays = {key: (part if key == name else value) for key, value in found.arrays.items()}
    if part is None:
        del arrays[name]
    with pytest.raises(ArtifactError, match=r"train (it|them) again"):
        restored(Artifact(arrays, found.card))


@pytest.mark.parametrize(
    "changes",
    [
        {"linear": None},
        {"linear": {}},
        {"linear": {"names": ["shop"]}},
        {"boosting": {}},
        {"boosting": {"names": ["shop"], "knots": 2, "upper": 1}},
        {"boosting": {"names": ["cart", "shop"], "knots": 0, "upper": 1}},
        {"boosting": {"names": ["cart", "shop"], "knots": 3, "upper": 1}},
        {"boosting": {"names": ["cart", "shop"], "knots": 99, "upper": 1}},
        {"boosting": {"names": ["cart", "shop"], "knots": "many", "upper": 1}},
        {"boosting": {"names": ["cart", "shop"], "knots": 2}},  # of a version without upper quantiles
        {"boosting": {"names": ["cart", "shop"], "knots": 2, "upper": 0}},
        {"boosting": {"names": ["cart", "shop"], "knots": 2, "upper": 2}},
        {"lstm": {}},
    ],
)
def test_damaged_cards_are_refused(trained: Bundle, changes: dict[str, Any]) -> None:
    found = as_stored(trained)
    with pytest.raises(ArtifactError, match=r"train (it|them) again"):
        restored(Artifact(found.arrays, {**found.card, **changes}))


def test_what_holds_no_model_is_refused() -> None:
    with pytest.raises(ArtifactError, match="names no model"):
        restored(Artifact({}, {"model": "bundle"}))


# -- the cache -------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(mesh: list[Series], trained: Bundle, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Training costs nothing; the list says how often it was done."""
    trainings: list[str] = []

    def instead(series: object, settings: object, progress: object, clock: object) -> Bundle:
        trainings.append("trained")
        return trained

    monkeypatch.setattr(bundle, "train", instead)
    return trainings


def test_the_second_time_comes_from_the_cache(mesh: list[Series], quick: list[str], tmp_path: Path) -> None:
    (first, fresh), (second, cached) = (train_or_load(mesh, SETTINGS, tmp_path, quiet) for _ in range(2))
    assert (fresh, cached) == (False, True)
    assert quick == ["trained"]
    batch = Batch.now(mesh, STEPS)
    for name, model in by_name(second).items():
        np.testing.assert_array_equal(model.predict(batch), by_name(first)[name].predict(batch))


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_damaged_models_are_trained_again(mesh: list[Series], quick: list[str], tmp_path: Path, name: str) -> None:
    train_or_load(mesh, SETTINGS, tmp_path, quiet)
    (folder,) = tmp_path.iterdir()
    (folder / name).write_bytes(b"damaged")
    assert [train_or_load(mesh, SETTINGS, tmp_path, quiet)[1] for _ in range(2)] == [False, True]
    assert len(quick) == 2
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_intact_files_of_models_that_do_not_fit_are_trained_again(
    mesh: list[Series], quick: list[str], tmp_path: Path, trained: Bundle
) -> None:
    arrays, card = stored(trained)
    folder = tmp_path / f"models-{cache_key(mesh, SETTINGS)}"
    artifacts.save(folder, {**arrays, "linear/weights": np.zeros((7, 7, 7))}, card)
    assert [train_or_load(mesh, SETTINGS, tmp_path, quiet)[1] for _ in range(2)] == [False, True]


def test_other_data_and_settings_have_other_models(
    mesh: list[Series], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [cache_key(mesh, SETTINGS), cache_key(mesh[:1], SETTINGS)]
    changes: list[dict[str, Any]] = [{"seed": 9}, {"horizon": 3}, {"holdout": 0.2}, {"seconds": 9.0}, {"steps": None}]
    keys += [cache_key(mesh, replace(SETTINGS, **change)) for change in changes]
    monkeypatch.setattr(bundle, "QUANTILES", QUANTILES[1:])
    keys.append(cache_key(mesh, SETTINGS))
    monkeypatch.undo()
    monkeypatch.setattr(bundle, "FORMAT", 10**6)
    keys.append(cache_key(mesh, SETTINGS))
    assert len(set(keys)) == len(keys)


def test_no_series_is_said_before_anything_is_done(tmp_path: Path, quick: list[str]) -> None:
    with pytest.raises(TrainingError, match="no series to learn from; record some first"):
        train_or_load([], SETTINGS, tmp_path / "cache", quiet)
    assert not (tmp_path / "cache").exists()
    assert quick == []


def test_a_real_training_is_found_again(make: Make, wave: Wave, tmp_path: Path) -> None:
    asked = ([make(wave(100))], replace(SETTINGS, steps=2), tmp_path, quiet)
    (first, fresh), (second, cached) = (train_or_load(*asked) for _ in range(2))
    assert (fresh, cached) == (False, True)
    for name, part in stored(first)[0].items():
        np.testing.assert_array_equal(stored(second)[0][name], part)
