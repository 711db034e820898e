"""The demo as a user runs it: real Envoys, the real control plane, load from the shipped trace, a report at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from meshctl.demo.setup import RAMP
from meshctl.demo.topology import BEHAVIOURS, MIX

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(240)]

MESHCTL = [sys.executable, "-c", "from meshctl.cli import main; main()"]


def demo(*arguments: str) -> list[str]:
    return [*MESHCTL, "demo", *arguments]


@contextmanager
def started(state: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A demo in the background, killed at the end if it still runs; its output goes to a file beside ``state``."""
    with (state.parent / "output").open("w") as output:
        argv = demo("--keep-state", str(state), "--no-chaos", "--train-seconds", "0", *arguments)
        process = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def until_said(state: Path, words: str, seconds: float = 60.0) -> None:
    output, deadline = state.parent / "output", time.monotonic() + seconds
    while words not in output.read_text():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.1)


def until_gone(state: Path, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while found := descendants(state):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def descendants(state: Path) -> list[str]:
    """Every process whose command line or folder names the run's folder: Envoys, control plane, load."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "environ"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(state) in line and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict[str, Any], Path]:
    """One run of 45 s: the process, its report, and its folder."""
    folder = tmp_path_factory.mktemp("demo")
    arguments = ("--duration", "45", "--report", str(folder / "report"), "--keep-state", str(folder / "state"))
    argv = demo(*arguments, "--no-chaos", "--train-seconds", "4", "--rate", "20")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, check=False)
    report = folder / "report" / "report.json"
    return done, json.loads(report.read_text()) if report.exists() else {}, folder


Finished = tuple[subprocess.CompletedProcess[str], dict[str, Any], Path]


def test_it_runs_as_meant(finished: Finished) -> None:
    done, report, _ = finished
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (report["ok"], report["problems"]) == (True, [])
    for phase in ("preparing", "training", "starting mesh", "running"):
        assert phase in done.stderr


def test_every_sidecar_is_connected_and_nothing_was_rejected(finished: Finished) -> None:
    facts = finished[1]["summary"]
    assert facts["sidecars"]["connected"] == facts["sidecars"]["expected"] >= len(BEHAVIOURS) + 1
    assert sum(facts["xds"]["nacks"].values()) == 0
    assert facts["xds"]["acks"]["cds"] >= len(BEHAVIOURS) + 1
    assert facts["xds"]["pushes"]["rtds"] > 0
    assert facts["xds"]["heartbeats"] > 0


def test_every_request_is_accounted_for(finished: Finished) -> None:
    load = finished[1]["summary"]["load"]
    assert load["finished"] is True
    assert load["scheduled"] == pytest.approx((45 - RAMP / 2) * 20, rel=0.15)
    assert load["ok"] + sum(load["errors"].values()) == load["scheduled"]
    assert load["ok"] >= 0.9 * load["scheduled"]
    assert load["p50"] < 1.0


def test_the_loop_saw_forecast_and_decided(finished: Finished) -> None:
    report = finished[1]
    facts, ticks = report["summary"]["control"], report["run"]["ticks"]
    assert facts["ticks"] >= 15
    assert facts["forecasts"] > 0
    assert sum(facts["decisions"].values()) > 0
    assert facts["model"]["state"] == "ready"
    assert set(ticks[-1]["services"]) == set(BEHAVIOURS)
    assert ticks[-1]["services"]["frontend"]["demand"] > 0


def test_the_call_graph_carried_the_load(finished: Finished) -> None:
    """Over the run every service saw about its share of requests per user request."""
    report = finished[1]
    totals = {name: sum(tick["services"][name]["demand"] for tick in report["run"]["ticks"]) for name in BEHAVIOURS}
    visits = report["run"]["config"]["visits"]
    assert totals["catalog"] / totals["frontend"] == pytest.approx(visits["catalog"], rel=0.2)
    assert totals["checkout"] / totals["frontend"] == pytest.approx(MIX["/checkout"], abs=0.06)


def test_orders_arrived_as_a_business_metric(finished: Finished) -> None:
    checkout = next(row for row in finished[1]["run"]["services"] if row["name"] == "checkout")
    assert "orders" in checkout["business"]


def test_the_replicas_followed(finished: Finished) -> None:
    """A mean of 20 per second is more than one replica of the frontend serves at the target."""
    report = finished[1]
    assert max(tick["services"]["frontend"]["ready"] for tick in report["run"]["ticks"]) > 1
    assert any(step["service"] == "frontend" for step in report["summary"]["scale_ups"])


def test_it_is_cheap(finished: Finished) -> None:
    usage = finished[1]["summary"]["usage"]
    assert usage["share_of_two_cores"] < 0.75
    assert {"services", "sidecars", "ingress", "load", "control-plane", "supervisor"} <= set(usage["components"])


def test_the_page_is_complete(finished: Finished) -> None:
    page = (finished[2] / "report" / "report.html").read_text()
    assert page.count("<svg") == len(BEHAVIOURS) + 2
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_nothing_is_left(finished: Finished) -> None:
    until_gone(finished[2] / "state", 5.0)


def test_a_control_plane_that_is_killed_comes_back(tmp_path: Path) -> None:
    """Traffic goes on meanwhile, and the report counts both lives."""
    state, report = tmp_path / "state", tmp_path / "report"
    with started(state, "--duration", "25", "--rate", "10", "--report", str(report)) as process:
        until_said(state, "running: ")
        time.sleep(5.0)  # some ticks of the first life
        victims = [p for p in psutil.Process(process.pid).children() if "serve" in p.cmdline()]
        assert len(victims) == 1
        victims[0].kill()
        assert process.wait(90) == 0, (tmp_path / "output").read_text()[-3000:]
    facts = json.loads((report / "report.json").read_text())["summary"]
    assert facts["control_plane_starts"] == 2
    assert facts["load"]["errors"].get("connection", 0) == 0
    assert facts["load"]["ok"] >= 0.95 * facts["load"]["scheduled"]
    until_gone(state)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    state = tmp_path / "state"
    with started(state, "--duration", "120") as process:
        until_said(state, "running: ")
        process.send_signal(number)
        assert process.wait(40) == 130
    until_gone(state, 3.0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="parent-death signals are Linux's")
def test_sigkill_leaves_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with started(state, "--duration", "120") as process:
        until_said(state, "running: ")
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) > 15
        process.kill()
        process.wait(10)
        gone, alive = psutil.wait_procs(children, timeout=15)
    assert not alive, [child.cmdline() for child in alive]
    assert len(gone) == len(children)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--trace", "/no/such/file.csv"), "does not exist"),
        (("--from", "yesterday"), "expected a time"),
        (("--from", "2001-01-01"), "is not in the trace"),
        (("--duration", "0"), "--duration"),
        (("--policy", "magic"), "--policy"),
        (("--report", "/proc/report"), "--report /proc/report"),
    ],
)
def test_wrong_wishes_are_refused_before_anything_starts(arguments: tuple[str, ...], part: str) -> None:
    done = subprocess.run(demo(*arguments), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert part in done.stderr
    assert "Traceback" not in done.stderr
