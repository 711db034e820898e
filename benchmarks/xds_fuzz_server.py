"""The server that benchmarks/xds_fuzz.py attacks: everything on a plaintext port and on one with mutual TLS."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
from envoy_data_plane.envoy.config.cluster.v3 import Cluster

from meshctl.server.health import Health
from meshctl.sources.otlp import OtlpReceiver
from xds.server import Settings, XdsServer
from xds.server.settings import Limits
from xds.server.tls import TlsFiles
from xds.snapshot import Snapshot, resource, resource_set, snapshot
from xds.types import CLUSTER

HOST = "127.0.0.1"
BUMP_SECONDS = 0.1
#: Half-open connections must go while the run lasts.
LIMITS = replace(Limits(), handshake_seconds=2.0, first_request_seconds=2.0, message_bytes=4 * 1024 * 1024)


def content(stamp: int) -> Snapshot:
    """A cluster that says when it was published, and others."""
    clusters = [Cluster(name="stamp", alt_stat_name=str(stamp)), *(Cluster(name=f"c-{n}") for n in range(20))]
    return snapshot(resource_set(CLUSTER, [resource(one.name, one) for one in clusters]))


class Counting(logging.Handler):
    """Counts what would be a traceback in the log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(self.format(record)[-2_000:])


async def serve(folder: Path) -> None:
    """Two ports; a line with both, and then one JSON object for every line of standard input."""
    errors = Counting()
    logging.getLogger().addHandler(errors)
    files = TlsFiles(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    settings = Settings(limits=LIMITS)
    servers = [XdsServer(settings=settings), XdsServer(settings=settings, tls=files)]
    handlers = [OtlpReceiver(lambda _: False).handler(), *Health(lambda: True).handlers()]
    ports = [await server.start(HOST, 0, handlers) for server in servers]
    bumping = asyncio.create_task(_bump(servers))
    print(json.dumps(ports), flush=True)
    loop, process = asyncio.get_running_loop(), psutil.Process()
    while (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        said = {
            "rss": process.memory_info().rss,
            "files": process.num_fds(),
            "tasks": len(asyncio.all_tasks()),
            "streams": [server.gate.admission.streams for server in servers],
            "refused": dict(sum((server.gate.admission.refused for server in servers), Counter())),
            "errors": errors.seen,
        }
        print(json.dumps(said), flush=True)
    bumping.cancel()
    for server in servers:
        await server.stop(0.2)


async def _bump(servers: list[XdsServer]) -> None:
    while True:
        wanted = content(time.monotonic_ns())
        for server in servers:
            server.publish(dict.fromkeys(("witness-0", "fuzz-0", "fuzz-1"), wanted))
        await asyncio.sleep(BUMP_SECONDS)
