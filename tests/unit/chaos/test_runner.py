"""Whole experiments by the real Chaos Toolkit in a process of its own, against an API over HTTP."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from chaos import runner
from chaos.client import ApiConfig
from chaos.errors import DeadlineError, RunnerError
from chaos.experiment import Experiment, to_chaostoolkit
from chaos.faults import Fault
from chaos.verdict import ExperimentResult
from tests.unit.chaos.fake_api import ControlPlane

pytestmark = pytest.mark.slow

EXPERIMENT = Experiment(
    "short", "catalog", "frontend", (Fault("abort", 30, duration=1.0),), recovery=2.5, window=1.0, objective=2.0
)
LONG = replace(EXPERIMENT, faults=(Fault("abort", 30, duration=60.0),))


@pytest.fixture(autouse=True)
def _no_report_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated traffic is counted at once."""
    monkeypatch.setattr("chaos.verdict.REPORT_LAG", 0.0)


def run(config: ApiConfig, experiment: Experiment = EXPERIMENT, deadline: float = 40.0) -> ExperimentResult:
    return runner.run(
        experiment,
        config,
        experiment_id=7,
        progress=lambda _: None,
        generator=np.random.default_rng(0),
        deadline=deadline,
    )


def test_a_mesh_that_contains_the_faults_passes(plane: ControlPlane, config: ApiConfig) -> None:
    two = (*EXPERIMENT.faults, Fault("delay", 30, duration=1.0, delay=0.4))
    result = run(config, replace(EXPERIMENT, faults=two, pause=1.5))
    assert (result.status, result.score) == ("passed", 100.0), result.reason
    assert [fault.injected > 0 for fault in result.faults] == [True, True]
    assert not plane.active()


def test_a_mesh_that_lets_every_fault_through_deviates(plane: ControlPlane, config: ApiConfig) -> None:
    plane.leak = 1.0
    result = run(config)
    assert result.status == "deviated"
    assert result.lower == 0.0
    assert result.faults[0].gap > 0.1


def test_no_verdict_without_proof_of_injection(plane: ControlPlane, config: ApiConfig) -> None:
    plane.leak, plane.counting = 1.0, False
    result = run(config)
    assert (result.status, result.score) == ("inconclusive", None)


def test_nothing_is_injected_without_traffic(plane: ControlPlane, config: ApiConfig) -> None:
    plane.traffic = False
    assert run(config).status == "inconclusive"
    assert not plane.faults


def test_the_start_waits_for_a_steady_state(plane: ControlPlane, config: ApiConfig) -> None:
    plane.traffic = False
    told: list[str] = []

    def progress(message: str) -> None:
        told.append(message)
        plane.traffic = True  # traffic begins when the waiting is announced

    configuration = to_chaostoolkit(EXPERIMENT, config)["configuration"]
    assert runner.settle(configuration, EXPERIMENT, 20.0, progress)
    assert told == ["Waiting up to 20 s for frontend to meet its SLO"]


def test_patience_ends(plane: ControlPlane, config: ApiConfig) -> None:
    plane.traffic = False
    configuration = to_chaostoolkit(EXPERIMENT, config)["configuration"]
    assert not runner.settle(configuration, EXPERIMENT, 0.1, lambda _: None)


def test_nothing_is_left_in_the_working_directory(
    plane: ControlPlane, config: ApiConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.traffic = False
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    run(config)
    assert set(tmp_path.iterdir()) == before


def test_the_deadline_ends_process_and_fault(plane: ControlPlane, config: ApiConfig) -> None:
    with pytest.raises(DeadlineError, match="longer than 4 s"):
        run(config, LONG, deadline=4.0)
    assert plane.faults
    assert not plane.active()
    assert not children()


def test_an_interrupt_ends_process_and_fault(plane: ControlPlane, config: ApiConfig) -> None:
    with interrupted_when(plane.injecting.is_set), pytest.raises(KeyboardInterrupt):
        run(config, LONG)
    assert not plane.active()
    assert not children()


def test_a_process_that_ignores_sigint_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "STOP_GRACE", 0.3)
    stubborn = (
        "import signal,time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", stubborn], stdout=-1, stderr=-1, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        runner._stop(process)
        assert process.returncode == -signal.SIGKILL


def test_a_document_that_chaos_toolkit_refuses_is_an_error(config: ApiConfig) -> None:
    messages: list[str] = []
    with pytest.raises(RunnerError, match="left no journal"):
        runner.execute({"title": "no method"}, 20.0, messages.append)
    assert messages


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "chaostoolkit" in " ".join(child.cmdline())]


class interrupted_when:  # noqa: N801 (reads as a statement)
    """Deliver SIGINT to the main thread once ``condition`` holds.

    With a handler of its own: a test run that a shell started in the background ignores SIGINT.
    """

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._thread = threading.Thread(target=self._wait, args=(condition,))

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        signal.signal(signal.SIGINT, self._before)

    @staticmethod
    def _wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)
