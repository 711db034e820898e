"""Ports for processes that are started later than their port is chosen.

The kernel hands out ports of its ephemeral range to outgoing connections, so a port of that range may be gone by the
time
a process wants to listen there. These are taken from below it, each tried by binding, none given out twice.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

from .errors import DemoError

LOW = 10_000
HIGH = 32_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Ports:
    """Gives out free ports of ``host``; starts at a random one, so that two demos rarely meet."""

    def __init__(self, host: str, chance: random.Random, low: int = LOW, high: int = HIGH) -> None:
        self._host = host
        self._high = min(high, _first_ephemeral())
        self._low = low if low < self._high else 1024
        self._next = chance.randrange(self._low, self._high)
        self._taken: set[int] = set()

    def take(self) -> int:
        """A port that is free now. Raises :class:`DemoError` when there is none."""
        for port in self._candidates():
            if port not in self._taken and _is_free(self._host, port):
                self._taken.add(port)
                return port
        raise DemoError(f"no free port between {self._low} and {self._high} on {self._host}; stop what listens there")

    def release(self, *ports: int) -> None:
        """Give ports back. They are tried last, because connections to them may linger."""
        self._taken.difference_update(ports)

    def _candidates(self) -> Iterator[int]:
        for _ in range(self._high - self._low):
            port, self._next = self._next, self._next + 1
            if self._next >= self._high:
                self._next = self._low
            yield port


def _first_ephemeral() -> int:
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
