"""Champion and challenger: who wins, on which values, and what an order on disk holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecasting.artifacts import Artifact
from forecasting.errors import ArtifactError
from forecasting.registry import Registry
from meshctl.control import training
from tests.unit.meshctl.forecasting_support import DAY, HORIZON, SETTINGS, bundle, damage, keep, series

KNOWN = series(1000)


def test_an_order_survives_the_disk(tmp_path: Path) -> None:
    order = training.Order(SETTINGS, tmp_path / "models", "drift", 5.0, seeded=True, cache=tmp_path / "cache")
    gap = series(50, "catalog", 1e9)
    gap.values[3] = np.nan
    training.write(tmp_path / "job", [KNOWN, gap], order)
    found, told = training.read(tmp_path / "job")
    assert told == order
    assert [(one.name, one.start, one.step, one.season) for one in found] == [
        ("frontend", 0.0, 1.0, DAY),
        ("catalog", 1e9, 1.0, DAY),
    ]
    np.testing.assert_array_equal(found[1].values, gap.values)
    training.write(tmp_path / "job", [KNOWN], replace(order, cache=None))
    assert training.read(tmp_path / "job")[1].cache is None


def test_the_better_one_wins_whichever_side_it_is_on() -> None:
    good, bad = bundle(KNOWN), bundle(KNOWN, good=False)
    longer = series(1200)
    up = training.contest(good, bad, [longer], SETTINGS)
    down = training.contest(bad, good, [longer], SETTINGS)
    assert up["ratio"] < 0.5
    assert down["ratio"] > 2.0
    assert up["challenger_error"] == down["champion_error"]
    assert training.contest(good, good, [longer], SETTINGS)["ratio"] == 1.0


def test_only_values_are_compared_that_neither_has_seen() -> None:
    """The champion learned from 900 steps, the challenger from 900 of the same 1000: 89 windows are left."""
    found = training.contest(bundle(KNOWN), bundle(KNOWN), [KNOWN], SETTINGS)
    assert found["windows"] == 100 - HORIZON + 1
    later = bundle(series(1300))  # it has seen 1170 steps, the challenger of 1200 has seen 1080
    assert training.contest(bundle(KNOWN), later, [series(1200)], SETTINGS)["windows"] == 30 - HORIZON + 1


def test_too_few_windows_decide_nothing() -> None:
    later = bundle(series(1300))
    found = training.contest(bundle(KNOWN), later, [series(1200)], SETTINGS)
    assert found["ratio"] is None
    assert not training.wins({"champion": 1, **found}, 0.0)
    assert "too few" in training.verdict(2, {"champion": 1, **found})


@pytest.mark.parametrize(
    ("contest", "margin", "won"),
    [
        (None, 0.5, True),
        ({"ratio": 0.98}, 0.02, True),
        ({"ratio": 0.981}, 0.02, False),
        ({"ratio": 1.0}, 0.0, True),
        ({"ratio": 1.2}, 0.0, False),
        ({"ratio": None}, 0.0, False),
    ],
)
def test_winning_takes_a_margin(contest: dict[str, Any] | None, margin: float, won: bool) -> None:
    assert training.wins(contest, margin) is won


def test_a_challenger_that_is_no_better_is_kept_but_not_promoted(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.promote(keep(registry, bundle(KNOWN)), "first", {}, 1.0)
    longer = [series(1200)]
    worse = bundle(longer[0], good=False)
    number = keep(registry, worse, contest=training.compared(worse, registry, longer, SETTINGS), reason="drift")
    text, swap = training.judge(registry, number, 0.02, 2.0)
    assert swap is None
    assert "not promoted" in text
    assert (registry.active(), len(registry.generations())) == (1, 2)


def test_a_challenger_that_is_better_is_promoted_with_its_scores(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.promote(keep(registry, bundle(KNOWN, good=False)), "first", {}, 1.0)
    longer = [series(1200)]
    better = bundle(longer[0])
    number = keep(registry, better, contest=training.compared(better, registry, longer, SETTINGS), reason="drift")
    text, swap = training.judge(registry, number, 0.02, 2.0)
    assert swap is not None
    assert (registry.active(), swap.before, swap.reason) == (number, 1, "drift")
    assert registry.history()[-1].scores["contest"]["ratio"] < 0.98
    assert "ratio" in text


@pytest.mark.parametrize("state", ["none", "damaged", "misfit"])
def test_without_a_champion_that_can_be_used_nothing_is_compared(tmp_path: Path, state: str) -> None:
    registry = Registry(tmp_path)
    if state != "none":
        registry.promote(keep(registry, bundle(KNOWN, horizon=3 if state == "misfit" else HORIZON)), "first", {}, 1.0)
    if state == "damaged":
        damage(registry, 1)
    assert training.compared(bundle(KNOWN), registry, [KNOWN], SETTINGS) is None


def test_models_of_other_settings_do_not_fit() -> None:
    fits = Artifact({}, dict(bundle(KNOWN).card))
    assert training.misfit(fits, 1.0, DAY, HORIZON) == ""
    assert "forecast.horizon is 24" in training.misfit(fits, 1.0, DAY, 24)
    assert "controller.tick" in training.misfit(fits, 2.0, DAY, HORIZON)
    assert "forecast.day" in training.misfit(fits, 1.0, 2 * DAY, HORIZON)
    assert training.misfit(Artifact({}, {}), 1.0, DAY, HORIZON)


def test_a_damaged_order_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        training.read(tmp_path)
