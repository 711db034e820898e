"""The process that trains: ``python -m meshctl.control.trainer FOLDER PARENT``. It steps back and ends with its parent.

FOLDER holds the order (:func:`meshctl.control.training.write`); what comes of it is written there, too: ``progress``
while it works, ``outcome`` at the end. The models themselves go to the registry. Only the standard library is imported
before the process has taken its low priority.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OUTCOME, PROGRESS, LOG = "outcome.json", "progress.json", "log"

_NICE = 10
_PR_SET_PDEATHSIG = 1


def main(folder: Path, parent: int) -> int:
    """0 when a generation was kept; 1, and why, when that was not possible."""
    end_with(parent)
    os.nice(_NICE)
    from meshctl.control import training  # noqa: PLC0415 - see above

    try:
        series, order = training.read(folder)
        number = training.learn(series, order, _Reporter(folder), time.process_time)
    except training.ForecastingError as error:
        put(folder / OUTCOME, {"error": str(error)})
        return 1
    put(folder / OUTCOME, {"generation": number})
    return 0


def end_with(parent: int) -> None:
    """Be killed when ``parent`` is: by the kernel where it can do that (prctl(2)), else by looking once a second."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def put(path: Path, document: Mapping[str, Any]) -> None:
    """Write at once or not at all; a reader never sees half of it."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document))
    fresh.replace(path)


class _Reporter:
    """Writes progress, at most once a second."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PROGRESS
        self._next = 0.0

    def __call__(self, done: int, total: int, text: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 1.0
            with contextlib.suppress(OSError):
                put(self._path, {"done": done, "total": total, "text": text})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
