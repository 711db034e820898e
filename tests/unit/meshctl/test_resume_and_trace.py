"""What survives a restart, and the strict reading of traces."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from meshctl.control.resume import Resume, load, save
from meshctl.errors import UsageError
from meshctl.sources import trace
from xds.model import Limits


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    resume = Resume(
        time=12.5,
        replicas={"frontend": 3},
        limits={("frontend", "catalog"): Limits(4, 5, 6, 7)},
        rate_limits={("ingress", "/"): 40.5},
        enforce=frozenset({("ingress", "/")}),
    )
    save(tmp_path / "resume.json", resume)
    assert load(tmp_path / "resume.json") == resume


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 1, "time": "x"}', "null"])
def test_an_unreadable_file_means_a_first_life(tmp_path: Path, text: str) -> None:
    (tmp_path / "resume.json").write_text(text)
    assert load(tmp_path / "resume.json") == Resume()
    assert load(tmp_path / "absent.json") == Resume()


def write(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def refused(folder: Path, text: str, line: int, complaint: str, *, beside: bool = False) -> None:
    """Reading ``text`` names the line, and says what is wrong."""
    with pytest.raises(UsageError) as caught:
        trace.read(write(folder, text), beside=beside)
    assert f"trace.csv:{line}:" in str(caught.value)
    assert complaint in str(caught.value)


def test_a_trace_reads_iso_times_and_seconds_plain_and_gzipped(tmp_path: Path) -> None:
    text = "timestamp,value\n1995-07-01T00:00:00Z,4\n1995-07-01T00:01:00+00:00,6.5\n"
    plain = trace.read(write(tmp_path, text))
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write(text)
    packed = trace.read(tmp_path / "t.csv.gz")
    assert plain.values.tolist() == packed.values.tolist() == [4.0, 6.5]
    assert plain.times[1] - plain.times[0] == 60.0
    assert plain.before(datetime(1995, 7, 1, 0, 1, tzinfo=UTC)).values.tolist() == [4.0]
    assert plain.since(datetime(1995, 7, 1, 0, 1, tzinfo=UTC)).values.tolist() == [6.5]


@pytest.mark.parametrize(
    ("rows", "line", "complaint"),
    [
        ("time,value\n1,2\n", 1, "header"),
        ("timestamp,value\n1,2\n2\n", 3, "2 columns"),
        ("timestamp,value\n1,2\nyesterday,3\n", 3, "timestamp"),
        ("timestamp,value\n1,2\n2,many\n", 3, "a number"),
        ("timestamp,value\n1,2\n2,-1\n", 3, "at least 0"),
        ("timestamp,value\n1,2\n2,nan\n", 3, "finite"),
        ("timestamp,value\n2,2\n1,3\n", 3, "not later"),
    ],
)
def test_a_row_that_cannot_be_meant_is_named(tmp_path: Path, rows: str, line: int, complaint: str) -> None:
    refused(tmp_path, rows, line, complaint)


def test_further_columns_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "timestamp,value,orders,cpu\n0,2,7,0.5\n60,4,,-1\n120,6,9,2\n")
    with pytest.raises(UsageError, match="expected the header 'timestamp,value'"):
        trace.read(path)
    found = trace.read(path, beside=True)
    assert found.values.tolist() == [2.0, 4.0, 6.0]
    np.testing.assert_array_equal(found.beside["orders"], [7.0, np.nan, 9.0])
    later = found.since(datetime.fromtimestamp(60, UTC))
    assert later.beside["cpu"].tolist() == [-1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("timestamp,value,\n0,2,7\n", 1, "a name of its own"),
        ("timestamp,value,orders,orders\n0,2,7,7\n", 1, "a name of its own"),
        ("value,timestamp,orders\n0,2,7\n", 1, "header"),
        ("timestamp,value,orders\n0,2\n", 2, "3 columns (timestamp,value,orders), got 2"),
        ("timestamp,value,orders\n0,2,many\n", 2, "orders: expected a finite number or nothing, got 'many'"),
        ("timestamp,value,orders\n0,2,inf\n", 2, "orders: expected a finite number"),
        ("timestamp,value,orders\n0,2,nan\n", 2, "orders: expected a finite number"),
    ],
)
def test_a_further_column_that_cannot_be_meant_is_named(tmp_path: Path, text: str, line: int, complaint: str) -> None:
    refused(tmp_path, text, line, complaint, beside=True)


def test_too_short_or_absent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least two rows"):
        trace.read(write(tmp_path, "timestamp,value\n1,2\n"))
    with pytest.raises(UsageError, match="cannot be read"):
        trace.read(tmp_path / "absent.csv")


def test_resampling_keeps_means_and_the_end() -> None:
    assert trace.resample([9, 1, 3, 5, 7], 2).tolist() == [2.0, 6.0]
    assert trace.resample([1, 3], 0.5).tolist() == [1.0, 1.0, 3.0, 3.0]
    assert np.isclose(trace.resample(range(10), 2.5).mean(), 4.5)
