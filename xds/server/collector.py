"""Python's garbage collector beside thousands of streams."""

from __future__ import annotations

import gc

#: Allocations between two looks at young objects, and collections of one generation for one of the next. gRPC leaves a
#: cycle of five objects (a kilobyte) per call, for the first look: of these there are never more than four thousand.
THRESHOLDS = (20_000, 20, 100)


def calm() -> None:
    """Collect once, exempt what is there now, and collect less often from now on.

    An owner of the process calls it when its long-lived objects exist. A stream is some hundred objects that live for
    hours and form no cycles; with Python's thresholds (700, 10, 10) they are scanned again and again while others
    arrive, which costs a fifth of the CPU of a storm of reconnections.
    https://docs.python.org/3/library/gc.html#gc.freeze
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
