"""Memory that large responses come from and go back to, over and over.

A change of one cluster among a thousand sends every stream a quarter of a megabyte, twice in memory until the client
has read it. The C library's allocator returns such pieces to the system as soon as they are free, and the system hands
them out again one zeroed page after the other: a third of what such a change costs. So a server keeps up to
:data:`KEPT` bytes that are free for the next change.
"""

from __future__ import annotations

import ctypes
import os

#: Bytes at the top of the heap that are kept when they are free, and the size from which a piece is never part of it.
KEPT, APART = 128 << 20, 4 << 20

#: Parameters of mallopt, and what an operator sets instead. https://man7.org/linux/man-pages/man3/mallopt.3.html
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep() -> bool:
    """Keep free memory from now on; False if the operator decided otherwise, or where the C library is another."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name in os.environ for name in _VARIABLES):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, KEPT) and mallopt(_MMAP_THRESHOLD, APART))
