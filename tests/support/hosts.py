"""Network namespaces as containers: one per container, on one bridge, names by hosts files.

Needs root and iproute2, as a container engine would. `ip netns exec` mounts /etc/netns/<name>/hosts over /etc/hosts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Hosts:
    """The hosts ``names``, numbered from 10.77.0.1; a context manager that takes them down again."""

    def __init__(self, names: Iterable[str]) -> None:
        self._prefix = f"m{os.getpid() % 100_000}"
        self.addresses: Mapping[str, str] = {name: f"10.77.0.{number}" for number, name in enumerate(names, start=1)}

    def __enter__(self) -> Hosts:
        try:
            self._build()
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            detail = getattr(error, "stderr", "") or error
            pytest.skip(f"network namespaces cannot be made here (root and iproute2 are needed): {detail}")
        return self

    def __exit__(self, *_: object) -> None:
        for space in [self.space(name) for name in self.addresses] + [self._switch]:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
            shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)

    @property
    def _switch(self) -> str:
        return f"{self._prefix}sw"

    def space(self, name: str) -> str:
        """The namespace of a host."""
        return f"{self._prefix}-{name}"

    def command(self, name: str, argv: Iterable[str]) -> list[str]:
        """``argv`` inside the host ``name``."""
        return ["ip", "netns", "exec", self.space(name), *argv]

    def _build(self) -> None:
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "br0", "up")
        for number, (name, address) in enumerate(self.addresses.items()):
            self._plug(number, name, address)

    def _plug(self, number: int, name: str, address: str) -> None:
        space = self.space(name)
        _ip("netns", "add", space)
        _ip("link", "add", "eth0", "netns", space, "type", "veth", "peer", "name", f"p{number}", "netns", self._switch)
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", space, "link", "set", link, "up")
        _ip("-n", self._switch, "link", "set", f"p{number}", "master", "br0", "up")
        folder = Path("/etc/netns") / space
        folder.mkdir(parents=True, exist_ok=True)
        known = "\n".join(f"{ip} {host}" for host, ip in self.addresses.items())
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{known}\n")
