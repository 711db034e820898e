"""Telemetry and replicas become an :class:`~meshctl.model.Observation`. Pure: the same window gives the same
observation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from meshctl.history.counters import quantile
from meshctl.model import EdgeObservation, Observation, Replica, ServiceObservation
from meshctl.sources.windows import NodeWindow, Totals, Window


@dataclass(slots=True)
class Flow:
    """Requests per second over several sidecars, with their merged latency histogram."""

    requests: float = 0.0
    retries: float = 0.0
    errors: float = 0.0
    overflow: float = 0.0
    times: Totals = field(default_factory=Totals)

    def add(self, totals: Totals, covered: float) -> None:
        """Add one sidecar's counts over ``covered`` seconds."""
        self.requests += totals.requests / covered
        self.retries += totals.retries / covered
        self.errors += totals.errors / covered
        self.overflow += totals.overflow / covered
        self.times.merge(totals)

    @property
    def demand(self) -> float:
        """First attempts: what was offered, whatever became of it."""
        return max(0.0, self.requests - self.retries + self.overflow)

    def percentile(self, q: float) -> float | None:
        return quantile(self.times.bounds, self.times.counts, q) if self.times.time_count else None


def observe(
    window: Window,
    replicas: Sequence[Replica],
    services: Iterable[str],
    desired: Mapping[str, int],
    *,
    time: float,
    tick: int,
) -> Observation:
    """What ``window`` says about ``services``; ``desired`` holds the counts last asked for."""
    groups = {replica.node_id: replica.service for replica in replicas}
    nodes = {node_id: node for node_id, node in window.nodes.items() if node.covered > 0.0 and node_id in groups}
    names = frozenset(services)
    edges = _edges(nodes, groups, names)
    limited = _rate_limited(nodes)
    observed = {
        name: _service(
            name,
            edges,
            _Inbound.of(name, replicas, nodes),
            desired=desired.get(name),
            limited=limited.get(name, 0.0),
            business=window.business.get(name, {}),
        )
        for name in sorted(names)
    }
    records = tuple(_edge(caller, callee, flow) for (caller, callee), flow in sorted(edges.items()))
    return Observation(time=time, tick=tick, services=observed, edges=records, replicas=tuple(replicas))


def heard(window: Window) -> bool:
    """Whether any sidecar reported; without a report a tick knows nothing, which is not the same as no traffic."""
    return any(node.covered > 0.0 for node in window.nodes.values())


def _edges(
    nodes: Mapping[str, NodeWindow], groups: Mapping[str, str], names: frozenset[str]
) -> dict[tuple[str, str], Flow]:
    edges: dict[tuple[str, str], Flow] = defaultdict(Flow)
    for node_id, node in nodes.items():
        for callee, totals in node.clusters.items():
            if callee in names:
                edges[(groups[node_id], callee)].add(totals, node.covered)
    return edges


def _rate_limited(nodes: Mapping[str, NodeWindow]) -> dict[str, float]:
    limited: dict[str, float] = defaultdict(float)
    for node in nodes.values():
        for service, count in node.rate_limited.items():
            limited[service] += count / node.covered
    return limited


def _edge(caller: str, callee: str, flow: Flow) -> EdgeObservation:
    return EdgeObservation(
        caller=caller,
        callee=callee,
        demand=flow.demand,
        sent=flow.requests,
        retries=flow.retries,
        errors=flow.errors,
        overflow=flow.overflow,
        mean_latency=flow.times.mean_latency,
        p50=flow.percentile(0.5),
        p99=flow.percentile(0.99),
    )


@dataclass(slots=True)
class _Inbound:
    """One service from the inside: its replicas and what their own sidecars let in."""

    replicas: list[Replica]
    flow: Flow

    @classmethod
    def of(cls, name: str, replicas: Iterable[Replica], nodes: Mapping[str, NodeWindow]) -> _Inbound:
        own = [replica for replica in replicas if replica.service == name]
        flow = Flow()
        for replica in own:
            if replica.node_id in nodes:
                flow.add(nodes[replica.node_id].inbound, nodes[replica.node_id].covered)
        return cls(own, flow)


def _service(
    name: str,
    edges: Mapping[tuple[str, str], Flow],
    inside: _Inbound,
    *,
    desired: int | None,
    limited: float,
    business: Mapping[str, float],
) -> ServiceObservation:
    seen = _merge(flow for (_, callee), flow in edges.items() if callee == name)
    service_time = inside.flow.times.mean_latency
    living = sum(replica.phase != "terminating" for replica in inside.replicas)
    return ServiceObservation(
        service=name,
        demand=max(seen.demand, inside.flow.demand) + limited,
        rate=max(inside.flow.requests, seen.requests - seen.retries),
        errors=seen.errors,
        rate_limited=limited,
        mean_latency=seen.times.mean_latency,
        p50=seen.percentile(0.5),
        p99=seen.percentile(0.99),
        service_time=service_time,
        in_flight=inside.flow.requests * (service_time or 0.0),
        ready=sum(replica.phase == "ready" for replica in inside.replicas),
        desired=living if desired is None else desired,
        cpu=sum(replica.cpu for replica in inside.replicas),
        memory=sum(replica.memory for replica in inside.replicas),
        business=dict(business),
    )


def _merge(flows: Iterable[Flow]) -> Flow:
    merged = Flow()
    for flow in flows:
        merged.requests += flow.requests
        merged.retries += flow.retries
        merged.errors += flow.errors
        merged.overflow += flow.overflow
        merged.times.merge(flow.times)
    return merged
