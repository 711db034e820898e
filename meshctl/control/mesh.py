"""The mesh file and the replicas that exist become the slow lane: :class:`xds.model.Mesh` and its workloads. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from meshctl.config import MeshConfig
from meshctl.model import Replica
from meshctl.planning.settings import PlanSettings, inbound_limits
from xds.model import Address, Call, Mesh, RateLimit, RetryPolicy, Route, Service, Workload


def workloads(replicas: Iterable[Replica]) -> tuple[Workload, ...]:
    """Every sidecar that exists or is about to: it gets its configuration before it is ready."""
    return tuple(replica.workload() for replica in replicas if replica.phase != "failed")


def build(config: MeshConfig, replicas: Sequence[Replica], rate_limits: Mapping[tuple[str, str], float]) -> Mesh:
    """The slow lane for ``replicas``; only ready ones take traffic.

    ``rate_limits`` maps (ingress, prefix) to the planned requests per second of *one* ingress, because a local rate
    limit counts per process.
    """
    settings = PlanSettings.from_config(config)
    return Mesh(
        services={name: _service(config, name, replicas) for name in sorted(config.services)},
        calls=tuple(Call(*edge, settings.base(edge)) for edge in sorted(settings.edges)),
        ingresses={config.ingress.name: tuple(_routes(config, rate_limits))},
    )


def _service(config: MeshConfig, name: str, replicas: Sequence[Replica]) -> Service:
    wanted = config.services[name]
    return Service(
        name=name,
        inbound=inbound_limits(wanted),
        endpoints=_endpoints(name, replicas),
        protocol=wanted.protocol,
        timeout=wanted.timeout,
        retries=RetryPolicy(wanted.retries.attempts, wanted.retries.on, wanted.retries.per_try_timeout),
    )


def _endpoints(name: str, replicas: Sequence[Replica]) -> tuple[Address, ...]:
    ready = (replica.inbound for replica in replicas if replica.service == name and replica.phase == "ready")
    return tuple(sorted(ready, key=lambda address: (address.host, address.port)))


def _routes(config: MeshConfig, rate_limits: Mapping[tuple[str, str], float]) -> Iterable[Route]:
    for route in config.ingress.routes:
        limit = None
        if route.rate_limit is not None:
            planned = rate_limits.get((config.ingress.name, route.prefix), route.rate_limit.base)
            limit = RateLimit(planned=planned, base=route.rate_limit.base)
        yield Route(route.prefix, route.service, route.timeout, limit)
