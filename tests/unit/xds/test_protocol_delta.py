"""The rules of the incremental variant.

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


def test_the_first_message_pins_the_node(client: DeltaClient) -> None:
    """xds_protocol#basic-protocol-overview: only the first request is sure to carry it, and it never changes."""
    client.ask(CLUSTER)
    client.node = None
    client.ask(ENDPOINT, "a")
    client.node = Node("other")
    with pytest.raises(RemoteError, match=r"node\.id changed from 'catalog-0' to 'other'"):
        client.ask(LISTENER)


def test_a_stream_without_a_node_is_refused(client: DeltaClient) -> None:
    client.node = None
    with pytest.raises(RemoteError, match=r"no node\.id"):
        client.ask(CLUSTER)


def test_too_many_types_are_refused(client: DeltaClient) -> None:
    for number in range(64):
        client.ask(f"type.googleapis.com/a.B{number}")
    with pytest.raises(RemoteError, match="64 types"):
        client.ask("type.googleapis.com/a.B64")


def test_an_unknown_node_is_met_with_silence(client: DeltaClient) -> None:
    """Not loaded is not empty: an empty answer would delete what the client has."""
    client.ask(CLUSTER)
    client.ask(ENDPOINT, "a")
    assert client.get() is None
    assert client.machine.states(0)[CLUSTER].state == "NOT-SENT"
    client.machine.publish(make.snapshot(make.cluster("a"), make.endpoints("a")))
    assert [got.type_url for got in client.settle()] == [CLUSTER, ENDPOINT]


def test_a_loaded_but_empty_wildcard_is_answered(client: DeltaClient) -> None:
    """xds_protocol#resource-warming: a client's start waits for its first answer."""
    client.machine.publish(make.snapshot())
    client.ask(CLUSTER)
    (got,) = client.settle()
    assert (got.names, got.removed) == ([], [])
    assert client.settle() == []


def test_never_named_anything_is_the_wildcard(client: DeltaClient) -> None:
    """xds_protocol#how-the-client-specifies-what-resources-to-return"""
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b"), make.endpoints("a")))
    client.ask(CLUSTER)
    client.ask(ENDPOINT)  # there is no wildcard of endpoints
    assert [got.names for got in client.settle()] == [["a", "b"]]


def test_unsubscribing_the_last_name_is_no_wildcard(client: DeltaClient) -> None:
    """xds_protocol#how-the-client-specifies-what-resources-to-return: the legacy meaning is gone for good."""
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b")))
    client.ask(CLUSTER, "a")
    assert [got.names for got in client.settle()] == [["a"]]
    client.ask(CLUSTER, unsubscribe=("a",))
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b", 1)))
    assert client.settle() == []


def test_a_star_is_a_name_that_means_all(client: DeltaClient) -> None:
    """xds_protocol#how-the-client-specifies-what-resources-to-return"""
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b")))
    client.ask(CLUSTER, "*")
    assert [got.names for got in client.settle()] == [["a", "b"]]
    client.ask(CLUSTER, unsubscribe=("*",))
    client.machine.publish(make.snapshot(make.cluster("a", 1)))
    assert client.settle() == []


def test_unsubscribing_a_name_under_the_wildcard_returns_it(client: DeltaClient) -> None:
    """xds_protocol#unsubscribing-from-resources: the client does not know whether to keep it."""
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER, "*", "a", "b")
    client.settle()
    client.ask(CLUSTER, unsubscribe=("a", "b"))
    (got,) = client.settle()
    assert (got.names, got.removed) == (["a"], ["b"])


def test_a_phantom_unsubscription_is_ignored(client: DeltaClient) -> None:
    """xds_protocol#unsubscribing-from-resources"""
    client.machine.publish(make.snapshot(make.endpoints("a")))
    client.ask(ENDPOINT, "a")
    client.settle()
    client.ask(ENDPOINT, unsubscribe=("x", "a"))
    assert client.settle() == []


def test_a_held_name_that_is_subscribed_again_is_answered(client: DeltaClient) -> None:
    """xds_protocol#subscribing-to-resources: the client may have forgotten it."""
    client.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a", "b")
    client.settle()
    client.ask(ENDPOINT, "a")
    assert [got.names for got in client.settle()] == [["a"]]


def test_a_missing_name_is_removed_at_once_and_stays_of_interest(client: DeltaClient) -> None:
    """xds_protocol#knowing-when-a-requested-resource-does-not-exist"""
    client.machine.publish(make.snapshot())
    client.ask(ENDPOINT, "a")
    assert [(got.names, got.removed) for got in client.settle()] == [([], ["a"])]
    client.machine.publish(make.snapshot(make.endpoints("a")))
    assert [(got.names, got.removed) for got in client.settle()] == [(["a"], [])]


def test_only_what_changed_is_sent(client: DeltaClient) -> None:
    """xds_protocol#grouping-resources-into-responses"""
    client.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a", "b")
    client.settle()
    client.machine.publish(make.snapshot(make.endpoints("a", 1), make.endpoints("b")))
    assert [got.names for got in client.settle()] == [["a"]]


def test_the_same_content_is_never_sent_twice(client: DeltaClient) -> None:
    """xds_protocol#when-to-send-an-update: even if the set is a new object."""
    client.ask(CLUSTER)
    for _ in range(3):
        client.machine.publish(make.snapshot(make.cluster("a")))
    assert len(client.settle()) == 1
    client.machine.publish(make.snapshot(make.cluster("a")))
    assert client.settle() == []


def test_the_newest_wins_while_an_answer_is_outstanding(client: DeltaClient) -> None:
    """One slot per type: what was overtaken is never sent."""
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER)
    first = client.get()
    assert first is not None
    for content in (1, 2, 3):
        client.machine.publish(make.snapshot(make.cluster("a", content)))
        assert client.get() is None
    client.ack(first)
    (got,) = client.settle()
    assert got.versions == {"a": make.cluster("a", 3).version}


def test_a_response_that_no_longer_matches_the_subscription_is_dropped(client: DeltaClient) -> None:
    client.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a", "b")
    client.ask(ENDPOINT, unsubscribe=("a",))
    assert [got.names for got in client.settle()] == [["b"]]


def test_a_stale_nonce_answers_nothing_but_its_names_count(client: DeltaClient) -> None:
    """xds_protocol#incremental-xds: the server must honor changes even if the nonce is stale."""
    client.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a")
    first = client.get()
    assert first is not None
    assert client.ask(ENDPOINT, "b", nonce="of-a-dead-server") == []
    assert client.get() is None, "the first response is still unanswered"
    client.ack(first)
    assert [got.names for got in client.settle()] == [["b"]]


def test_a_nack_is_the_presence_of_an_error(client: DeltaClient) -> None:
    """xds_protocol#ack-and-nack-semantics-summary"""
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER)
    got = client.get()
    assert got is not None
    (notice,) = client.nack(got, "no such thing")
    assert (notice.kind, notice.message) == ("nack", "no such thing")
    state = client.machine.states(0)[CLUSTER]
    assert (state.state, state.error, state.acked) == ("NACKED", "no such thing", "")


def test_after_a_nack_nothing_is_sent_until_the_content_changes(client: DeltaClient) -> None:
    """xds_protocol#nack; the last good version stays the truth."""
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER)
    (good,) = client.settle()
    bad = make.snapshot(make.cluster("a", 1))
    client.machine.publish(bad)
    got = client.get()
    assert got is not None
    client.nack(got)
    client.machine.publish(make.snapshot(make.cluster("a", 1)))
    assert client.settle() == []
    assert client.machine.states(0)[CLUSTER].acked == good.version
    client.machine.publish(make.snapshot(make.cluster("a", 2)))
    assert [got.names for got in client.settle()] == [["a"]]
    assert client.machine.states(0)[CLUSTER].state == "SYNCED"
    assert client.machine.states(0)[CLUSTER].error == ""


def test_going_back_to_the_last_good_content_after_a_nack_sends_it(client: DeltaClient) -> None:
    """A rejected response may be partly applied, so what it named is unknown."""
    good = make.snapshot(make.cluster("a"), make.cluster("b"))
    client.machine.publish(good)
    client.ask(CLUSTER)
    client.settle()
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b")))
    got = client.get()
    assert got is not None
    client.nack(got)
    client.machine.publish(good)
    assert [got.names for got in client.settle()] == [["a"]]


def test_a_nack_may_change_the_subscription(client: DeltaClient) -> None:
    """xds_protocol#nack"""
    client.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a")
    got = client.get()
    assert got is not None
    client.ask(ENDPOINT, "b", nonce=got.nonce, error="bad a")
    assert [got.names for got in client.settle()] == [["b"]]
    assert client.machine.states(0)[ENDPOINT].state == "NACKED"


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


def test_a_reconnecting_client_gets_only_what_it_lacks() -> None:
    """xds_protocol#incremental-xds: initial_resource_versions."""
    client = DeltaClient()
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b", 1)))
    client.ask(CLUSTER, known={"a": make.cluster("a").version, "b": make.cluster("b").version, "c": "0"})
    received = client.settle()
    assert [(got.names, got.removed) for got in received] == [(["b"], []), ([], ["c"])]
    assert client.machine.states(0)[CLUSTER].state == "SYNCED"


def test_a_reconnecting_client_with_everything_gets_nothing() -> None:
    """Versions are hashes of the content, so a restart of the server changes nothing on the wire."""
    client = DeltaClient()
    client.machine.publish(make.snapshot(make.cluster("a"), make.endpoints("a")))
    client.ask(CLUSTER, known={"a": make.cluster("a").version})
    client.ask(ENDPOINT, "a", known={"a": make.endpoints("a").version})
    assert client.settle() == []
    assert {state.state for state in client.machine.states(0).values()} == {"SYNCED"}


def test_a_new_streams_first_nonce_belongs_to_a_dead_server() -> None:
    client = DeltaClient()
    client.machine.publish(make.snapshot(make.cluster("a")))
    assert client.ask(CLUSTER, nonce="dead-7", error="old news") == []
    assert [got.names for got in client.settle()] == [["a"]]


def test_every_change_of_a_cluster_is_followed_by_its_endpoints(client: DeltaClient) -> None:
    """xds_protocol#resource-warming: even if they are identical."""
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b"), *map(make.endpoints, "ab")))
    client.ask(CLUSTER)
    client.settle()
    client.ask(ENDPOINT, "a", "b")
    client.settle()
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b"), *map(make.endpoints, "ab")))
    assert [(got.type_url, got.names) for got in client.settle()] == [(CLUSTER, ["a"]), (ENDPOINT, ["a"])]


def test_a_changed_cluster_is_followed_by_its_endpoints_after_a_reconnect() -> None:
    """xds_protocol#resource-warming: even if the client says that it has them."""
    client = DeltaClient()
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.endpoints("a")))
    client.ask(CLUSTER, known={"a": make.cluster("a").version})
    assert [got.type_url for got in client.settle()] == [CLUSTER]
    client.ask(ENDPOINT, "a", known={"a": make.endpoints("a").version})
    assert [got.type_url for got in client.settle()] == [ENDPOINT]


def test_endpoints_are_sent_to_who_is_still_warming_after_a_reconnect() -> None:
    """The earlier stream broke between a cluster and its endpoints. Envoy asks for clusters when it has those."""
    client = DeltaClient()
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.endpoints("a")))
    client.ask(ENDPOINT, "a", known={"a": make.endpoints("a").version})
    assert [got.names for got in client.settle()] == [["a"]]
    client.ask(CLUSTER, known={"a": make.cluster("a", 1).version})
    assert client.settle() == []


def test_additions_go_out_in_order(client: DeltaClient) -> None:
    """xds_protocol#eventual-consistency-considerations"""
    for type_url, *names in ((ROUTE, "r"), (LISTENER,), (ENDPOINT, "a"), (CLUSTER,)):
        client.ask(type_url, *names)
    client.machine.publish(
        make.snapshot(make.cluster("a"), make.endpoints("a"), make.listener("l"), make.route("r", "a"))
    )
    assert [got.type_url for got in client.settle()] == [CLUSTER, ENDPOINT, LISTENER, ROUTE]


def test_a_route_waits_until_its_new_cluster_is_accepted(client: DeltaClient) -> None:
    """xds_protocol#eventual-consistency-considerations: make before break."""
    client.machine.publish(make.snapshot(make.cluster("a"), make.route("r", "a")))
    client.ask(CLUSTER)
    client.ask(ROUTE, "r")
    client.settle()
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b"), make.route("r", "a", "b")))
    clusters = client.get()
    assert clusters is not None
    assert (clusters.type_url, clusters.names) == (CLUSTER, ["b"])
    assert client.get() is None
    assert client.machine.states(0)[ROUTE].state == "STALE"
    client.ack(clusters)
    assert [got.type_url for got in client.settle()] == [ROUTE]


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


def test_removals_come_last_and_from_the_top(client: DeltaClient) -> None:
    """xds_protocol#eventual-consistency-considerations: stale clusters go after nothing refers to them."""
    old = (make.cluster("a"), make.endpoints("a"), make.listener("l"), make.route("r", "a"))
    new = (make.cluster("b"), make.endpoints("b"), make.listener("m"), make.route("s", "b"))
    client.machine.publish(make.snapshot(*old))
    for type_url, *names in ((CLUSTER,), (ENDPOINT, "a", "b"), (LISTENER,), (ROUTE, "r", "s")):
        client.ask(type_url, *names)
    client.settle()
    client.machine.publish(make.snapshot(*new))
    received = [(got.type_url, got.names, got.removed) for got in client.settle()]
    assert received == [
        (CLUSTER, ["b"], []),
        (ENDPOINT, ["b"], []),
        (LISTENER, ["m"], []),
        (ROUTE, ["s"], []),
        (LISTENER, [], ["l"]),
        (ROUTE, [], ["r"]),
        (CLUSTER, [], ["a"]),
        (ENDPOINT, [], ["a"]),
    ]


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
