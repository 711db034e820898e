"""What can go wrong with an experiment.

::

    ChaosError
    ├── ExperimentError     the experiment itself is wrong: names the field, what was expected and what to do
    ├── ApiError            the control plane answered, and refused (status, code, message)
    ├── UnreachableError    nobody answered
    ├── RunnerError         Chaos Toolkit could not be started, or left no readable journal
    └── DeadlineError       the experiment took longer than it may
"""

from __future__ import annotations


class ChaosError(Exception):
    """Root of this library's errors."""


class ExperimentError(ChaosError):
    """A field of an experiment has a value that it cannot have."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"experiment: {field}: {problem}; {remedy}")
        self.field = field


class ApiError(ChaosError):
    """The control plane refused a request. ``status`` is the HTTP status, ``code`` the API's own word for it."""

    def __init__(self, method: str, path: str, status: int, code: str, message: str) -> None:
        super().__init__(f"{method} {path}: {message} (HTTP {status}, {code})")
        self.status = status
        self.code = code


class UnreachableError(ChaosError):
    """No answer from the control plane within the timeout."""


class RunnerError(ChaosError):
    """Chaos Toolkit did not run to its end."""


class DeadlineError(ChaosError):
    """The experiment was stopped at its deadline; its faults were deleted, and their lease ends them anyhow."""
