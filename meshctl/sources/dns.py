"""Replicas as names resolve to them: for platforms that somebody else scales, such as docker-compose.

The addresses of the host name ``<service>`` are its replicas; every sidecar listens on the same ports.
Sidecar ``<service>-<n>`` is the n-th address in order; all of a group's sidecars get the same configuration, so the
order does not matter.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

from meshctl.config import MeshConfig
from meshctl.model import Replica
from xds.model import Address

INBOUND_PORT = 15006
OUTBOUND_PORT = 15001
ADMIN_PORT = 15000


class DnsPlatform:
    """Reads replicas from name resolution; scaling is somebody else's."""

    scales = False

    def __init__(self, config: MeshConfig) -> None:
        self._services = {name: service.port for name, service in config.services.items()}
        self._ingress = (config.ingress.name, config.ingress.port)

    async def replicas(self) -> tuple[Replica, ...]:
        """One replica per address; a name that does not resolve yet is a replica on its way."""
        found = await asyncio.gather(*(self._replicas(name, port) for name, port in self._services.items()))
        name, port = self._ingress
        anywhere = Address("0.0.0.0", port)  # noqa: S104 - inside the ingress's own container
        ingress = Replica(f"{name}-0", name, "ready", anywhere, None, None, None)
        return (*(replica for group in found for replica in group), ingress)

    async def scale(self, desired: Mapping[str, int]) -> None:
        """Replicas are not ours to change."""

    async def close(self) -> None:
        """Nothing is held open."""

    async def _replicas(self, name: str, port: int) -> list[Replica]:
        addresses = await _resolve(name)
        return [self._replica(name, port, number, host) for number, host in enumerate(addresses or [None])]

    def _replica(self, name: str, port: int, number: int, host: str | None) -> Replica:
        return Replica(
            node_id=f"{name}-{number}",
            service=name,
            phase="ready" if host else "starting",
            inbound=Address(host or "127.0.0.1", INBOUND_PORT),
            outbound=Address("127.0.0.1", OUTBOUND_PORT),
            app=Address("127.0.0.1", port),
            admin=None,
            listen=Address("0.0.0.0", INBOUND_PORT),  # noqa: S104 - inside the sidecar's own container
        )


async def _resolve(name: str) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(info[4][0]) for info in found})
