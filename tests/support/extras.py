"""Optional extras for tests: installed when the first test needs one, beside the environment that runs the tests.

An extra's packages go into a folder of their own in this environment's directory: only what the environment lacks, in
the versions of constraints.txt. The folder is reused until constraints.txt, the extra or the interpreter changes, and
goes when the environment goes. The environment's own packages are never touched, so no other test sees a difference.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tests.support.selection import leave_out

ROOT = Path(__file__).resolve().parent.parent.parent
CONSTRAINTS = ROOT / "constraints.txt"

#: A fresh installation is bounded by the package index, not by what is tested; and processes wait for each other's.
SECONDS = 600

#: What pip says where there is no network, or no distribution for this platform. All else is a fault of ours.
IMPOSSIBLE = ("connection broken by", "(from versions: none)")


class InstallError(Exception):
    """pip failed; the message is what it said last."""

    @property
    def is_impossible(self) -> bool:
        """Whether nothing in this repository could change that."""
        return any(words in str(self) for words in IMPOSSIBLE)


@contextmanager
def importable(extra: str) -> Iterator[None]:
    """The extra's packages can be imported, here and in processes that are started meanwhile.

    Skips the test where they cannot be installed for want of a network; fails it where pip fails otherwise.
    """
    folder = provided(extra)
    if folder is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(folder)])  # last: it hides nothing of the environment's
        paths = filter(None, [os.environ.get("PYTHONPATH"), str(folder)])
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        importlib.invalidate_caches()
        yield


def provided(extra: str) -> Path | None:
    """The folder of the extra's packages; None where the environment has them itself."""
    result = _tried(extra)
    if not isinstance(result, InstallError):
        return result
    message = f"extra {extra} is not installed, and pip cannot install it: {str(result)[-300:]}"
    if result.is_impossible:
        pytest.skip(message)
    pytest.fail(message, pytrace=False)


@cache
def _tried(extra: str) -> Path | InstallError | None:
    """Once per process: once imported, a package of the folder looks like one of the environment."""
    if importlib.util.find_spec(extra) is not None:
        return None
    try:
        return installed(requirements(extra), CONSTRAINTS, Path(sys.prefix) / "extras" / extra)
    except InstallError as error:
        return error


def requirements(extra: str) -> list[str]:
    """What pyproject.toml lists for the extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [str(one) for one in project["optional-dependencies"][extra]]


def installed(wanted: Sequence[str], constraints: Path, parent: Path, options: Sequence[str] = ()) -> Path:
    """A folder below ``parent`` with what ``wanted`` needs and this environment lacks. Raises InstallError.

    ``options`` go to pip. Processes take turns; whoever comes later finds the first one's work. All or nothing:
    installed beside its place and then renamed. Folders of other constraints are removed.
    """
    folder = parent / _key(wanted, constraints)
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _clear(parent)
            with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as scratch:
                new = Path(scratch) / "new"
                _install(wanted, constraints, new, options)
                new.rename(folder)
    return folder


def _key(wanted: Sequence[str], constraints: Path) -> str:
    """Of everything that decides what is in the folder."""
    told = json.dumps([list(wanted), constraints.read_text(), sys.version])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _clear(parent: Path) -> None:
    for old in parent.iterdir():
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)


def _install(wanted: Sequence[str], constraints: Path, target: Path, options: Sequence[str]) -> None:
    """First what is missing is resolved against what is there, then only that is installed."""
    report = json.loads(
        _pip("install", "--quiet", "--dry-run", "--report", "-", "-c", str(constraints), *options, *wanted)
    )
    missing = [f"{one['metadata']['name']}=={one['metadata']['version']}" for one in report["install"]]
    target.mkdir()
    if missing:
        _pip("install", "--quiet", "--no-deps", "--target", str(target), *options, *missing)


def _pip(*arguments: str) -> str:
    """What pip writes to stdout. Raises InstallError."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InstallError(done.stderr.strip())
    return done.stdout


def prepare(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give tests marked ``extras`` time to install. A selection by marks (``-m``) leaves them out unless it names them.

    Who selects by marks, ``-m "not envoy"`` for instance, wants quick work.
    """
    leave_out(config, items, "extras")
    for item in items:
        if item.get_closest_marker("extras"):
            item.add_marker(pytest.mark.timeout(SECONDS))
