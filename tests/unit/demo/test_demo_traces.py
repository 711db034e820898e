"""Replays: exact where the trace is good, precise complaints where it is not."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meshctl.demo import setup, traces
from meshctl.demo.errors import TraceError

START = datetime(2024, 1, 1, tzinfo=UTC)


def write(path: Path, values: list[float], step: int = 60) -> Path:
    rows = [f"{(START + timedelta(seconds=step * i)).isoformat()},{value}" for i, value in enumerate(values)]
    path.write_text("\n".join(["timestamp,value", *rows]) + "\n")
    return path


@pytest.fixture
def ramp(tmp_path: Path) -> traces.Trace:
    return traces.read(write(tmp_path / "ramp.csv", [float(i) for i in range(100)]))


def test_the_shipped_trace_is_what_its_source_says() -> None:
    trace = traces.read(traces.default_path())
    assert len(trace.values) == 39_692
    assert trace.step == 60.0
    assert sum(trace.values) / len(trace.values) == pytest.approx(47.66, abs=0.01)
    assert trace.moment(0) == datetime(1995, 7, 1, 4, tzinfo=UTC)


def test_the_shipped_trace_equals_the_original(shared_data: Path) -> None:
    assert gzip.decompress(traces.default_path().read_bytes()) == (shared_data / "nasa_jul95_1min.csv").read_bytes()


def test_the_default_replay_rises_and_falls() -> None:
    trace = traces.read(traces.default_path())
    until = traces.start_of_replay(trace, None)
    shown = traces.replay(trace, until=until, rate=25.0, speedup=60.0, duration=180.0)
    blocks = [sum(shown.rates[i : i + 15]) / 15 for i in range(0, 180, 15)]
    peak = blocks.index(max(blocks))
    assert sum(shown.rates) / len(shown.rates) == pytest.approx(25.0)
    assert max(blocks) > 3 * blocks[0]
    assert min(blocks[peak:]) < 0.65 * max(blocks)
    assert shown.step == 1.0


def test_a_replay_starts_at_its_moment_and_the_past_keeps_the_scale(ramp: traces.Trace) -> None:
    shown = traces.replay(ramp, until=START + timedelta(minutes=50), rate=10.0, speedup=6.0, duration=40.0)
    assert shown.step == 10.0
    assert [round(rate * 51.5 / 10.0, 6) for rate in shown.rates] == [50.0, 51.0, 52.0, 53.0]
    assert shown.past_rate == pytest.approx(10.0 * 24.5 / 51.5)


def test_a_duration_that_ends_within_a_row_takes_the_whole_row(ramp: traces.Trace) -> None:
    shown = traces.replay(ramp, until=START + timedelta(minutes=50), rate=10.0, speedup=60.0, duration=2.5)
    assert len(shown.rates) == 3


def test_another_trace_starts_in_its_last_fifth(ramp: traces.Trace) -> None:
    assert traces.start_of_replay(ramp, None) == START + timedelta(minutes=80)


def test_a_start_without_a_zone_is_utc(ramp: traces.Trace) -> None:
    assert traces.start_of_replay(ramp, datetime(2024, 1, 1, 1)) == START + timedelta(hours=1)


@pytest.mark.parametrize(
    ("until", "duration", "part"),
    [
        (START - timedelta(days=1), 10.0, "is not in the trace"),
        (START + timedelta(days=1), 10.0, "is not in the trace"),
        (START + timedelta(minutes=95), 60.0, "Start elsewhere"),
        (START, 10.0, "and a past"),
    ],
)
def test_replays_that_cannot_be(ramp: traces.Trace, until: datetime, duration: float, part: str) -> None:
    with pytest.raises(TraceError, match=part) as caught:
        traces.replay(ramp, until=until, rate=10.0, speedup=60.0, duration=duration)
    assert "ramp.csv" in str(caught.value)


def test_silence_cannot_be_scaled(tmp_path: Path) -> None:
    trace = traces.read(write(tmp_path / "zero.csv", [1.0] * 10 + [0.0] * 10))
    with pytest.raises(TraceError, match="silent"):
        traces.replay(trace, until=START + timedelta(minutes=12), rate=5.0, speedup=60.0, duration=4.0)


def test_gzip_is_recognised(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.csv", [1.0, 2.0, 3.0])
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert traces.read(packed).values == (1.0, 2.0, 3.0)


HEAD = "timestamp,value\n2024-01-01T00:00Z,1\n2024-01-01T00:01Z,2\n"


@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        ("time,count\n", "1", "timestamp,value"),
        (HEAD, "", ""),
        (HEAD + "2024-01-01T00:02Z\n", "4", "2 columns"),
        (HEAD + "yesterday,3\n", "4", "ISO 8601"),
        (HEAD + "2024-01-01T00:02Z,many\n", "4", "number"),
        (HEAD + "2024-01-01T00:02Z,-1\n", "4", "at least 0"),
        (HEAD + "2024-01-01T00:02Z,nan\n", "4", "finite"),
        (HEAD + "2024-01-01T00:03Z,3\n", "4", "60 s"),
        ("timestamp,value\n2024-01-01T00:00Z,1\n", "", "two rows"),
        ("", "", "timestamp,value"),
    ],
)
def test_a_wrong_file_is_refused_with_row_and_column(tmp_path: Path, text: str, where: str, expected: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    if not expected:
        assert traces.read(path).step == 60.0
        return
    with pytest.raises(TraceError) as caught:
        traces.read(path)
    assert f"t.csv{':' + where if where else ''}" in str(caught.value)
    assert expected in str(caught.value)


def test_damaged_gzip_and_missing_files_are_told(tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv.gz"
    whole = gzip.compress(HEAD.encode() * 50)
    bad.write_bytes(whole[:20] + b"\xff\xff\xff" + whole[23:])
    for path in (bad, tmp_path / "none.csv"):
        with pytest.raises(TraceError, match=path.name):
            traces.read(path)


def test_the_load_rises_from_nothing_and_then_follows_the_trace() -> None:
    rates = setup.ramped([10.0] * 30, 1.0)
    assert rates[0] == 0.25
    assert list(rates[:21]) == sorted(rates[:21])
    assert set(rates[20:]) == {10.0}
    assert setup.ramped([10.0], 60.0) == (10.0,)
