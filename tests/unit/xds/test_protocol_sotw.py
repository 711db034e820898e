"""The rules of the state-of-the-world variant.

Each test names the paragraph that it holds us to; xds_protocol stands for
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol.
"""

from __future__ import annotations

import pytest

from tests.unit.xds.link import NODE, SotwClient, make
from xds.protocol.responses import ResponseCache
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE


@pytest.fixture
def client() -> SotwClient:
    return SotwClient()


def test_an_unknown_node_is_met_with_silence(client: SotwClient) -> None:
    """xds_protocol#deleting-resources: an empty answer would delete everything."""
    client.ask(CLUSTER)
    assert client.get() is None
    client.machine.publish(make.snapshot(make.cluster("a")))
    assert [got.names for got in client.settle()] == [["a"]]
    client.machine.publish(None)
    assert client.settle() == []


def test_a_loaded_but_empty_type_is_answered(client: SotwClient) -> None:
    client.machine.publish(make.snapshot())
    client.ask(LISTENER)
    assert [got.names for got in client.settle()] == [[]]
    assert client.settle() == []


def test_a_request_with_a_stale_nonce_is_ignored(client: SotwClient) -> None:
    """xds_protocol#resource-updates"""
    client.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a")
    got = client.get()
    assert got is not None
    assert client.ask(ENDPOINT, "a", "b", nonce="stale", error="not about this") == []
    assert client.get() is None
    client.names[ENDPOINT] = ("a",)
    client.ack(got)
    assert client.settle() == []


def test_new_names_at_the_same_version_are_answered(client: SotwClient) -> None:
    """xds_protocol#resource-updates: the request carries the current nonce."""
    client.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a")
    client.settle()
    client.ask(ENDPOINT, "a", "b")
    assert [got.names for got in client.settle()] == [["b"]]


def test_a_name_that_was_dropped_and_named_again_is_answered(client: SotwClient) -> None:
    """xds_protocol#how-the-client-specifies-what-resources-to-return"""
    client.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a", "b")
    client.settle()
    client.ask(ENDPOINT, "b")
    assert client.settle() == []
    client.ask(ENDPOINT, "a", "b")
    assert [got.names for got in client.settle()] == [["a"]]


def test_an_empty_list_after_a_name_is_no_wildcard(client: SotwClient) -> None:
    """xds_protocol#how-the-client-specifies-what-resources-to-return"""
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b")))
    client.ask(CLUSTER)
    assert [got.names for got in client.settle()] == [["a", "b"]]
    client.ask(CLUSTER, "*", "a")
    assert [got.names for got in client.settle()] == [["a", "b"]]
    client.ask(CLUSTER, "a")
    assert client.settle() == []
    client.ask(CLUSTER)
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b", 1)))
    assert client.settle() == []


def test_clusters_and_listeners_come_all_together(client: SotwClient) -> None:
    """xds_protocol#grouping-resources-into-responses"""
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b")))
    client.ask(CLUSTER)
    client.settle()
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b")))
    assert [got.names for got in client.settle()] == [["a", "b"]]


def test_other_types_come_one_by_one_and_absence_means_nothing(client: SotwClient) -> None:
    """xds_protocol#deleting-resources"""
    client.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a", "b")
    client.settle()
    client.machine.publish(make.snapshot(make.endpoints("a", 1)))
    assert [got.names for got in client.settle()] == [["a"]]
    client.machine.publish(make.snapshot(make.endpoints("a", 1), make.endpoints("b")))
    assert [got.names for got in client.settle()] == [["b"]], "it came back, and the client may have dropped it"


def test_a_missing_name_is_remembered(client: SotwClient) -> None:
    """xds_protocol#knowing-when-a-requested-resource-does-not-exist"""
    client.machine.publish(make.snapshot())
    client.ask(ENDPOINT, "a")
    assert client.settle() == []
    client.machine.publish(make.snapshot(make.endpoints("a")))
    assert [got.names for got in client.settle()] == [["a"]]


def test_an_equal_version_suppresses_the_answer_to_a_wildcard(client: SotwClient) -> None:
    """xds_protocol#ack-nack-and-resource-type-instance-version"""
    content = make.snapshot(make.cluster("a"))
    client.machine.publish(content)
    client.ask(CLUSTER, version=content.sets[CLUSTER].version, nonce="of-a-dead-server")
    assert client.settle() == []
    state = client.machine.states(0)[CLUSTER]
    assert (state.state, state.acked) == ("SYNCED", content.sets[CLUSTER].version)
    client.machine.publish(make.snapshot(make.cluster("a", 1)))
    client.names[CLUSTER] = ()
    assert [got.names for got in client.settle()] == [["a"]]


def test_an_equal_version_suppresses_nothing_for_named_resources(client: SotwClient) -> None:
    """xds_protocol#ack-nack-and-resource-type-instance-version: the names may be others than before."""
    content = make.snapshot(make.endpoints("a"))
    client.machine.publish(content)
    client.ask(ENDPOINT, "a", version=content.sets[ENDPOINT].version)
    assert [got.names for got in client.settle()] == [["a"]]


def test_another_version_after_a_reconnect_is_brought_up_to_date(client: SotwClient) -> None:
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER, version="older")
    assert [got.names for got in client.settle()] == [["a"]]


def test_what_vanished_during_a_reconnect_is_told_to_who_names_it(client: SotwClient) -> None:
    """xds_protocol#deleting-resources: absence deletes, so a response that lacks it must come."""
    client.machine.publish(make.snapshot(make.listener("other")))
    client.ask(LISTENER, "gone", version="an earlier one")
    assert [got.names for got in client.settle()] == [[]]
    assert client.settle() == []


def test_a_nack_holds_the_type_until_its_content_changes(client: SotwClient) -> None:
    """xds_protocol#nack"""
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER)
    (good,) = client.settle()
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("bad")))
    got = client.get()
    assert got is not None
    (notice,) = client.nack(got, "bad is bad")
    assert (notice.kind, notice.message) == ("nack", "bad is bad")
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("bad")))
    assert client.settle() == []
    state = client.machine.states(0)[CLUSTER]
    assert (state.state, state.acked, state.error) == ("NACKED", good.version, "bad is bad")
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("good")))
    assert [got.names for got in client.settle()] == [["a", "good"]]
    assert client.machine.states(0)[CLUSTER].state == "SYNCED"


def test_an_error_counts_even_with_an_equal_version(client: SotwClient) -> None:
    """xds_protocol#ack-and-nack-semantics-summary: never a comparison of versions."""
    client.machine.publish(make.snapshot(make.endpoints("a")))
    client.ask(ENDPOINT, "a")
    got = client.get()
    assert got is not None
    (notice,) = client.ask(ENDPOINT, "a", version=got.version, nonce=got.nonce, error="bad")
    assert notice.kind == "nack"


def test_a_nack_may_change_the_names(client: SotwClient) -> None:
    client.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a")
    got = client.get()
    assert got is not None
    client.ask(ENDPOINT, "a", "b", nonce=got.nonce, error="bad a")
    assert [got.names for got in client.settle()] == [["b"]]


def test_every_change_of_a_cluster_is_followed_by_its_endpoints(client: SotwClient) -> None:
    """xds_protocol#resource-warming: its endpoints alone, not those of its neighbours in the response."""
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b"), *map(make.endpoints, "ab")))
    client.ask(CLUSTER)
    client.ask(ENDPOINT, "a", "b")
    client.settle()
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b"), *map(make.endpoints, "ab")))
    received = [(got.type_url, got.names) for got in client.settle()]
    assert received == [(CLUSTER, ["a", "b"]), (ENDPOINT, ["a"])]


def test_absence_deletes_so_it_comes_last(client: SotwClient) -> None:
    """xds_protocol#eventual-consistency-considerations: first both clusters, then the routes, then one cluster."""
    client.machine.publish(make.snapshot(make.cluster("a"), make.route("r", "a")))
    client.ask(CLUSTER)
    client.ask(ROUTE, "r")
    client.settle()
    new = make.snapshot(make.cluster("b"), make.route("r", "b"))
    client.machine.publish(new)
    received = client.settle()
    assert [(got.type_url, sorted(got.names)) for got in received] == [
        (CLUSTER, ["a", "b"]),
        (ROUTE, ["r"]),
        (CLUSTER, ["b"]),
    ]
    assert received[0].version != new.sets[CLUSTER].version, "a reconnect between the two must not look complete"
    assert received[2].version == new.sets[CLUSTER].version
    assert client.machine.states(0)[CLUSTER].state == "SYNCED"


def test_a_cluster_that_comes_back_before_its_removal_is_not_removed(client: SotwClient) -> None:
    client.machine.publish(make.snapshot(make.cluster("a"), make.route("r", "a")))
    client.ask(CLUSTER)
    client.ask(ROUTE, "r")
    client.settle()
    client.machine.publish(make.snapshot(make.cluster("b"), make.route("r", "b")))
    union = client.get()
    assert union is not None
    client.ack(union)
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b"), make.route("r", "b")))
    received = client.settle()
    assert all("a" in got.names for got in received if got.type_url == CLUSTER)
    assert client.machine.states(0)[CLUSTER].state == "SYNCED"


def test_bodies_are_encoded_once_for_all_streams() -> None:
    cache = ResponseCache()
    content = make.snapshot(make.cluster("a"), make.cluster("b"))
    for prefix in ("one", "two", "three"):
        client = SotwClient(prefix, NODE, cache)
        client.machine.publish(content)
        client.ask(CLUSTER)
        (got,) = client.settle()
        assert got.nonce.startswith(f"{prefix}-")
    assert cache.encoded == 1


def test_a_cache_keeps_a_bounded_number_of_bodies() -> None:
    cache = ResponseCache(per_set=2)
    content = make.snapshot(*map(make.endpoints, "abcd"))
    for name in "abcd" * 2:
        client = SotwClient("x", NODE, cache)
        client.machine.publish(content)
        client.ask(ENDPOINT, name)
        assert [got.names for got in client.settle()] == [[name]]
    assert cache.encoded == 4 + 2


def test_a_vanished_cluster_is_kept_in_the_form_that_the_client_has(client: SotwClient) -> None:
    """Its last change was overtaken by its removal and never sent; routes still use the form before."""
    client.machine.publish(make.snapshot(make.cluster("a"), make.route("r", "a")))
    client.ask(CLUSTER)
    client.ask(ROUTE, "r")
    client.settle()
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.route("r", "a")))
    client.machine.publish(make.snapshot(make.cluster("b"), make.route("r", "b")))
    received = client.settle()
    assert [sorted(got.names) for got in received] == [["a", "b"], ["r"], ["b"]]
    assert received[0].bodies["a"] == make.cluster("a").body


def test_a_vanished_cluster_is_kept_even_after_a_rejection(client: SotwClient) -> None:
    client.machine.publish(make.snapshot(make.cluster("a"), make.route("r", "a")))
    client.ask(CLUSTER)
    client.ask(ROUTE, "r")
    client.settle()
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("bad"), make.route("r", "a")))
    got = client.get()
    assert got is not None
    client.nack(got)
    client.machine.publish(make.snapshot(make.cluster("b"), make.route("r", "b")))
    assert [sorted(got.names) for got in client.settle()] == [["a", "b"], ["r"], ["b"]]


def test_the_version_of_a_part_is_not_that_of_everything() -> None:
    """xds_protocol#ack-nack-and-resource-type-instance-version: else whoever asks for everything after a reconnect,
    having had a part, would get nothing."""
    content = make.snapshot(make.cluster("a"), make.cluster("b"))
    first, second = SotwClient(), SotwClient("efgh")
    for client in (first, second):
        client.machine.publish(content)
    first.ask(CLUSTER, "a")
    (part,) = first.settle()
    second.ask(CLUSTER, version=part.version)
    assert [got.names for got in second.settle()] == [["a", "b"]]
