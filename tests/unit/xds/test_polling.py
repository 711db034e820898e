"""gRPC's core reads how to wait for its sockets when it is loaded: who loads our server must have said so before."""

import os
import subprocess
import sys

from xds.server.polling import VARIABLE

WATCHED = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            sys.meta_path.remove(self)
            print(os.environ.get({variable!r}), file=sys.__stdout__)

sys.meta_path.insert(0, Watch())
{code}
"""

SERVE = """
from click.testing import CliRunner
from meshctl.cli import main

CliRunner().invoke(main, ["serve", "-f", "no-such-file.yaml"])
"""


def seen_by_grpc(code: str, **environment: str) -> str:
    """The variable's value at the moment at which ``code`` loads gRPC."""
    known = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.run(
        [sys.executable, "-c", WATCHED.format(variable=VARIABLE, code=code)],
        check=True,
        capture_output=True,
        text=True,
        env=known | environment,
    ).stdout.strip()


def test_library_says_it_before_grpc_is_loaded() -> None:
    assert seen_by_grpc("import xds.server") == "-event_engine_listener"


def test_command_says_it_before_grpc_is_loaded() -> None:
    assert seen_by_grpc(SERVE) == "-event_engine_listener"


def test_whoever_decided_decides() -> None:
    assert seen_by_grpc("import xds.server", **{VARIABLE: "event_engine_listener"}) == "event_engine_listener"
