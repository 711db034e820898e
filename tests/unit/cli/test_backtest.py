"""``meshctl forecast backtest`` from end to end on small files, and what it says to wrong ones."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from click.testing import CliRunner, Result

from forecasting import engines
from forecasting.calendar import Holidays
from forecasting.evaluate import report
from forecasting.evaluate.contest import contestants
from forecasting.models.prophet import MissingPackageError
from forecasting.series import Series
from meshctl.cli import main
from meshctl.cli.backtest import USUAL
from meshctl.history.database import Database

START = 1_700_000_100.0
STEP = 300.0


def demand(length: int = 600, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    rng = np.random.default_rng(seed)
    return np.asarray(50 + 20 * np.sin(2 * np.pi * np.arange(length) / 288) + rng.normal(0, 3, length))


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str = "shop", *, without: range = range(0), length: int = 600, iso: bool = False) -> Path:
        rows = []
        for number, value in enumerate(demand(length)):
            moment = START + STEP * number
            stamp = datetime.fromtimestamp(moment, UTC).isoformat() if iso else f"{moment:.0f}"
            rows += [] if number in without else [f"{stamp},{value:.3f}\n"]
        path = tmp_path / f"{name}.csv"
        path.write_text("timestamp,value\n" + "".join(rows))
        return path

    return write


def invoke(*arguments: object) -> Result:
    """Run the command; without the mixture, which trains for minutes, where the test names no models."""
    if "--models" not in arguments:
        arguments = (*arguments, "--models", "last,last+residuals,seasonal_naive,ewma")
    return CliRunner().invoke(main, ["forecast", "backtest", *map(str, arguments)], prog_name="meshctl")


def refused(*arguments: object) -> str:
    """The message of a usage error, which never prints data."""
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    return result.stderr


def table(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()]


def document(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_help_names_the_models_that_take_part_by_default() -> None:
    assert list(USUAL) == [one.name for one in contestants()]
    result = CliRunner().invoke(main, ["forecast", "backtest", "--help"], prog_name="meshctl")
    assert f"[default: {', '.join(USUAL)}]" in re.sub(r"\s+", " ", result.stdout)


# -- what comes out --


def test_the_table_has_every_model_and_step_and_the_summary(csv: Callable[..., Path]) -> None:
    result = invoke("--csv", csv(), "--models", "last,ewma")
    head, *rows = table(result)
    assert head == ["NAME", "MODEL", "STEP", "WAPE", "RELATIVE", "COVER-90", "WORST-90"]
    assert [row[:3] for row in rows[:4]] == [["shop", "last", step] for step in ("1", "5", "12")] + [
        ["shop", "ewma", "1"]
    ]
    assert [row[0] for row in rows] == ["shop"] * 6 + ["ALL(1)"] * 6
    assert [row[4] for row in rows[:3]] == ["1", "1", "1"]
    assert float(rows[3][4]) < 1
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert result.stderr == "1 of 1: shop\n"


def test_wide_has_every_figure(csv: Callable[..., Path]) -> None:
    head = table(invoke("--csv", csv(), "--models", "last", "-o", "wide"))[0]
    assert {"MASE", "PINBALL-90", "PINBALL-99", "COVER-99", "WORST-99", "SECONDS"} < set(head)


def test_json_html_and_output_hold_the_same_report(csv: Callable[..., Path], tmp_path: Path) -> None:
    page, file = tmp_path / "out.html", tmp_path / "out.json"
    found = document(invoke("--csv", csv(), "--html", page, "--json", file, "-o", "json"))
    assert json.loads(file.read_text()) == found
    assert [one["model"] for one in found["summary"]] == ["last", "last+residuals", "seasonal_naive", "ewma"]
    assert page.read_text().startswith("<!doctype html>")
    assert "shop" in page.read_text()


def test_the_scores_are_those_of_the_library(csv: Callable[..., Path]) -> None:
    path = csv()
    values = np.array([float(line.split(",")[1]) for line in path.read_text().split()[1:]])
    settings = report.Settings(("ewma",), horizon=6, origins=50)
    expected = report.document(report.evaluate(settings, Series("shop", START, STEP, values, 288)))
    found = document(invoke("--csv", path, "--models", "ewma", "--horizon", 6, "--origins", 50, "-o", "json"))[
        "series"
    ][0]
    assert found["models"][0]["scores"] == expected["models"][0]["scores"]
    assert {key: found[key] for key in ("start", "step", "season", "length", "origins")} == {
        key: expected[key] for key in ("start", "step", "season", "length", "origins")
    }


def test_several_series_over_processes_come_in_the_order_given(csv: Callable[..., Path]) -> None:
    names = ["zebra", "ant", "mule"]
    files = [part for name in names for part in ("--csv", csv(name))]
    found = document(invoke(*files, "--models", "last", "--jobs", 2, "-o", "json"))
    assert [one["name"] for one in found["series"]] == names


# -- CSV --


def test_a_missing_line_is_a_gap_and_the_step_is_found(csv: Callable[..., Path]) -> None:
    found = document(invoke("--csv", csv(without=range(100, 130), iso=True), "--models", "last", "-o", "json"))
    one = found["series"][0]
    assert (one["length"], one["gaps"], one["step"], one["start"]) == (600, 30, STEP, START)


def test_a_compressed_file_is_read(csv: Callable[..., Path], tmp_path: Path) -> None:
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(csv().read_bytes()))
    assert table(invoke("--csv", packed, "--models", "last"))[1][0] == "packed"


def test_two_files_of_one_name_are_told_apart(csv: Callable[..., Path], tmp_path: Path) -> None:
    first = csv()
    (tmp_path / "b").mkdir()
    second = tmp_path / "b" / "shop.csv"
    second.write_bytes(first.read_bytes())
    found = document(invoke("--csv", first, "--csv", second, "--models", "last", "--jobs", 1, "-o", "json"))
    assert [one["name"] for one in found["series"]] == [str(first), str(second)]


def test_the_season_is_a_day_unless_given(csv: Callable[..., Path]) -> None:
    path = csv()
    seasons = [
        document(invoke("--csv", path, "--models", "last", "-o", "json", *more))["series"][0]["season"]
        for more in ([], ["--season", 7])
    ]
    assert seasons == [288, 7]


@pytest.mark.parametrize(
    ("number", "line", "expected"),
    [
        (3, "1700000400;12", r"bad.csv:3: expected 2 columns .*; correct the line, or leave it out"),
        (5, "yesterday,12", r"bad.csv:5: timestamp: expected ISO 8601 .* got 'yesterday'; correct the line"),
        (4, "1700000700,many", r"bad.csv:4: value: expected a number, got 'many'; correct the line"),
        (4, "1700000700,-3", r"bad.csv:4: value: expected a finite number of at least 0"),
        (1, "when,what", r"bad.csv:1: expected the header 'timestamp,value', got 'when,what'"),
        (9, "1600000000,3", r"bad.csv:9: timestamp '1600000000' is not later than the row before; sort the file"),
    ],
)
def test_a_bad_line_is_named(csv: Callable[..., Path], number: int, line: str, expected: str) -> None:
    path = csv("bad")
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("\n".join(lines))
    message = refused("--csv", path)
    assert pytest.raises(AssertionError, match=expected).matches(AssertionError(message)), message


def test_irregular_times_are_named(csv: Callable[..., Path]) -> None:
    path = csv()
    path.write_text(path.read_text().replace(f"\n{START + 10 * STEP:.0f},", f"\n{START + 10 * STEP + 111:.0f},"))
    message = refused("--csv", path)
    assert f"{datetime.fromtimestamp(START + 10 * STEP + 111, UTC).isoformat()} is not on the grid of 300 s" in message


def test_two_rows_in_one_step_are_refused(csv: Callable[..., Path]) -> None:
    assert "is not on the grid of 6000 s; resample the file" in refused("--csv", csv(), "--step", "100m")


def test_a_wrong_year_does_not_ask_for_all_the_memory(csv: Callable[..., Path]) -> None:
    path = csv()
    path.write_text(path.read_text() + f"{START + 1e8 * STEP:.0f},5\n")
    assert "100000001 steps of 300 s, most of them gaps; correct its times" in refused("--csv", path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    message = refused("--csv", tmp_path / "none.csv")
    assert "none.csv: cannot be read" in message
    assert "correct the line" not in message


def test_what_is_too_short_is_left_out_and_said(csv: Callable[..., Path]) -> None:
    result = invoke("--csv", csv("short", length=40), "--csv", csv("long"), "--models", "last", "-o", "json")
    assert [one["name"] for one in document(result)["series"]] == ["long"]
    assert "left out short: 40 steps, fewer than the 61 that --horizon 12 needs" in result.stderr
    assert "no series of at least 61 steps" in refused("--csv", csv("short", length=40))


# -- options --


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "give one source of series: --csv FILE, --prometheus URL --query Q, or --store DIR"),
        (["--csv", "a.csv", "--store", "d"], "give one source"),
        (["--csv", "a.csv", "--query", "q"], "--query does not go with --csv"),
        (["--csv", "a.csv", "--service", "s"], "--service does not go with --csv"),
        (["--prometheus", "http://127.0.0.1:9", "--query", "q"], "--start is missing"),
        (["--csv", "a.csv", "--models", "last,lstn"], "no model is called 'lstn'; choose from last, "),
        (
            ["--csv", "a.csv", "--html", "/no/such/x.html"],
            "there is no folder /no/such; choose another file for --html",
        ),
        (["--csv", "a.csv", "--horizon", "0"], "--horizon"),
        (["--csv", "a.csv", "--step", "soon"], "expected a duration such as"),
        (["--csv", "a.csv", "--step", "0s"], "expected more than 0 seconds"),
        (["--store", "d", "--start", "noon"], "expected a time such as"),
        (["--store", "/no/such"], "/no/such/history.db: no such file; name the state directory"),
        (["--csv", "a.csv", "--engine", "spark"], "'spark' is not one of"),
    ],
)
def test_usage_errors(arguments: list[str], expected: str) -> None:
    assert expected in " ".join(refused(*arguments).split())


def test_a_missing_ray_says_how_to_get_it(csv: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'meshctl[ray]'" in refused("--csv", csv(), "--engine", "ray")


def test_a_missing_prophet_says_how_to_get_it(csv: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise MissingPackageError("forecasting model 'prophet' needs package prophet: pip install 'meshctl[prophet]'")

    monkeypatch.setattr(engines, "run", lacking)  # whether it is installed here or not
    assert "pip install 'meshctl[prophet]'" in refused("--csv", csv(), "--models", "prophet")


def test_a_lost_process_is_an_internal_error(csv: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise engines.EngineError("a worker process died; use fewer jobs")

    monkeypatch.setattr(engines, "run", broken)
    result = invoke("--csv", csv())
    assert (result.exit_code, result.stdout) == (70, "")
    assert result.stderr == "error: a worker process died; use fewer jobs\n"


# -- resume --


def test_finished_series_are_not_computed_again(csv: Callable[..., Path], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    arguments = ["--models", "last", "--resume", kept, "-o", "json", "--jobs", 1]
    first = invoke("--csv", csv("a"), *arguments)
    assert first.stderr == "1 of 1: a\n"
    second = invoke("--csv", csv("a"), "--csv", csv("b"), *arguments)
    assert second.stderr == "1 of 1: b\n"
    third = invoke("--csv", csv("a"), "--csv", csv("b"), *arguments)
    assert third.stderr == ""
    assert document(third) == document(second)
    assert document(third)["series"][0] == document(first)["series"][0]
    assert len(list(kept.iterdir())) == 2


@pytest.mark.parametrize("change", [["--horizon", 5], ["--season", 7], ["--origins", 9], ["--models", "ewma"]])
def test_other_settings_are_computed_anew(csv: Callable[..., Path], tmp_path: Path, change: list[object]) -> None:
    arguments = ["--csv", csv(), "--models", "last", "--resume", tmp_path / "kept"]
    invoke(*arguments)
    assert invoke(*arguments, *change).stderr == "1 of 1: shop\n"
    assert len(list((tmp_path / "kept").iterdir())) == 2


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"name": "shop"}', b"\xff"])
def test_a_damaged_result_is_computed_again(csv: Callable[..., Path], tmp_path: Path, damage: bytes) -> None:
    arguments = ["--csv", csv(), "--models", "last", "--resume", tmp_path / "kept"]
    whole = table(invoke(*arguments))
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(damage)
    again = invoke(*arguments)
    assert f"{file}: cannot be read" in again.stderr
    assert table(again) == whole
    assert invoke(*arguments).stderr == ""


def test_what_was_finished_before_an_error_is_kept(
    csv: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = report.evaluate

    def failing(settings: report.Settings, series: Series) -> report.SeriesReport:
        if series.name == "b":
            raise KeyboardInterrupt
        return whole(settings, series)

    arguments = ["--csv", csv("a"), "--csv", csv("b"), "--models", "last", "--resume", tmp_path / "kept", "--jobs", 1]
    monkeypatch.setattr(report, "evaluate", failing)
    assert invoke(*arguments).exit_code == 130
    monkeypatch.setattr(report, "evaluate", whole)
    assert invoke(*arguments).stderr == "1 of 1: b\n"


def test_a_folder_that_cannot_be_written_is_named(csv: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refused("--csv", csv(), "--resume", tmp_path / "file" / "kept", "--jobs", 1)
    assert "choose another folder for --resume" in message


# -- the store of a control plane --


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Ticks of 5 s that come a little late, each stored at the middle of its interval."""
    late = np.random.default_rng(1).uniform(0, 0.2, 600)
    times = START + 5.0 * np.arange(600) + 2.5 + late
    with Database.open(tmp_path / "history.db") as database:
        for seed, name in enumerate(("catalog", "frontend")):
            values = demand(seed=seed)
            rows = [(f"demand/{name}", float(t), float(v)) for t, v in zip(times, values, strict=True)]
            database.append_samples(rows[:300] + rows[310:])
        database.append_samples([("p99/catalog", float(times[0]), 1.0), ("demand/new", float(times[0]), 1.0)])
    return tmp_path


def test_demand_is_read_from_the_store(store: Path) -> None:
    found = document(invoke("--store", store, "--models", "last", "--jobs", 1, "-o", "json"))
    assert [one["name"] for one in found["series"]] == ["catalog", "frontend"]
    assert {(one["step"], one["length"], one["gaps"]) for one in found["series"]} == {(5.0, 600, 10)}


def test_one_service_of_the_store(store: Path) -> None:
    found = document(invoke("--store", store, "--service", "frontend", "--models", "last", "-o", "json"))
    assert [one["name"] for one in found["series"]] == ["frontend"]
    message = refused("--store", store, "--service", "frontent")
    assert "no demand of 'frontent'; it has catalog, frontend, new" in message


# -- what is known beside a series --


def following(length: int = 600) -> tuple[list[float], list[float]]:
    """Orders, and a demand that follows them two steps later."""
    rng = np.random.default_rng(7)
    orders = 50 + 25 * np.sin(np.cumsum(rng.normal(0, 0.5, length + 2)))
    return orders[2:].tolist(), (3 * orders[:-2] + rng.normal(0, 1, length)).tolist()


def relative(found: dict[str, Any], model: str, step: int = 1) -> float:
    ((one,),) = [[m for m in one["models"] if m["model"] == model] for one in found["series"]]
    (score,) = [score for score in one["scores"] if score["step"] == step]
    return float(score["relative_wape"])


def test_further_columns_of_a_csv_are_told_to_the_models(tmp_path: Path) -> None:
    orders, values = following()
    rows = [
        f"{START + STEP * n:.0f},{value:.3f},{'' if n % 50 == 7 else f'{order:.3f}'},{n % 3}\n"
        for n, (value, order) in enumerate(zip(values, orders, strict=True))
    ]
    file = tmp_path / "shop.csv"
    file.write_text("timestamp,value,orders,noise\n" + "".join(rows))
    found = document(invoke("--csv", file, "--models", "last,ewma,covariates", "-o", "json"))
    assert relative(found, "covariates") < 0.3
    assert relative(found, "ewma") > 0.9


def test_what_was_measured_beside_stored_demand_is_told_to_the_models(tmp_path: Path) -> None:
    orders, values = following(700)
    times = [START + 5.0 * n + 2.6 for n in range(700)]
    with Database.open(tmp_path / "history.db") as database:
        for name, numbers in (("demand/shop", values), ("business/orders/shop", orders), ("cpu/shop", values)):
            database.append_samples(list(zip([name] * 700, times, numbers, strict=True)))
        database.append_samples([("cpu/quiet", times[0], 1.0)])
    found = document(invoke("--store", tmp_path, "--models", "last,covariates", "-o", "json"))
    assert relative(found, "covariates") < 0.3


def test_what_is_known_beside_a_series_decides_the_result(tmp_path: Path) -> None:
    file, kept = tmp_path / "shop.csv", tmp_path / "kept"
    for seed in (0, 1):
        noise = np.random.default_rng(seed).normal(size=600)
        rows = [
            f"{START + STEP * n:.0f},{v:.3f},{x:.3f}\n" for n, (v, x) in enumerate(zip(demand(), noise, strict=True))
        ]
        file.write_text("timestamp,value,orders\n" + "".join(rows))
        assert invoke("--csv", file, "--models", "last", "--resume", kept).stderr == "1 of 1: shop\n"
    assert len(list(kept.iterdir())) == 2


def test_holidays_are_told_to_the_models(tmp_path: Path) -> None:
    hours = np.arange(24 * 500)
    begin = datetime(2024, 11, 1, tzinfo=UTC)
    day = begin.timestamp() + 3600.0 * hours
    closed = np.isfinite(Holidays("DE", "BE").begins(day))
    values = (100 + 30 * np.sin(2 * np.pi * hours / 24)) * np.where(closed, 0.2, 1.0)
    file = tmp_path / "shop.csv"
    file.write_text("timestamp,value\n" + "".join(f"{t:.0f},{v:.3f}\n" for t, v in zip(day, values, strict=True)))
    arguments = ["--csv", file, "--models", "last,covariates", "--origins", 50, "-o", "json"]
    told = document(invoke(*arguments, "--holidays", "DE-BE"))
    untold = document(invoke(*arguments))
    assert relative(told, "covariates") < 1.0
    assert np.isnan(float(untold["series"][0]["models"][1]["scores"][0]["relative_wape"] or "nan"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--holidays", "DEE"], "--holidays: no holidays are known for 'DEE'"),
        (["--holidays", "DE-XX"], "has no subdivision 'XX'"),
        (
            ["--holidays", "DE", "--zone", "Europe/Berln"],
            "--zone: no time zone 'Europe/Berln'; did you mean Europe/Berlin",
        ),
        (["--zone", "Europe/Berlin"], "give --holidays as well"),
    ],
)
def test_an_unknown_place_is_refused(csv: Callable[..., Path], arguments: list[str], expected: str) -> None:
    assert expected in " ".join(refused("--csv", csv(), *arguments).split())


# -- Prometheus --


class Api(BaseHTTPRequestHandler):
    """One series, and the token that it was asked with."""

    tokens: list[str | None]

    def do_GET(self) -> None:
        self.tokens.append(self.headers["Authorization"])
        asked = {key: value[0] for key, value in parse_qs(urlsplit(self.path).query).items()}
        start, end, step = (float(asked[key]) for key in ("start", "end", "step"))
        values = [[start + n * step, str(v)] for n, v in enumerate(demand(int((end - start) / step) + 1))]
        result = [{"metric": {"job": "shop"}, "values": values}]
        body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Silent."""


@pytest.fixture
def prometheus() -> Iterator[str]:
    Api.tokens = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_series_come_from_prometheus(prometheus: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("abc\n")
    when = ["--start", "2026-01-01T00:00Z", "--end", "2026-01-03", "--step", "5m", "--prometheus-token-file", token]
    result = invoke("--prometheus", prometheus, "--query", "rps", *when, "--models", "last", "-o", "json")
    (one,) = document(result)["series"]
    first = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert (one["name"], one["length"], one["step"], one["start"]) == ('{job="shop"}', 577, 300.0, first - 300.0)
    assert Api.tokens == ["Bearer abc"]


def test_nobody_at_the_url_exits_69() -> None:
    when = ["--start", 0, "--end", 100_000, "--step", 300]
    result = invoke("--prometheus", "http://127.0.0.1:9", "--query", "rps", *when)
    assert (result.exit_code, result.stdout) == (69, "")
    assert "no answer from http://127.0.0.1:9" in result.stderr


# -- progress and interruption --


def test_a_terminal_gets_a_bar_and_stdout_only_data(csv: Callable[..., Path]) -> None:
    terminal, end = os.openpty()
    arguments = [sys.executable, "-m", "meshctl.cli", "forecast", "backtest", "--csv", str(csv()), "--models", "last"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm"}
    found = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=end, env=environment, check=True, text=True)
    os.close(end)
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        shown = screen.read(100_000)
    assert b"\x1b[" in shown
    assert b"1 of 1" not in shown
    assert found.stdout.startswith("NAME")
    assert "\x1b" not in found.stdout


def test_ctrl_c_exits_130_and_leaves_no_process(csv: Callable[..., Path], tmp_path: Path) -> None:
    """A model that never ends, in two workers; the pipe that all of them hold closes when the last is gone."""
    script = tmp_path / "endless.py"
    script.write_text(
        "import os, signal, sys\n"
        "from forecasting.evaluate import contest\n"
        "def wait(*_):\n"
        "    os.write(1, b'working\\n')\n"
        "    signal.pause()\n"
        "contest.CONTESTANTS = {'endless': wait}\n"
        "from meshctl.cli import main\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    files = [part for name in ("a", "b") for part in ("--csv", str(csv(name)))]
    arguments = [sys.executable, str(script), "forecast", "backtest", *files, "--models", "endless", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"working\n"] * 2
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == b""
        assert process.wait() == 130
        assert b"Traceback" not in process.stderr.read()
