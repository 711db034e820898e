"""Who runs the replicas of a mesh, and what would run where nobody does yet."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Literal

from meshctl.actuators.processes import ProcessPlatform
from meshctl.config import MeshConfig
from meshctl.errors import UsageError
from meshctl.model import Replica
from meshctl.sources.dns import ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT, DnsPlatform
from xds.model import Address

Bound = Literal["min", "max"]

FIRST_ADDRESS = "127.0.1.1"


def platform(config: MeshConfig) -> ProcessPlatform | DnsPlatform:
    """The platform that the mesh file names."""
    if config.platform.kind == "processes":
        return ProcessPlatform(config.platform.url, config.platform.token_file)
    return DnsPlatform(config)


def planned(config: MeshConfig, bound: Bound, first: str = FIRST_ADDRESS) -> tuple[Replica, ...]:
    """Every replica that the mesh file asks for, on ports as in containers and addresses counted up from ``first``.

    An address of its own lets each replica have the same ports: on Linux all of 127.0.0.0/8 is this machine, so the
    whole mesh can run there. The ingresses come first. UsageError if ``first`` is no address or has too few after it.
    """
    nodes = list(_nodes(config, bound))
    hosts = _addresses(first, len(nodes))
    return tuple(_replica(config, group, number, host) for (group, number), host in zip(nodes, hosts, strict=True))


def _nodes(config: MeshConfig, bound: Bound) -> Iterator[tuple[str, int]]:
    counts: Mapping[str, int] = {name: getattr(one.replicas, bound) for name, one in sorted(config.services.items())}
    for group, count in ((config.ingress.name, config.ingress.replicas), *counts.items()):
        yield from ((group, number) for number in range(count))


def _addresses(first: str, count: int) -> list[str]:
    try:
        start = ipaddress.ip_address(first)
        return [str(start + offset) for offset in range(count)]
    except ValueError:
        raise UsageError(
            f"{first!r} is not the first of {count} IP addresses; name one such as {FIRST_ADDRESS}"
        ) from None


def _replica(config: MeshConfig, group: str, number: int, host: str) -> Replica:
    service = config.services.get(group)
    inbound = Address(host, INBOUND_PORT if service else config.ingress.port)
    return Replica(
        node_id=f"{group}-{number}",
        service=group,
        phase="ready",
        inbound=inbound,
        outbound=Address(host, OUTBOUND_PORT) if service else None,
        app=Address(host, service.port) if service else None,
        admin=Address(host, ADMIN_PORT),
    )
