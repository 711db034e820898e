"""A control plane over HTTP for the tests of the chaos library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.client import ApiConfig
from tests.unit.chaos.fake_api import TOKEN, ControlPlane, serving


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with serving(ControlPlane()) as served:
        yield served


@pytest.fixture
def config(plane: ControlPlane, tmp_path: Path) -> ApiConfig:
    token = tmp_path / "api-token"
    token.write_text(TOKEN + "\n")
    return ApiConfig(plane.url, str(token), timeout=5.0)
