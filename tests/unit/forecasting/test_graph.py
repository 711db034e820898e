"""Call ratios measured as they drift, and forecasts carried through chains, fans and loops of calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.base import MEDIAN, QUANTILES
from forecasting.graph import Edge, GraphError, Ratio, Sums, expert, ordered, propagated, ratios, sums
from forecasting.series import FloatArray
from tests.support.boutique import only_parents
from tests.support.boutique import read as read_boutique

NAN = float("nan")
AB: Edge = ("a", "b")


def measured(calls: FloatArray | list[float], totals: FloatArray | list[float], half_life: float = 720.0) -> Ratio:
    return ratios({AB: np.asarray(calls, float)}, {"a": np.asarray(totals, float)}, half_life)[AB]


class TestRatios:
    def test_exact_calls_leave_no_doubt(self) -> None:
        ratio = measured([6, 9, 3], [2, 3, 1])
        assert ratio.value == pytest.approx(3.0)
        assert ratio.deviation == pytest.approx(0.0, abs=1e-6)

    def test_busy_steps_count_more(self) -> None:
        assert measured([0, 100], [1, 99], half_life=1e9).value == pytest.approx(1.0)

    def test_a_new_release_replaces_the_old_ratio_by_half_each_half_life(self) -> None:
        totals = np.full(2010, 50.0)
        calls = totals * np.where(np.arange(2010) < 2000, 1.0, 3.0)
        assert measured(calls, totals, half_life=10).value == pytest.approx(2.0)

    @pytest.mark.parametrize("half_life", [50.0, 400.0])
    def test_the_standard_error_is_that_of_repeated_measurements(self, half_life: float) -> None:
        rng = np.random.default_rng(4)
        totals = rng.uniform(50, 150, (200, 3000))
        calls = 2.0 * totals + rng.normal(0, 20, totals.shape)
        told = [measured(c, p, half_life) for c, p in zip(calls, totals, strict=True)]
        values = np.array([one.value for one in told])
        assert values.mean() == pytest.approx(2.0, abs=0.01)
        assert np.mean([one.error for one in told]) == pytest.approx(values.std(), rel=0.2)
        assert np.mean([one.scatter for one in told]) == pytest.approx(20 / np.sqrt(np.mean(totals**2)), rel=0.05)

    def test_unknown_steps_only_let_time_pass(self) -> None:
        with_gaps = measured([NAN, 6, 1, 8, NAN], [1, 2, NAN, 4, NAN])
        ratio = measured([6, 8], [2, 4], half_life=360.0)  # the known steps lie two apart
        assert with_gaps.value == pytest.approx(ratio.value)
        assert with_gaps.scatter == pytest.approx(ratio.scatter)

    @pytest.mark.parametrize("calls", [[], [NAN] * 3, [0.0] * 3, [5.0] * 3])
    def test_without_requests_of_the_parent_there_is_no_ratio(self, calls: list[float]) -> None:
        assert np.isnan(astuple(measured(calls, [0.0] * len(calls)))).all()

    def test_a_child_that_is_never_called_has_a_ratio_of_zero(self) -> None:
        assert measured([0, 0], [5, 6]) == Ratio(0.0, 0.0, 0.0)

    @given(
        pairs=st.lists(st.tuples(st.floats(0, 1e4) | st.just(NAN), st.floats(0, 1e4) | st.just(NAN)), max_size=40),
        cuts=st.lists(st.integers(0, 40), max_size=4),
    )
    def test_step_by_step_is_the_same_as_at_once(self, pairs: list[tuple[float, float]], cuts: list[int]) -> None:
        table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
        state: Mapping[Edge, Sums] = {}
        for piece in np.split(table, sorted(min(cut, len(table)) for cut in cuts)):
            state = sums({AB: piece[:, 0]}, {"a": piece[:, 1]}, state, half_life=7)
        whole = Sums().after(table[:, 0], table[:, 1], half_life=7)
        np.testing.assert_allclose(astuple(state[AB]), astuple(whole), rtol=1e-9)

    def test_edges_that_were_not_measured_again_are_kept(self) -> None:
        before = {("a", "old"): Sums(1.0, 2.0)}
        after = sums({AB: np.array([4.0])}, {"a": np.array([2.0])}, before)
        assert after["a", "old"] == Sums(1.0, 2.0)
        assert after[AB].ratio().value == pytest.approx(2.0)

    def test_what_does_not_fit(self) -> None:
        with pytest.raises(GraphError, match="edge a -> b: no totals of a"):
            ratios({AB: np.ones(2)}, {})
        with pytest.raises(GraphError, match="3 measurements of calls for 2 of the parent"):
            ratios({AB: np.ones(3)}, {"a": np.ones(2)})


def fan(*medians: float, spread: float = 10.0) -> FloatArray:
    """``(H, Q)``: quantiles around each median."""
    return np.array(medians)[:, None] + spread * np.array([-1.0, 0.0, 0.8, 1.0, 1.5])


def exact(edges: Mapping[Edge, float]) -> dict[Edge, Ratio]:
    return {edge: Ratio(value) for edge, value in edges.items()}


class TestPropagated:
    def test_a_chain_multiplies(self) -> None:
        told = propagated(exact({("a", "b"): 2, ("b", "c"): 0.5}), {"a": fan(100, 200)})
        assert set(told) == {"b", "c"}
        np.testing.assert_allclose(told["b"], 2 * fan(100, 200))
        np.testing.assert_allclose(told["c"], fan(100, 200))

    def test_a_diamond_sums(self) -> None:
        graph = exact({("a", "b"): 1, ("a", "c"): 2, ("b", "d"): 3, ("c", "d"): 4})
        np.testing.assert_allclose(propagated(graph, {"a": fan(100)})["d"], 11 * fan(100))

    @pytest.mark.parametrize(
        ("correlation", "spread"), [(0.0, 50.0), (1.0, 70.0), (0.5, np.sqrt(0.5 * 50**2 + 0.5 * 70**2))]
    )
    def test_spreads_add_by_their_correlation(self, correlation: float, spread: float) -> None:
        graph, entries = exact({("a", "c"): 1, ("b", "c"): 1}), {"a": fan(100, spread=30), "b": fan(200, spread=40)}
        told = propagated(graph, entries, correlation=correlation)["c"]
        np.testing.assert_allclose(told, fan(300, spread=spread))

    def test_an_unsure_ratio_widens_and_leaves_the_median(self) -> None:
        told = propagated({AB: Ratio(2.0, 0.03, 0.04)}, {"a": fan(100, spread=0)})["b"]
        np.testing.assert_allclose(told[0], 200 + 5 * np.array([-1.644854, 0, 1.281552, 1.644854, 2.326348]), rtol=1e-6)

    def test_the_given_stays_even_where_it_is_called(self) -> None:
        told = propagated(exact({("a", "b"): 2, ("b", "a"): 9, ("b", "c"): 1}), {"a": fan(100), "b": fan(50)})
        assert set(told) == {"c"}
        np.testing.assert_allclose(told["c"], fan(50))

    def test_retries_reach_their_fixed_point(self) -> None:
        # b = a + 0.5 c, c = 0.8 b: b = a / 0.6
        told = propagated(exact({("a", "b"): 1, ("b", "c"): 0.8, ("c", "b"): 0.5}), {"a": fan(60)})
        np.testing.assert_allclose(told["b"], fan(60) / 0.6)
        np.testing.assert_allclose(told["c"], fan(60) * 0.8 / 0.6)

    @pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
    def test_a_service_that_calls_itself(self, correlation: float) -> None:
        told = propagated(exact({("a", "b"): 1, ("b", "b"): 0.9}), {"a": fan(10)}, correlation=correlation)["b"]
        assert told[0, MEDIAN] == pytest.approx(100)
        assert 10 <= told[0, -2] - told[0, MEDIAN] <= 100.001

    @pytest.mark.parametrize("gain", [1.0, 1.5, 1e9])
    def test_a_loop_without_end_is_named(self, gain: float) -> None:
        with pytest.raises(GraphError, match="calls between b, c go round"):
            propagated(exact({("a", "b"): 1, ("b", "c"): gain, ("c", "b"): 1}), {"a": fan(60)})

    def test_half_a_sum_is_not_told(self) -> None:
        graph = exact({("a", "b"): 1, ("unknown", "b"): 1, ("b", "c"): 1, ("a", "d"): 1})
        assert set(propagated(graph, {"a": fan(60)})) == {"d"}

    def test_a_ratio_never_seen_silences_its_child(self) -> None:
        assert set(propagated({AB: Ratio(NAN, NAN, NAN), ("a", "c"): Ratio(1.0)}, {"a": fan(60)})) == {"c"}

    def test_a_loop_that_nothing_leads_to_is_not_zero_but_silent(self) -> None:
        graph = exact({("a", "b"): 1, ("x", "y"): 0.5, ("y", "x"): 0.5})
        assert set(propagated(graph, {"a": fan(60)})) == {"b"}

    @pytest.mark.parametrize("entries", [{}, {"elsewhere": fan(1)}])
    def test_nothing_to_go_by(self, entries: dict[str, FloatArray]) -> None:
        assert propagated(exact({AB: 1}), entries) == {}
        assert propagated({}, entries) == {}

    def test_point_forecasts_stay_points(self) -> None:
        point = np.full((2, 5), NAN)
        point[:, MEDIAN] = [3, NAN]
        told = propagated(exact({AB: 2, ("b", "c"): 1}), {"a": point})["c"]
        np.testing.assert_array_equal(told[:, MEDIAN], [6, NAN])
        assert np.isnan(told[:, 0]).all()

    def test_nothing_is_negative_or_crosses(self) -> None:
        told = propagated({AB: Ratio(1.0, 0.0, 2.0)}, {"a": fan(0, 1, 100, spread=30).clip(0)})["b"]
        assert (told >= 0).all()
        assert (np.diff(told, axis=1) >= 0).all()
        np.testing.assert_array_equal(told[:, MEDIAN], [0, 1, 100])

    def test_other_quantiles(self) -> None:
        told = propagated({AB: Ratio(2.0, 1.0)}, {"a": np.array([[10.0, 10.0]])}, quantiles=(0.5, 0.841345))["b"]
        assert told[0].tolist() == pytest.approx([20, 30], rel=1e-5)

    @given(
        edges=st.dictionaries(
            st.tuples(st.integers(0, 6), st.integers(1, 7)).filter(lambda e: e[0] < e[1]), st.floats(0, 3), min_size=1
        ),
        shuffled=st.randoms(use_true_random=False),
    )
    def test_medians_solve_the_equations_of_the_graph(
        self, edges: dict[tuple[int, int], float], shuffled: object
    ) -> None:
        graph = exact({(str(p), str(c)): r for (p, c), r in edges.items()})
        nodes = {str(n) for edge in edges for n in edge}
        roots = nodes - {child for _, child in graph}
        told = propagated(graph, {name: fan(10.0) for name in roots})
        assert set(told) == nodes - roots
        whole = {**{name: fan(10.0) for name in roots}, **told}
        for name, values in told.items():
            total = sum(r.value * whole[p][0, MEDIAN] for (p, c), r in graph.items() if c == name)
            assert values[0, MEDIAN] == pytest.approx(total)
        order = list(nodes)
        shuffled.shuffle(order)  # type: ignore[attr-defined]
        for name, values in propagated(graph, {name: fan(10.0) for name in roots}, order).items():
            np.testing.assert_allclose(values, told[name], atol=1e-12)

    def test_what_does_not_fit(self) -> None:
        with pytest.raises(GraphError, match="the order lacks b; use ordered"):
            propagated(exact({AB: 1}), {"a": fan(1)}, order=["a"])
        with pytest.raises(GraphError, match=r"correlation of 1\.5"):
            propagated(exact({AB: 1}), {"a": fan(1)}, correlation=1.5)
        with pytest.raises(GraphError, match="different shapes"):
            propagated(exact({AB: 1}), {"a": fan(1), "b": fan(1, 2)})


class TestOrder:
    def test_parents_come_first(self) -> None:
        edges = [("d", "e"), ("c", "d"), ("a", "d"), ("b", "c"), ("a", "b")]
        assert ordered(edges) == ("a", "b", "c", "d", "e")

    def test_loops_follow_what_leads_to_them(self) -> None:
        assert ordered([("z", "b"), ("b", "c"), ("c", "b"), ("c", "a")]) == ("z", "b", "c", "a")
        assert set(ordered([("a", "b"), ("b", "a")])) == {"a", "b"}

    def test_long_chains(self) -> None:
        chain = [(f"{n:05}", f"{n + 1:05}") for n in range(5000)]
        assert ordered(chain) == tuple(f"{n:05}" for n in range(5001))

    def test_nothing(self) -> None:
        assert ordered([]) == ()


def test_the_answer_of_an_expert() -> None:
    answer = expert(["x", "b"], {"b": fan(1, 2)}, (2, 5))
    assert np.isnan(answer[0]).all()
    np.testing.assert_array_equal(answer[1], fan(1, 2))
    assert expert([], {}, (2, 5)).shape == (0, 2, 5)


@pytest.fixture(scope="module")
def boutique(shared_data: Path) -> tuple[dict[str, FloatArray], list[Edge]]:
    """Requests per minute of every service that was measured, and who calls whom."""
    return read_boutique(shared_data)


def test_a_real_mesh_children_follow_their_parents(boutique: tuple[dict[str, FloatArray], list[Edge]]) -> None:
    """With the entry known, its children are told better than by their own last value, and the spread is honest.

    The trace holds totals of services, not of edges: only of a child with one parent are these the calls of its edge.
    """
    rates, edges = boutique
    single = {(parent, child): rates[child] for child, parent in only_parents(edges).items()}
    assert len(single) >= 4
    begin, horizon = 200, 5
    state = sums(*_between(single, rates, 0, begin))
    told: dict[str, list[FloatArray]] = {child: [] for _, child in single}
    for now in range(begin, len(rates["frontend"]), horizon):
        entry = np.repeat(rates["frontend"][now : now + horizon, None], len(QUANTILES), axis=1)
        for child, values in propagated({e: s.ratio() for e, s in state.items()}, {"frontend": entry}).items():
            told[child].extend(values)
        state = sums(*_between(single, rates, now, now + horizon), state)
    for child, rows in told.items():
        table, actual = np.array(rows), rates[child][begin:]
        error = np.abs(table[:, MEDIAN] - actual).mean()
        assert error < 0.8 * np.abs(np.diff(rates[child][begin - 1 :])).mean(), child
        covered = (actual >= table[:, 0]) & (actual <= table[:, 3])
        assert 0.85 <= covered.mean() <= 0.995, child


def _between(
    calls: Mapping[Edge, FloatArray], totals: Mapping[str, FloatArray], begin: int, end: int
) -> tuple[dict[Edge, FloatArray], dict[str, FloatArray]]:
    return {e: one[begin:end] for e, one in calls.items()}, {n: one[begin:end] for n, one in totals.items()}
