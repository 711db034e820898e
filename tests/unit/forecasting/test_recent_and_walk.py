"""The medians of the newest values, and the mixture in hindsight."""

from __future__ import annotations

import numpy as np
import pytest

from forecasting.base import MEDIAN, QUANTILES
from forecasting.batch import Batch
from forecasting.evaluate.walk import NOT_TRAINED, Recorded, run_mixture, walk
from forecasting.models.recent import RecentMedian
from tests.unit.forecasting.conftest import Make, Wave

pytestmark = pytest.mark.slow

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 5.0, 2.0], 2.0),
        ([1.0, 5.0, 2.0, 4.0], 3.0),
        ([9.0, 1.0, NAN, 2.0, 3.0], 2.0),
        ([7.0] * 10 + [500.0], 7.0),
        ([NAN, NAN, NAN, 1.0], NAN),
        ([], NAN),
    ],
)
def test_the_median_of_what_is_known(make: Make, values: list[float], expected: float) -> None:
    told = RecentMedian(4).predict(Batch.now([make(values)], 3))
    np.testing.assert_array_equal(told[0, :, MEDIAN], np.full(3, expected))
    assert np.isnan(np.delete(told, MEDIAN, axis=2)).all()


def test_a_span_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="span must be at least 1, not 0"):
        RecentMedian(0)


def test_what_was_recorded_is_said_again(make: Make, wave: Wave) -> None:
    series = make(wave(30))
    table = np.random.default_rng(0).random((31, 2, len(QUANTILES)))
    told = Recorded("one", {series.name: table}).predict(Batch.at(series, np.array([3, 30]), 2))
    np.testing.assert_array_equal(told, table[[3, 30]])


def test_a_walk_serves_every_value_from_its_begin_and_all_series_end_together(make: Make, wave: Wave) -> None:
    long, short = make(wave(120), name="long"), make(wave(80), name="short")
    tables = {one.name: np.full((len(one.values) + 1, 3, len(QUANTILES)), 100.0) for one in (long, short)}
    walked = walk([long, short], [Recorded("plan", tables)], [60, 50], 3)
    assert walked.members == ("last", "plan")
    for name, begin in (("long", 60), ("short", 50)):
        served = np.asarray(np.isfinite(walked.served[name]).all(axis=(1, 2)))
        assert served.tolist() == [n >= begin for n in range(len(served))]
        assert walked.weights[name][begin:].sum(axis=1) == pytest.approx(1.0, abs=0.01)


def test_the_whole_mixture_of_one_series(make: Make, wave: Wave) -> None:
    series = make(wave(700))
    counts = np.arange(600, 690, 10)
    outcome = run_mixture(series, counts, 3, steps=10)
    assert outcome.values.shape == (9, 3, len(QUANTILES))
    assert np.isfinite(outcome.values).all()
    assert set(outcome.members) == {*NOT_TRAINED, "lstm", "linear", "boosting"}
    assert outcome.weights is not None
    assert outcome.weights.sum(axis=1) == pytest.approx(1.0, abs=0.05)


def test_a_series_that_is_too_short_to_train_on_is_forecast_by_the_others(make: Make) -> None:
    outcome = run_mixture(make([5.0] * 12), np.array([8, 12]), 3, steps=10)
    assert set(outcome.members) == set(NOT_TRAINED)
    np.testing.assert_allclose(outcome.values[:, :, MEDIAN], 5.0)
