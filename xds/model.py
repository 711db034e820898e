"""The mesh as its user means it: frozen values that :mod:`xds.translate` turns into resources.

Nothing here knows about protobuf, gRPC or time. A :class:`Mesh` holds the slow lane: it changes when a
replica comes or goes or when the mesh file changes, and never because a tick passed. Numbers that change
every tick travel as a :class:`RuntimeLayer`, which is a lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from xds.snapshot import Resource

Protocol = Literal["http", "http2", "grpc"]

LIMITS_LAYER = "limits"
CHAOS_LAYER = "chaos"

#: The header that carries a request's arm of an experiment through the mesh; applications forward it.
CHAOS_GROUP_HEADER = "x-chaos-group"
TREATMENT = "treatment"
CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Address:
    """A socket address; ``host`` is an IP address (EDS takes no names)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Circuit-breaker thresholds that one Envoy process enforces towards one cluster (counts, each >= 1)."""

    max_connections: int
    max_pending_requests: int
    max_requests: int
    max_retries: int


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retries of one route. ``on`` holds Envoy's ``retry_on`` names; ``per_try_timeout`` is in seconds."""

    attempts: int = 0
    on: tuple[str, ...] = ("connect-failure", "refused-stream", "reset-before-request")
    per_try_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """One service: where its ready replicas listen and what one replica can take.

    ``endpoints`` are the *inbound listeners* of the ready replicas' sidecars (EDS). ``inbound`` is one
    replica's own capacity, enforced by its sidecar; it is right for any number of replicas.
    ``timeout`` is the route timeout in seconds.
    """

    name: str
    inbound: Limits
    endpoints: tuple[Address, ...] = ()
    protocol: Protocol = "http"
    timeout: float = 15.0
    retries: RetryPolicy = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Call:
    """An edge of the service graph. ``base`` is what one sidecar of ``caller`` may send without a lease:
    what the callee's maximum replicas serve, divided by the callers' maximum replicas."""

    caller: str
    callee: str
    base: Limits


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Rate limits of an ingress route, requests per second.

    ``planned`` is enforced only while the leased runtime key :func:`xds.translate.runtime.rate_limit_key`
    says so; ``base`` is generous and always enforced.
    """

    planned: float
    base: float


@dataclass(frozen=True, slots=True)
class Route:
    """An ingress route: path prefix to service. ``timeout`` in seconds overrides the service's."""

    prefix: str
    service: str
    timeout: float | None = None
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """One Envoy process: a service's sidecar or an ingress.

    ``group`` is the service's name for a sidecar and the ingress's name for an ingress. A sidecar listens on
    ``inbound`` for the mesh and on ``outbound`` for its own application, which itself listens on ``app``.
    An ingress listens on ``inbound`` only.
    """

    node_id: str
    group: str
    inbound: Address
    outbound: Address | None = None
    app: Address | None = None

    @property
    def is_ingress(self) -> bool:
        return self.app is None


@dataclass(frozen=True, slots=True)
class Mesh:
    """The slow lane. ``ingresses`` maps an ingress group's name to its routes; ingress edges are in ``calls`` too."""

    services: Mapping[str, Service]
    calls: tuple[Call, ...] = ()
    ingresses: Mapping[str, tuple[Route, ...]] = field(default_factory=dict)

    def callees(self, caller: str) -> tuple[Call, ...]:
        """The edges that leave ``caller``, by callee's name."""
        return tuple(sorted((c for c in self.calls if c.caller == caller), key=lambda call: call.callee))


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in the *inbound* Envoy of ``service`` for requests in the treatment arm.

    ``percent`` (0 to 100) of the arm's requests are hit; ``status`` applies to aborts, ``delay`` (seconds) to delays.
    ``treatment_percent`` is the share of ingress requests that join the treatment arm.
    """

    service: str
    kind: Literal["abort", "delay"]
    percent: int
    treatment_percent: int = 50
    status: int = 503
    delay: float = 0.0


RuntimeValue = int | Mapping[str, int | str]


@dataclass(frozen=True, slots=True)
class RuntimeLayer:
    """A leased RTDS layer: ``values`` override Envoy's runtime for ``ttl`` seconds after each heartbeat.

    Values are non-negative integers or ``{"numerator": int, "denominator": "HUNDRED"}``.
    ``expires_at`` (seconds on the server's clock) is an absolute end no heartbeat may extend, or None.
    """

    name: str
    values: Mapping[str, RuntimeValue]
    ttl: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class LeasedResource:
    """A resource of a type that survives expiry (ECDS), for ``ttl`` seconds after each heartbeat.

    ``resource`` is an encoded ``TypedExtensionConfig``; when the lease ends Envoy falls back to the filter's
    ``default_config``. ``expires_at`` (seconds on the server's clock) is an absolute end no heartbeat may extend, or
    None.
    """

    resource: Resource
    ttl: float
    expires_at: float | None = None
