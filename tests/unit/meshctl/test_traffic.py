"""Deltas of sidecars fold into one window per tick; rates divide by what the flushes cover."""

from __future__ import annotations

import pytest

from meshctl.sources.otlp import Export, Point, PointKind
from meshctl.sources.traffic import MAX_SOURCES, Traffic
from xds.loads import ClusterLoad, LoadReport


def point(
    name: str, value: float, start: float = 10.0, end: float = 11.0, *, kind: PointKind = "delta", **attributes: str
) -> Point:
    return Point(name, {f"envoy.{key}": text for key, text in attributes.items()}, kind, start, end, value)


def times(name: str, milliseconds: float, count: int, **attributes: str) -> Point:
    labels = {f"envoy.{key}": text for key, text in attributes.items()}
    return Point(name, labels, "delta", 10.0, 11.0, milliseconds * count, count, (100.0, 500.0), (0, count, 0))


@pytest.fixture
def traffic() -> Traffic:
    groups = {"frontend-0": "frontend", "ingress-0": "ingress"}
    made = Traffic()
    made.know(groups, frozenset({"frontend", "catalog", "checkout"}))
    return made


def test_requests_retries_and_what_was_shed_are_told_apart(traffic: Traffic) -> None:
    points = [
        point("cluster.upstream_rq_total", 20, cluster_name="catalog"),
        point("cluster.upstream_rq_retry", 3, cluster_name="catalog"),
        point("cluster.upstream_rq_pending_overflow", 1, cluster_name="catalog"),
        point("cluster.upstream_rq_active_overflow", 4, cluster_name="catalog"),
        point("cluster.upstream_rq_xx", 15, response_code_class="2", cluster_name="catalog"),
        point("cluster.upstream_rq_xx", 5, response_code_class="5", cluster_name="catalog"),
        times("cluster.upstream_rq_time", 200.0, 15, cluster_name="catalog"),
    ]
    assert traffic.accept(Export("frontend", "frontend-0", points))
    totals = traffic.take().nodes["frontend-0"].clusters["catalog"]
    assert (totals.requests, totals.retries, totals.overflow) == (20, 3, 5)
    assert (totals.completed, totals.errors) == (20, 5)
    assert totals.mean_latency == pytest.approx(0.2)
    assert totals.bounds == (0.1, 0.5)


def test_attempts_that_found_no_connection_were_made_all_the_same(traffic: Traffic) -> None:
    """As Envoy counts three requests to a dead replica, each retried twice: none is in the total."""
    points = [
        point("cluster.upstream_rq_pending_failure_eject", 9, cluster_name="catalog"),
        point("cluster.upstream_rq_retry", 6, cluster_name="catalog"),
    ]
    assert traffic.accept(Export("frontend", "frontend-0", points))
    totals = traffic.take().nodes["frontend-0"].clusters["catalog"]
    assert (totals.requests, totals.retries) == (9, 6)


def test_a_window_covers_what_its_flushes_cover(traffic: Traffic) -> None:
    for start, end in ((10.0, 11.0), (11.0, 12.0), (13.0, 14.5)):  # the flush from 12 to 13 was lost
        flush = [point("cluster.upstream_rq_total", 5, start, end, cluster_name="catalog")]
        traffic.accept(Export("frontend", "frontend-0", flush * 2))
    assert traffic.take().nodes["frontend-0"].covered == pytest.approx(3.5)


def test_a_window_is_taken_once(traffic: Traffic) -> None:
    traffic.accept(Export("frontend", "frontend-0", [point("cluster.upstream_rq_total", 5, cluster_name="catalog")]))
    assert traffic.take().nodes
    assert not traffic.take().nodes


def test_arms_faults_and_enforced_limits(traffic: Traffic) -> None:
    points = [
        point("vhost.route.upstream_rq_xx", 6, route="frontend_treatment", response_code_class="5"),
        times("vhost.route.upstream_rq_time", 50.0, 6, route="frontend_treatment"),
        point("http.fault.aborts_injected", 2, http_conn_manager_prefix="inbound"),
        point("http_local_rate_limit.enforced", 9, local_http_ratelimit_prefix="ratelimit_plan_frontend"),
        point("http_local_rate_limit.rate_limited", 50, local_http_ratelimit_prefix="ratelimit_plan_frontend"),
    ]
    traffic.accept(Export("ingress", "ingress-0", points))
    node = traffic.take().nodes["ingress-0"]
    assert node.arms[("frontend", "treatment")].errors == 6
    assert node.arms[("frontend", "treatment")].mean_latency == pytest.approx(0.05)
    assert node.aborts == 2
    assert node.rate_limited == {"frontend": 9}


@pytest.mark.parametrize(
    ("service", "instance"), [("frontend", "frontend-9"), ("catalog", "frontend-0"), ("stranger", "stranger-0")]
)
def test_what_a_stranger_says_is_not_counted(traffic: Traffic, service: str, instance: str) -> None:
    flush = [point("cluster.upstream_rq_total", 5, cluster_name="catalog")]
    accepted = traffic.accept(Export(service, instance, flush))
    window = traffic.take()
    assert not window.nodes
    assert accepted == (service in ("catalog", "frontend"))  # an application may say what it likes of itself


def test_business_metrics_of_replicas_add_up(traffic: Traffic) -> None:
    for instance, value in (("checkout-0", 4), ("checkout-0", 6), ("checkout-1", 3)):
        traffic.accept(Export("checkout", instance, [point("orders", value)]))
    assert traffic.take().business == {"checkout": {"orders": 8.0}}


def test_made_up_names_are_refused_beyond_a_bound(traffic: Traffic) -> None:
    traffic.accept(Export("checkout", "checkout-0", [point(f"m{number}", 1) for number in range(MAX_SOURCES + 5)]))
    assert len(traffic.take().business["checkout"]) == MAX_SOURCES
    assert traffic.rejected == 5


def test_business_metrics_become_rates_whatever_their_temporality(traffic: Traffic) -> None:
    def orders(value: float, start: float, end: float, kind: PointKind) -> None:
        traffic.accept(Export("checkout", "checkout-0", [point("orders", value, start, end, kind=kind)]))

    orders(100, 5.0, 10.0, "cumulative")  # only a reference
    orders(110, 5.0, 12.0, "cumulative")
    assert traffic.take().business == {"checkout": {"orders": 5.0}}
    orders(4, 12.0, 14.0, "delta")
    assert traffic.take().business == {"checkout": {"orders": 2.0}}
    orders(7, 20.0, 21.0, "cumulative")  # restarted
    assert traffic.take().business["checkout"]["orders"] == pytest.approx(7 / 9)


# Load reports


def load_report(now: float, issued: int = 10, *, interval: float = 5.0, group: str = "frontend") -> LoadReport:
    load = ClusterLoad("catalog", interval, issued=issued, succeeded=issued - 1, failed=1, dropped=2)
    return LoadReport("frontend-0", group, now, (load, ClusterLoad("idle", interval)))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loaded(clock: Clock) -> Traffic:
    made = Traffic(clock)
    made.know({"frontend-0": "frontend"}, frozenset({"frontend", "catalog"}))
    return made


def otlp(requests: float, end: float) -> Export:
    point_ = point("cluster.upstream_rq_total", requests, end - 1.0, end, cluster_name="catalog")
    return Export("frontend", "frontend-0", [point_])


def test_a_sidecar_without_otlp_is_known_by_its_load_reports(loaded: Traffic) -> None:
    assert loaded.accept_load(load_report(100.0))
    assert loaded.accept_load(load_report(105.0, 20))
    node = loaded.take().nodes["frontend-0"]
    totals = node.clusters["catalog"]
    assert node.covered == 10.0
    assert (totals.requests, totals.completed, totals.errors, totals.overflow, totals.retries) == (30, 30, 2, 4, 0)
    assert loaded.take().nodes == {}
    assert loaded.load_reports == {"used": 2}


def test_what_otlp_told_is_not_counted_twice(loaded: Traffic, clock: Clock) -> None:
    loaded.accept(otlp(7, 100.0))
    clock.now = 103.0
    loaded.accept_load(load_report(103.0))
    assert loaded.take().nodes["frontend-0"].clusters["catalog"].requests == 7
    loaded.accept_load(load_report(107.9))
    assert loaded.take().nodes == {}, "it begins when the next flush may still tell of that time"
    assert loaded.load_reports == {"redundant": 2}


def test_otlp_wins_if_it_begins_within_the_window(loaded: Traffic, clock: Clock) -> None:
    loaded.accept_load(load_report(100.0))
    clock.now = 101.0
    loaded.accept(otlp(7, 101.0))
    node = loaded.take().nodes["frontend-0"]
    assert (node.clusters["catalog"].requests, node.covered) == (7, 1.0)


def test_load_reports_take_over_where_otlp_ends(loaded: Traffic, clock: Clock) -> None:
    loaded.accept(otlp(7, 100.0))
    loaded.take()
    clock.now = 108.0
    loaded.accept_load(load_report(108.0))
    assert loaded.take().nodes["frontend-0"].clusters["catalog"].requests == 10


@pytest.mark.parametrize("group", ["catalog", ""])
def test_load_reports_of_strangers_are_not_counted(loaded: Traffic, group: str) -> None:
    assert not loaded.accept_load(load_report(100.0, group=group))
    assert loaded.take().nodes == {}
    assert loaded.rejected == 2
