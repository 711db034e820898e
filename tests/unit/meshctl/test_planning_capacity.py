"""Service times, utilisation and counts: the arithmetic under every decision about replicas."""

from __future__ import annotations

import pytest

from meshctl.model import ServiceObservation
from meshctl.planning import capacity


def seen(
    demand: float = 0.0,
    rate: float | None = None,
    ready: int = 1,
    time: float | None = 0.1,
    errors: float = 0.0,
    mean_latency: float | None = None,
) -> ServiceObservation:
    return ServiceObservation(
        service="catalog",
        demand=demand,
        rate=demand if rate is None else rate,
        errors=errors,
        rate_limited=0.0,
        mean_latency=mean_latency,
        p50=None,
        p99=None,
        service_time=time,
        in_flight=0.0,
        ready=ready,
        desired=ready,
        cpu=0.0,
        memory=0,
    )


def test_the_service_time_is_what_the_sidecar_measured() -> None:
    assert capacity.service_time(seen(demand=10.0, time=0.1), concurrency=8) == 0.1


def test_without_a_sidecar_measurement_the_callers_latency_counts() -> None:
    assert capacity.service_time(seen(demand=10.0, time=None, mean_latency=0.2), concurrency=8) == 0.2


@pytest.mark.parametrize("time", [None, 0.0])
def test_nothing_measured_is_nothing_known(time: float | None) -> None:
    assert capacity.service_time(seen(demand=10.0, time=time), concurrency=8) is None


def test_waiting_in_an_overloaded_replica_is_not_service() -> None:
    # 8 places that serve 80/s spend 0.1 s on each request, however long requests wait in the queue.
    assert capacity.service_time(seen(demand=200.0, rate=80.0, time=0.5), concurrency=8) == pytest.approx(0.1)


def test_failed_requests_prove_no_capacity() -> None:
    assert capacity.service_time(seen(demand=200.0, rate=200.0, errors=200.0, time=0.5), concurrency=8) == 0.5


def test_smoothing_moves_slowly_and_not_without_a_measurement() -> None:
    assert capacity.smooth(None, 0.1) == 0.1
    assert capacity.smooth(0.1, None) == 0.1
    assert capacity.smooth(None, None) is None
    assert capacity.smooth(0.1, 0.2) == pytest.approx(0.13)


def test_utilisation_is_requests_in_flight_per_place() -> None:
    assert capacity.utilization(seen(demand=40.0, ready=2), 4, 0.1) == pytest.approx(0.5)


def test_shed_load_counts_as_utilisation() -> None:
    assert capacity.utilization(seen(demand=160.0, rate=40.0, ready=2), 4, 0.1) == pytest.approx(2.0)


def test_waiting_requests_count_as_utilisation() -> None:
    assert capacity.utilization(seen(demand=40.0, time=0.4), 4, 0.1) == pytest.approx(4.0)


def test_no_traffic_is_idle_and_no_replica_is_unknown() -> None:
    assert capacity.utilization(seen(time=None), 4, None) == 0.0
    assert capacity.utilization(seen(demand=5.0, ready=0), 4, 0.1) is None
    assert capacity.utilization(seen(demand=5.0, time=None), 4, None) is None


@pytest.mark.parametrize(
    ("current", "ready", "utilization", "expected"),
    [
        (2, 2, 1.0, 4),  # 2 x 1.0 / 0.5
        (2, 2, 0.5, 2),
        (2, 2, 0.54, 2),  # within tolerance
        (2, 2, 0.56, 3),
        (4, 4, 0.25, 2),
        (4, 4, 0.0, 0),
        (4, 2, 0.8, 4),  # starting replicas would turn a scale-up into a scale-down: wait
        (4, 2, 1.5, 6),
        (0, 0, 1.0, 2),
        (3, 3, 0.5000000001, 3),
    ],
)
def test_the_formula_of_kubernetes(current: int, ready: int, utilization: float, expected: int) -> None:
    assert capacity.hpa(current, ready, utilization, target=0.5, tolerance=0.1) == expected


def test_the_formula_knows_nothing_without_a_measurement() -> None:
    assert capacity.hpa(2, 2, None, target=0.5, tolerance=0.1) is None


def test_replicas_for_a_rate() -> None:
    assert capacity.capacity(8, 0.1) == pytest.approx(80.0)
    assert capacity.replicas_for(0.0, 0.1, 8, 0.65) == 0
    assert capacity.replicas_for(52.0, 0.1, 8, 0.65) == 1
    assert capacity.replicas_for(53.0, 0.1, 8, 0.65) == 2
