"""Scores, summaries, rows and the JSON that a report becomes and comes back from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from forecasting.base import QUANTILES
from forecasting.evaluate import contest, stats
from forecasting.evaluate.backtest import origins
from forecasting.evaluate.contest import Outcome
from forecasting.evaluate.report import (
    POINTS,
    Report,
    ReportError,
    SeriesReport,
    Settings,
    digest,
    document,
    evaluate,
    series_of,
    series_report,
    shortest,
)
from forecasting.series import FloatArray, Series
from tests.unit.forecasting.conftest import Make, Wave

SETTINGS = Settings(("last", "last+residuals"), horizon=12)


@pytest.fixture
def report(make: Make, wave: Wave) -> Report:
    series = [make(wave(2000, seed=seed), name=f"s{seed}") for seed in (1, 2)]
    return Report(12, tuple(evaluate(SETTINGS, one) for one in series))


def outcome(series: Series, shift: float = 0.0, horizon: int = 12) -> Outcome:
    """A prophet that is ``shift`` too high, in all quantiles."""
    counts = origins(len(series.values), horizon)
    actual = np.lib.stride_tricks.sliding_window_view(series.values, horizon)[counts]
    return Outcome(np.repeat(actual[:, :, None] + shift, len(QUANTILES), axis=2), 1.5)


def scored(series: Series, *outcomes: Outcome, horizon: int = 12) -> SeriesReport:
    counts = origins(len(series.values), horizon)
    return series_report(series, counts, horizon, {f"m{number}": one for number, one in enumerate(outcomes)})


def test_the_scores_are_those_of_the_origins(make: Make, wave: Wave) -> None:
    series = make(wave(2000))
    found = scored(series, outcome(series, shift=2.0))
    counts = origins(2000, 12)
    (model,) = found.models
    assert [score.step for score in model.scores] == [1, 5, 12]
    actual = series.values[counts + 4]
    assert model.scores[1].wape == pytest.approx(2 * len(actual) / actual.sum())
    assert model.scores[1].mase == pytest.approx(2 / stats.naive_error(series.values[:1600]))
    last = series.values[counts - 1]
    assert model.scores[1].relative_wape == pytest.approx(2 * len(actual) / np.abs(actual - last).sum())
    assert [upper.coverage for upper in model.scores[1].upper] == [1.0, 1.0]
    assert len(model.profile) == 12


def test_a_perfect_forecast_has_no_error_and_misses_nothing(make: Make, wave: Wave) -> None:
    series = make(wave(2000))
    (model,) = scored(series, outcome(series)).models
    score = model.scores[0]
    assert (score.wape, score.relative_wape, score.mase) == (0.0, 0.0, 0.0)
    assert score.upper[0].relative_pinball == 0.0
    assert score.upper[0].worst_window == 1.0


def test_last_value_is_the_measure_and_the_baseline_that_of_quantiles(report: Report) -> None:
    last, baseline = report.series[0].models
    assert [score.relative_wape for score in last.scores] == [1.0, 1.0, 1.0]
    assert [upper.relative_pinball for score in baseline.scores for upper in score.upper] == [1.0] * 6
    assert last.scores[0].upper[0].relative_pinball != 1.0


def test_a_short_horizon_has_fewer_scores(make: Make, wave: Wave) -> None:
    found = evaluate(Settings(("last",), horizon=4), make(wave(500)))
    assert [score.step for score in found.models[0].scores] == [1]
    assert len(found.models[0].profile) == 4


def test_too_short_a_series_is_refused_with_the_length_that_it_takes(make: Make, wave: Wave) -> None:
    least = shortest(12)
    with pytest.raises(ReportError, match=f"shop: {least - 1} values are too few; give {least} or more"):
        evaluate(SETTINGS, make(wave(least - 1)))
    assert evaluate(SETTINGS, make(wave(least))).origins == 1


@pytest.mark.parametrize("horizon", [1, 2, 7, 12, 100])
def test_the_shortest_length_is_the_shortest(horizon: int) -> None:
    least = shortest(horizon)
    assert len(origins(least, horizon)) > 0
    assert all(len(origins(length, horizon)) == 0 for length in range(least))


def test_gaps_are_counted_and_cost_nothing(make: Make, wave: Wave) -> None:
    values = wave(2000)
    values[1700:1720] = np.nan
    found = evaluate(SETTINGS, make(values))
    assert found.gaps == 20
    assert all(np.isfinite(score.wape) for model in found.models for score in model.scores)


@pytest.mark.parametrize("values", [[0.0] * 200, [7.0] * 200, [float("nan")] * 200])
def test_what_has_no_scale_is_unknown_not_wrong(make: Make, values: list[float]) -> None:
    found = evaluate(Settings(("last", "ewma", "last+residuals")), make(values))
    text = json.dumps(document(found), allow_nan=False)
    assert np.isnan(found.models[0].scores[0].mase)
    assert document(series_of(json.loads(text))) == document(found)


def test_a_silent_model_scores_nothing(make: Make, wave: Wave) -> None:
    series = make(wave(2000))
    silent = replace(outcome(series), values=np.full((len(origins(2000, 12)), 12, len(QUANTILES)), np.nan))
    (model,) = scored(series, silent).models
    assert all(np.isnan([score.wape, score.relative_wape, score.mase]).all() for score in model.scores)
    assert all(not curve.at for curve in model.coverage)


def test_fans_do_not_overlap_and_lie_in_what_is_shown(report: Report) -> None:
    one = report.series[0]
    starts = [fan.origin for fan in one.models[1].fans]
    assert starts
    assert min(np.diff(starts)) >= 12
    assert starts[0] >= one.length - len(one.recent)
    assert len(one.recent) == 2 * one.season


def test_a_coverage_curve_ends_at_the_newest_origin(make: Make, wave: Wave) -> None:
    series = make(wave(3000))
    told = outcome(series)
    told.values[-20:, :, -1] = 0.0  # the newest 20 origins miss
    (model,) = scored(series, told).models
    curve = next(one for one in model.coverage if (one.step, one.quantile) == (5, 0.99))
    assert curve.at[-1] == 2988
    assert curve.values[0] == 1.0
    assert curve.values[-1] == pytest.approx(1 - 20 / stats.WINDOW)
    assert len(curve.at) == len(curve.values) <= POINTS
    assert model.scores[1].upper[1].worst_window == pytest.approx(min(curve.values))


def test_weights_are_kept_with_their_members(make: Make, wave: Wave) -> None:
    series = make(wave(4000))
    weights: FloatArray = np.tile([0.25, 0.75], (len(origins(4000, 12)), 1))
    told = replace(outcome(series), weights=weights, members=("a", "b"))
    (model,) = scored(series, told).models
    assert model.weights is not None
    assert model.weights.members == ("a", "b")
    assert model.weights.values[0] == (0.25, 0.75)
    assert len(model.weights.at) == len(model.weights.values) == POINTS


# -- summary and rows --


def test_the_summary_is_the_geometric_mean(report: Report) -> None:
    found = {one.model: one for one in report.summary()}
    mine = [one.models[1].scores[2] for one in report.series]
    score = found["last+residuals"].scores[2]
    assert found["last+residuals"].series == 2
    assert score.mase == pytest.approx(np.sqrt(mine[0].mase * mine[1].mase))
    assert score.upper[0].pinball == pytest.approx(np.sqrt(mine[0].upper[0].pinball * mine[1].upper[0].pinball))
    assert score.upper[0].worst_window == min(one.upper[0].worst_window for one in mine)
    assert found["last"].seconds == pytest.approx(sum(one.models[0].seconds for one in report.series))


def test_rows_are_series_then_summary(report: Report) -> None:
    rows = report.rows()
    assert [row["name"] for row in rows] == ["s1"] * 6 + ["s2"] * 6 + ["ALL(2)"] * 6
    assert [(row["model"], row["step"]) for row in rows[:3]] == [("last", 1), ("last", 5), ("last", 12)]
    figures = {"wape", "relative_wape", "mase", "pinball_90", "pinball_99", "relative_pinball_90", "coverage_90"}
    assert figures | {"coverage_99", "worst_window_90", "worst_window_99", "seconds"} <= rows[0].keys()


def test_an_unknown_figure_is_none_in_a_row(make: Make) -> None:
    row = Report(12, (evaluate(SETTINGS, make([0.0] * 200)),)).rows()[0]
    assert (row["wape"], row["mase"], row["worst_window_90"]) == (None, None, None)


# -- JSON --


def test_a_series_survives_json(report: Report) -> None:
    one = report.series[0]
    again = series_of(json.loads(json.dumps(document(one), allow_nan=False)))
    assert document(again) == document(one)
    assert again.models[1].scores[1].upper[1].coverage == pytest.approx(one.models[1].scores[1].upper[1].coverage)
    np.testing.assert_allclose(again.models[1].fans[0].values, one.models[1].fans[0].values, rtol=1e-6)


def test_the_whole_document(report: Report) -> None:
    found = json.loads(json.dumps(report.document(), allow_nan=False))
    assert (found["horizon"], len(found["series"]), len(found["summary"])) == (12, 2, 2)
    assert found["summary"][0]["scores"][0]["relative_wape"] == 1.0


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (lambda found: found.pop("models"), "series.models: missing"),
        (lambda found: found["models"][0].update(seconds="long"), "series.models.seconds: expected"),
        (lambda found: found.update(length=1.5), "series.length: expected"),
        (lambda found: found["models"][0].update(scores=3), "series.models.scores: expected"),
        (lambda found: found["models"].__setitem__(0, []), "series.models: expected an object, got list"),
    ],
)
def test_a_damaged_document_names_the_field(report: Report, spoil: Any, where: str) -> None:
    found = json.loads(json.dumps(document(report.series[0])))
    spoil(found)
    with pytest.raises(ReportError, match=where):
        series_of(found)


# -- digest --


def _variants(series: Series) -> Iterator[tuple[Settings, Series]]:
    yield replace(SETTINGS, models=("last",)), series
    yield replace(SETTINGS, horizon=5), series
    yield replace(SETTINGS, origins=10), series
    yield SETTINGS, replace(series, season=7)
    yield SETTINGS, replace(series, step=7.0)
    yield SETTINGS, replace(series, name="b")
    yield SETTINGS, replace(series, values=series.values + 1e-9)


def test_the_digest_changes_with_everything_that_decides_the_result(make: Make, wave: Wave) -> None:
    series = make(wave(100))
    mine = digest(SETTINGS, series)
    assert digest(SETTINGS, make(wave(100))) == mine
    others = [digest(settings, one) for settings, one in _variants(series)]
    assert len({mine, *others}) == 1 + len(others)


def test_a_further_contestant_is_one_more_line(make: Make, wave: Wave, monkeypatch: pytest.MonkeyPatch) -> None:
    more: Mapping[str, Any] = {**contest.CONTESTANTS, "prophet": lambda series, counts, horizon: outcome(series)}
    monkeypatch.setattr(contest, "CONTESTANTS", more)
    found = evaluate(Settings(("prophet",)), make(wave(2000)))
    assert found.models[0].scores[0].wape == 0.0
