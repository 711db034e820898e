"""What a forecast becomes: what planning may act on, what the API says, what the metrics say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from aiohttp import ClientSession

from forecasting.base import QUANTILES
from forecasting.drift import Drift
from forecasting.scores import Figures
from forecasting.selected import Selected, Standing
from meshctl import config as config_module
from meshctl.control import forecasts
from meshctl.control.watch import mixture_skill
from meshctl.server import views
from meshctl.server.app import control_plane
from tests.unit.meshctl.forecasting_support import MESH, observation

VALUES = np.arange(1.0, 1.0 + 12 * len(QUANTILES)).reshape(12, -1)
BUCKETS = {"1": slice(0, 1), "2-5": slice(1, 5), "6-12": slice(5, 12)}


def selected(*states: bool, skill: float = 0.1, coverage: float = 0.94, changed: int = 180) -> Selected:
    """The forecast of one series whose gates stand as told; where one is closed its skill is negative."""
    gates = np.where(states, skill, -skill)
    figures = Figures(
        skill=np.stack([np.zeros(3), gates, gates])[None],
        scored=np.full((1, 3), 60),
        loss=np.full((1, 3, 3), 0.5),
        coverage=np.array([coverage]),
    )
    standing = Standing(
        names=["frontend"],
        models=["last", "lstm"],
        buckets=BUCKETS,
        least=20,
        end=np.array([1000.0]),
        step=np.array([5.0]),
        values=VALUES[None],
        peaks=2 * VALUES[None],
        weights=np.array([[0.0, 1.0]]),
        figures=figures,
        open=np.array([states]),
        changed=np.full((1, 3), changed),
        quiet={},
    )
    return standing.rows()[0]


@pytest.mark.parametrize(
    ("states", "steps", "near", "ahead"),
    [
        ((True, False, False), 3, True, False),
        ((False, True, False), 3, False, True),
        ((False, True, False), 6, False, False),
        ((False, False, True), 6, False, True),
        ((True, False, False), 1, True, True),
        ((False, False, False), 12, False, False),
    ],
)
def test_demand_follows_the_gates_of_the_steps_that_it_is_used_for(
    states: tuple[bool, ...], steps: int, near: bool, ahead: bool
) -> None:
    seen = observation(0.0, {"frontend": 5.0}).services["frontend"]
    found = forecasts.demand(selected(*states), seen, steps, 0.95)
    assert (found.skilled, found.peak_skilled) == (near, ahead)
    assert (found.expected, found.upper) == (VALUES[0, 1], VALUES[0, 3])
    assert found.peak == 2 * VALUES[steps - 1, 3]


@pytest.mark.parametrize(("startup", "tick", "steps"), [("0s", "5s", 1), ("10s", "5s", 3), ("11s", "5s", 4)])
def test_scaling_looks_as_far_as_a_replica_needs(tmp_path: Path, startup: str, tick: str, steps: int) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH.replace("tick: 1s", f"tick: {tick}") + f"scaling: {{startup: {startup}}}\n")
    assert forecasts.lead_steps(config_module.load(file)) == steps


def test_the_api_says_all_of_it() -> None:
    drift = Drift("frontend", "level", 0.5, 900.0, "more")
    found = views.forecast(selected(True, False, False), drift, 1003.0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["gates"][0] == {"steps": "1", "open": True, "skill": 0.1, "scored": 60, "since": 900.0}
    assert found["drift"]["cause"] == "level"
    assert (found["coverage"], found["weights"], found["age"]) == (0.94, {"lstm": 1.0}, 3.0)
    young = selected(False, False, False, skill=np.nan, coverage=np.nan, changed=-1)
    found = views.forecast(young, None, 1003.0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["drift"], found["coverage"], found["gates"][0]["since"]) == (None, None, None)


async def test_an_hour_and_a_day_agree_with_the_ticks(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH.replace("tick: 1s", "tick: 20s\n  leases: {limits: 60s}").replace("day: 48s, ", ""))
    async with control_plane(file, config_module.load(file)) as plane:
        for number in range(1, 3 * 31):
            demand = {"frontend": 50.0 + number % 7, "catalog": 0.0}
            await plane.forecasts.update(observation(20.0 * number, demand, number), masked=frozenset())
        async with ClientSession(f"http://127.0.0.1:{plane.http_port}") as session:
            document = await (await session.get("/v1/forecasts?service=frontend")).json()
    (row,), skipped = document["forecasts"], document["skipped"]
    hour, day = row["outlook"]
    assert skipped == {}
    assert [(one["span"], one["step"], len(one["values"])) for one in (hour, day)] == [("1h", 60, 60), ("1d", 900, 96)]
    assert (row["origin"], hour["origin"], day["origin"]) == (1840.0, 1800.0, 1800.0)
    column = QUANTILES.index(0.5)
    ticks, minutes, quarters = (np.array(one["values"])[:, column] for one in (row, hour, day))
    np.testing.assert_allclose(minutes[1:4], ticks[1:10].reshape(3, 3).mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(quarters[:4], minutes.reshape(4, 15).mean(axis=1), atol=1e-3)
    assert not day["skilled"]
    assert "too little history" in day["reason"]


async def test_the_outlook_is_measured_when_metrics_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH.replace("tick: 1s", "tick: 20s\n  leases: {limits: 60s}").replace("day: 48s, ", ""))
    async with control_plane(file, config_module.load(file)) as plane, ClientSession() as session:
        url = f"http://127.0.0.1:{plane.http_port}"
        assert "meshctl_forecast_outlook{" not in await (await session.get(f"{url}/metrics")).text()
        for number in range(1, 3 * 31):
            demand = {"frontend": 50.0 + number % 7, "catalog": 9.0}
            await plane.forecasts.update(observation(20.0 * number, demand, number), masked=frozenset())
        text = await (await session.get(f"{url}/metrics")).text()
        document = await (await session.get(f"{url}/v1/forecasts")).json()
    told = dict(re.findall(r"^meshctl_forecast_outlook{(.*)} (.*)$", text, re.MULTILINE))
    expected = {
        f'quantile="{quantile}",service="{row["service"]}",span="{one["span"]}"': one["values"][-1][column]
        for row in document["forecasts"]
        for one in row["outlook"]
        for quantile, column in ((0.5, QUANTILES.index(0.5)), (0.9, QUANTILES.index(0.9)))
    }
    assert len(expected) == 2 * 2 * 2  # services, spans, quantiles
    assert {labels: float(value) for labels, value in told.items()} == pytest.approx(expected, abs=1e-4)


async def test_a_replay_says_what_its_days_are_too_short_for(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH)
    async with control_plane(file, config_module.load(file)) as plane:
        await plane.forecasts.update(observation(1.0, {"frontend": 50.0, "catalog": 0.0}), masked=frozenset())
        async with ClientSession(f"http://127.0.0.1:{plane.http_port}") as session:
            document = await (await session.get("/v1/forecasts")).json()
    assert [row["outlook"] for row in document["forecasts"]] == [[]]
    assert document["skipped"]["1h"].startswith("days of 48 s are shorter than 1h")
    assert list(document["skipped"]) == ["1h", "1d"]


def test_the_skill_for_drift_is_that_of_the_mixture() -> None:
    for one in (selected(True, True, False), selected(False, False, False)):
        assert mixture_skill(one) == pytest.approx(one.skill["mixture"])
    assert np.isnan(mixture_skill(selected(False, False, False, skill=np.nan)))


async def test_a_tick_measures_skill_and_coverage(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH)
    async with control_plane(file, config_module.load(file)) as plane:
        plane._measure_forecast("frontend", selected(True, False, False))
        text = plane.metrics.text().decode()
    assert 'meshctl_forecast_coverage{service="frontend"} 0.94' in text
    assert 'meshctl_forecast_skill{service="frontend",steps="1"} 0.1' in text
    assert 'meshctl_forecast_skill{service="frontend",steps="6-12"} -0.1' in text
