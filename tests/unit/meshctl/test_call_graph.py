"""The call graph as the control plane measures it, and what its expert says, and when it is silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from forecasting.base import MEDIAN, QUANTILES, Forecast, Forecaster, medians
from forecasting.batch import Batch
from forecasting.ensemble import Selector
from forecasting.graph import Edge, Ratio, sums
from forecasting.models import MODELS
from forecasting.selected import Selected
from forecasting.series import FloatArray, Series
from meshctl import config as config_module
from meshctl.control.call_graph import BLOCK, FORGOTTEN, CallGraph, carried, shifted
from meshctl.control.forecasts import SIMPLE, Forecasts
from meshctl.control.journal import Journal
from meshctl.control.past import Past
from meshctl.history.database import Database
from meshctl.model import EdgeObservation, Observation
from meshctl.server import views
from tests.support.boutique import only_parents
from tests.support.boutique import read as read_boutique
from tests.unit.meshctl import forecasting_support as support

pytestmark = pytest.mark.slow

NOW = 1_000_000.0
SHOP = "ingress", "frontend"
CATALOG: Edge = ("frontend", "catalog")


def edge(caller: str, callee: str, demand: float) -> EdgeObservation:
    return EdgeObservation(caller, callee, demand, demand, 0.0, 0.0, 0.0, 0.1, 0.1, 0.2)


def seen(
    moment: float, demand: Mapping[str, float], calls: Mapping[Edge, float], *, silent: Sequence[str] = ()
) -> Observation:
    """One tick; the sidecars of ``silent`` services said nothing."""
    made = support.observation(moment, demand)
    services = {name: replace(one, service_time=None) if name in silent else one for name, one in made.services.items()}
    return replace(made, services=services, edges=tuple(edge(*pair, rate) for pair, rate in calls.items()))


class Served:
    """Forecasts of parents, made at ``origin``; stands for the selector's rows."""

    def __init__(self, name: str, values: Sequence[float], origin: float) -> None:
        table = np.repeat(np.array(values, dtype=np.float64)[:, None], len(QUANTILES), axis=1)
        self.forecast = Forecast(name, "mixture", origin, 1.0, QUANTILES, table)


def served(origin: float, **values: Sequence[float]) -> dict[str, Selected]:
    return {name: Served(name, each, origin) for name, each in values.items()}  # type: ignore[misc]


def ticked(
    graph: CallGraph, calls: Mapping[Edge, float], demand: Mapping[str, float], count: int = BLOCK, begin: float = NOW
) -> float:
    """``count`` equal ticks without forecasts; the time of the last one."""
    for number in range(count):
        graph.tick(seen(begin + number, demand, calls), frozenset(), {})
    return begin + count - 1


def asked(graph: CallGraph, name: str, end: float, *, known: int = 20, back: int = 0, horizon: int = 3) -> list[float]:
    """The medians that the graph says of a series that ends at ``end``, ``back`` values before its end."""
    one = Series(name, end - known, 1.0, np.ones(known), 48)
    told = graph.model.predict(Batch.at(one, np.array([known - back]), horizon))
    assert told.shape == (1, horizon, len(QUANTILES))
    return [float(value) for value in told[0, :, MEDIAN]]


@pytest.fixture
def graph() -> CallGraph:
    """A frontend that calls the catalog twice per request, measured, and forecast to rise: 11, 12, 13."""
    made = CallGraph(1.0)
    last = ticked(made, {SHOP: 10.0, CATALOG: 20.0}, {"frontend": 10.0, "catalog": 20.0})
    now = seen(last + 1, {"frontend": 10.0, "catalog": 20.0}, {SHOP: 10.0, CATALOG: 20.0})
    made.tick(now, frozenset(), served(last, frontend=(10.0, 11.0, 12.0, 13.0)))
    return made


NEWEST = NOW + BLOCK


class TestExpert:
    def test_a_child_is_told_what_its_parent_will_do_times_the_ratio(self, graph: CallGraph) -> None:
        assert asked(graph, "catalog", NEWEST) == [22.0, 24.0, 26.0]

    def test_entries_and_strangers_are_left_to_their_own_models(self, graph: CallGraph) -> None:
        assert np.isnan(asked(graph, "frontend", NEWEST)).all()
        assert np.isnan(asked(graph, "nobody", NEWEST)).all()

    def test_an_entry_that_is_called_from_inside_as_well_stays_silent(self, graph: CallGraph) -> None:
        calls = {SHOP: 10.0, CATALOG: 20.0, ("ingress", "catalog"): 1.0}
        graph.tick(
            seen(NEWEST + 1, {"frontend": 10.0, "catalog": 21.0}, calls),
            frozenset(),
            served(NEWEST, frontend=(1.0,) * 4),
        )
        assert np.isnan(asked(graph, "catalog", NEWEST + 1)).all()

    @pytest.mark.parametrize(("end", "back"), [(NEWEST, 1), (NEWEST, 5), (NEWEST - 1, 0), (NEWEST + 1, 0)])
    def test_it_says_nothing_of_windows_that_end_at_any_other_time(
        self, graph: CallGraph, end: float, back: int
    ) -> None:
        assert np.isnan(asked(graph, "catalog", end, back=back)).all()

    def test_a_replay_hears_nothing_and_the_tick_hears_it(self, graph: CallGraph) -> None:
        heard: list[tuple[bool, bool]] = []

        class Spy:
            name = graph.model.name

            def predict(self, batch: Batch) -> FloatArray:
                told = graph.model.predict(batch)
                heard.append((bool(batch.count[0] < len(batch.series[0].values)), bool(np.isfinite(told).any())))
                return told

        Selector([Spy()], horizon=3).update([Series("catalog", NEWEST - 100, 1.0, np.ones(100), 48)])
        assert heard == [(True, False)] * 60 + [(False, True)]

    def test_many_windows_of_many_series_are_told_apart(self, graph: CallGraph) -> None:
        series = [Series(name, NEWEST - 9, 1.0, np.ones(9), 48) for name in ("catalog", "frontend")]
        batch = Batch(series, np.array([0, 0, 1]), np.array([4, 9, 9]), 2)
        told = graph.model.predict(batch)[:, :, MEDIAN]
        np.testing.assert_array_equal(told, [[np.nan] * 2, [22.0, 24.0], [np.nan] * 2])

    def test_a_longer_horizon_than_was_forecast_is_not_guessed(self, graph: CallGraph) -> None:
        assert np.isnan(asked(graph, "catalog", NEWEST, horizon=5)).all()

    def test_ticks_between_the_steps_of_the_series_are_found(self) -> None:
        made = CallGraph(1.0)
        last = ticked(made, {CATALOG: 20.0}, {"frontend": 10.0}, begin=NOW + 0.3)
        made.tick(
            seen(last + 1, {"frontend": 10.0}, {CATALOG: 20.0}), frozenset(), served(NEWEST - 1, frontend=[7.0] * 3)
        )
        assert asked(made, "catalog", NEWEST) == [14.0] * 3
        assert np.isnan(asked(made, "catalog", NEWEST - 1)).all()

    def test_before_anything_was_measured(self) -> None:
        assert np.isnan(asked(CallGraph(1.0), "catalog", NOW)).all()
        assert CallGraph(1.0).model.predict(Batch.now([], 3)).shape == (0, 3, len(QUANTILES))


class TestMeasuring:
    def test_ratios_come_with_the_first_block_and_equal_those_of_all_ticks_at_once(self) -> None:
        rng = np.random.default_rng(1)
        totals, made = rng.uniform(5, 15, 3 * BLOCK), CallGraph(1.0)
        calls = 2.0 * totals + rng.normal(0, 1, len(totals))
        for number, (total, rate) in enumerate(zip(totals, calls, strict=True)):
            assert bool(made.ratios) == (number >= BLOCK)
            made.tick(seen(NOW + number, {"frontend": total}, {CATALOG: rate}), frozenset(), {})
        whole = sums({CATALOG: calls}, {"frontend": totals})[CATALOG].ratio()
        assert made.ratios[CATALOG].value == pytest.approx(whole.value)
        assert made.callers() == {"catalog": {"frontend": made.ratios[CATALOG]}}
        assert made.ratios[CATALOG].error == pytest.approx(whole.error)

    @pytest.mark.parametrize("masked", ["frontend", "catalog"])
    def test_ticks_under_a_fault_count_for_nothing(self, masked: str) -> None:
        made = CallGraph(1.0)
        for number in range(BLOCK):
            faulty = number % 3 == 0
            now = seen(NOW + number, {"frontend": 10.0}, {CATALOG: 1.0 if faulty else 20.0})
            made.tick(now, frozenset({masked} if faulty else ()), {})
        assert made.ratios[CATALOG].value == pytest.approx(2.0)

    def test_a_fault_from_the_begin_teaches_no_edge(self) -> None:
        made = CallGraph(1.0)
        for number in range(BLOCK):
            made.tick(seen(NOW + number, {"frontend": 10.0}, {CATALOG: 20.0}), frozenset({"catalog"}), {})
        assert made.ratios == {}

    def test_requests_that_the_parent_refused_call_nobody(self) -> None:
        made = CallGraph(1.0)
        for number in range(BLOCK):
            now = seen(NOW + number, {"frontend": 30.0}, {CATALOG: 20.0})
            shedding = replace(now.services["frontend"], rate=10.0, rate_limited=20.0)
            made.tick(replace(now, services={"frontend": shedding}), frozenset(), {})
        assert made.ratios[CATALOG].value == pytest.approx(2.0)

    def test_no_report_of_a_known_edge_is_a_zero_where_the_caller_was_heard(self) -> None:
        for silent, expected in (((), 1.0), (("frontend",), 2.0)):
            made = CallGraph(1.0)
            for number in range(BLOCK):
                calls = {CATALOG: 20.0} if number % 2 == 0 else {}
                made.tick(
                    seen(NOW + number, {"frontend": 10.0}, calls, silent=silent if number % 2 else ()), frozenset(), {}
                )
            assert made.ratios[CATALOG].value == pytest.approx(expected, rel=0.01), silent

    def test_a_caller_that_is_gone_silences_its_children_for_a_while_only(self, graph: CallGraph) -> None:
        calls, demand = {SHOP: 10.0, CATALOG: 20.0}, {"frontend": 10.0, "catalog": 25.0, "cart": 5.0}
        last = ticked(graph, {**calls, ("cart", "catalog"): 5.0}, demand, 2 * BLOCK, NEWEST + 1)
        ahead = {"frontend": [11.0] * 4, "cart": [5.0] * 4}
        graph.tick(seen(last + 1, demand, calls), frozenset(), served(last, frontend=ahead["frontend"]))
        assert np.isnan(asked(graph, "catalog", last + 1)).all()  # half a sum
        graph.tick(seen(last + 2, demand, calls), frozenset(), served(last + 1, **ahead))
        known = asked(graph, "catalog", last + 2)
        assert known == pytest.approx([11.0 * 2.0 + 5.0 * graph.ratios["cart", "catalog"].value] * 3)
        last = ticked(graph, calls, {"frontend": 10.0, "catalog": 20.0}, FORGOTTEN, last + 3)
        graph.tick(seen(last + 1, {"frontend": 10.0}, calls), frozenset(), served(last, frontend=[11.0] * 4))
        assert asked(graph, "catalog", last + 1) == pytest.approx([22.0] * 3)
        assert ("cart", "catalog") not in graph.ratios or graph.callers()["catalog"].keys() == {"frontend"}

    def test_a_service_without_requests_has_no_ratio(self) -> None:
        made = CallGraph(1.0)
        ticked(made, {CATALOG: 20.0}, {"frontend": 0.0, "catalog": 20.0})
        assert made.ratios == {}


class TestShifting:
    @pytest.mark.parametrize(
        ("late", "expected"), [(0, [1, 2, 3]), (1, [2, 3, 3]), (2, [3, 3, 3]), (3, None), (-1, [1, 2, 3])]
    )
    def test_a_forecast_ages_step_by_step(self, late: int, expected: list[float] | None) -> None:
        made = served(NOW, frontend=(1.0, 2.0, 3.0))["frontend"].forecast
        found = shifted(made, NOW + late)
        assert (None if found is None else found.tolist()) == expected

    def test_a_forecast_that_is_unknown_stays_so(self) -> None:
        assert shifted(served(NOW, frontend=(1.0, np.nan))["frontend"].forecast, NOW) is None

    def test_parents_add_up_and_loops_need_no_order(self) -> None:
        edges: list[Edge] = [("a", "c"), ("b", "c"), ("c", "b"), ("c", "d")]
        known = {one: Ratio(2.0) for one in edges}
        told = carried(edges, known, {name: np.array([1.0, 10.0]) for name in "abc"})
        assert {name: one.tolist() for name, one in told.items()} == {"c": [4, 40], "b": [2, 20], "d": [2, 20]}
        assert set(carried(edges, known, {"a": np.ones(2), "b": None, "c": np.ones(2)})) == {"b", "d"}
        assert set(carried(edges, {**known, ("c", "d"): Ratio(0.0)}, {"c": np.ones(2)})) == {"b", "d"}
        assert carried(edges, {}, {}) == {}


async def test_the_control_plane_asks_it_like_any_other_model(tmp_path: Path) -> None:
    """The catalog follows the frontend, three calls per request: the graph is heard, and scored, about it alone."""
    (tmp_path / "mesh.yaml").write_text(support.MESH)
    config = config_module.load(tmp_path / "mesh.yaml")
    with Database.open(tmp_path / "history.db") as database:
        forecasts = Forecasts(config, Past(config, database), Journal(database, lambda: NOW))
        shares = []
        for number, rate in enumerate(support.rates(3 * support.DAY)):
            demand = {"frontend": float(rate), "catalog": 3.0 * float(rate)}
            now = seen(NOW + number, demand, {SHOP: demand["frontend"], CATALOG: demand["catalog"]})
            await forecasts.update(now, masked=frozenset())
            shares.append(forecasts.selected["catalog"].weights.get("graph", 0.0))
            assert "graph" not in forecasts.selected["frontend"].weights
        assert forecasts.graph.ratios[CATALOG].value == pytest.approx(3.0)
        assert max(shares[: BLOCK - 1]) == 0.0  # no ratio yet
        assert max(shares) > 0.1
        losses = {name: one.losses["graph"]["2-5"] for name, one in forecasts.selected.items()}
        assert losses["frontend"] is None
        assert losses["catalog"] is not None
        assert losses["catalog"] > 0.0
        assert views.callers(forecasts.graph.callers()["catalog"]) == {"frontend": {"ratio": 3.0, "error": 0.0}}


# A real mesh


@pytest.fixture(scope="module")
def boutique(shared_data: Path) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Requests per minute by service, and the parent of each child that has one only: its total is its edge's calls."""
    known, edges = read_boutique(shared_data)
    single = only_parents(edges)
    names = sorted(single.keys() | set(single.values()))
    return {name: known[name] for name in names}, single


class Announced:
    """Knows what comes to one entry (a campaign, a load test), with an error of 10 %."""

    name = "announced"

    def __init__(self, entry: str, values: FloatArray) -> None:
        noise = np.random.default_rng(0).normal(1.0, 0.1, len(values))
        self._entry, self._known = entry, values * noise

    def predict(self, batch: Batch) -> FloatArray:
        told = np.full((len(batch), batch.horizon), np.nan)
        for one, rows, counts in batch.groups():
            if one.name == self._entry:
                known = np.append(self._known, np.full(batch.horizon, np.nan))
                told[rows] = known[counts[:, None] + np.arange(batch.horizon)]
        return medians(told)


TICKS, SCORED = 600, 150
STEP = 60.0


def errors(
    rates: Mapping[str, FloatArray], parents: Mapping[str, str], models: Sequence[Forecaster], *, listens: bool
) -> dict[tuple[str, int], float]:
    """Mean absolute error of the mixture about each child, 1 and 5 steps ahead, after ``SCORED`` ticks."""
    graph, selected = CallGraph(STEP), dict[str, Selected]()
    heard = [graph.model] if listens else []
    selector = Selector([*(MODELS[name]() for name in SIMPLE), *models, *heard], horizon=12)
    misses: dict[tuple[str, int], list[float]] = {(child, step): [] for child in parents for step in (1, 5)}
    for count in range(2, TICKS):
        demand = {name: float(values[count - 1]) for name, values in rates.items()}
        calls = {(parent, child): demand[child] for child, parent in parents.items()}
        graph.tick(seen(STEP * count, demand, calls), frozenset(), selected)
        series = [Series(name, 0.0, STEP, values[:count], 1440) for name, values in rates.items()]
        selected = {one.name: row for one, row in zip(series, selector.update(series), strict=True)}
        for child, step in misses if count >= SCORED else ():
            told = selected[child].forecast.at(step, 0.5)
            misses[child, step].append(abs(told - rates[child][count + step - 1]))
    return {about: float(np.mean(each)) for about, each in misses.items()}


@pytest.mark.parametrize(("informed", "most"), [(False, 1.005), (True, 0.98)])
def test_on_a_real_mesh_children_gain_by_what_their_parents_know(
    boutique: tuple[dict[str, FloatArray], dict[str, str]], informed: bool, most: float
) -> None:
    """Told what will come to the entry, the children gain. As recorded the entry is noise around a level, of which its
    own models know little: then the graph has nothing to add, and listening to it must cost next to nothing.
    """
    rates, parents = boutique
    assert len(parents) >= 4
    models = [Announced("frontend", rates["frontend"])] if informed else []
    without = errors(rates, parents, models, listens=False)
    ratio = {about: error / without[about] for about, error in errors(rates, parents, models, listens=True).items()}
    for step in (1, 5):
        mean = np.exp(np.mean([np.log(one) for (_, ahead), one in ratio.items() if ahead == step]))
        print(f"steps ahead: {step}, informed: {informed}, error with the graph / without: {mean:.4f}")
        assert mean <= most, ratio
