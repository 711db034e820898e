"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.support.selection import leave_out

# Tests run side by side already: numeric libraries with a thread per core in each of them only wait for each other.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# No test is timed: a busy machine must not turn a slow example into a failure.
_settings = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
#: The same examples in every run of the same code: a failure belongs to the change that it came with.
settings.register_profile("meshctl", _settings, derandomize=True)
#: HYPOTHESIS_PROFILE=thorough looks for new ones: fifty times as many wherever their number is ``examples(...)``.
settings.register_profile("thorough", _settings, max_examples=5000)
#: What only asks whether anything fails at all.
settings.register_profile("unshrunk", _settings, max_examples=150, phases=[Phase.generate], database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "meshctl"))


def examples(usual: int) -> int:
    """How many examples to try: ``usual`` in the normal run, in proportion in other profiles."""
    return max(1, usual * settings().max_examples // 100)


ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden from what the code prints now")
    parser.addoption("--plans", type=int, default=200, help="how many random changes an Envoy under load goes through")
    parser.addoption("--plan-seed", type=int, default=1, help="which ones")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Quick work leaves out what is slow."""
    leave_out(config, items, "slow")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Traces that are not part of the project: $MESHCTL_SHARED/data, or shared/data beside the repository."""
    folder = Path(os.environ.get("MESHCTL_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared traces at {folder}")
    return folder
