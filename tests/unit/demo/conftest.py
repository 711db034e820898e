"""What several of the demo's tests need."""

from __future__ import annotations

import random

import pytest

from meshctl.demo.ports import Ports


@pytest.fixture
def unused_port() -> int:
    """A port on loopback that is free, and that the kernel does not hand out to connections."""
    return Ports("127.0.0.1", random.Random()).take()
