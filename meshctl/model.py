"""Frozen values that the rooms of the control plane hand to each other.

``observe`` makes an :class:`Observation`, ``decide`` makes a :class:`Plan` of :class:`Decision` records, actuators
apply it. Rates are per second, durations and times are seconds, memory is bytes, CPU is cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from xds.model import Address, Limits, Workload

Phase = Literal["pending", "starting", "ready", "terminating", "failed"]


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica of a service (or of an ingress) as the platform reports it.

    ``cpu`` is in cores over the last observation interval, ``memory`` resident bytes; both cover the
    service process and its sidecar. ``admin`` is the sidecar's admin endpoint. ``inbound`` is where others reach the
    replica; ``listen`` is where its sidecar binds, if that is another address (a wildcard inside a container).
    """

    node_id: str
    service: str
    phase: Phase
    inbound: Address
    outbound: Address | None
    app: Address | None
    admin: Address | None
    cpu: float = 0.0
    memory: int = 0
    started_at: float = 0.0
    ready_at: float | None = None
    listen: Address | None = None

    def workload(self) -> Workload:
        return Workload(self.node_id, self.service, self.listen or self.inbound, self.outbound, self.app)


@dataclass(frozen=True, slots=True)
class EdgeObservation:
    """Traffic from all sidecars of ``caller`` to ``callee`` over the last tick.

    ``demand`` is what was offered: first attempts = sent - retries + overflowed.
    ``mean_latency`` is that of answered requests; ``in_flight`` = rate x mean latency (Little's law).
    """

    caller: str
    callee: str
    demand: float
    sent: float
    retries: float
    errors: float
    overflow: float
    mean_latency: float | None
    p50: float | None
    p99: float | None

    @property
    def in_flight(self) -> float:
        return self.sent * (self.mean_latency or 0.0)


@dataclass(frozen=True, slots=True)
class ServiceObservation:
    """One service over the last tick, as its callers' sidecars saw it.

    ``demand`` counts what was offered (rate-limited requests included), ``rate`` what was served.
    ``errors`` counts 5xx and overflowed requests per second. ``service_time`` is the mean time in the service itself as
    its own inbound sidecar saw it. ``business`` holds application metrics (name to rate per second).
    """

    service: str
    demand: float
    rate: float
    errors: float
    rate_limited: float
    mean_latency: float | None
    p50: float | None
    p99: float | None
    service_time: float | None
    in_flight: float
    ready: int
    desired: int
    cpu: float
    memory: int
    business: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the mesh looked like at ``time`` (end of the tick's window, seconds since the epoch)."""

    time: float
    tick: int
    services: Mapping[str, ServiceObservation]
    edges: tuple[EdgeObservation, ...]
    replicas: tuple[Replica, ...]


@dataclass(frozen=True, slots=True)
class Demand:
    """The forecast of one service's demand, as planning needs it.

    ``expected`` and ``upper`` are the median and the 95 % quantile of the next step; ``peak`` is the upper quantile
    of the maximum over the platform's start-up time. ``model`` made it. ``skilled`` says whether it beats last value
    at the next step, and limits and rates may act on ``expected`` and ``upper``; ``peak_skilled`` whether it does when
    a replica that is asked for now serves, and scaling may act on ``peak``. ``reason`` says why (or why not).
    """

    service: str
    model: str
    skilled: bool
    peak_skilled: bool
    reason: str
    expected: float
    upper: float
    peak: float


Kind = Literal["replicas", "limit", "rate_limit"]
Outcome = Literal["applied", "held", "dry-run", "paused"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One number that planning chose. ``subject`` is a service, an edge ``caller>callee``, or an ingress route
    ``ingress/prefix``.

    ``proposed`` is what the rule asked for, ``chosen`` what the guardrails let through, ``previous`` what was in force.
    ``policy`` names the rule that won; ``guardrails`` the rules that changed the proposal; ``inputs`` the numbers
    that went in.
    """

    kind: Kind
    subject: str
    previous: float | None
    proposed: float
    chosen: float
    policy: str
    outcome: Outcome
    reason: str
    guardrails: tuple[str, ...] = ()
    inputs: Mapping[str, float | int | str | bool | None] = field(default_factory=dict)

    @property
    def changes(self) -> bool:
        return self.outcome == "applied" and self.chosen != self.previous


@dataclass(frozen=True, slots=True)
class ServiceMemory:
    """What planning carries from one tick to the next for a service.

    ``wanted`` holds (time, replicas) of recent proposals, oldest first: scale-down waits for the largest of them.
    ``service_time`` is the smoothed time (seconds) that one request occupies a replica, None while never measured.
    """

    wanted: tuple[tuple[float, int], ...] = ()
    service_time: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What one tick wants.

    ``replicas``: service to count. ``limits``: (caller, callee) to the thresholds of *one* live sidecar of the caller.
    ``rate_limits``: (ingress, prefix) to requests per second; ``enforce`` holds those that the leased layer switches
    on. Rate limits are those of *one* live ingress. ``memory`` goes into the next tick's planning.
    """

    tick: int
    time: float
    replicas: Mapping[str, int]
    limits: Mapping[tuple[str, str], Limits]
    rate_limits: Mapping[tuple[str, str], float]
    enforce: frozenset[tuple[str, str]]
    decisions: tuple[Decision, ...]
    memory: Mapping[str, ServiceMemory] = field(default_factory=dict)
