"""The results of a backtest: worked out by several processes, kept one by one, and not worked out again."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from meshctl.cli import output as out
from meshctl.errors import UsageError

if TYPE_CHECKING:
    from forecasting.evaluate.report import Report, SeriesReport, Settings
    from forecasting.series import Series

    Finished = Callable[[int, SeriesReport], None]


@dataclass(frozen=True, slots=True)
class Workers:
    """Who works: an ``engine``, and how many ``jobs`` at once (None: one per core)."""

    engine: Literal["local", "ray"]
    jobs: int | None

    def work(self, settings: Settings, series: Sequence[Series], finished: Finished) -> None:
        """Evaluate every one of ``series``, and tell each result as soon as it is there."""
        from forecasting.engines import run
        from forecasting.evaluate.report import evaluate

        run(partial(evaluate, settings), series, engine=self.engine, jobs=self.jobs, finished=finished)


def report(series: Sequence[Series], settings: Settings, resume: Path | None, workers: Workers) -> Report:
    """What is kept already, and the rest computed; each result is kept as soon as it is there."""
    from forecasting.evaluate.report import Report, digest

    files = [None if resume is None else resume / f"{digest(settings, one)}.json" for one in series]
    found = {number: kept for number, file in enumerate(files) if (kept := _kept(file)) is not None}
    missing = [number for number in range(len(series)) if number not in found]
    with _progress(len(missing)) as tell:

        def finished(index: int, result: SeriesReport) -> None:
            found[missing[index]] = result
            _keep(files[missing[index]], result)
            tell(result.name)

        workers.work(settings, [series[number] for number in missing], finished)
    return Report(settings.horizon, tuple(found[number] for number in range(len(series))))


def _kept(file: Path | None) -> SeriesReport | None:
    """The result in ``file``; None where there is none, or none that can be read (it is computed again)."""
    from forecasting.evaluate.report import ReportError, series_of

    if file is None or not file.is_file():
        return None
    try:
        return series_of(json.loads(file.read_bytes()))
    except (OSError, ValueError, ReportError) as error:
        out.say(f"{file}: cannot be read ({error}); computed again")
        return None


def _keep(file: Path | None, result: SeriesReport) -> None:
    """Whole or not at all: an interrupted write leaves no half result."""
    from forecasting.evaluate.report import document

    if file is None:
        return
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(document(result), allow_nan=False), encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}; choose another folder for --resume") from error


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, else a line for every series; on stderr."""
    if total and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("Series", total=total)
            yield lambda name: bar.update(task, advance=1, description=name.replace("[", r"\["))
        return
    done: list[str] = []

    def say(name: str) -> None:
        done.append(name)
        out.say(f"{len(done)} of {total}: {name}")

    yield say
