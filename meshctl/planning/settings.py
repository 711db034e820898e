"""What planning needs to know of the mesh file, with the base limits that leases tighten below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil

from meshctl.config import MeshConfig, ServiceConfig
from xds.model import Limits

Edge = tuple[str, str]

#: Share of the requests in flight that may be retries, Envoy's default retry budget
#: (https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/circuit_breaker.proto).
RETRY_SHARE = 0.2


def thresholds(requests: float) -> Limits:
    """The circuit breaker that admits ``requests`` in flight (rounded up, at least 1).

    Requests are what is limited, so neither connections nor pending requests may bind earlier: over HTTP/1.1 each
    request takes a connection, and a burst onto a cold pool is pending as a whole. A fifth of the requests may be
    retries.
    """
    count = max(1, ceil(requests - 1e-9))
    return Limits(
        max_connections=count,
        max_pending_requests=count,
        max_requests=count,
        max_retries=max(1, ceil(RETRY_SHARE * count)),
    )


def inbound_limits(service: ServiceConfig) -> Limits:
    """What one replica takes: those it serves and those that may wait. Right for any number of replicas."""
    return thresholds(service.concurrency + service.queue)


def base_limits(config: MeshConfig, caller: str, callee: str) -> Limits:
    """What one sidecar of ``caller`` may have in flight to ``callee`` when no lease is in force.

    The callee's maximum replicas take (concurrency + queue) each; the maximum replicas of all its configured callers
    (and of ``caller``, where the edge is known from telemetry only) share that equally. So the base never rejects
    what the callee could serve at its largest while its callers are at theirs.
    """
    return PlanSettings.from_config(config).base((caller, callee))


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """One service: bounds on its replicas, and the requests that one replica serves (``concurrency``) and queues."""

    minimum: int
    maximum: int
    concurrency: int
    queue: int


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """A rate-limited ingress route; ``base`` is requests per second of one ingress."""

    service: str
    base: float


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """Settings of ``decide``; see :mod:`meshctl.config.model` for the meaning and the default of each."""

    services: Mapping[str, ServiceSettings]
    edges: frozenset[Edge] = frozenset()
    """Configured calls, ingress routes included, as (caller, callee)."""
    ingress: str = "ingress"
    ingress_replicas: int = 1
    routes: Mapping[Edge, RouteSettings] = field(default_factory=dict)
    """Rate-limited routes by (ingress, prefix)."""
    target_utilization: float = 0.65
    tolerance: float = 0.1
    stabilization: float = 60.0
    head_room: float = 1.5
    limit_minimum: int = 4
    dead_band: float = 0.05
    max_step_up: int = 2
    max_step_down: int = 1
    limit_step: float = 0.5
    dry_run: bool = False
    _callers: Mapping[str, frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_callers", _callers(self.edges))

    @classmethod
    def from_config(cls, config: MeshConfig) -> PlanSettings:
        """The settings of a mesh file."""
        rails = config.guardrails
        return cls(
            services={name: _service(service) for name, service in config.services.items()},
            edges=frozenset(_edges(config)),
            ingress=config.ingress.name,
            ingress_replicas=config.ingress.replicas,
            routes=dict(_routes(config)),
            target_utilization=config.scaling.target_utilization,
            tolerance=config.scaling.tolerance,
            stabilization=config.scaling.stabilization,
            head_room=config.limits.head_room,
            limit_minimum=config.limits.minimum,
            dead_band=rails.dead_band,
            max_step_up=rails.max_step_up,
            max_step_down=rails.max_step_down,
            limit_step=rails.limit_step,
            dry_run=rails.dry_run,
        )

    def with_dry_run(self, dry_run: bool) -> PlanSettings:
        """The same settings with dry-run switched."""
        return replace(self, dry_run=dry_run)

    def callers(self, callee: str) -> frozenset[str]:
        """Everybody configured to call ``callee``."""
        return self._callers.get(callee, frozenset())

    def maximum(self, group: str) -> int:
        """The most replicas that a caller (a service or the ingress) may have."""
        return self.services[group].maximum if group in self.services else self.ingress_replicas

    def base(self, edge: Edge) -> Limits:
        """See :func:`base_limits`. Raises KeyError for an unknown callee."""
        caller, callee = edge
        service = self.services[callee]
        capacity = service.maximum * (service.concurrency + service.queue)
        return thresholds(capacity // sum(self.maximum(name) for name in self.callers(callee) | {caller}))


def _callers(edges: Iterable[Edge]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for caller, callee in edges:
        found.setdefault(callee, set()).add(caller)
    return {callee: frozenset(callers) for callee, callers in found.items()}


def _service(service: ServiceConfig) -> ServiceSettings:
    return ServiceSettings(service.replicas.min, service.replicas.max, service.concurrency, service.queue)


def _edges(config: MeshConfig) -> Iterable[Edge]:
    for name, service in config.services.items():
        yield from ((name, callee) for callee in service.calls)
    yield from ((config.ingress.name, route.service) for route in config.ingress.routes)


def _routes(config: MeshConfig) -> Iterable[tuple[Edge, RouteSettings]]:
    for route in config.ingress.routes:
        if route.rate_limit is not None:
            yield (config.ingress.name, route.prefix), RouteSettings(route.service, route.rate_limit.base)
