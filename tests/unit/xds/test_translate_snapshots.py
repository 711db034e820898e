"""A mesh as snapshots: what each node knows, what nodes share, and what changes when the mesh changes."""

from __future__ import annotations

import dataclasses

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.extensions.filters.http.fault.v3 import HttpFault
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions
from hypothesis import given
from hypothesis import strategies as st

from xds import types
from xds.errors import TranslateError
from xds.model import Address, Call, Limits, Mesh, Protocol, Route, Service, Workload
from xds.snapshot import Snapshot, check
from xds.translate import clusters, endpoints, listeners, snapshots

BASE = Limits(max_connections=1, max_pending_requests=2, max_requests=3, max_retries=4)
OWN = Limits(max_connections=5, max_pending_requests=6, max_requests=7, max_retries=8)


def at(port: int, host: str = "127.0.0.1") -> Address:
    return Address(host, port)


def sidecar(node_id: str, port: int = 15006) -> Workload:
    return Workload(node_id, node_id.rpartition("-")[0], at(port), at(port + 1), at(port + 2))


SERVICES = {
    "web": Service("web", OWN, (at(10),)),
    "catalog": Service("catalog", OWN, (at(20), at(21))),
    "cart": Service("cart", OWN, protocol="grpc"),
}
MESH = Mesh(
    SERVICES,
    (Call("ingress", "web", BASE), Call("web", "catalog", BASE), Call("web", "cart", BASE)),
    {"ingress": (Route("/", "web"),)},
)
INGRESS = Workload("ingress-0", "ingress", at(8000))
WORKLOADS = (INGRESS, sidecar("web-0"), sidecar("web-1"), sidecar("catalog-0"), sidecar("cart-0"))


def names(snapshot: Snapshot, type_url: str) -> list[str]:
    return list(snapshot.sets[type_url].resources)


def manager(listener: Listener) -> HttpConnectionManager:
    config = listener.filter_chains[0].filters[0].typed_config
    assert config is not None
    return HttpConnectionManager.parse(config.value)


def test_a_sidecar_knows_only_what_its_service_calls() -> None:
    made = snapshots(MESH, WORKLOADS)
    assert names(made["web-0"], types.CLUSTER) == ["cart", "catalog", "inbound_app"]
    assert names(made["web-0"], types.ENDPOINT) == ["cart", "catalog"]
    assert names(made["web-0"], types.LISTENER) == ["inbound", "outbound"]
    assert names(made["web-0"], types.ROUTE) == ["inbound", "outbound"]
    assert names(made["catalog-0"], types.CLUSTER) == ["inbound_app"]
    assert names(made["catalog-0"], types.ENDPOINT) == []


def test_an_ingress_has_one_listener_and_no_application() -> None:
    made = snapshots(MESH, WORKLOADS)["ingress-0"]
    assert [names(made, url) for url in (types.CLUSTER, types.ENDPOINT, types.LISTENER, types.ROUTE)] == [
        ["web"],
        ["web"],
        ["ingress"],
        ["ingress"],
    ]


def test_every_snapshot_is_consistent() -> None:
    for made in snapshots(MESH, WORKLOADS).values():
        check(made)


def test_replicas_with_the_same_ports_share_every_set() -> None:
    made = snapshots(MESH, WORKLOADS)
    assert all(made["web-0"].sets[url] is made["web-1"].sets[url] for url in made["web-0"].sets)


def test_replicas_with_ports_of_their_own_share_endpoints_and_routes() -> None:
    made = snapshots(MESH, (sidecar("web-0", 15006), sidecar("web-1", 16006)))
    shared = {url for url in made["web-0"].sets if made["web-0"].sets[url] is made["web-1"].sets[url]}
    assert shared == {types.ENDPOINT, types.ROUTE}


def test_a_new_replica_changes_endpoints_and_nothing_else() -> None:
    catalog = dataclasses.replace(SERVICES["catalog"], endpoints=(at(20), at(21), at(22)))
    grown = dataclasses.replace(MESH, services={**SERVICES, "catalog": catalog})
    before, after = (snapshots(mesh, WORKLOADS) for mesh in (MESH, grown))
    changed = {
        (node_id, types.short_name(url))
        for node_id, made in before.items()
        for url in made.sets
        if made.sets[url] != after[node_id].sets[url]
    }
    assert changed == {("web-0", "eds"), ("web-1", "eds")}


@given(st.permutations(WORKLOADS), st.permutations(MESH.calls), st.permutations(sorted(SERVICES)))
def test_order_does_not_matter(workloads: list[Workload], calls: list[Call], services: list[str]) -> None:
    shuffled = Mesh({name: SERVICES[name] for name in services}, tuple(calls), MESH.ingresses)
    assert snapshots(shuffled, workloads) == snapshots(MESH, WORKLOADS)


@pytest.mark.parametrize(
    ("mesh", "workload", "message"),
    [
        (MESH, sidecar("shop-0"), r"workload 'shop-0' names the unknown service 'shop'; known: cart, catalog, web"),
        (MESH, Workload("edge-0", "edge", at(1)), r"'edge' is no ingress"),
        (dataclasses.replace(MESH, calls=(Call("web", "shop", BASE),)), sidecar("web-0"), r"call from 'web'.*'shop'"),
        (dataclasses.replace(MESH, calls=()), INGRESS, r"routes to 'web' without a call"),
    ],
)
def test_a_name_that_nobody_has_is_refused(mesh: Mesh, workload: Workload, message: str) -> None:
    with pytest.raises(TranslateError, match=message):
        snapshots(mesh, [workload])


def test_a_node_id_is_used_once() -> None:
    with pytest.raises(TranslateError, match="node id 'web-0' is used by two workloads"):
        snapshots(MESH, [sidecar("web-0"), sidecar("web-0", 16000)])


def test_base_limits_and_capacity_are_the_thresholds() -> None:
    made = snapshots(MESH, WORKLOADS)["web-0"].sets[types.CLUSTER].resources
    for name, limits in {"catalog": BASE, "inbound_app": OWN}.items():
        breakers = Cluster.parse(made[name].body).circuit_breakers
        assert breakers is not None
        (threshold,) = breakers.thresholds
        assert threshold.track_remaining
        assert Limits(*(getattr(threshold, field.name) for field in dataclasses.fields(Limits))) == limits


@pytest.mark.parametrize(("protocol", "http2"), [("http", False), ("http2", True), ("grpc", True)])
def test_an_application_is_spoken_to_in_its_own_protocol(protocol: Protocol, http2: bool) -> None:
    cluster = clusters.inbound_app(Service("x", OWN, protocol=protocol), at(80))
    (packed,) = cluster.typed_extension_protocol_options.values()
    config = HttpProtocolOptions.parse(packed.value).explicit_http_config
    assert config is not None
    assert (config.http2_protocol_options is not None) is http2


def test_outliers_are_ejected_gently() -> None:
    outlier = clusters.outlier_detection()
    assert outlier.max_ejection_percent == 50
    assert not outlier.always_eject_one_host
    assert outlier.enforcing_consecutive_5xx == 0


def test_an_assignment_without_replicas_is_there_and_empty() -> None:
    made = endpoints.assignment(SERVICES["cart"])
    assert made == ClusterLoadAssignment(cluster_name="cart", endpoints=[])


@given(st.permutations([at(3), at(1), at(2), at(1), at(1, "10.0.0.9")]))
def test_replicas_are_in_one_order_and_once(addresses: list[Address]) -> None:
    made = endpoints.assignment(Service("x", OWN, tuple(addresses)))
    sockets = [each.endpoint.address.socket_address for each in made.endpoints[0].lb_endpoints]  # type: ignore[union-attr]
    assert [(each.address, each.port_value) for each in sockets if each] == [
        ("10.0.0.9", 1),
        ("127.0.0.1", 1),
        ("127.0.0.1", 2),
        ("127.0.0.1", 3),
    ]


def test_the_fault_filter_stands_in_the_inbound_listener_only() -> None:
    filters = {
        make.__name__: [each.name for each in manager(make(at(1))).http_filters]
        for make in (listeners.inbound, listeners.outbound, listeners.ingress)
    }
    assert filters == {
        "inbound": ["envoy.filters.http.fault", "envoy.filters.http.router"],
        "outbound": ["envoy.filters.http.router"],
        "ingress": ["ratelimit_base", "ratelimit_plan", "envoy.filters.http.router"],
    }


def test_faults_are_off_and_for_the_treatment_arm() -> None:
    fault = HttpFault.parse(bytes(listeners.fault()))
    assert fault.abort is not None
    assert fault.delay is not None
    assert fault.abort.percentage is not None
    assert fault.delay.percentage is not None
    assert (fault.abort.percentage.numerator, fault.delay.percentage.numerator) == (0, 0)
    (header,) = fault.headers
    assert header.string_match is not None
    assert (header.name, header.string_match.exact) == ("x-chaos-group", "treatment")


def test_an_ingress_trusts_no_client() -> None:
    made = manager(listeners.ingress(at(1)))
    assert made.use_remote_address is True
    assert made.internal_address_config is not None
    assert made.internal_address_config.cidr_ranges == []
    assert not manager(listeners.inbound(at(1))).use_remote_address
