"""How much one replica serves, how busy replicas are, and how many are needed.

Little's law and the utilisation law carry everything here (https://en.wikipedia.org/wiki/Little%27s_law): requests in
service = rate x service time, and a replica with ``concurrency`` places serves at most concurrency / service time per
second.
"""

from __future__ import annotations

from math import ceil

from meshctl.model import ServiceObservation

#: Weight of the newest measurement in the smoothed service time: one odd tick moves it by less than a third.
SMOOTHING = 0.3

#: Counts are rounded up, but not because of floating-point dust.
_DUST = 1e-9


def service_time(service: ServiceObservation, concurrency: int) -> float | None:
    """Seconds that one request occupies a place in a replica; None while nothing was measured.

    What a sidecar measures includes waiting in the replica's own queue once all places are taken, which would make an
    overloaded replica look slow. But a replica that serves ``r`` requests per second with ``concurrency`` places
    spends at most concurrency / r on each, so the smaller of the two is taken.
    """
    measured = service.service_time if service.service_time is not None else service.mean_latency
    if measured is None or measured <= 0:
        return None
    good = max(service.rate - service.errors, 0.0)
    return min(measured, concurrency * service.ready / good) if good > 0 and service.ready > 0 else measured


def smooth(previous: float | None, measured: float | None) -> float | None:
    """The exponentially weighted mean of service times, unmoved by ticks without a measurement."""
    if previous is None or measured is None:
        return measured if previous is None else previous
    return previous + SMOOTHING * (measured - previous)


def capacity(concurrency: int, time: float) -> float:
    """Requests per second that one replica serves with every place taken; ``time`` is the service time in seconds."""
    return concurrency / time


def utilization(service: ServiceObservation, concurrency: int, time: float | None) -> float | None:
    """Requests in flight per place of the ready replicas: 1 is full, more is queueing. None where it cannot be known.

    It is the larger of what is there (served rate x measured time, waiting included) and of what was offered (demand x
    service time), so load that limits shed counts too: a mesh that sheds is short of replicas.
    """
    if service.ready <= 0:
        return None
    if service.demand <= 0 and service.rate <= 0:
        return 0.0
    if time is None:
        return None
    inside = service.rate * (service.service_time or time)
    return max(inside, service.demand * time) / (service.ready * concurrency)


def hpa(current: int, ready: int, utilization: float | None, target: float, tolerance: float) -> int | None:
    """What the Kubernetes Horizontal Pod Autoscaler wants: ceil(current x utilisation / target), or None unmeasured.

    As in Kubernetes, nothing changes within ``tolerance``; replicas that are not ready yet count as idle, and if that
    turns a scale-up into a scale-down, nothing changes
    (https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details).
    """
    if utilization is None:
        return None
    alone = utilization / target
    ratio = ready * alone / current if current > 0 else alone
    if abs(alone - 1) <= tolerance or abs(ratio - 1) <= tolerance or (alone > 1) != (ratio > 1):
        return current
    return ceil(ratio * max(current, 1) - _DUST)


def replicas_for(rate: float, time: float, concurrency: int, target: float) -> int:
    """Replicas that serve ``rate`` requests per second at the target utilisation."""
    return ceil(rate * time / (concurrency * target) - _DUST)
