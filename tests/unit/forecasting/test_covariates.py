"""Covariates and holidays as an expert: what they foretell is learned, noise does no harm, nothing is seen early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from forecasting.base import MEDIAN, QUANTILES, Forecaster
from forecasting.batch import Batch
from forecasting.calendar import Covariates, Holidays
from forecasting.ensemble import Selector
from forecasting.evaluate.backtest import Backtest, backtest, check_causal, disturbed
from forecasting.evaluate.stats import relative_wape, wape
from forecasting.models import MODELS, covariates
from forecasting.models.covariate_figures import STALE
from forecasting.models.covariates import REFIT, WINDOWS, CovariateModel, ridge
from forecasting.series import BoolArray, FloatArray, IntArray, Series

pytestmark = pytest.mark.slow

NAN = float("nan")
HORIZON = 12
LENGTH = 1_600
BAVARIA = Holidays("DE", "BY", "Europe/Berlin")
SIMPLE = ("ewma", "median12", "median48", "seasonal_naive")


def orders(seed: int = 0, length: int = LENGTH) -> FloatArray:
    """Orders per second: a slow random walk around 20 that returns."""
    rng = np.random.default_rng(seed)
    level = np.zeros(length)
    for place in range(1, length):
        level[place] = 0.95 * level[place - 1] + 0.1 * rng.standard_normal()
    return np.asarray(20.0 * np.exp(level))


def beside(
    values: FloatArray, *columns: FloatArray, name: str = "shop", begin: int = 0, season: int = 17_280
) -> Series:
    table = np.stack(columns, axis=1)
    names = tuple(f"metric{number}" for number in range(len(columns)))
    return Series(name, 5_000.0, 5.0, values, season, Covariates(names, table, begin))


def follower(seed: int = 0, lag: int = 3, length: int = LENGTH, name: str = "shop") -> Series:
    """Demand is five calls per order of ``lag`` steps before, and 2 % of noise."""
    ahead = orders(seed, length + lag)
    noise = 1.0 + 0.02 * np.random.default_rng(seed + 100).standard_normal(length)
    return beside(5.0 * ahead[:length] * noise, ahead[lag:], name=name)


def told(model: Forecaster, series: Series, horizon: int = HORIZON) -> FloatArray:
    """Medians ``(H,)`` at the end of a series."""
    return np.asarray(model.predict(Batch.now([series], horizon))[0, :, MEDIAN])


def late(series: Series, model: Forecaster, begin: int = 900) -> Backtest:
    return backtest(model, series, np.arange(begin, len(series.values) - HORIZON), HORIZON)


def mixed(
    series: Series, models: Sequence[Forecaster], begin: int, horizon: int
) -> tuple[FloatArray, dict[str, float]]:
    """What the mixture said at each origin from ``begin`` on, ``(N, H)``, and its last weights."""
    selector = Selector(models, horizon, replay=0)
    ticks = [selector.update([series.until(count)])[0] for count in range(begin, len(series.values) - horizon + 1)]
    return np.array([one.forecast.values[:, MEDIAN] for one in ticks]), dict(ticks[-1].weights)


def simple() -> list[Forecaster]:
    return [MODELS[name]() for name in SIMPLE]


class TestLeadingIndicator:
    def test_what_a_covariate_foretells_is_forecast(self) -> None:
        series = follower()
        mine, ewma = late(series, CovariateModel()), late(series, MODELS["ewma"]())
        for step, share in ((1, 0.25), (2, 0.2), (3, 0.2)):
            assert mine.relative_wape(step) < share * min(1.0, ewma.relative_wape(step))
        assert mine.relative_wape(4) > 0.4  # nobody knows the orders to come

    @pytest.mark.parametrize("sign", [-1.0, 1e-6])
    def test_neither_sign_nor_size_matters(self, sign: float) -> None:
        series = follower()
        assert series.covariates is not None
        other = replace(series, covariates=replace(series.covariates, values=sign * series.covariates.values))
        assert late(other, CovariateModel()).relative_wape(3) == pytest.approx(
            late(series, CovariateModel()).relative_wape(3), abs=0.02
        )

    def test_the_mixture_hears_it(self) -> None:
        series = follower()
        actual = np.stack([series.values[count : count + 3] for count in range(1_200, LENGTH - HORIZON + 1)])
        last = series.values[1_199 : LENGTH - HORIZON]
        without, _ = mixed(series, simple(), 1_200, HORIZON)
        heard, weights = mixed(series, [*simple(), CovariateModel()], 1_200, HORIZON)
        for step in range(3):
            assert relative_wape(actual[:, step], without[:, step], last) > 0.9
            assert relative_wape(actual[:, step], heard[:, step], last) < 0.25
        assert weights["covariates"] > 0.9

    def test_several_covariates_one_of_which_counts(self) -> None:
        series, rng = follower(), np.random.default_rng(5)
        assert series.covariates is not None
        noise = [10.0**n * rng.standard_normal(LENGTH) for n in range(3)]
        crowded = beside(series.values, *noise, series.covariates.values[:, 0])
        assert late(crowded, CovariateModel()).relative_wape(3) < 0.25

    @pytest.mark.parametrize(("every", "bound"), [(2, 0.4), (5, 0.8)])
    def test_exporters_slower_than_ticks(self, every: int, bound: float) -> None:
        series = follower()
        assert series.covariates is not None
        sparse = series.covariates.values.copy()
        sparse[np.arange(LENGTH) % every > 0] = NAN
        assert late(beside(series.values, sparse[:, 0]), CovariateModel()).relative_wape(3) < bound

    def test_gaps_in_both(self) -> None:
        series, rng = follower(), np.random.default_rng(6)
        values = series.values.copy()
        assert series.covariates is not None
        metric = series.covariates.values[:, 0].copy()
        values[rng.random(LENGTH) < 0.02] = NAN
        metric[rng.random(LENGTH) < 0.1] = NAN
        found = late(beside(values, metric), CovariateModel())
        assert np.isfinite(found.values[..., MEDIAN]).all()
        assert found.relative_wape(3) < 0.4


class TestNoise:
    @pytest.mark.parametrize("kind", ["noise around a level", "a walk"])
    def test_a_covariate_that_means_nothing_does_no_harm(self, kind: str) -> None:
        rng = np.random.default_rng(7)
        steps = rng.standard_normal((2, LENGTH))
        values = 100.0 + 10.0 * steps[0] if kind != "a walk" else 200.0 + np.cumsum(steps[0])
        series = beside(values, steps[1])
        without, _ = mixed(series, simple(), 1_200, HORIZON)
        heard, _ = mixed(series, [*simple(), CovariateModel()], 1_200, HORIZON)
        actual = np.stack([values[count : count + HORIZON] for count in range(1_200, LENGTH - HORIZON + 1)])
        for step in (0, 2, HORIZON - 1):
            assert wape(actual[:, step], heard[:, step]) < 1.01 * wape(actual[:, step], without[:, step])


class TestNothingIsSeenEarly:
    def test_a_covariate_that_is_the_target_itself_helps_nobody(self) -> None:
        """Were its row of the first step ahead visible, the forecast would be exact. Noise cannot be foretold: the best
        forecast is its mean, whose error is 1 / sqrt(2) of last value's.
        """
        values = 100.0 + 10.0 * np.random.default_rng(8).standard_normal(LENGTH)
        assert late(beside(values, values), CovariateModel()).relative_wape(1) > 0.65

    def test_later_values_and_later_covariates_change_nothing(self) -> None:
        series, cut = follower(), 1_250
        changed = disturbed(series, cut)
        assert series.covariates is not None
        table = series.covariates.values.copy()
        table[cut:] = -1e6
        changed = replace(changed, covariates=replace(series.covariates, values=table))
        counts = np.array([cut - 200, cut - 1, cut])
        before, after = (CovariateModel().predict(Batch.at(one, counts, HORIZON)) for one in (series, changed))
        assert np.isfinite(before[..., MEDIAN]).all()
        np.testing.assert_array_equal(before, after)
        check_causal(lambda _past, _cut: CovariateModel(), [series], HORIZON, cut)

    def test_a_window_in_a_longer_history_is_one_whose_history_ends_there(self) -> None:
        series, model = follower(), CovariateModel()
        counts = np.array([700, 1_000, 1_001, 1_400])
        whole = model.predict(Batch.at(series, counts, HORIZON))[..., MEDIAN]
        for place, count in enumerate(counts.tolist()):
            np.testing.assert_allclose(told(CovariateModel(), series.until(count)), whole[place], rtol=1e-9)

    def test_old_values_that_are_trimmed_change_little(self) -> None:
        series = follower(length=3_000)
        kept = series.tail(WINDOWS + REFIT + 100)
        np.testing.assert_allclose(told(CovariateModel(), kept), told(CovariateModel(), series), rtol=1e-9)

    def test_what_was_fitted_before_does_not_matter(self) -> None:
        series, ticking = follower(), CovariateModel()
        for count in range(1_000, 1_000 + 2 * REFIT, 7):
            ticking.predict(Batch.now([series.until(count)], HORIZON))
        now = series.until(1_300)
        np.testing.assert_array_equal(told(ticking, now), told(CovariateModel(), now))
        other = follower(seed=9)  # a service of the same name, with another history
        np.testing.assert_array_equal(told(ticking, other), told(CovariateModel(), other))


class TestSilence:
    def test_without_anything_beside_nothing_is_done(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise AssertionError("fitted for nothing")

        monkeypatch.setattr(covariates, "fitted", fail)
        bare = [Series(f"s{n}", 0.0, 5.0, np.ones(900), 17_280) for n in range(3)]
        for holidays in (None, BAVARIA):  # a tick does not reach over midnight: holidays do not concern it
            answer = CovariateModel(holidays).predict(Batch.now(bare, HORIZON))
            assert answer.shape == (3, HORIZON, len(QUANTILES))
            assert np.isnan(answer).all()

    def test_a_fit_serves_many_ticks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fits: list[tuple[str, int]] = []
        real = covariates.fitted

        def counted(one: Series, edge: int, horizon: int, holidays: Holidays | None) -> covariates.Fit:
            fits.append((one.name, edge))
            return real(one, edge, horizon, holidays)

        monkeypatch.setattr(covariates, "fitted", counted)
        series, model = [follower(name=name) for name in ("a", "b", "c")], CovariateModel()
        for count in range(900, 900 + REFIT):
            model.predict(Batch.now([one.until(count) for one in series], HORIZON))
        assert len(fits) <= 2 * len(series)
        assert len({edge for _, edge in fits[len(series) :]}) == len(fits) - len(series)  # services take turns

    def test_too_little_history(self) -> None:
        series = follower()
        assert np.isnan(told(CovariateModel(), series.until(250))).all()
        assert np.isfinite(told(CovariateModel(), series.until(700))).all()
        assert np.isnan(told(CovariateModel(), series.until(0))).all()

    def test_a_metric_that_is_new_is_learned_first(self) -> None:
        series = follower()
        assert series.covariates is not None
        young = beside(series.values, series.covariates.values[1_400:, 0], begin=1_400)
        assert np.isnan(told(CovariateModel(), young)).all()

    def test_a_metric_that_stops_or_never_moves(self) -> None:
        series = follower()
        assert series.covariates is not None
        table = series.covariates.values.copy()
        table[-STALE:] = NAN
        assert np.isfinite(told(CovariateModel(), beside(series.values, table[:, 0]))).all()
        table[-STALE - 24 :] = NAN
        assert np.isnan(told(CovariateModel(), beside(series.values, table[:, 0]))).all()
        assert np.isnan(told(CovariateModel(), beside(series.values, np.full(LENGTH, 3.0)))).all()
        assert np.isnan(told(CovariateModel(), beside(series.values, np.full(LENGTH, NAN)))).all()

    def test_a_series_that_is_silent_or_rests(self) -> None:
        series = follower()
        values = series.values.copy()
        values[-60:] = NAN
        assert np.isnan(told(CovariateModel(), replace(series, values=values))).all()
        resting = told(CovariateModel(), replace(series, values=np.zeros(LENGTH)))
        np.testing.assert_allclose(resting, 0.0, atol=1e-6)

    def test_a_table_without_columns(self) -> None:
        empty = replace(follower(), covariates=Covariates((), np.empty((LENGTH, 0))))
        assert np.isnan(told(CovariateModel(), empty)).all()


def test_series_of_all_kinds_at_once_are_told_as_each_alone() -> None:
    rng = np.random.default_rng(11)
    crowd = beside(follower(1).values, rng.standard_normal(LENGTH), follower(1).values, name="crowd")
    series = [
        follower(name="a"),
        replace(follower(2, name="bare"), covariates=None),
        crowd,
        follower(3, name="young").until(100),
    ]
    counts = [[1_200, 1_300], [1_000], [1_250], [90]]
    owner = np.repeat(np.arange(4), [len(one) for one in counts])
    batch = Batch(series, owner, np.concatenate(counts), HORIZON)
    together = CovariateModel().predict(batch)
    alone = [
        CovariateModel().predict(Batch.at(one, np.array(at), HORIZON)) for one, at in zip(series, counts, strict=True)
    ]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-9)
    assert np.isfinite(together[..., MEDIAN]).all(axis=1).tolist() == [True, True, False, True, False]


def test_the_regression_solves_the_penalised_normal_equations_of_each_step() -> None:
    rng = np.random.default_rng(12)
    shared, ahead, change = rng.normal(size=(50, 4)), rng.normal(size=(50, 3, 2)), rng.normal(size=(50, 3))
    weights = ridge(shared, ahead, change)
    for step in range(3):
        table = np.concatenate([shared, ahead[:, step]], axis=1)
        gram = table.T @ table
        gram += np.diag(covariates.PENALTY * np.diag(gram) + covariates.TINY * 50)
        np.testing.assert_allclose(gram @ weights[step], table.T @ change[:, step])


# -- holidays --------------------------------------------------------------------------------------------------------


def shop(step: float, days: int = 100, effect: float = 0.5, begin: str = "2024-03-04", noise: float = 0.08) -> Series:
    """A daily curve, quieter at weekends, times ``effect`` on the holidays of Bavaria: six in the 100 days."""
    start = datetime.fromisoformat(begin).replace(tzinfo=UTC).timestamp()
    times = start + step * np.arange(round(days * 86_400 / step))
    day = 1.0 + 0.6 * np.sin(2.0 * np.pi * times / 86_400 - 2.0)
    week = np.where((times // 86_400 + 3) % 7 >= 5, 0.7, 1.0)
    rest = np.where(np.isfinite(BAVARIA.begins(times)), effect, 1.0)
    rough = np.maximum(1.0 + noise * np.random.default_rng(13).standard_normal(len(times)), 0.0)
    return Series("shop", start, step, 100.0 * day * week * rest * rough, round(86_400 / step))


def on_holidays(series: Series, counts: IntArray, horizon: int) -> BoolArray:
    """Whether each target is on one, ``(N, H)``."""
    times = series.start + series.step * (counts[:, None] + np.arange(horizon))
    return np.isfinite(BAVARIA.begins(times))


class TestHolidays:
    @pytest.mark.parametrize(("step", "horizon", "share"), [(3_600.0, 24, 0.3), (900.0, 12, 0.8)])
    def test_a_handful_teaches_that_demand_halves(self, step: float, horizon: int, share: float) -> None:
        series = shop(step)
        season = series.season
        counts = np.arange(70 * season, len(series.values) - horizon, season // 24)
        batch = Batch.at(series, counts, horizon)
        mine = CovariateModel(BAVARIA).predict(batch)[..., MEDIAN]
        holiday, actual = on_holidays(series, counts, horizon), batch.actual()
        assert holiday.sum() > 30
        assert np.isfinite(mine[holiday]).all()
        for name in ("seasonal_naive", "profile1", "profile7"):
            other = MODELS[name]().predict(batch)[..., MEDIAN]
            assert wape(actual[holiday], mine[holiday]) < share * wape(actual[holiday], other[holiday])
        assert wape(actual[holiday], mine[holiday]) < 0.1  # noise alone is 0.064

    def test_the_mixture_hears_it_on_holidays_and_loses_nothing_on_others(self) -> None:
        series, horizon = shop(7_200.0), 6
        begin, measured = 42 * 12, 60 * 12
        without, _ = mixed(series, simple(), begin, horizon)
        heard, _ = mixed(series, [*simple(), CovariateModel(BAVARIA)], begin, horizon)
        counts = np.arange(begin, len(series.values) - horizon + 1)
        holiday = on_holidays(series, counts, horizon)
        actual, new = Batch.at(series, counts, horizon).actual(), (counts >= measured)[:, None]
        errors = [
            [wape(actual[rows], values[rows]) for values in (without, heard)]
            for rows in (new & holiday, new & ~holiday)
        ]
        assert errors[0][1] < 0.6 * errors[0][0]
        assert errors[1][1] < 1.01 * errors[1][0]

    def test_only_what_a_holiday_concerns_is_told(self) -> None:
        series, model = shop(3_600.0), CovariateModel(BAVARIA)
        monday = round((datetime(2024, 5, 19, 22, tzinfo=UTC).timestamp() - series.start) / 3_600)
        quiet = told(model, series.until(monday - 48), 24)
        eve = told(model, series.until(monday - 12), 24)
        after = told(model, series.until(monday + 30), 24)
        assert np.isfinite(quiet).sum() == 0
        assert np.isfinite(eve).tolist() == [False] * 12 + [True] * 12
        assert np.isfinite(after).tolist() == [True] * 18 + [False] * 6  # yesterday was the holiday

    def test_nothing_is_told_before_the_second_holiday(self) -> None:
        series, model = shop(3_600.0), CovariateModel(BAVARIA)
        friday = round((datetime(2024, 3, 28, 23, tzinfo=UTC).timestamp() - series.start) / 3_600)
        assert np.isnan(told(model, series.until(friday - 6), 24)).all()
        may = round((datetime(2024, 4, 30, 22, tzinfo=UTC).timestamp() - series.start) / 3_600)
        assert np.isfinite(told(model, series.until(may - 6), 24)).sum() == 18

    def test_holidays_like_other_days_have_no_effect(self) -> None:
        series = shop(3_600.0, effect=1.0)
        horizon = 12
        counts = np.arange(70 * 24, len(series.values) - horizon)
        batch = Batch.at(series, counts, horizon)
        mine, holiday = CovariateModel(BAVARIA).predict(batch)[..., MEDIAN], on_holidays(series, counts, horizon)
        assert wape(batch.actual()[holiday], mine[holiday]) < 0.12

    def test_a_replay_has_no_holidays(self) -> None:
        fast = replace(shop(3_600.0), step=60.0)
        assert np.isnan(CovariateModel(BAVARIA).predict(Batch.now([fast], HORIZON))).all()

    def test_covariates_have_holidays_of_their_own(self) -> None:
        """A metric that halves with demand stays a leading indicator on the holiday."""
        series = shop(3_600.0)
        lead = np.concatenate([series.values[2:], [NAN, NAN]])
        known = replace(series, covariates=Covariates(("orders",), 0.1 * lead[:, None]))
        counts = np.arange(70 * 24, len(series.values) - 12)
        batch = Batch.at(known, counts, 2)
        mine, actual = CovariateModel(BAVARIA).predict(batch)[..., MEDIAN], batch.actual()
        holiday = on_holidays(known, counts, 2)
        assert np.isfinite(mine).all()
        assert wape(actual[~holiday], mine[~holiday]) < 0.03
        assert wape(actual[holiday], mine[holiday]) < 0.06
