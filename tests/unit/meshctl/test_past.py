"""What is known of demand: restored, seeded by a trace, planted at the first traffic, recorded tick by tick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from meshctl import config as config_module
from meshctl.config import MeshConfig
from meshctl.control.forecasts import Forecasts
from meshctl.control.journal import Journal
from meshctl.control.past import DEMAND, Past
from meshctl.history.database import Database
from tests.unit.meshctl.forecasting_support import DAY, MESH, observation, rates

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
