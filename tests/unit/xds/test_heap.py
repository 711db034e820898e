"""A server keeps free memory for its next large change; an operator may decide otherwise."""

import os
import subprocess
import sys

import pytest

KEPT = """
import resource
from xds.server import heap

KEEPS = {keeps}

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def churn():
    pieces = [b"x" * 300_000 for _ in range(100)]  # 30 MB, each page touched
    pieces.clear()

if KEEPS:
    assert heap.keep()
churn()
before = faults()
for _ in range(5):
    churn()
print(faults() - before)
"""


def faults(keeps: bool) -> int:
    """Pages that five rounds of 30 MB had to get from the system."""
    code = KEPT.format(keeps=keeps)
    known = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=known)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is the C library's of Linux")
def test_what_was_freed_is_used_again() -> None:
    assert faults(keeps=True) < 1_000 < faults(keeps=False)


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_an_operator_decides(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from xds.server import heap

    monkeypatch.setenv(name, "1")
    assert not heap.keep()
