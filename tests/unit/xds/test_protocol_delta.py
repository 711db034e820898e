"""The incremental variant beyond its rules (test_protocol_rules.py).

Each test names the paragraph that it holds us to; xds_protocol stands for
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol.
"""

from __future__ import annotations

import pytest

from tests.unit.xds.link import NODE, DeltaClient, make
from xds.errors import RemoteError
from xds.protocol.delta import DeltaStream
from xds.protocol.events import DeltaRequest, Node
from xds.protocol.responses import ResponseCache
from xds.snapshot import resource_set, snapshot
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE


@pytest.fixture
def client() -> DeltaClient:
    return DeltaClient()


def test_too_many_types_are_refused(client: DeltaClient) -> None:
    for number in range(64):
        client.ask(f"type.googleapis.com/a.B{number}")
    with pytest.raises(RemoteError, match="64 types"):
        client.ask("type.googleapis.com/a.B64")


def test_a_rejected_removal_is_tried_again_when_the_content_changes(client: DeltaClient) -> None:
    client.machine.publish(make.snapshot(make.listener("a"), make.listener("b")))
    client.ask(LISTENER)
    client.settle()
    client.machine.publish(make.snapshot(make.listener("b")))
    got = client.get()
    assert got is not None
    assert got.removed == ["a"]
    client.nack(got)
    assert client.settle() == []
    client.machine.publish(make.snapshot(make.listener("b", 1)))
    assert [(got.names, got.removed) for got in client.settle()] == [(["b"], []), ([], ["a"])]


def test_a_reconnecting_client_with_everything_gets_nothing() -> None:
    """Versions are hashes of the content, so a restart of the server changes nothing on the wire."""
    client = DeltaClient()
    client.machine.publish(make.snapshot(make.cluster("a"), make.endpoints("a")))
    client.ask(CLUSTER, known={"a": make.cluster("a").version})
    client.ask(ENDPOINT, "a", known={"a": make.endpoints("a").version})
    assert client.settle() == []
    assert {state.state for state in client.machine.states(0).values()} == {"SYNCED"}


def test_endpoints_are_sent_to_who_is_still_warming_after_a_reconnect() -> None:
    """The earlier stream broke between a cluster and its endpoints. Envoy asks for clusters when it has those."""
    client = DeltaClient()
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.endpoints("a")))
    client.ask(ENDPOINT, "a", known={"a": make.endpoints("a").version})
    assert [got.names for got in client.settle()] == [["a"]]
    client.ask(CLUSTER, known={"a": make.cluster("a", 1).version})
    assert client.settle() == []


def test_a_route_keeps_its_old_form_while_its_new_cluster_is_rejected(client: DeltaClient) -> None:
    client.machine.publish(make.snapshot(make.cluster("a"), make.route("r", "a")))
    client.ask(CLUSTER)
    client.ask(ROUTE, "r")
    client.settle()
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b"), make.route("r", "b")))
    clusters = client.get()
    assert clusters is not None
    client.nack(clusters)
    assert client.settle() == []
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b", 1), make.route("r", "b")))
    assert [got.type_url for got in client.settle()] == [CLUSTER, ROUTE]


def test_a_client_without_any_routes_gets_them_even_if_a_cluster_was_rejected(client: DeltaClient) -> None:
    """Waiting for ever would be a deadlock; most of the routes are better than none."""
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b"), make.route("r", "a", "b")))
    client.ask(CLUSTER)
    client.ask(ROUTE, "r")
    clusters = client.get()
    assert clusters is not None
    assert client.get() is None
    client.nack(clusters)
    assert [got.type_url for got in client.settle()] == [ROUTE]


def test_a_route_does_not_wait_for_clusters_that_are_not_ours(client: DeltaClient) -> None:
    client.machine.publish(make.snapshot(make.route("r", "of_the_bootstrap")))
    client.ask(CLUSTER)
    client.ask(ROUTE, "r")
    assert [got.type_url for got in client.settle()] == [CLUSTER, ROUTE]


def test_a_cluster_stays_while_the_routes_that_leave_it_are_rejected(client: DeltaClient) -> None:
    client.machine.publish(make.snapshot(make.cluster("a"), make.route("r", "a")))
    client.ask(CLUSTER)
    client.ask(ROUTE, "r")
    client.settle()
    client.machine.publish(make.snapshot(make.cluster("b"), make.route("r", "b")))
    clusters = client.get()
    assert clusters is not None
    client.ack(clusters)
    routes = client.get()
    assert routes is not None
    client.nack(routes)
    assert client.settle() == [], "the client still routes to a"


def test_nonces_are_the_streams_own_and_bodies_are_shared() -> None:
    cache = ResponseCache()
    content = make.snapshot(make.cluster("a"), make.cluster("b"))
    clients = [DeltaClient(prefix, NODE, cache) for prefix in ("one", "two", "three")]
    for client in clients:
        client.machine.publish(content)
        client.ask(CLUSTER)
    nonces = [got.nonce for client in clients for got in client.settle()]
    assert [nonce.partition("-")[0] for nonce in nonces] == ["one", "two", "three"]
    assert cache.encoded == 1


def test_a_service_of_one_type_fills_in_the_url_and_refuses_others() -> None:
    client = DeltaClient()
    client.machine._type_url = CLUSTER
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask("")
    assert [got.names for got in client.settle()] == [["a"]]
    with pytest.raises(RemoteError, match="type_url"):
        client.ask(ENDPOINT, "a")


def test_a_state_knows_when_it_last_changed(client: DeltaClient) -> None:
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER)
    assert client.machine.states(0)[CLUSTER].at is None
    client.now = 3.0
    got = client.get()
    assert got is not None
    assert client.machine.states(4)[CLUSTER].at == 3.0
    client.now = 5.0
    client.ack(got)
    assert client.machine.states(9)[CLUSTER].at == 5.0


def test_content_that_goes_back_to_what_it_was_is_sent(client: DeltaClient) -> None:
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER)
    client.settle()
    client.machine.publish(make.snapshot(make.cluster("a", 1)))
    got = client.get()
    assert got is not None
    client.ack(got)
    client.machine.publish(make.snapshot(make.cluster("a")))
    assert [got.versions for got in client.settle()] == [{"a": make.cluster("a").version}]


def test_a_missing_name_that_is_asked_for_while_a_response_is_on_its_way_is_answered_after_the_ack() -> None:
    """xds_protocol#subscribing-to-resources: of a name that does not exist the client must hear, too."""
    stream = DeltaStream("n", ResponseCache())
    stream.publish(snapshot(resource_set(ENDPOINT, [])))
    stream.receive(DeltaRequest(ENDPOINT, subscribe=("one",), node=Node("catalog-0")), 0.0)
    first = stream.poll(0.0)
    assert first is not None
    stream.receive(DeltaRequest(ENDPOINT, subscribe=("two",)), 0.0)
    assert stream.poll(0.0) is None, "one response of a type at a time"
    stream.receive(DeltaRequest(ENDPOINT, nonce=first.nonce), 0.0)
    second = stream.poll(0.0)
    assert second is not None
    assert second.removed == ("two",)
