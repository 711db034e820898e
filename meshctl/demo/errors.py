"""What the demo raises on purpose; the tree continues :mod:`meshctl.errors`.

::

    UsageError
    └── TraceError         a trace file that cannot be replayed: file, row, column, what was expected
    MeshctlError
    └── DemoError          the demo could not run as meant (exit code 1)
        └── StoppedError   the user stopped it before there was anything to report (130)
"""

from __future__ import annotations

from meshctl.errors import MeshctlError, UsageError


class TraceError(UsageError):
    """The trace file is wrong; the message names the file, the row and the column, and says what was expected."""


class DemoError(MeshctlError):
    """A process did not start, the load did not finish, or the mesh did not run as meant."""

    exit_code = 1


class StoppedError(DemoError):
    """Interrupted before the load began."""

    exit_code = 130
