"""Each cause is named, rightly, in time and once; what is no drift stays unnamed."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecasting.drift import Detector, Drift, DriftError, Reference, reference
from forecasting.series import FloatArray, Series

pytestmark = pytest.mark.slow

NAN = float("nan")
DAY, STEP = 144, 600.0
"""Days of ten-minute steps."""

TRAINED, CHANGED = 6 * DAY, 7 * DAY
SEEDS = range(10)


def series(values: FloatArray, start: int = 0) -> Series:
    return Series("shop", start * STEP, STEP, values, DAY)


def usual(days: int, amplitude: float = 0.6, later: float = 0.0) -> FloatArray:
    """The expected rate: a daily curve around 100, ``later`` in days."""
    return 100 * (1 + amplitude * np.sin(2 * np.pi * (np.arange(days * DAY) / DAY - later)))


def noisy(rates: FloatArray, seed: int, noise: float | FloatArray = 0.1) -> FloatArray:
    return rates * np.maximum(0.0, 1 + noise * np.random.default_rng(seed).standard_normal(len(rates)))


def after(days: int, then: float, before: float = 1.0) -> FloatArray:
    """``before`` until the change and ``then`` from it on."""
    return np.where(np.arange(days * DAY) < CHANGED, before, then)


def watched(values: FloatArray, trained: int = TRAINED, piece: int = 12) -> list[tuple[float, Drift]]:
    """What a detector reports, and when: in days from the change."""
    detector = Detector(reference(series(values[:trained])))
    told = []
    for begin in range(trained, len(values), piece):
        part = series(values[begin : begin + piece], begin)
        drift = detector.observe(part)
        if drift is not None:
            told.append(((part.end / STEP - CHANGED) / DAY, drift))
    return told


def burst(begin: int, length: int, times: float) -> FloatArray:
    place = np.arange(10 * DAY)
    return np.where((place >= CHANGED + begin) & (place < CHANGED + begin + length), times, 1.0)


CAUSES: dict[str, tuple[str, float, Callable[[int], FloatArray]]] = {
    "a level up": ("level", 1.1, lambda seed: noisy(usual(10) * after(10, 1.4), seed)),
    "a level down": ("level", 1.1, lambda seed: noisy(usual(10) * after(10, 0.6), seed)),
    "a level tripled": ("level", 1.1, lambda seed: noisy(usual(10) * after(10, 3.0), seed)),
    "a constant load added": ("level", 1.1, lambda seed: noisy(usual(10) + after(10, 80.0, 0.0), seed)),
    "a flat level": ("level", 0.55, lambda seed: noisy(usual(10, 0.0) * after(10, 1.5), seed)),
    "a day six hours later": ("season", 2.1, lambda seed: noisy(_turned(0.25), seed)),
    "a day eight hours earlier": ("season", 2.1, lambda seed: noisy(_turned(-1 / 3), seed)),
    "a day without a shape": ("season", 2.1, lambda seed: noisy(np.where(after(10, 0) > 0, usual(10), 100.0), seed)),
    "more noise": ("variance", 1.1, lambda seed: noisy(usual(10), seed, 0.1 * after(10, 2.5))),
    "less noise": ("variance", 1.1, lambda seed: noisy(usual(10), seed, 0.1 * after(10, 0.4))),
    "no telemetry": ("telemetry hole", 0.3, lambda seed: noisy(usual(10), seed) * after(10, NAN)),
    "two of three values": ("telemetry hole", 0.5, lambda seed: _sparse(noisy(usual(10), seed), seed)),
    "zeros instead": ("telemetry hole", 0.3, lambda seed: noisy(usual(10), seed) * burst(0, 2 * DAY, 0.0)),
}


def _turned(later: float) -> FloatArray:
    return np.where(after(10, 0.0) > 0, usual(10), usual(10, later=later))


def _sparse(values: FloatArray, seed: int) -> FloatArray:
    lost = np.random.default_rng(seed).random(len(values)) < after(10, 0.67, 0.0)
    return np.where(lost, NAN, values)


@pytest.mark.parametrize("name", CAUSES)
def test_each_cause_is_named_in_time_and_once(name: str) -> None:
    cause, delay, make = CAUSES[name]
    right = 0
    for seed in SEEDS:
        told = watched(make(seed))
        right += len(told) == 1 and told[0][1].cause == cause and 0 < told[0][0] <= delay
    assert right >= 0.9 * len(SEEDS), f"{name}: {cause} in {right} of {len(SEEDS)} seeds"


def test_twenty_stationary_series_of_twenty_days_raise_no_alarm() -> None:
    curves = [noisy(usual(20), seed) for seed in SEEDS]
    counts = [np.random.default_rng(seed).poisson(usual(20) / 4).astype(np.float64) for seed in SEEDS]
    alarms = [watched(values, piece=DAY) for values in curves + counts]
    assert alarms == [[]] * 20


STILL: dict[str, Callable[[int], FloatArray]] = {
    "a burst of two hours": lambda seed: noisy(usual(10) * burst(20, 12, 10.0), seed),
    "a burst of six hours": lambda seed: noisy(usual(10) * burst(20, 36, 4.0), seed),
    "an hour without telemetry": lambda seed: noisy(usual(10) * burst(20, 6, NAN), seed),
    "a move that matters to nobody": lambda seed: noisy(usual(10) * after(10, 1.08), seed, 0.02),
    "days that wander": lambda seed: noisy(usual(10) * np.exp(_wander(10 * DAY, seed)), seed, 0.02),
}


def _wander(length: int, seed: int) -> FloatArray:
    """An autoregression with a memory of some hours: neighbouring errors are not independent."""
    shocks = np.random.default_rng(seed + 1000).normal(0, 0.03, length)
    kept = 0.95 ** np.arange(200)
    return np.convolve(shocks, kept)[:length]


@pytest.mark.parametrize("name", STILL)
def test_what_passes_is_no_drift(name: str) -> None:
    alarms = [told for seed in SEEDS if (told := watched(STILL[name](seed)))]
    assert not alarms


def test_weekends_that_were_there_at_training_are_no_drift() -> None:
    week = np.where(np.arange(28 * DAY) // DAY % 7 >= 5, 0.6, 1.0)
    assert not watched(noisy(usual(28) * week, 1), trained=8 * DAY)


def test_a_report_says_what_when_and_how_much() -> None:
    ((_, drift),) = watched(noisy(usual(12) * after(12, 1.5), 3))
    assert (drift.series, drift.cause) == ("shop", "level")
    assert drift.size == pytest.approx(0.5, abs=0.1)
    assert drift.since == pytest.approx(CHANGED * STEP, abs=3 * 3600)
    assert "the mean over the day went from" in drift.evidence
    assert "(+" in drift.evidence


def test_a_shifted_day_is_measured() -> None:
    ((_, drift),) = watched(noisy(_turned(0.25), 3))
    assert drift.size == pytest.approx(1.0, abs=0.15)
    assert "moved 6 h later" in drift.evidence
    ((_, drift),) = watched(noisy(_turned(-1 / 3), 3))
    assert "moved 8 h earlier" in drift.evidence


def test_the_way_back_is_a_second_shift() -> None:
    there_and_back = usual(15) * np.where(np.arange(15 * DAY) // DAY // 4 == 2, 2.0, 1.0)
    told = watched(noisy(there_and_back, 5))
    assert [drift.cause for _, drift in told] == ["level", "level"]
    assert told[0][1].size > 0.8
    assert told[1][1].size < -0.4


def test_a_hole_is_reported_again_only_after_the_telemetry_came_back() -> None:
    values = noisy(usual(16), 5)
    values[CHANGED : CHANGED + 3 * DAY] = NAN
    values[CHANGED + 5 * DAY : CHANGED + 6 * DAY] = NAN
    assert [drift.cause for _, drift in watched(values)] == ["telemetry hole"] * 2


def test_after_a_hole_the_same_level_is_the_same_level() -> None:
    values = noisy(usual(14), 6)
    values[CHANGED + 30 : CHANGED + 2 * DAY] = NAN
    assert [drift.cause for _, drift in watched(values)] == ["telemetry hole"]


def test_time_that_nobody_told_of_is_missing() -> None:
    values = noisy(usual(12), 7)
    detector = Detector(reference(series(values[:TRAINED])))
    assert detector.observe(series(values[TRAINED:CHANGED], TRAINED)) is None
    late = CHANGED + DAY
    drift = detector.observe(series(values[late : late + 6], late))
    assert drift is not None
    assert drift.cause == "telemetry hole"


@pytest.mark.parametrize("piece", [1, 5, 7, DAY])
def test_pieces_of_any_size_tell_the_same(piece: int) -> None:
    values = noisy(usual(9) * after(9, 1.5), 8)
    assert [drift for _, drift in watched(values, piece=piece)] == [drift for _, drift in watched(values)]


def test_a_whole_history_tells_what_its_end_tells() -> None:
    values = noisy(usual(9) * after(9, 1.5), 8)
    detector = Detector(reference(series(values[:TRAINED])))
    told = [detector.observe(series(values[:end])) for end in range(TRAINED, len(values) + 1, 12)]
    ((_, expected),) = watched(values)
    assert [one for one in told if one is not None] == [expected]


class TestReadings:
    """Skill and coverage, of a series in which nothing changes."""

    @staticmethod
    def told(
        skills: Sequence[float | None], coverages: Sequence[float | None], values: FloatArray | None = None
    ) -> list[Drift]:
        values = noisy(usual(12), 1) if values is None else values
        detector = Detector(reference(series(values[:TRAINED])))
        found = []
        for number, (skill, coverage) in enumerate(zip(skills, coverages, strict=True)):
            begin = TRAINED + number * 6
            drift = detector.observe(series(values[begin : begin + 6], begin), skill, coverage)
            found += [drift] if drift is not None else []
        return found

    def test_a_skill_below_the_baseline_for_six_hours(self) -> None:
        (drift,) = self.told([0.3] * 10 + [-0.2] * 50, [None] * 60)
        assert (drift.cause, drift.size) == ("skill", -0.2)
        assert drift.since == (TRAINED + 11 * 6) * STEP
        assert not self.told(([-0.2] * 5 + [0.3]) * 10, [None] * 60)

    def test_a_coverage_too_low_for_six_hours(self) -> None:
        (drift,) = self.told([None] * 60, [0.9] * 10 + [0.7] * 50)
        assert drift.cause == "coverage"
        assert drift.size == pytest.approx(-0.2)
        assert "70% of the values fall into an interval for 90%" in drift.evidence

    def test_around_the_line_there_is_one_report(self) -> None:
        assert len(self.told([-0.02, 0.02] * 30, [None] * 60)) == 1

    def test_after_it_recovered_it_can_be_reported_again(self) -> None:
        assert len(self.told([-0.2] * 20 + [0.2] * 5 + [-0.2] * 35, [None] * 60)) == 2

    @pytest.mark.parametrize("reading", [None, NAN, 0.5])
    def test_unknown_and_good_readings_say_nothing(self, reading: float | None) -> None:
        assert not self.told([reading] * 60, [reading if reading != 0.5 else 0.9] * 60)

    def test_a_cause_in_the_data_explains_a_lost_skill(self) -> None:
        values = noisy(usual(12) * after(12, 2.0), 1)
        skills = [0.2] * 24 + [0.02] * 22 + [-0.5] * 70
        assert [drift.cause for drift in self.told(skills, [None] * len(skills), values)] == ["level"]


class TestReference:
    def test_what_it_knows(self) -> None:
        told = reference(series(noisy(usual(8), 1)))
        assert told.level == pytest.approx(100, rel=0.02)
        assert len(told.profile) == 48
        assert told.width == 3
        assert np.mean(told.profile) == pytest.approx(1.0)
        assert told.profile[12] == pytest.approx(1.6, abs=0.1)
        assert told.explained > 0.95
        assert told.shape > 0.95
        assert (told.known, told.silent) == (1.0, 0.0)
        # 10 % of a rate are 5 % of its root; a block is the mean of three
        assert told.spread == pytest.approx(0.05 * 10 / np.sqrt(3), rel=0.3)

    def test_a_flat_series_has_no_season(self) -> None:
        told = reference(series(noisy(usual(8, 0.0), 1)))
        assert not told.seasonal
        assert told.patience == 12

    def test_the_share_of_known_values(self) -> None:
        values = noisy(usual(8), 1)
        values[::4] = NAN
        assert reference(series(values)).known == pytest.approx(0.75)

    def test_it_survives_json(self) -> None:
        told = reference(series(noisy(usual(4), 1)))
        assert Reference.from_dict(json.loads(json.dumps(told.as_dict()))) == told

    @pytest.mark.parametrize(
        ("field", "value"),
        [("level", None), ("level", "much"), ("noise", NAN), ("profile", []), ("profile", [1.0] * 5)],
    )
    def test_a_damaged_one_is_refused(self, field: str, value: Any) -> None:
        told = reference(series(noisy(usual(4), 1))).as_dict()
        with pytest.raises(DriftError, match=r"drift reference: .* make it again by training"):
            Reference.from_dict({**told, field: value})
        del told[field]
        with pytest.raises(DriftError, match=f"'{field}' is missing"):
            Reference.from_dict(told)

    @pytest.mark.parametrize(
        ("season", "bins"), [(17_280, 48), (144, 48), (96, 48), (100, 25), (36, 36), (24, 24), (12, 12)]
    )
    def test_days_are_cut_into_equal_blocks(self, season: int, bins: int) -> None:
        values = np.random.default_rng(1).uniform(50, 60, 2 * season)
        assert len(reference(Series("shop", 0.0, 5.0, values, season)).profile) == bins

    @pytest.mark.parametrize("values", [[], [1.0], [5.0] * (2 * DAY - 1)])
    def test_two_days_are_needed(self, values: list[float]) -> None:
        with pytest.raises(DriftError, match="shop: a drift reference needs 2 whole days"):
            reference(series(np.array(values, dtype=np.float64)))

    def test_every_part_of_the_day_must_be_known(self) -> None:
        values = usual(3)
        values[np.arange(3 * DAY) % DAY < 10] = NAN
        with pytest.raises(DriftError, match="every part of the day"):
            reference(series(values))

    @pytest.mark.parametrize("season", [1, 7, 97])
    def test_days_that_cannot_be_cut(self, season: int) -> None:
        with pytest.raises(DriftError, match=f"a day of {season} steps cannot be cut"):
            reference(Series("shop", 0.0, 5.0, np.ones(1000), season))

    def test_another_series_is_refused(self) -> None:
        detector = Detector(reference(series(usual(4))))
        with pytest.raises(DriftError, match="make a new reference"):
            detector.observe(replace(series(usual(1)), name="cart"))
        with pytest.raises(DriftError, match="make a new reference"):
            detector.observe(replace(series(usual(1)), step=60.0))


@pytest.mark.parametrize("rate", [0.0, 7.0])
def test_a_constant_is_quiet_until_it_changes(rate: float) -> None:
    values = np.full(12 * DAY, rate)
    assert not watched(values)
    ((_, drift),) = watched(np.where(after(12, 0.0) > 0, values, rate + 5))
    assert drift.cause == "level"
    assert np.isfinite(drift.size)
    assert drift.size > 0.5


def test_nothing_new_says_nothing() -> None:
    detector = Detector(reference(series(usual(4))))
    assert detector.observe(series(np.empty(0), 4 * DAY)) is None
    assert detector.observe(series(usual(4))) is None
    assert detector.observe(series(usual(4))) is None


TRACES = ["nasa_aug95_5min", "nasa_jul95_1min", "nyc_taxi_30min", "twitter_aug21_1min", "servegen_small_10min"]


@pytest.mark.parametrize("name", TRACES)
def test_real_traces(name: str, shared_data: Path, record_property: Callable[[str, object], None]) -> None:
    """How often real traces drift is reported, not judged: nobody knows the truth. Reports are a day apart."""
    path = shared_data / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"no trace {path}")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    times = [datetime.fromisoformat(row["timestamp"]).timestamp() for row in rows[:2]]
    step = times[1] - times[0]
    season = round(86_400 / step)
    whole = Series(name, times[0], step, np.array([float(row["value"]) for row in rows]), season)
    whole = whole.until(60 * season)
    detector = Detector(reference(whole.until(9 * season)))
    told: list[tuple[float, Drift]] = []
    for count in range(9 * season, len(whole.values) + 1, season // 24):
        drift = detector.observe(whole.until(count).tail(season // 24))
        told += [(count / season, drift)] if drift is not None else []
    counts = dict(Counter(drift.cause for _, drift in told))
    numbers = f"{counts} in {len(whole.values) / season - 9:.0f} days"
    record_property("drifts", numbers)
    print(f"{name}: {numbers}")  # seen with -rP
    assert all(after - before >= 1 for (before, _), (after, _) in pairwise(told))
