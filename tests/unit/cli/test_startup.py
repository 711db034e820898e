"""``meshctl --help`` answers at once because it imports none of the rooms behind the commands."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp",
    "asyncio",
    "chaos",
    "envoy_data_plane",
    "forecasting",
    "grpc",
    "kubernetes",
    "matplotlib",
    "numpy",
    "pydantic",
    "statsmodels",
    "structlog",
    "torch",
    "urllib.request",
    "xds",
    "yaml",
}

SCRIPT = """
import json, sys
from meshctl.cli import main
try:
    main(sys.argv[1:], prog_name="meshctl")
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""

#: What a command of one noun may load on top: never a library of the control plane's insides.
ALLOWED = {"chaos", "urllib.request"}


def loaded(*arguments: str) -> set[str]:
    """The modules of a fresh interpreter after ``meshctl`` ran with ``arguments``."""
    run = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(run.stderr.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["completion", "bash"], ["serve", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert not loaded(*arguments) & HEAVY


@pytest.mark.parametrize("noun", ["proxy", "service", "forecast", "decision", "chaos", "status"])
def test_commands_over_http_import_no_room_of_the_server(noun: str) -> None:
    modules = loaded(noun, "--help")
    assert not modules & (HEAVY - ALLOWED)
    assert "meshctl.server" not in modules
