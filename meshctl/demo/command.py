"""What ``meshctl demo`` does: run, report, judge."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from meshctl.errors import UsageError

from . import report
from .run import Demo
from .setup import Options

INTERRUPTED = 130


def demo(options: Options, say: Callable[[str], None]) -> int:
    """Run the demo; the exit code (0: the mesh ran as meant, 1: it did not, 130: interrupted).

    ``say`` hears phases. Raises :class:`~meshctl.errors.MeshctlError` if it could not be run.
    """
    folder = _prepared(options.report)
    run = asyncio.run(_run(options, say))
    summary = report.summarize(run)
    if folder is not None:
        write(folder, summary)
        say(f"report: {folder / 'report.html'}")
    for line in verdict(summary):
        say(line)
    return INTERRUPTED if run["interrupted"] else int(not summary["ok"])


def write(folder: Path, summary: Mapping[str, Any]) -> None:
    """``report.json`` and ``report.html``, each complete or not there."""
    from . import page  # noqa: PLC0415 - matplotlib takes a second to import

    _replace(folder / "report.json", json.dumps(summary, indent=1) + "\n")
    _replace(folder / "report.html", page.render(summary))


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """The run in a few lines."""
    facts = summary["summary"]
    load, usage, seen = facts["load"], facts["usage"], facts["sidecars"]
    early = sum(step["verdict"] == "early" for step in facts["scale_ups"])
    lines = [
        f"requests: {load.get('scheduled', 0)} due, {load.get('ok', 0)} answered by 200, p95 {_ms(load.get('p95'))}",
        f"sidecars: {seen['connected']} of {seen['expected']} connected, NACKs {sum(facts['xds']['nacks'].values())}",
        f"scale-ups: {len(facts['scale_ups'])}, of them {early} ready before they were needed",
        f"cpu: {usage['cores']:.2f} cores on average, {usage['share_of_two_cores']:.0%} of two",
    ]
    if (experiment := facts["experiment"]) and "error" not in experiment:
        lines.append(f"experiment: {experiment['status']}, score {experiment.get('score')}")
    return [*lines, *(f"not as meant: {problem}" for problem in summary["problems"])]


async def _run(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    running = Demo(options, Console(), say)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, running.interrupt)
    return await running.run()


def _prepared(folder: Path | None) -> Path | None:
    """The report's folder, made before the run: a mistake there must not cost a run."""
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--report {folder}: cannot be written to ({error.strerror}); name another folder") from error
    return folder


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
