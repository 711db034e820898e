"""Windows become observations: demand is what was offered, utilisation what the service's own sidecars saw."""

from __future__ import annotations

import pytest

from meshctl.control.observe import heard, observe
from meshctl.model import Phase, Replica
from meshctl.sources.windows import NodeWindow, Totals, Window
from xds.model import Address


def replica(node_id: str, service: str, phase: Phase = "ready") -> Replica:
    address = Address("127.0.0.1", 1)
    return Replica(node_id, service, phase, address, address, address, address, cpu=0.1, memory=100)


def totals(requests: float, seconds: float = 0.2, **others: float) -> Totals:
    made = Totals(requests=requests, completed=requests)
    for name, value in others.items():
        setattr(made, name, value)
    made.add_times(requests * seconds, int(requests), (0.1, 0.5), (0, int(requests), 0))
    return made


def node(covered: float = 2.0, **clusters: Totals) -> NodeWindow:
    window = NodeWindow(covered=covered)
    window.clusters.update(clusters)
    return window


REPLICAS = (replica("ingress-0", "ingress"), replica("frontend-0", "frontend"), replica("frontend-1", "frontend"))


def test_rates_of_all_callers_add_up_and_divide_by_cover() -> None:
    window = Window(
        {
            "frontend-0": node(2.0, catalog=totals(20, retries=4, overflow=2), inbound_app=totals(10, 0.3)),
            "frontend-1": node(1.0, catalog=totals(10)),
        },
        {},
    )
    seen = observe(window, REPLICAS, ["frontend", "catalog"], {}, time=100.0, tick=3)
    (edge,) = seen.edges
    assert (edge.caller, edge.callee) == ("frontend", "catalog")
    assert edge.demand == pytest.approx((20 - 4 + 2) / 2 + 10)
    assert edge.in_flight == pytest.approx(edge.sent * 0.2)
    frontend = seen.services["frontend"]
    assert frontend.service_time == pytest.approx(0.3)
    assert frontend.in_flight == pytest.approx(5 * 0.3)
    assert (frontend.ready, frontend.desired, frontend.memory) == (2, 2, 200)


def test_rate_limited_requests_are_demand() -> None:
    ingress = node(2.0, frontend=totals(40))
    ingress.rate_limited["frontend"] = 20
    seen = observe(Window({"ingress-0": ingress}, {}), REPLICAS, ["frontend"], {}, time=1.0, tick=1)
    assert seen.services["frontend"].demand == pytest.approx(30.0)
    assert seen.services["frontend"].rate == pytest.approx(20.0)


def test_desired_counts_come_from_the_plan_and_else_from_what_lives() -> None:
    replicas = (
        *REPLICAS,
        replica("frontend-2", "frontend", "terminating"),
        replica("frontend-3", "frontend", "pending"),
    )
    window = Window({}, {})
    assert observe(window, replicas, ["frontend"], {}, time=1.0, tick=1).services["frontend"].desired == 3
    assert observe(window, replicas, ["frontend"], {"frontend": 4}, time=1.0, tick=1).services["frontend"].desired == 4


def test_unknown_nodes_and_clusters_are_left_out() -> None:
    window = Window({"ghost-0": node(catalog=totals(5)), "frontend-0": node(xds_cluster=totals(5))}, {})
    assert observe(window, REPLICAS, ["frontend", "catalog"], {}, time=1.0, tick=1).edges == ()


def test_silence_is_not_the_same_as_no_traffic() -> None:
    assert not heard(Window({}, {}))
    assert heard(Window({"frontend-0": node(1.0)}, {}))
