"""A progress bar on standard error: redrawn on a terminal, a line per tenth elsewhere."""

from __future__ import annotations

import sys
import threading
from typing import TextIO

_WIDTH = 30


class Progress:
    """Called from any thread as ``progress(done, total, text)``."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self._title = title
        self._stream = stream or sys.stderr
        self._tenth = -1
        self._lock = threading.Lock()

    def __call__(self, done: int, total: int, text: str) -> None:
        share = done / total if total else 1.0
        with self._lock:
            if self._stream.isatty():
                self._draw(share, text)
            elif int(share * 10) > self._tenth:
                self._tenth = int(share * 10)
                self._stream.write(f"{self._title}: {share:.0%} {text}\n")
                self._stream.flush()

    def _draw(self, share: float, text: str) -> None:
        filled = int(share * _WIDTH)
        end = "\n" if share >= 1.0 else ""
        self._stream.write(
            f"\r{self._title} [{'#' * filled}{'.' * (_WIDTH - filled)}] {share:4.0%} {text[:30]:<30}{end}"
        )
        self._stream.flush()
