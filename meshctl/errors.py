"""Everything that meshctl raises on purpose.

::

    MeshctlError                 exit code 70
    ├── UsageError               2    the command line or a file is wrong
    │   └── MeshConfigError      2    the mesh file is wrong; holds every problem
    ├── UnreachableError         69   the control plane or the platform does not answer
    ├── ApiError                 70   the control plane answered with an error
    ├── PlatformError            70   the platform refused what was asked of it
    ├── HistoryError             70   the history database cannot be used
    └── DeadlineError            124  it did not happen in time

A message says what was wrong, where (file, line, field), what was expected, and what to do. Commands turn an
error into its ``exit_code`` and print the message on stderr.
"""

from __future__ import annotations

from collections.abc import Sequence


class MeshctlError(Exception):
    """Root of the tree; ``str(error)`` is the message for the user."""

    exit_code = 70

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UsageError(MeshctlError):
    """What the user asked for cannot be meant."""

    exit_code = 2


class MeshConfigError(UsageError):
    """A mesh file that cannot be used; ``problems`` has one line per problem, each with file, line and field."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class UnreachableError(MeshctlError):
    """Nobody answers at the address."""

    exit_code = 69


class ApiError(MeshctlError):
    """The control plane's HTTP API answered ``status`` with an error ``code`` such as ``not_found``."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class PlatformError(MeshctlError):
    """The platform (demo supervisor, DNS, Kubernetes) refused or misunderstood."""


class HistoryError(MeshctlError):
    """The history database cannot be opened, read or written."""


class DeadlineError(MeshctlError):
    """Something did not happen in time."""

    exit_code = 124
