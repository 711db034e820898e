"""What differs from run to run: the copy of the mesh file, the rates to replay, the token.

The run's folder holds everything that processes read or write: ``mesh.yaml``, ``rates.json``, ``platform.token``,
bootstraps, logs, and the control plane's state directory.
"""

from __future__ import annotations

import json
import os
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from xds.document import parse

from . import traces
from .commands import HOST
from .ports import Ports
from .topology import ENTRY
from .traces import Replay

#: Seconds in which the load rises from nothing to the replayed rate.
RAMP = 20.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for. Seconds; ``rate`` in requests per second; ``chaos_at`` is a share of ``duration``."""

    duration: float = 180.0
    report: Path | None = None
    trace: Path | None = None
    start: datetime | None = None
    speedup: float = 60.0
    rate: float = 25.0
    seed: int = 1
    even: bool = False
    chaos: bool = True
    chaos_at: float = 0.55
    keep_state: Path | None = None
    policy: str | None = None
    train_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ListenPorts:
    """Where the control plane and the supervisor listen, on loopback."""

    xds: int
    http: int
    platform: int


@dataclass(frozen=True, slots=True)
class Folder:
    """The run's folder and what is in it."""

    path: Path

    @property
    def mesh_file(self) -> Path:
        return self.path / "mesh.yaml"

    @property
    def rates(self) -> Path:
        return self.path / "rates.json"

    @property
    def platform_token(self) -> Path:
        return self.path / "platform.token"

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def api_token(self) -> Path:
        return self.state / "api-token"

    @property
    def load_lines(self) -> Path:
        return self.path / "load.jsonl"

    @property
    def load_summary(self) -> Path:
        return self.path / "load.json"


def model_cache() -> Path:
    """Where models outlive a run, so that the next demo of the same trace does not train again."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "meshctl" / "models"


def free_ports(chance: random.Random) -> ListenPorts:
    """Three free ports."""
    finder = Ports(HOST, chance)
    return ListenPorts(finder.take(), finder.take(), finder.take())


def plan_replay(options: Options) -> Replay:
    """The replay that ``options`` ask for. Raises :class:`~meshctl.demo.errors.TraceError`."""
    trace = traces.read(options.trace or traces.default_path())
    until = traces.start_of_replay(trace, options.start)
    return traces.replay(trace, until=until, rate=options.rate, speedup=options.speedup, duration=options.duration)


def mesh_document(options: Options, shown: Replay, ports: ListenPorts) -> dict[str, Any]:
    """The shipped mesh file with this run's ports, state directory and history. Paths are relative to the run's
    folder.
    """
    document: dict[str, Any] = parse(resources.files("meshctl.demo").joinpath("mesh.yaml").read_text()).data
    controller = document["controller"]
    controller["xds"] = {"address": HOST, "port": ports.xds}
    controller["http"] = {"address": HOST, "port": ports.http}
    controller["state_dir"] = "state"
    document["platform"] |= {"url": f"http://{HOST}:{ports.platform}", "token_file": "platform.token"}
    forecast = document["forecast"]
    forecast["cache_dir"] = str(model_cache())
    forecast["day"] = 86_400.0 / options.speedup
    forecast["history"] = {
        "trace": str(shown.trace.path.absolute()),
        "step": shown.step,
        "rate": shown.past_rate,
        "service": ENTRY,
        "until": shown.until.isoformat(),
    }
    if options.policy is not None:
        document["scaling"]["policy"] = options.policy
    if options.train_seconds is not None:
        forecast["train_seconds"] = options.train_seconds
    return document


def ramped(rates: Sequence[float], step: float) -> tuple[float, ...]:
    """``rates`` with a linear start over the first ``RAMP`` seconds: no real mesh meets its load out of nothing."""
    return tuple(rate * min(1.0, (number + 0.5) * step / RAMP) for number, rate in enumerate(rates))


def write(folder: Folder, options: Options, shown: Replay, ports: ListenPorts) -> str:
    """Fill the run's folder; returns the platform API's token."""
    folder.state.mkdir(parents=True, exist_ok=True)
    folder.mesh_file.write_text(yaml.safe_dump(mesh_document(options, shown, ports), sort_keys=False))
    folder.rates.write_text(json.dumps({"step": shown.step, "rates": ramped(shown.rates, shown.step)}))
    return _write_token(folder.platform_token)


def _write_token(path: Path) -> str:
    token = secrets.token_urlsafe(32)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token + "\n")
    return token
