"""What is known of demand: restored, seeded by a trace, planted at the first traffic, recorded tick by tick."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from meshctl import config as config_module
from meshctl.config import MeshConfig
from meshctl.control.forecasts import Forecasts
from meshctl.control.journal import Journal
from meshctl.control.past import DEMAND, MEASURES, Past
from meshctl.history.database import Database
from meshctl.model import Observation
from meshctl.server import views
from tests.unit.meshctl.forecasting_support import DAY, MESH, observation, rates

pytestmark = pytest.mark.slow

NOW = 1_000_000.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "history.db") as opened:
        yield opened


@pytest.fixture
def config(tmp_path: Path) -> MeshConfig:
    rows = "".join(f"{number},{value}\n" for number, value in enumerate(rates(700)))
    (tmp_path / "past.csv").write_text("timestamp,value\n" + rows)
    seeded = MESH.replace("forecast: {", "forecast: {history: {trace: past.csv, rate: 30, service: frontend}, ")
    (tmp_path / "mesh.yaml").write_text(seeded)
    return config_module.load(tmp_path / "mesh.yaml")


def test_a_seed_is_the_service_it_stands_for_and_ends_now(config: MeshConfig, database: Database) -> None:
    past = Past(config, database)
    past.restore(NOW)
    assert past.seeded
    (one,) = past.training_series(NOW + 0.5)
    assert (one.name, one.end, len(one.values), one.season) == ("frontend", NOW, 700, DAY)
    assert one.values.mean() == pytest.approx(30.0)


def test_the_seed_is_planted_before_the_first_traffic_and_outlives_a_restart(
    config: MeshConfig, database: Database
) -> None:
    past = Past(config, database)
    past.restore(NOW)
    assert past.plant(observation(NOW, {"frontend": 0.0})) is None
    first = observation(NOW + 9, {"frontend": 25.0})
    assert past.plant(first) == "frontend"
    past.record(first, frozenset())
    assert not past.seeded
    (one,) = past.series()
    assert (one.end, len(one.values), one.values[-1]) == (NOW + 9, 701, 25.0)
    again = Past(config, database)
    again.restore(NOW + 10)
    assert not again.seeded
    np.testing.assert_allclose(again.series()[0].values, one.values)


def test_what_is_masked_or_never_asked_for_leaves_no_value(config: MeshConfig, database: Database) -> None:
    past = Past(config, database)
    past.record(observation(NOW, {"frontend": 5.0, "catalog": 0.0}), frozenset())
    past.record(observation(NOW + 1, {"frontend": 6.0, "catalog": 1.0}), frozenset({"frontend"}))
    past.record(observation(NOW + 2, {"frontend": 7.0, "catalog": 0.0}), frozenset())
    found = {one.name: one.values for one in past.series()}
    np.testing.assert_array_equal(found["frontend"], [5.0, np.nan, 7.0])
    np.testing.assert_array_equal(found["catalog"], [1.0, 0.0])  # zeros count once it was asked for
    assert past.training_series(NOW) == []
    assert past.longest() == 3
    assert DEMAND + "frontend" in database.series_names()


async def test_a_planted_seed_is_what_drift_is_measured_against(config: MeshConfig, database: Database) -> None:
    past = Past(config, database)
    past.restore(NOW)
    forecasts = Forecasts(config, past, Journal(database, lambda: NOW))
    values = 0.5 * rates(900)  # the trace at the rate that the mesh file asks for, and on
    for tick in range(DAY):
        await forecasts.update(observation(NOW + tick, {"frontend": float(values[700 + tick])}), masked=frozenset())
    assert forecasts.watch.found == {}
    for tick in range(DAY, 4 * DAY):
        rate = 5.0 * float(values[700 + tick % DAY])
        await forecasts.update(observation(NOW + tick, {"frontend": rate}), masked=frozenset())
    assert forecasts.watch.found["frontend"].cause == "level"
    assert [drift.cause for drift in forecasts.take_drifts()].count("level") >= 1
    assert forecasts.take_drifts() == []


# -- beside demand ---------------------------------------------------------------------------------------------------


def reporting(moment: float, demand: float, cpu: float = 0.0, **business: float) -> Observation:
    """The frontend reports business metrics, the catalog none."""
    seen = observation(moment, {"frontend": demand, "catalog": 5.0})
    frontend = replace(seen.services["frontend"], business=business, cpu=cpu, memory=0)
    return replace(seen, services={**seen.services, "frontend": frontend})


@pytest.fixture
def unseeded(tmp_path: Path) -> MeshConfig:
    (tmp_path / "mesh.yaml").write_text(MESH)
    return config_module.load(tmp_path / "mesh.yaml")


def columns(past: Past, service: str = "frontend") -> dict[str, list[float]]:
    one = next(one for one in past.series() if one.name == service)
    assert one.covariates is not None
    assert one.covariates.begin + len(one.covariates.values) == len(one.values)
    return {name: one.covariates[name].tolist() for name in one.covariates.names}


def test_business_metrics_and_resources_stand_beside_demand(unseeded: MeshConfig, database: Database) -> None:
    past = Past(unseeded, database)
    past.record(reporting(NOW, 10.0), frozenset())
    assert not past.informed
    assert all(one.covariates is None for one in past.series())
    past.record(reporting(NOW + 1, 11.0, cpu=0.5, orders=3.0), frozenset())
    past.record(reporting(NOW + 2, 12.0, cpu=0.6), frozenset())
    past.record(reporting(NOW + 4, 14.0, cpu=0.8, orders=5.0), frozenset())
    found = columns(past)
    np.testing.assert_array_equal(found["business/orders"], [np.nan, 3, np.nan, np.nan, 5])
    np.testing.assert_array_equal(found["cpu"], [np.nan, 0.5, 0.6, np.nan, 0.8])
    assert list(found) == ["business/orders", "cpu"]  # the platform knows no memory
    assert next(one for one in past.series() if one.name == "catalog").covariates is None


def test_what_is_beside_demand_outlives_a_restart(unseeded: MeshConfig, database: Database) -> None:
    past = Past(unseeded, database)
    for tick in range(20):
        past.record(reporting(NOW + tick, 10.0 + tick, cpu=0.1, **{"shop/orders": float(tick)}), frozenset())
    again = Past(unseeded, database)
    again.restore(NOW + 20)
    assert again.informed
    assert columns(again) == columns(past)
    assert set(columns(again)) == {"business/shop/orders", "cpu"}


def test_a_fault_distorts_what_is_beside_demand(unseeded: MeshConfig, database: Database) -> None:
    past = Past(unseeded, database)
    for tick in range(4):
        masked = frozenset({"frontend"}) if tick == 2 else frozenset[str]()
        past.record(reporting(NOW + tick, 10.0, orders=float(tick)), masked)
    again = Past(unseeded, database)
    again.restore(NOW + 4)
    for one in (past, again):
        np.testing.assert_array_equal(columns(one)["business/orders"], [0, 1, np.nan, 3])


def test_made_up_names_do_not_fill_the_memory(unseeded: MeshConfig, database: Database) -> None:
    past = Past(unseeded, database)
    for tick in range(3):
        names = {f"m{tick}x{number}": 1.0 for number in range(9)}
        past.record(reporting(NOW + tick, 10.0, **names), frozenset())
    assert len(columns(past)) == MEASURES
    past.record(reporting(NOW + 3, 10.0, cpu=1.0, m0x0=float("nan"), m0x1=float("inf")), frozenset())
    assert columns(past)["business/m0x0"][-1] != columns(past)["business/m0x0"][-1]


def test_a_metric_is_kept_as_long_as_it_is_read(database: Database, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(MESH.replace("day: 48s", "day: 1h"))
    past = Past(config_module.load(tmp_path / "mesh.yaml"), database)
    capacity = past._beside.capacity
    past._store.preload(DEMAND + "frontend", NOW - 5_000, np.ones(5_000))
    past._known.add(DEMAND + "frontend")
    past.record(reporting(NOW, 10.0, orders=3.0), frozenset())
    one = next(one for one in past.series() if one.name == "frontend")
    assert one.covariates is not None
    assert (len(one.covariates.values), one.covariates.begin) == (capacity, len(one.values) - capacity)
    assert one.covariates["business/orders"][-1] == 3.0


async def test_a_first_metric_brings_an_expert_that_forecasts(unseeded: MeshConfig, database: Database) -> None:
    past = Past(unseeded, database)
    forecasts = Forecasts(unseeded, past, Journal(database, lambda: NOW))
    rng = np.random.default_rng(3)
    orders = 20.0 * np.exp(np.convolve(rng.standard_normal(700), 0.1 * 0.9 ** np.arange(40))[:700])
    async with asyncio.timeout(60):
        for tick in range(3, 600):
            metrics = {"orders": float(orders[tick])} if tick > 20 else {}
            seen = reporting(NOW + tick, 5.0 * float(orders[tick - 3]), **metrics)
            await forecasts.update(seen, masked=frozenset())
            assert ("covariates" in forecasts.selected["frontend"].standing.models) <= (tick > 20)
            while forecasts.joining:
                await asyncio.sleep(0)
    chosen = forecasts.selected["frontend"]
    assert chosen.weights["covariates"] > 0.9
    assert chosen.forecast.at(3, 0.5) == pytest.approx(5.0 * orders[599], rel=0.1)
    assert views.forecast(chosen, None, NOW)["weights"]["covariates"] > 0.9
    assert "covariates" not in forecasts.selected["catalog"].weights


def test_configured_holidays_bring_it_from_the_start(unseeded: MeshConfig, database: Database, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(MESH.replace("forecast: {", "forecast: {holidays: {country: DE}, "))
    festive = config_module.load(tmp_path / "mesh.yaml")
    heard = [
        "covariates" in Forecasts(config, Past(config, database), Journal(database, lambda: NOW)).models
        for config in (unseeded, festive)
    ]
    assert heard == [False, True]
