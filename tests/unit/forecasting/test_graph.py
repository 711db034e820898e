"""Call ratios measured as they drift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.graph import Edge, GraphError, Ratio, Sums, sums
from forecasting.series import FloatArray

NAN = float("nan")
AB: Edge = ("a", "b")


def measured(calls: FloatArray | list[float], totals: FloatArray | list[float], half_life: float = 720.0) -> Ratio:
    calls, totals = np.asarray(calls, float), np.asarray(totals, float)
    return sums({AB: calls}, {"a": totals}, half_life=half_life)[AB].ratio()


class TestRatios:
    def test_exact_calls_leave_no_doubt(self) -> None:
        ratio = measured([6, 9, 3], [2, 3, 1])
        assert ratio.value == pytest.approx(3.0)
        assert (ratio.error, ratio.scatter) == pytest.approx((0.0, 0.0), abs=1e-6)

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
            sums({AB: np.ones(2)}, {})
        with pytest.raises(GraphError, match="3 measurements of calls for 2 of the parent"):
            sums({AB: np.ones(3)}, {"a": np.ones(2)})
