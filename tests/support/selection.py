"""What quick work leaves out: who selects tests by marks (``-m "not envoy"``, say) gets some only by their names."""

from __future__ import annotations

import pytest


def leave_out(config: pytest.Config, items: list[pytest.Item], mark: str) -> None:
    """Deselect the tests that bear ``mark``, if tests are selected by marks and this one is not among their names."""
    wanted: str = config.getoption("markexpr", "")
    if not wanted or mark in wanted:
        return
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker(mark)])
    items[:] = [item for item in items if not item.get_closest_marker(mark)]
