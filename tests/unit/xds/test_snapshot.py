"""Versions are content; contradictions are found before a client finds them."""

from __future__ import annotations

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType, ClusterEdsClusterConfig
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteAction,
    RouteActionRequestMirrorPolicy,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
    WeightedClusterClusterWeight,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager, Rds
from envoy_data_plane.google.protobuf import Any as AnyMessage

from tests.unit.xds.link import make
from xds.errors import SnapshotError
from xds.snapshot import ResourceSet, Snapshot, check, resource, resource_set, snapshot, snapshot_of
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE


def listener(route_name: str) -> Listener:
    manager = AnyMessage.pack(HttpConnectionManager(rds=Rds(route_config_name=route_name)))
    return Listener(name="l", filter_chains=[FilterChain(filters=[Filter(name="http", typed_config=manager)])])


def test_a_version_is_a_hash_of_the_content() -> None:
    one, same, other = (resource("a", Cluster(name=name)) for name in ("a", "a", "b"))
    assert one == same
    assert one.version != other.version
    assert (one.type_url, len(one.version)) == (CLUSTER, 16)
    int(one.version, 16)


def test_the_version_of_a_set_ignores_the_order() -> None:
    one, other = make.cluster("a"), make.cluster("b")
    assert make.set(CLUSTER, one, other) == make.set(CLUSTER, other, one)
    assert make.set(CLUSTER, one) != make.set(CLUSTER, other)
    assert len({make.set(CLUSTER, one), make.set(CLUSTER, one)}) == 1
    assert make.set(CLUSTER, one) != "a set"


def test_names_and_versions_are_not_confused() -> None:
    assert make.set(ENDPOINT, make.endpoints("ab")).version != make.set(ENDPOINT, make.endpoints("a")).version


def test_an_absent_type_is_not_loaded_and_an_empty_one_is() -> None:
    candidate = snapshot(resource_set(CLUSTER, []))
    assert candidate.get(ROUTE) is None
    loaded = candidate.get(CLUSTER)
    assert loaded is not None
    assert not loaded.resources


def test_duplicates_are_refused() -> None:
    with pytest.raises(SnapshotError, match="two cds resources are named 'a'"):
        make.set(CLUSTER, make.cluster("a"), make.cluster("a", 1))
    with pytest.raises(SnapshotError, match="two sets of type"):
        snapshot(make.set(CLUSTER), make.set(CLUSTER))


def test_a_resource_of_another_type_is_refused() -> None:
    with pytest.raises(SnapshotError, match="'a' is a eds resource"):
        make.set(CLUSTER, make.endpoints("a"))


def test_references_of_a_cluster() -> None:
    eds = Cluster(name="a", type=ClusterDiscoveryType.EDS)
    named = Cluster(
        name="a", type=ClusterDiscoveryType.EDS, eds_cluster_config=ClusterEdsClusterConfig(service_name="s")
    )
    assert resource("a", eds).assignment == "a"
    assert resource("a", named).assignment == "s"
    assert resource("a", Cluster(name="a", type=ClusterDiscoveryType.STATIC)).assignment is None


def test_references_of_routes() -> None:
    weights = [WeightedClusterClusterWeight(name="b"), WeightedClusterClusterWeight(name="c")]
    mirror = RouteActionRequestMirrorPolicy(cluster="d")
    host = VirtualHost(
        name="h",
        routes=[
            Route(route=RouteAction(cluster="a", request_mirror_policies=[mirror])),
            Route(route=RouteAction(weighted_clusters=WeightedCluster(clusters=weights))),
            Route(route=RouteAction(cluster_header="x-cluster")),
        ],
        request_mirror_policies=[RouteActionRequestMirrorPolicy(cluster="e")],
    )
    routes = RouteConfiguration(
        name="r", virtual_hosts=[host], request_mirror_policies=[RouteActionRequestMirrorPolicy(cluster="f")]
    )
    assert resource("r", routes).clusters == frozenset("abcdef")


def test_references_of_a_listener() -> None:
    assert resource("l", listener("r")).references == {(ROUTE, "r")}
    inline = HttpConnectionManager(
        route_config=RouteConfiguration(
            virtual_hosts=[VirtualHost(name="h", routes=[Route(route=RouteAction(cluster="a"))])]
        )
    )
    chain = FilterChain(filters=[Filter(name="http", typed_config=AnyMessage.pack(inline))])
    assert resource("l", Listener(name="l", default_filter_chain=chain)).clusters == {"a"}


def test_a_consistent_snapshot_passes() -> None:
    check(make.snapshot(make.cluster("a"), make.endpoints("a"), make.route("r", "a"), resource("l", listener("r"))))


@pytest.mark.parametrize(
    ("candidate", "problem"),
    [
        (make.snapshot(make.cluster("a")), "cds 'a' names eds 'a', which is missing"),
        (make.snapshot(make.route("r", "x")), "rds 'r' names cds 'x', which is missing"),
        (make.snapshot(resource("l", listener("r"))), "lds 'l' names rds 'r', which is missing"),
        (Snapshot({CLUSTER: ResourceSet(CLUSTER, {"b": make.cluster("a", eds=False)})}), "cds 'b' holds cds 'a'"),
        (Snapshot({CLUSTER: ResourceSet(ENDPOINT, {"a": make.endpoints("a")})}), "cds 'a' holds eds 'a'"),
    ],
)
def test_contradictions_are_named(candidate: Snapshot, problem: str) -> None:
    with pytest.raises(SnapshotError, match=problem):
        check(candidate)


def test_every_contradiction_is_named_at_once() -> None:
    with pytest.raises(SnapshotError, match=r"'x'.*'y'"):
        check(make.snapshot(make.route("r", "x", "y")))


def test_clusters_of_the_bootstrap_and_types_that_are_not_loaded_are_no_contradiction() -> None:
    check(make.snapshot(make.route("r", "xds_cluster")), known=["xds_cluster"])
    check(snapshot(make.set(LISTENER, resource("l", listener("r")))))


def test_what_changed_between_two_sets_is_computed_once() -> None:
    before = make.set(CLUSTER, make.cluster("a"), make.cluster("b"), make.cluster("c"))
    after = make.set(CLUSTER, make.cluster("a"), make.cluster("b", 1), make.cluster("d"))
    assert after.changed_since(before) == {"b", "d"}
    assert after.changed_since(before) is after.changed_since(before)
    assert after.changed_since(after) == frozenset()


def test_a_snapshot_of_resources_of_any_types_in_any_order() -> None:
    made = snapshot_of([make.route("r", "a"), Cluster(name="a"), ClusterLoadAssignment(cluster_name="b")])
    assert {url: set(one.resources) for url, one in made.sets.items() if one.resources} == {
        ROUTE: {"r"},
        CLUSTER: {"a"},
        ENDPOINT: {"b"},
    }
    assert made.find(CLUSTER, "a") == resource("a", Cluster(name="a"))
    assert snapshot_of([]).sets[LISTENER].resources == {}, "loaded and empty: what was there before goes"


def test_a_snapshot_of_resources_wants_names_and_each_only_once() -> None:
    with pytest.raises(SnapshotError, match="a Cluster has no name; give it one"):
        snapshot_of([Cluster()])
    with pytest.raises(SnapshotError, match="two cds resources are named 'a'"):
        snapshot_of([Cluster(name="a"), make.cluster("a")])
