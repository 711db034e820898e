"""A real mesh for end-to-end tests: supervisor, control plane, Envoys, services, load; driven from synchronous tests.

The supervisor's event loop runs in a thread. The control plane is started, killed and started again by the test itself.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

from meshctl import config
from meshctl.demo import commands, setup
from meshctl.demo.children import Child
from meshctl.demo.platform_api import PlatformApi
from meshctl.demo.replica import Timing
from meshctl.demo.setup import Folder, Options
from meshctl.demo.supervisor import Supervisor

T = TypeVar("T")


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Poll until ``condition`` gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return found


class RunningMesh:
    """The demo's mesh with a fast tick and no learned model; ``rate`` is the load, requests per second."""

    def __init__(self, path: Path, *, rate: float = 20.0, policy: str = "static", **controller: Any) -> None:
        self.folder = Folder(path)
        self._options = Options(duration=600.0, rate=rate, train_seconds=0.0, even=True, policy=policy)
        self._controller = controller
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="supervisor")
        self.control_plane: Child | None = None

    def __enter__(self) -> RunningMesh:
        self._thread.start()
        try:
            self._prepare()
            self.start_control_plane()
            wait_for(self.supervisor.all_ready, "every replica is ready", 60.0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "supervisor"):
            self._run(self.supervisor.stop(1.0))
            self._run(self._api.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _prepare(self) -> None:
        chance = random.Random()
        replay = setup.plan_replay(self._options)
        token = setup.write(self.folder, self._options, replay, setup.free_ports(chance))
        document = yaml.safe_load(self.folder.mesh_file.read_text())
        del document["forecast"]["history"]
        document["controller"] |= self._controller
        self.folder.mesh_file.write_text(yaml.safe_dump(document))
        rates = json.dumps({"step": 1.0, "rates": [self._options.rate] * int(self._options.duration)})
        self.folder.rates.write_text(rates)
        self.config = config.load(self.folder.mesh_file)
        self._run(self._start(chance, token))

    async def _start(self, chance: random.Random, token: str) -> None:
        self.supervisor = Supervisor(
            self.config, self.folder.path, chance=chance, timing=Timing(delay=0.5), envoy=commands.envoy_binary()
        )
        self._api = PlatformApi(self.supervisor, token)
        await self._api.start(int(self.config.platform.url.rsplit(":", 1)[1]))
        await self.supervisor.start()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    # -- the control plane ---------------------------------------------------------------------------------------

    def start_control_plane(self) -> None:
        argv = commands.control_plane(self.folder.mesh_file)
        self.control_plane = self._run(self.supervisor.nursery.spawn("control-plane", "control-plane", argv))
        wait_for(self.ready, "the control plane is ready", 40.0)

    def kill_control_plane(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.control_plane is not None
        psutil.Process(self.control_plane.pid).kill()
        self._run(self.control_plane.wait())

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.server}/readyz", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    @property
    def server(self) -> str:
        listen = self.config.controller.http
        return f"http://{listen.address}:{listen.port}"

    def api(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """A call of the control plane's API, with its token."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.folder.api_token.read_text().strip()}"}
        request = urllib.request.Request(self.server + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)

    def status(self) -> Any:
        return self.api("/v1/status")

    # -- the Envoys, by their own admin endpoints ------------------------------------------------------------------

    def envoys(self, service: str | None = None) -> list[str]:
        """Node ids of ready Envoys."""
        found = [r for r in self.supervisor.replicas() if r.phase == "ready"]
        return [replica.node_id for replica in found if service in (None, replica.service)]

    def admin(self, node_id: str, path: str) -> str:
        """What an Envoy says of itself."""
        replica = next(r for r in self.supervisor.replicas() if r.node_id == node_id)
        url = f"http://127.0.0.1:{replica.sockets.admin}{path}"
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read().decode())

    def stats(self, node_id: str, prefix: str) -> dict[str, int]:
        """Counters and gauges of an Envoy whose names match the regular expression ``prefix``."""
        lines = self.admin(node_id, f"/stats?filter={prefix}").splitlines()
        pairs = (line.split(": ") for line in lines)
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdigit()}

    def runtime(self, node_id: str) -> dict[str, str]:
        """The final values of an Envoy's runtime."""
        entries = json.loads(self.admin(node_id, "/runtime"))["entries"]
        return {key: str(entry["final_value"]) for key, entry in entries.items()}

    def pids(self) -> dict[str, int]:
        """Node id to the pid of its Envoy."""
        return {r.node_id: r.children[-1].pid for r in self.supervisor.replicas() if r.phase == "ready"}

    # -- load ------------------------------------------------------------------------------------------------------

    def start_load(self) -> Child:
        """Begin to offer ``rate`` requests per second, evenly spaced."""
        for path in (self.folder.load_lines, self.folder.load_summary):
            path.unlink(missing_ok=True)
        files = (self.folder.rates, self.folder.load_lines, self.folder.load_summary)
        argv = commands.load(self.supervisor.ingress_url, *files, ["--arrivals", "even", "--seed", "1"])
        load = self._run(self.supervisor.nursery.spawn("load", "load", argv))
        wait_for(lambda: self.folder.load_lines.exists() and len(self.lines()) > 1, "load is flowing")
        return load

    def stop_load(self, load: Child) -> dict[str, Any]:
        """End the load; its summary."""
        self._run(load.stop(10.0))
        return dict(json.loads(self.folder.load_summary.read_text()))

    def lines(self) -> list[dict[str, Any]]:
        """The generator's seconds so far."""
        return [json.loads(line) for line in self.folder.load_lines.read_text().splitlines() if line.endswith("}")]
