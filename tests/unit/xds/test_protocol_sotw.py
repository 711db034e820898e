"""State of the world beyond its rules (test_protocol_rules.py).

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
    """And once for the first, whose set may be its own."""
    cache = ResponseCache()
    content = make.snapshot(make.cluster("a"), make.cluster("b"))
    for prefix in ("one", "two", "three", "four"):
        client = SotwClient(prefix, NODE, cache)
        client.machine.publish(content)
        client.ask(CLUSTER)
        (got,) = client.settle()
        assert got.nonce.startswith(f"{prefix}-")
    assert cache.encoded == 2


def test_a_cache_keeps_a_bounded_number_of_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xds.snapshot._SELECTIONS", 2)
    cache = ResponseCache()
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


def test_asking_for_everything_is_answered_with_everything(client: SotwClient) -> None:
    """xds_protocol#how-the-client-specifies-what-resources-to-return: also with what was sent by name, which the client
    may have ignored because it did not want it at that moment."""
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER, "a", "b")
    client.settle()
    client.ask(CLUSTER, "b", "*")
    assert [got.names for got in client.settle()] == [["a"]]
