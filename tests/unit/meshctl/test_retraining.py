"""From history to models in use: training in a child, promotion, undo, damage, drift. The tick never waits."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from forecasting.batch import Batch
from forecasting.bundle import Bundle
from forecasting.drift import Drift
from forecasting.errors import ArtifactError
from forecasting.series import Series
from meshctl import config as config_module
from meshctl.control.forecasts import Slot
from meshctl.control.governor import TrainingFailedError
from meshctl.control.past import DEMAND
from meshctl.control.retraining import HOLDOUT, MOST_TRIES, Due, Retrainer, Standing, due, half_since
from meshctl.control.training import LEAST_WINDOWS
from meshctl.server.app import ControlPlane, control_plane
from tests.unit.meshctl.forecasting_support import DAY, MESH, bundle, damage, keep, observation, rates, series

pytestmark = pytest.mark.slow

NOW = 1_000_000.0


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH)
    async with control_plane(file, config_module.load(file)) as made:
        made.retrainer._clock = lambda: NOW
        yield made


def remember(plane: ControlPlane, count: int = 1000) -> None:
    """Stored history of the frontend up to NOW."""
    values = rates(count)
    times = [NOW - count + number + 0.5 for number in range(count)]
    plane.database.append_samples([(DEMAND + "frontend", t, float(v)) for t, v in zip(times, values, strict=True)])


def champions(plane: ControlPlane, *bundles: Bundle) -> None:
    for number, one in enumerate(bundles):
        plane.retrainer.registry.promote(keep(plane.retrainer.registry, one), "test", {}, NOW - 100 + number)


def told(plane: ControlPlane, kind: str = "model") -> list[str]:
    return [event["message"] for event in plane.database.events() if event["kind"] == kind]


def niceness(plane: ControlPlane) -> int | None:
    governed = plane.retrainer.governed
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(governed.pid).nice() if governed and governed.pid else None
    return None


def used(plane: ControlPlane) -> Any:
    return plane.forecasts._slots["linear"].model


# -- when to train ---------------------------------------------------------------------------------------------------

DRIFT = Drift("frontend", "level", 0.5, 0.0, "more")


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (Standing(None, None, champion=False), "first"),
        (Standing(NOW - 899, None, champion=False), None),
        (Standing(NOW - 900, None, champion=False), "first"),
        (Standing(NOW - 1000, None, champion=True), None),
        (Standing(NOW - 1000, DRIFT, champion=True), "drift"),
        (Standing(NOW - 100, DRIFT, champion=True), None),
        (Standing(NOW - 1000, DRIFT, champion=True, enough_at=NOW + 1), None),
        (Standing(NOW - 3599, DRIFT, champion=True, tries=2), None),
        (Standing(NOW - 3600, DRIFT, champion=True, tries=2), "drift"),
        (Standing(NOW - 21600, DRIFT, champion=True, tries=9), "schedule"),
        (Standing(NOW - 21600, None, champion=True), "schedule"),
        (Standing(None, None, champion=True), "schedule"),
    ],
)
def test_what_is_due(state: Standing, kind: str | None) -> None:
    found = due(NOW, state, every=21600.0, pause=900.0)
    assert (found and found.kind) == kind


def test_half_of_what_came_since_a_drift_is_learned_from(plane: ControlPlane) -> None:
    config = plane.loop.config
    known = [Series("frontend", NOW - 1000.0, 1.0, np.ones(1000), DAY), Series("b", 0.0, 1.0, np.ones(9), DAY)]
    assert half_since(replace(DRIFT, since=NOW - 100), known, NOW, config) == pytest.approx(0.05)
    assert half_since(replace(DRIFT, since=NOW - 500), known, NOW, config) == HOLDOUT
    assert half_since(replace(DRIFT, since=NOW + 5), known, NOW, config) == 0.0
    assert half_since(replace(DRIFT, series="a stranger"), known, NOW, config) == 0.0


def test_what_is_held_out_of_a_short_series_suffices_to_compare(plane: ControlPlane) -> None:
    config = plane.loop.config
    known = [Series("frontend", NOW - 200.0, 1.0, np.ones(200), DAY)]
    held = half_since(replace(DRIFT, since=NOW - 190), known, NOW, config) * 200
    assert HOLDOUT * 200 < LEAST_WINDOWS + config.forecast.horizon <= held <= 95


# -- a real training -------------------------------------------------------------------------------------------------


async def test_a_child_trains_and_its_models_forecast(plane: ControlPlane) -> None:
    remember(plane)
    await plane.retrainer.prepare(NOW)
    assert plane.retrainer.model.state == "none"
    task = asyncio.create_task(plane.retrainer.look(NOW))
    async with asyncio.timeout(60):
        while not task.done() and niceness(plane) != 10:
            await asyncio.sleep(0.01)
    assert not task.done()
    await task
    state = plane.retrainer.model
    assert (state.state, state.generation) == ("ready", 1), told(plane)
    assert set(plane.forecasts._slots) >= {"lstm", "linear"}
    await plane.forecasts.update(observation(NOW, {"frontend": 60.0}), masked=frozenset())
    assert "lstm" in plane.forecasts.selected["frontend"].skill
    card = plane.retrainer.registry.load(1).card
    assert (card["reason"], card["contest"], list(card["drift"])) == ("there are no learned models", None, ["frontend"])
    assert [message.split(":")[0] for message in told(plane)] == [
        "training begins",
        "generation 1 has no champion to beat",
        "in use",
        "training ended",
    ]
    text = plane.metrics.text().decode()
    assert 'meshctl_forecast_swaps_total{kind="promote"} 1.0' in text
    assert 'meshctl_forecast_training_seconds_count{outcome="promoted"} 1.0' in text
    assert not (plane.retrainer.registry.folder / "training").exists()
    before = plane.forecasts._selector
    await plane.retrainer.look(NOW + 3600)  # nothing is due yet
    assert plane.forecasts._selector is before


# -- the tick never waits --------------------------------------------------------------------------------------------


async def test_ticks_go_on_while_a_child_trains_and_no_child_is_left(plane: ControlPlane) -> None:
    remember(plane)
    await plane.retrainer.prepare(NOW)
    plane.retrainer._command = (sys.executable, "-c", "import time; time.sleep(600)")
    task = asyncio.create_task(plane.retrainer.look(NOW))
    async with asyncio.timeout(30):
        while plane.retrainer.governed is None or plane.retrainer.governed.pid is None:
            await asyncio.sleep(0.01)
    assert plane.retrainer.model.state == "training"
    assert plane.ready()["model"]
    for tick in range(3):
        demand = await plane.forecasts.update(observation(NOW + tick, {"frontend": 60.0}), masked=frozenset())
        assert demand["frontend"].expected > 0
    assert plane.status()["model"]["training"]["seconds"] >= 0.0
    pid = plane.retrainer.governed.pid
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not Path(f"/proc/{pid}").exists()


async def test_a_failed_training_is_told_and_tried_again_later(plane: ControlPlane) -> None:
    remember(plane)
    await plane.retrainer.prepare(NOW)
    plane.retrainer._command = (sys.executable, "-c", "raise SystemExit('out of luck')")
    await plane.retrainer.look(NOW)
    assert plane.retrainer.model.state == "failed"
    assert "out of luck" in plane.retrainer.model.detail
    await plane.retrainer.look(NOW + 60)
    assert sum("training begins" in message for message in told(plane)) == 1
    await plane.retrainer.look(NOW + 900)
    assert sum("training begins" in message for message in told(plane)) == 2


async def test_too_little_history_says_how_much_there_is(plane: ControlPlane) -> None:
    remember(plane, 100)
    await plane.retrainer.prepare(NOW)
    await plane.retrainer.look(NOW)
    assert plane.retrainer.model.detail == "100 of 500 steps of history: too little to train on"


# -- champions -------------------------------------------------------------------------------------------------------


async def test_a_stored_champion_is_used_at_once(plane: ControlPlane) -> None:
    remember(plane)
    champions(plane, bundle(series(start=NOW - 1000)))
    await plane.retrainer.prepare(NOW)
    assert (plane.retrainer.model.state, plane.retrainer.model.generation) == ("ready", 1)
    await plane.retrainer.look(NOW)
    assert not any("training" in message for message in told(plane))


async def test_a_damaged_champion_is_refused_for_the_one_before(plane: ControlPlane) -> None:
    remember(plane)
    champions(plane, bundle(series()), bundle(series()))
    damage(plane.retrainer.registry, 2)
    await plane.retrainer.prepare(NOW)
    assert plane.retrainer.model.generation == 1
    assert plane.retrainer.registry.active() == 1
    assert plane.retrainer.registry.history()[-1].kind == "undo"
    refusal = told(plane)[0]
    assert "refused" in refusal
    assert "weights.safetensors" in refusal
    assert "generation 1 is used instead" in refusal


async def test_a_champion_whose_parts_do_not_fit_is_refused_for_the_one_before(plane: ControlPlane) -> None:
    """Its files are as they were written, but its weights are for other figures."""
    remember(plane)
    broken = bundle(series())
    model: Any = broken.models[0]
    other = Bundle((type(model)(model.names, model.weights[:, :, :5]),), broken.card)
    champions(plane, bundle(series()), other)
    await plane.retrainer.prepare(NOW)
    assert plane.retrainer.model.generation == 1
    assert "do not fit together" in told(plane)[0]
    assert (await plane.forecasts.update(observation(NOW, {"frontend": 60.0}), masked=frozenset()))["frontend"]


class Broken:
    name = "linear"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def predict(self, batch: Batch) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [ValueError("shapes"), np.zeros((1, 3, 5))])
async def test_a_model_that_does_not_answer_changes_nothing(plane: ControlPlane, answer: Any) -> None:
    before = plane.forecasts._selector
    with pytest.raises(ArtifactError, match="answer"):
        await plane.forecasts.adopt([Broken(answer)], {})
    assert plane.forecasts._selector is before
    assert plane.forecasts._slots == {}


async def test_a_model_that_is_missing_in_the_next_generation_is_silent(plane: ControlPlane) -> None:
    remember(plane)
    await plane.retrainer.prepare(NOW)
    (linear,) = bundle(series()).models
    await plane.forecasts.adopt([linear], {})
    selector = plane.forecasts._selector
    await plane.forecasts.adopt([linear], {})
    assert plane.forecasts._selector is selector
    plane.forecasts._slots["lstm"] = Slot("lstm", linear)
    await plane.forecasts.adopt([linear], {})
    told = plane.forecasts._slots["lstm"].predict(Batch.now([series()], 12))
    assert told.shape == (1, 12, 5)
    assert np.isnan(told).all()


async def test_without_any_intact_model_the_mesh_goes_on_and_trains(plane: ControlPlane) -> None:
    remember(plane)
    champions(plane, bundle(series()))
    damage(plane.retrainer.registry, 1)
    await plane.retrainer.prepare(NOW)
    assert plane.retrainer.model.state == "failed"
    assert plane.ready()["model"]
    await plane.forecasts.update(observation(NOW, {"frontend": 60.0}), masked=frozenset())
    began: list[Due] = []

    async def train(wanted: Due, now: float) -> None:
        began.append(wanted)

    plane.retrainer._train = train  # type: ignore[method-assign]
    await plane.retrainer.look(NOW)
    assert [one.kind for one in began] == ["first"]


async def test_models_of_another_horizon_are_not_used(plane: ControlPlane) -> None:
    remember(plane)
    champions(plane, bundle(series(), horizon=3))
    await plane.retrainer.prepare(NOW)
    assert plane.retrainer.model.generation is None
    assert "forecast.horizon is 12" in plane.retrainer.model.detail


async def test_a_swap_keeps_what_the_selector_knows(plane: ControlPlane) -> None:
    remember(plane)
    champions(plane, bundle(series()))
    await plane.retrainer.prepare(NOW)
    for tick in range(30):
        rate = float(rates(1030)[1000 + tick])
        await plane.forecasts.update(observation(NOW + tick, {"frontend": rate}), masked=frozenset())
    selector, first = plane.forecasts._selector, used(plane)
    weights = plane.forecasts.selected["frontend"].weights
    champions(plane, bundle(series(1200)))
    await plane.retrainer.look(NOW + 30)  # somebody else promoted it
    assert plane.retrainer.model.generation == 2
    assert used(plane) is not first
    assert plane.forecasts._selector is selector
    await plane.forecasts.update(observation(NOW + 30, {"frontend": 60.0}), masked=frozenset())
    again = plane.forecasts.selected["frontend"].weights
    assert again["linear"] == pytest.approx(weights["linear"], abs=0.2)


async def test_a_champion_that_changed_during_a_training_stays(plane: ControlPlane) -> None:
    remember(plane)
    champions(plane, bundle(series(), good=False))
    await plane.retrainer.prepare(NOW)
    number = keep(plane.retrainer.registry, bundle(series()), contest={"champion": 1, "windows": 99, "ratio": 0.1})
    champions(plane, bundle(series(1100)))
    assert not await plane.retrainer._judge(number, before=1)
    assert plane.retrainer.registry.active() == 3
    assert "kept aside" in told(plane)[-1]


async def test_undo_goes_back_and_is_told(plane: ControlPlane) -> None:
    remember(plane)
    champions(plane, bundle(series()), bundle(series(1100)))
    await plane.retrainer.prepare(NOW)
    swap = await plane.retrainer.undo("worse at night")
    assert (swap.kind, swap.before, swap.after) == ("undo", 2, 1)
    assert plane.retrainer.model.generation == 1
    assert any("undone: generation 2 -> 1: worse at night" in message for message in told(plane))
    assert 'meshctl_forecast_swaps_total{kind="undo"} 1.0' in plane.metrics.text().decode()


async def test_generations_that_are_not_needed_are_deleted(plane: ControlPlane) -> None:
    remember(plane)
    champions(plane, *(bundle(series()) for _ in range(4)))
    await plane.retrainer.prepare(NOW)
    number = keep(plane.retrainer.registry, bundle(series(), good=False), contest={"champion": 4, "windows": 9})

    async def child(known: Any, order: Any) -> int:
        return number

    plane.retrainer._in_child = child  # type: ignore[method-assign,assignment]
    await plane.retrainer._train(Due("schedule", "test"), NOW)
    assert plane.retrainer.model.generation == 4
    assert [one.number for one in plane.retrainer.registry.generations()] == [3, 4, 5]


# -- drift -----------------------------------------------------------------------------------------------------------


async def drifting(plane: ControlPlane, ticks: int, level: float, *, silent: bool = False) -> None:
    values = rates(1000 + ticks, level)
    for tick in range(ticks):
        masked = frozenset({"frontend"}) if silent else frozenset()
        seen = observation(NOW + tick + 1, {"frontend": float(values[1000 + tick])}, tick)
        await plane.forecasts.update(seen, masked=masked)


async def watching(plane: ControlPlane) -> list[Due]:
    """A plane with models in use whose next training is only noted."""
    remember(plane)
    champions(plane, bundle(series(start=NOW - 1000)))
    await plane.retrainer.prepare(NOW)
    plane.retrainer._last = NOW - 1000
    began: list[Due] = []

    async def train(wanted: Due, now: float) -> None:
        began.append(wanted)

    plane.retrainer._train = train  # type: ignore[method-assign]
    return began


async def test_a_new_level_is_told_counted_and_asks_for_training(plane: ControlPlane) -> None:
    began = await watching(plane)
    await drifting(plane, 3 * DAY, 240.0)
    drift = plane.forecasts.watch.found["frontend"]
    assert drift.cause == "level"
    assert any("frontend: level" in message for message in told(plane, "drift"))
    counted = 'meshctl_forecast_drift_total{cause="level",service="frontend"} 1.0'
    assert counted in plane.metrics.text().decode()
    await plane.retrainer.look(NOW)
    assert began == []  # there is nothing to learn from yet
    await plane.retrainer.look(NOW + 200)
    assert [one.kind for one in began] == ["drift"]
    assert "frontend" in began[0].reason


async def test_a_drift_waits_for_models_that_are_better(plane: ControlPlane) -> None:
    """Twice as long each time, because there is more to learn from by then; and not for ever."""
    remember(plane)
    champions(plane, bundle(series(start=NOW - 1000)))
    await plane.retrainer.prepare(NOW)
    plane.forecasts.take_drifts = lambda: found.pop() if found else []  # type: ignore[method-assign]
    found, asked = [[replace(DRIFT, since=NOW - 90)]], []

    async def in_child(known: Any, order: Any) -> int:
        asked.append((moment, order.settings.holdout))
        raise TrainingFailedError("not today")

    plane.retrainer._in_child = in_child  # type: ignore[method-assign, assignment]
    plane.retrainer._last = NOW - 900
    for moment in range(int(NOW), int(NOW) + 40_000, 100):
        plane.retrainer._retrain = plane.retrainer._retrain.model_copy(update={"every": 1e9})
        await plane.retrainer.look(float(moment))
    waits = np.diff([moment for moment, _ in asked])
    assert waits.tolist() == [1800.0, 3600.0, 7200.0, 14400.0]
    assert len(asked) == MOST_TRIES
    steps = LEAST_WINDOWS + plane.loop.config.forecast.horizon
    assert asked[0][0] >= NOW - 90 + 2 * steps * plane.loop.config.controller.tick
    assert 0.0 < asked[0][1] < HOLDOUT


async def test_a_hole_in_the_telemetry_is_told_but_asks_for_no_training(plane: ControlPlane) -> None:
    began = await watching(plane)
    await drifting(plane, 3, 60.0)
    values = rates(1100)
    for tick in range(4, 40):  # nothing is heard of the frontend; the catalog is still there
        seen = observation(NOW + tick, {"frontend": 0.0, "catalog": 5.0}, tick)
        await plane.forecasts.update(seen, masked=frozenset({"frontend"}))
    for tick in range(40, 44):
        seen = observation(NOW + tick, {"frontend": float(values[1000 + tick])}, tick)
        await plane.forecasts.update(seen, masked=frozenset())
    assert plane.forecasts.watch.found["frontend"].cause == "telemetry hole"
    await plane.retrainer.look(NOW)
    assert began == []


async def test_no_drift_of_a_day_like_the_others(plane: ControlPlane) -> None:
    began = await watching(plane)
    await drifting(plane, 2 * DAY, 60.0)
    await plane.retrainer.look(NOW)
    assert (plane.forecasts.watch.found, began) == ({}, [])


async def test_gates_that_move_are_told(plane: ControlPlane) -> None:
    remember(plane)
    champions(plane, bundle(series(start=NOW - 1000)))
    await plane.retrainer.prepare(NOW)
    await drifting(plane, 5, 60.0)
    opened = [gate for gate in plane.forecasts.selected["frontend"].gates if gate.open]
    messages = told(plane, "gate")
    assert opened
    assert len(messages) == len(opened)
    assert all("opens: steps" in message and "beats last value" in message for message in messages)


def test_the_budget_follows_the_mesh_file(plane: ControlPlane) -> None:
    budget = Retrainer(plane.config, plane.forecasts, plane.journal)._budget
    assert (budget._share, budget._hourly) == (1.0, 600.0)
