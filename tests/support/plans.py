"""Random changes of a small mesh: clusters that come, go and change names, weights, endpoints, limits, listeners.

A plan is what one sidecar should have; ``changed`` makes the next one. Pure: chance is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import TypeVar

from envoy_data_plane.envoy.config.cluster.v3 import CircuitBreakers, CircuitBreakersThresholds, Cluster
from envoy_data_plane.envoy.config.listener.v3 import Listener

from tests.support.resources import assignment, cluster, listener, weighted_routes
from xds.snapshot import Snapshot, resource, resource_set, snapshot
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE

MOST_CLUSTERS = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """A cluster: the ports of its endpoints, and a threshold that no load here reaches."""

    ports: tuple[int, ...]
    most_requests: int = 1000


@dataclass(frozen=True)
class Plan:
    """Clusters by name; for each listener its port, the weights of its routes and a field that matters to nobody.

    ``made`` counts the clusters ever made, so that a name is never used again.
    """

    targets: Mapping[str, Target]
    listeners: Mapping[str, int]
    weights: Mapping[str, Mapping[str, int]]
    buffers: Mapping[str, int] = field(default_factory=dict)
    prefixes: Mapping[str, str] = field(default_factory=dict)
    made: int = 0

    @property
    def ports(self) -> frozenset[int]:
        """The endpoints that may get requests."""
        routed = {name for weights in self.weights.values() for name in weights}
        return frozenset(port for name in routed for port in self.targets[name].ports)


def first(listeners: Mapping[str, int], ports: tuple[int, ...]) -> Plan:
    """One cluster behind all listeners."""
    return Plan({"c-0": Target(ports)}, listeners, {name: {"c-0": 1} for name in listeners}, made=1)


def changed(plan: Plan, ports: tuple[int, ...], chance: Random) -> tuple[str, Plan]:
    """One random change of ``plan``, and what kind it is; ``ports`` are those of all backends."""
    name = chance.choice(sorted(_CHANGES))
    return name, _CHANGES[name](plan, ports, chance)


def content(plan: Plan) -> Snapshot:
    """The resources of a plan."""
    return snapshot(
        resource_set(CLUSTER, [resource(name, _cluster(name, one)) for name, one in plan.targets.items()]),
        resource_set(ENDPOINT, [resource(name, assignment(name, *one.ports)) for name, one in plan.targets.items()]),
        resource_set(LISTENER, [resource(name, _listener(name, plan)) for name in plan.listeners]),
        resource_set(ROUTE, [resource(name, weighted_routes(one, name)) for name, one in plan.weights.items()]),
    )


def _cluster(name: str, target: Target) -> Cluster:
    made = cluster(name)
    threshold = CircuitBreakersThresholds(max_requests=target.most_requests)
    made.circuit_breakers = CircuitBreakers(thresholds=[threshold])
    return made


def _listener(name: str, plan: Plan) -> Listener:
    made = listener(plan.listeners[name], plan.prefixes.get(name, name), name)
    made.per_connection_buffer_limit_bytes = plan.buffers.get(name, 1 << 20)
    return made


# Kinds of change


def _add(plan: Plan, ports: tuple[int, ...], chance: Random) -> Plan:
    if len(plan.targets) >= MOST_CLUSTERS:
        return _remove(plan, ports, chance)
    name = f"c-{plan.made}"
    grown = replace(plan, targets={**plan.targets, name: Target(_some(ports, chance))}, made=plan.made + 1)
    return _weigh(grown, ports, chance) if chance.random() < 0.7 else grown


def _remove(plan: Plan, ports: tuple[int, ...], chance: Random) -> Plan:
    if len(plan.targets) == 1:
        return _add(plan, ports, chance)
    gone = chance.choice(sorted(plan.targets))
    left = {name: one for name, one in plan.targets.items() if name != gone}
    weights = {name: _without(one, gone, left, chance) for name, one in plan.weights.items()}
    return replace(plan, targets=left, weights=weights)


def _without(weights: Mapping[str, int], gone: str, left: Iterable[str], chance: Random) -> Mapping[str, int]:
    kept = {name: weight for name, weight in weights.items() if name != gone}
    return kept or {chance.choice(sorted(left)): 1}


def _rename(plan: Plan, ports: tuple[int, ...], chance: Random) -> Plan:
    """The same cluster under a new name, everywhere at once: everything must be made before it is broken."""
    old, new = chance.choice(sorted(plan.targets)), f"c-{plan.made}"

    def renamed(name: str) -> str:
        return new if name == old else name

    targets = {renamed(name): one for name, one in plan.targets.items()}
    weights = {where: {renamed(name): part for name, part in one.items()} for where, one in plan.weights.items()}
    return replace(plan, targets=targets, weights=weights, made=plan.made + 1)


def _weigh(plan: Plan, _: tuple[int, ...], chance: Random) -> Plan:
    where = chance.choice(sorted(plan.weights))
    chosen = _some(tuple(sorted(plan.targets)), chance)
    return replace(plan, weights={**plan.weights, where: {name: chance.randint(1, 9) for name in chosen}})


def _move(plan: Plan, ports: tuple[int, ...], chance: Random) -> Plan:
    name = chance.choice(sorted(plan.targets))
    return _retargeted(plan, name, ports=_some(ports, chance))


def _limit(plan: Plan, _: tuple[int, ...], chance: Random) -> Plan:
    name = chance.choice(sorted(plan.targets))
    return _retargeted(plan, name, most_requests=chance.randint(500, 5000))


def _limit_and_move(plan: Plan, ports: tuple[int, ...], chance: Random) -> Plan:
    name = chance.choice(sorted(plan.targets))
    return _retargeted(plan, name, ports=_some(ports, chance), most_requests=chance.randint(500, 5000))


def _retargeted(plan: Plan, name: str, **fields: object) -> Plan:
    return replace(plan, targets={**plan.targets, name: replace(plan.targets[name], **fields)})  # type: ignore[arg-type]


def _rebuild_listener(plan: Plan, _: tuple[int, ...], chance: Random) -> Plan:
    """A field of the listener itself: Envoy replaces the listener and drains the old one."""
    where = chance.choice(sorted(plan.listeners))
    return replace(plan, buffers={**plan.buffers, where: chance.randint(1 << 18, 1 << 20)})


def _rebuild_filters(plan: Plan, _: tuple[int, ...], chance: Random) -> Plan:
    """A field of the HTTP connection manager: Envoy replaces the filter chain in place."""
    where = chance.choice(sorted(plan.listeners))
    return replace(plan, prefixes={**plan.prefixes, where: f"{where}-{chance.randint(0, 9)}"})


def _some(things: tuple[T, ...], chance: Random) -> tuple[T, ...]:
    return tuple(chance.sample(things, chance.randint(1, min(3, len(things)))))


_CHANGES: Mapping[str, Callable[[Plan, tuple[int, ...], Random], Plan]] = {
    "add": _add,
    "remove": _remove,
    "rename": _rename,
    "weigh": _weigh,
    "move": _move,
    "limit": _limit,
    "limit and move": _limit_and_move,
    "rebuild listener": _rebuild_listener,
    "rebuild filters": _rebuild_filters,
}
