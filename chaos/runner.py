"""Run an experiment by Chaos Toolkit's own command line, one process per experiment.

A subprocess, because Chaos Toolkit installs signal handlers and swallows interrupts. It is the leader of a session
of its own: the terminal's Ctrl-C reaches us alone, and we end it by SIGINT (SIGTERM is swallowed inside a Python
activity), then by SIGKILL. Its log and journal stay in a temporary directory. Whatever happens here, the faults'
lease ends them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np

from chaos.actions import end
from chaos.client import Api, ApiConfig, segment
from chaos.errors import ChaosError, DeadlineError, RunnerError
from chaos.experiment import Experiment, to_chaostoolkit
from chaos.faults import injected
from chaos.journal import JournalReport, parse, read
from chaos.probes import slo_holds
from chaos.verdict import Evidence, ExperimentResult, judge, windows_from

Progress = Callable[[str], None]

#: Seconds that everything but the method may take before the deadline: start of the process, gates, rollbacks.
OVERHEAD = 60.0

#: Seconds that Chaos Toolkit has to roll back after SIGINT.
STOP_GRACE = 10.0

#: Seconds between two looks at the SLO before the start.
SETTLE_POLL = 0.5

#: Seconds before the first fault for which windows are asked, so that their step can be told.
LEAD = 60.0


def run(
    experiment: Experiment,
    api: ApiConfig,
    *,
    experiment_id: int | str | None,
    progress: Progress,
    generator: np.random.Generator,
    deadline: float | None = None,
    patience: float = 0.0,
) -> ExperimentResult:
    """Run, collect the evidence, judge. ``deadline`` is in seconds from now; up to ``patience`` seconds before that,
    the experiment waits for its steady state: starting in a storm would only show the storm.

    Raises :class:`DeadlineError`, :class:`RunnerError`, ``UnreachableError``; on these and on KeyboardInterrupt the
    experiment's faults are deleted first, as well as that can be done.
    """
    document = to_chaostoolkit(experiment, api, experiment_id)
    settle(document["configuration"], experiment, patience, progress)
    try:
        journal = execute(document, deadline or experiment.length + OVERHEAD, progress)
    except BaseException:
        _delete_faults(document["configuration"])
        raise
    report = parse(journal, len(experiment.faults))
    return judge(experiment, report, collect(Api(api), experiment, report), generator)


def settle(configuration: Mapping[str, Any], experiment: Experiment, patience: float, progress: Progress) -> bool:
    """Wait until the entry service meets its SLO, at most ``patience`` seconds; whether it did. The gate asks again."""
    end_of_patience = time.monotonic() + patience
    told = False
    while not slo_holds(experiment.entry, experiment.window, configuration):
        if time.monotonic() >= end_of_patience:
            return False
        if not told:
            progress(f"Waiting up to {patience:g} s for {experiment.entry} to meet its SLO")
            told = True
        time.sleep(SETTLE_POLL)
    return True


def execute(document: Mapping[str, Any], deadline: float, progress: Progress) -> Mapping[str, Any]:
    """Run a Chaos Toolkit document and return its journal."""
    with TemporaryDirectory(prefix="meshctl-chaos-") as folder:
        source, journal = Path(folder, "experiment.json"), Path(folder, "journal.json")
        source.write_text(json.dumps(document))
        with _started(source, journal) as process:
            reader = threading.Thread(target=_forward, args=(process.stderr, progress), daemon=True)
            reader.start()
            try:
                code = process.wait(deadline)
            except subprocess.TimeoutExpired:
                message = f"the experiment took longer than {deadline:g} s; its faults were deleted"
                raise DeadlineError(message) from None
            finally:
                _stop(process)
                reader.join(STOP_GRACE)
        if not journal.exists():
            raise RunnerError(f"Chaos Toolkit ended with exit code {code} and left no journal; see its messages above")
        return read(journal)


def collect(api: Api, experiment: Experiment, report: JournalReport) -> Evidence:
    """What the control plane measured while the experiment ran."""
    arms = api.get("/v1/arms", service=experiment.entry, since=report.started - LEAD)
    slo = float(api.get(f"/v1/slo/{segment(experiment.entry)}", window=experiment.window)["objective"])
    return Evidence(windows_from(arms), slo / 100 if slo > 1 else slo, _counters(api, experiment, report))


def _counters(api: Api, experiment: Experiment, report: JournalReport) -> dict[str, int]:
    """Each fault's final counter: what the sidecars still reported after its end is in it."""
    pairs = zip(experiment.faults, report.faults, strict=True)
    known = ((run.id, fault.kind) for fault, run in pairs if run.id is not None)
    return {name: injected(api.get(f"/v1/faults/{segment(name)}"), kind) for name, kind in known}


def _started(source: Path, journal: Path) -> subprocess.Popen[str]:
    folder = source.parent
    command = [
        *(sys.executable, "-m", "chaostoolkit", "--no-version-check", "--no-log-file"),
        *("--settings", str(folder / "settings.yaml")),  # absent on purpose: the user's settings are not ours
        *("run", "--rollback-strategy", "always", "--journal-path", str(journal), str(source)),
    ]
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise RunnerError(f"Chaos Toolkit cannot be started by {sys.executable}: {error}") from error


def _forward(stream: IO[str] | None, progress: Progress) -> None:
    """Hand over what Chaos Toolkit says, without its own clock and level."""
    for line in stream or ():
        text = line.rstrip().split("] ", 1)[-1]
        if text:
            progress(text)


def _stop(process: subprocess.Popen[str]) -> None:
    """End the process and whatever it started; SIGINT lets it roll back."""
    for sign, grace in ((signal.SIGINT, STOP_GRACE), (signal.SIGKILL, STOP_GRACE)):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, sign)
            process.wait(grace)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _delete_faults(configuration: Mapping[str, Any]) -> None:
    try:
        end(configuration)
    except ChaosError:
        return  # the lease ends them
