"""How values become cells, and cells tables."""

from __future__ import annotations

import json

import pytest
import yaml

from meshctl.cli import output
from meshctl.cli.output import Column, Row

COLUMNS = (
    Column("NAME", lambda row: row["name"]),
    Column("SIZE", lambda row: row["size"], wide=True),
    Column("STATUS", lambda row: row["status"]),
)
ROWS: list[Row] = [
    {"name": "a", "size": 1.5, "status": "SYNCED(4s)"},
    {"name": "longer", "size": None, "status": "NACKED"},
]
DOCUMENT = {"rows": ROWS}


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (330, "5m30s"),
        (11_520, "3h12m"),
        (187_200, "2d4h"),
        (-3, "0s"),
        (None, None),
    ],
)
def test_ages_read_as_kubectl_prints_them(length: float | None, text: str | None) -> None:
    assert output.age(length) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        (True, "yes"),
        (False, "no"),
        (0.01234, "0.0123"),
        (1.5, "1.5"),
        (12345.6, "12346"),
        (7, "7"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert output.cell_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0123, "12ms"), (1.25, "1.25s"), (None, None)])
def test_latencies(value: float | None, text: str | None) -> None:
    assert output.seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.99954, "99.95%"), (1.0, "100%"), (None, None)])
def test_percentages(value: float | None, text: str | None) -> None:
    assert output.percent(value) == text


def test_a_status_carries_its_age_where_it_has_one() -> None:
    assert output.state("STALE", 12.7) == "STALE(12s)"
    assert output.state("NOT-SENT", None) == "NOT-SENT"


def test_columns_are_aligned_and_lines_have_no_trailing_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(DOCUMENT, ROWS, COLUMNS, "table")
    assert capsys.readouterr().out == "NAME     STATUS\na        SYNCED(4s)\nlonger   NACKED\n"


def test_wide_adds_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(DOCUMENT, ROWS, COLUMNS, "wide")
    assert capsys.readouterr().out.splitlines()[0] == "NAME     SIZE   STATUS"


def test_an_empty_list_prints_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    output.show({"rows": []}, [], COLUMNS, "table")
    assert capsys.readouterr().out == "NAME   STATUS\n"


def test_names_come_one_a_line_and_none_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(DOCUMENT, ROWS, COLUMNS, "name")
    output.show({"rows": []}, [], COLUMNS, "name")
    assert capsys.readouterr().out == "a\nlonger\n"


def test_json_and_yaml_are_the_whole_document(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(DOCUMENT, ROWS, COLUMNS, "json")
    assert json.loads(capsys.readouterr().out) == DOCUMENT
    output.show(DOCUMENT, ROWS, COLUMNS, "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == DOCUMENT


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False)],
)
def test_colour_only_on_a_terminal_that_wants_it(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    text = output.table(ROWS, COLUMNS)
    assert ("\x1b[" in text) is coloured
    assert "SYNCED" in text
