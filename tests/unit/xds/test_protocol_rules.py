"""The rules of the xDS protocol that people get wrong, each as a test.

A docstring holds the rule and, in its last line, the paragraph of the specification that it comes from. Tests with
``client`` run against both variants, with ``delta`` or ``sotw`` against one. docs/explanation/protocol-rules.md is made
from this file.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.xds.link import DeltaClient, Got, SotwClient, make
from xds import _wire_pb2 as wire
from xds import codec
from xds.errors import AccessDenied, LimitExceeded, RemoteError
from xds.model import RuntimeLayer
from xds.protocol.events import DeltaRequest, Node
from xds.server.admission import check_request
from xds.server.identity import Peer, Policy
from xds.server.settings import Limits
from xds.snapshot import Snapshot, snapshot
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, RUNTIME

Client = DeltaClient | SotwClient

PAGE = ROOT / "docs" / "explanation" / "protocol-rules.md"
SPECIFICATION = "https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol"

#: The paragraphs of the page, as Sphinx names them (docs/root/api-docs/xds_protocol.rst of envoyproxy/envoy). Where
#: two have one title, the second one's own anchor is ``id2``, and so on.
PARAGRAPHS = frozenset(
    {
        "ack-and-nack-semantics-summary",
        "ack-nack-and-resource-type-instance-version",
        "basic-protocol-overview",
        "deleting-resources",
        "eventual-consistency-considerations",
        "grouping-resources-into-responses",
        "how-the-client-specifies-what-resources-to-return",
        "id2",  # "Knowing When a Requested Resource Does Not Exist", incremental
        "incremental-xds",
        "knowing-when-a-requested-resource-does-not-exist",
        "nack",
        "resource-updates",
        "resource-warming",
        "sotw-ttl",
        "subscribing-to-resources",
        "ttl",
        "unsubscribing-from-resources",
        "when-to-send-an-update",
        "xds-protocol-unsubscribe",  # "Unsubscribing from Resources", incremental
    }
)


@pytest.fixture(params=[DeltaClient, SotwClient])
def client(request: pytest.FixtureRequest) -> Client:
    made: Client = request.param()
    return made


@pytest.fixture
def delta() -> DeltaClient:
    return DeltaClient()


@pytest.fixture
def sotw() -> SotwClient:
    return SotwClient()


def reconnected(client: Client) -> Client:
    """The same client on a stream of another server process."""
    again: Client = type(client)("another", client.node or Node("catalog-0"))
    if isinstance(client, SotwClient) and isinstance(again, SotwClient):
        again.accepted = dict(client.accepted)
    return again


def got(client: Client) -> Got:
    response = client.get()
    assert response is not None
    return response


def summary(received: list[Got]) -> list[tuple[str, list[str], list[str]]]:
    return [(one.type_url, sorted(one.names), one.removed) for one in received]


def accepted(client: Client, content: Snapshot, *asked: tuple[str, ...]) -> None:
    """The client asks for types and names, and accepts what there is."""
    client.machine.publish(content)
    for type_url, *names in asked:
        client.ask(type_url, *names)
    client.settle()


# 1. Rejections


def test_rule_1a_a_rejection_is_the_presence_of_an_error(client: Client) -> None:
    """NACK means that ``error_detail`` is present, whatever it says; versions are never compared.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ack-and-nack-semantics-summary
    """
    client.machine.publish(make.snapshot(make.endpoints("a")))
    client.ask(ENDPOINT, "a")
    first = got(client)
    request = wire.DiscoveryRequest(type_url=ENDPOINT, version_info=first.version, response_nonce=first.nonce)
    request.error_detail.SetInParent()
    request.resource_names.append("a")
    if isinstance(client, SotwClient):
        (notice,) = client.machine.receive(codec.decode_sotw_request(request.SerializeToString()), 0.0)
    else:
        (notice,) = client.nack(first, "")
    assert notice.kind == "nack"
    assert client.machine.states(0)[ENDPOINT].state == "NACKED"


def test_rule_1b_after_a_rejection_nothing_until_the_content_changes(client: Client) -> None:
    """After a NACK nothing is sent for that type until its content changes.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#nack
    """
    accepted(client, make.snapshot(make.cluster("a"), make.cluster("b")), (CLUSTER,))
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b", 1)))
    client.nack(got(client), "no")
    for _ in range(2):
        assert client.settle() == []
        client.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b", 1)))
    client.machine.publish(make.snapshot(make.cluster("a", 2), make.cluster("b", 1)))
    assert [one.names for one in client.settle()] == [["a", "b"]]
    assert client.machine.states(0)[CLUSTER].state == "SYNCED"


def test_rule_1c_a_rejection_is_reported_and_the_last_good_version_stays_the_truth(client: Client) -> None:
    """A NACK is reported with the client's words; what it accepted last stays its acknowledged version.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ack-and-nack-semantics-summary
    """
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER)
    (good,) = client.settle()
    client.machine.publish(make.snapshot(make.cluster("a", 1)))
    (notice,) = client.nack(got(client), "no such thing")
    assert (notice.kind, notice.type_url, notice.message) == ("nack", CLUSTER, "no such thing")
    state = client.machine.states(0)[CLUSTER]
    assert (state.state, state.acked, state.error) == ("NACKED", good.version, "no such thing")


def test_rule_1d_the_last_good_lease_is_kept_alive_after_a_rejection(client: Client) -> None:
    """Heartbeats of the last good lease go on after a NACK.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ttl
    """
    client.machine.lease(make.lease("limits", {"a": 1}))
    client.ask(RUNTIME, "limits")
    (good,) = client.settle()
    client.machine.lease(make.lease("limits", {"a": 2}))
    client.nack(got(client))
    (again,) = client.settle()
    assert again.bodies == good.bodies
    client.now = 5.0
    (beat,) = client.settle()
    assert beat.ttls == {"limits": 15.0}


def test_rule_1e_a_rejection_may_change_the_names(client: Client) -> None:
    """A NACK may change what the client asks for, and that counts.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-updates
    """
    client.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a")
    names = ("a", "b") if isinstance(client, SotwClient) else ("b",)
    client.ask(ENDPOINT, *names, nonce=got(client).nonce, error="bad a")
    assert [one.names for one in client.settle()] == [["b"]]
    assert client.machine.states(0)[ENDPOINT].state == "NACKED"


# 2. Nonces


def test_rule_2a_a_request_with_a_stale_nonce_is_ignored(sotw: SotwClient) -> None:
    """State of the world: a request whose nonce is not the newest answers nothing and changes nothing.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-updates
    """
    sotw.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    sotw.ask(ENDPOINT, "a")
    first = got(sotw)
    assert sotw.ask(ENDPOINT, "a", "b", nonce="stale", error="not about this") == []
    assert sotw.get() is None
    sotw.names[ENDPOINT] = ("a",)
    sotw.ack(first)
    assert sotw.settle() == []
    sotw.ask(ENDPOINT, "a", "b", nonce="stale")
    assert sotw.settle() == []


def test_rule_2b_new_names_at_the_same_version_are_answered(sotw: SotwClient) -> None:
    """State of the world: the current nonce, the same version and new names must be answered.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-updates
    """
    accepted(sotw, make.snapshot(make.endpoints("a"), make.endpoints("b")), (ENDPOINT, "a"))
    sotw.ask(ENDPOINT, "a", "b")
    assert [one.names for one in sotw.settle()] == [["b"]]


def test_rule_2c_a_stale_nonce_does_not_discard_changes_of_the_subscription(delta: DeltaClient) -> None:
    """Incremental: changes of the subscription count even with a stale nonce, which answers nothing.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
    """
    delta.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    delta.ask(ENDPOINT, "a")
    first = got(delta)
    assert delta.ask(ENDPOINT, "b", nonce="of-a-dead-server") == []
    assert delta.get() is None, "the first response is still unanswered"
    delta.ack(first)
    assert [one.names for one in delta.settle()] == [["b"]]


def test_rule_2d_an_answer_that_comes_twice_counts_once(client: Client) -> None:
    """A repeated ACK or NACK is no news: what it was about is answered already.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-updates
    """
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER)
    first = got(client)
    assert [notice.kind for notice in client.ack(first)] == ["ack"]
    assert client.ack(first) == []
    assert client.nack(first) == []
    assert client.settle() == []
    assert client.machine.states(0)[CLUSTER].state == "SYNCED"


# 3. Reconnects


def test_rule_3a_the_first_nonce_of_a_stream_belongs_to_a_dead_server(client: Client) -> None:
    """A nonce does not outlive its stream: the first request is answered, whatever nonce it carries.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#basic-protocol-overview
    """
    client.machine.publish(make.snapshot(make.cluster("a")))
    assert client.ask(CLUSTER, nonce="dead-7", error="old news") == []
    assert [one.names for one in client.settle()] == [["a"]]


def test_rule_3b_an_equal_version_suppresses_the_answer_to_a_wildcard(sotw: SotwClient) -> None:
    """State of the world: who returns with the current version, and asks for everything and no more, has it.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ack-nack-and-resource-type-instance-version
    """
    content = make.snapshot(make.cluster("a"))
    sotw.machine.publish(content)
    version = content.sets[CLUSTER].version
    sotw.ask(CLUSTER, version=version, nonce="of-a-dead-server")
    assert sotw.settle() == []
    state = sotw.machine.states(0)[CLUSTER]
    assert (state.state, state.acked) == ("SYNCED", version)
    sotw.machine.publish(make.snapshot(make.cluster("a", 1)))
    assert [one.names for one in sotw.settle()] == [["a"]]


def test_rule_3e_that_goes_for_the_version_of_nothing(sotw: SotwClient) -> None:
    """State of the world: who returns with the version of an empty set has it, also when that is published anew.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ack-nack-and-resource-type-instance-version
    """
    nothing = make.snapshot()
    sotw.machine.publish(nothing)
    sotw.ask(CLUSTER, version=nothing.sets[CLUSTER].version)
    assert sotw.settle() == []
    sotw.machine.publish(make.snapshot())
    assert sotw.settle() == []


@pytest.mark.parametrize(("type_url", "names"), [(ENDPOINT, ("a",)), (CLUSTER, ("a",)), (CLUSTER, ("*", "a"))])
def test_rule_3c_an_equal_version_suppresses_nothing_for_names(
    sotw: SotwClient, type_url: str, names: tuple[str, ...]
) -> None:
    """State of the world: an equal version proves nothing for names, which may be others than before.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ack-nack-and-resource-type-instance-version
    """
    content = make.snapshot(make.endpoints("a"), make.cluster("a"))
    sotw.machine.publish(content)
    sotw.ask(type_url, *names, version=content.sets[type_url].version)
    assert [one.names for one in sotw.settle()] == [["a"]]


def test_rule_3d_the_version_of_a_part_is_not_that_of_everything(sotw: SotwClient) -> None:
    """State of the world: who returns with the version of a part and asks for everything gets everything.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ack-nack-and-resource-type-instance-version
    """
    content = make.snapshot(make.cluster("a"), make.cluster("b"))
    accepted(sotw, content, (CLUSTER, "a"))
    again = reconnected(sotw)
    again.machine.publish(content)
    again.ask(CLUSTER)
    assert [one.names for one in again.settle()] == [["a", "b"]]


# 4. Subscriptions


def test_rule_4a_who_never_named_anything_wants_everything(client: Client) -> None:
    """Never having named anything means ``*``, of clusters and listeners; other types have no wildcard.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
    """
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b"), make.endpoints("a")))
    client.ask(CLUSTER)
    client.ask(ENDPOINT)
    assert summary(client.settle()) == [(CLUSTER, ["a", "b"], [])]


def test_rule_4b_after_any_name_nothing_means_nothing(client: Client) -> None:
    """Once a client has named something, an empty list is the end of the subscription and no wildcard.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
    """
    accepted(client, make.snapshot(make.cluster("a"), make.cluster("b")), (CLUSTER, "a"))
    if isinstance(client, SotwClient):
        client.ask(CLUSTER)
    else:
        client.ask(CLUSTER, unsubscribe=("a",))
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b", 1)))
    assert client.settle() == []


def test_rule_4c_a_star_is_a_name_that_means_everything(client: Client) -> None:
    """``*`` may be named like any other name, beside others, and dropped again.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
    """
    accepted(client, make.snapshot(make.cluster("a")), (CLUSTER, "a"))
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b")))
    assert client.settle() == []
    star = ("*", "a") if isinstance(client, SotwClient) else ("*",)
    client.ask(CLUSTER, *star)
    assert "b" in {name for one in client.settle() for name in one.names}
    if isinstance(client, SotwClient):
        client.ask(CLUSTER, "a")
    else:
        client.ask(CLUSTER, unsubscribe=("*",))
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b", 1)))
    assert client.settle() == []


def test_rule_4d_dropping_a_name_under_the_wildcard_is_answered(delta: DeltaClient) -> None:
    """Incremental: who drops a name while it holds ``*`` is told whether to keep the resource.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#xds-protocol-unsubscribe
    """
    accepted(delta, make.snapshot(make.cluster("a")), (CLUSTER, "*", "a", "b"))
    delta.ask(CLUSTER, unsubscribe=("a", "b"))
    assert summary(delta.settle()) == [(CLUSTER, ["a"], ["b"])]


def test_rule_4e_asking_again_for_what_is_held_is_answered(client: Client) -> None:
    """A name that is asked for again is answered, because the client may have forgotten it.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#subscribing-to-resources
    """
    accepted(client, make.snapshot(make.endpoints("a"), make.endpoints("b")), (ENDPOINT, "a", "b"))
    if isinstance(client, SotwClient):
        client.ask(ENDPOINT, "b")
        assert client.settle() == []
        client.ask(ENDPOINT, "a", "b")
    else:
        client.ask(ENDPOINT, "a")
    assert [one.names for one in client.settle()] == [["a"]]


def test_rule_4f_a_missing_name_is_told_at_once_and_stays_of_interest(delta: DeltaClient) -> None:
    """Incremental: a name that does not exist is answered with ``removed_resources``, and sent when it exists.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#id2
    """
    accepted(delta, make.snapshot())
    delta.ask(ENDPOINT, "a")
    assert summary(delta.settle()) == [(ENDPOINT, [], ["a"])]
    delta.machine.publish(make.snapshot(make.endpoints("a")))
    assert summary(delta.settle()) == [(ENDPOINT, ["a"], [])]


def test_rule_4g_a_missing_name_is_remembered(sotw: SotwClient) -> None:
    """State of the world: nothing can be said about a name that does not exist; it is sent when it exists.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#knowing-when-a-requested-resource-does-not-exist
    """
    accepted(sotw, make.snapshot())
    sotw.ask(ENDPOINT, "a")
    assert sotw.settle() == []
    sotw.machine.publish(make.snapshot(make.endpoints("a")))
    assert [one.names for one in sotw.settle()] == [["a"]]


def test_rule_4h_what_vanished_before_a_reconnect_is_reported(delta: DeltaClient) -> None:
    """Incremental: who returns with ``initial_resource_versions`` gets what it lacks, and hears what is gone.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
    """
    delta.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b", 1)))
    delta.ask(CLUSTER, known={"a": make.cluster("a").version, "b": make.cluster("b").version, "c": "0"})
    assert summary(delta.settle()) == [(CLUSTER, ["b"], []), (CLUSTER, [], ["c"])]
    assert delta.machine.states(0)[CLUSTER].state == "SYNCED"


def test_rule_4i_dropping_what_was_not_asked_for_is_no_error(delta: DeltaClient) -> None:
    """Incremental: superfluous names in ``resource_names_unsubscribe`` are ignored.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#xds-protocol-unsubscribe
    """
    accepted(delta, make.snapshot(make.endpoints("a")), (ENDPOINT, "a"))
    delta.ask(ENDPOINT, unsubscribe=("x", "a"))
    assert delta.settle() == []


# 5. Absence


def test_rule_5a_absence_deletes_clusters_and_listeners(sotw: SotwClient) -> None:
    """State of the world: a response brings all clusters or listeners, and what it lacks is deleted.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#deleting-resources
    """
    accepted(sotw, make.snapshot(make.listener("a"), make.listener("b"), make.listener("c")), (LISTENER,))
    sotw.machine.publish(make.snapshot(make.listener("b", 1), make.listener("c")))
    assert [one.names for one in sotw.settle()][-1] == ["b", "c"]
    sotw.machine.publish(make.snapshot())
    assert [one.names for one in sotw.settle()] == [[]]


def test_rule_5b_absence_of_other_types_means_nothing(sotw: SotwClient) -> None:
    """State of the world: other types come one by one, nothing is said about what is gone, and what returns is sent.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#deleting-resources
    """
    accepted(sotw, make.snapshot(make.endpoints("a"), make.endpoints("b")), (ENDPOINT, "a", "b"))
    sotw.machine.publish(make.snapshot(make.endpoints("a", 1)))
    assert [one.names for one in sotw.settle()] == [["a"]]
    sotw.machine.publish(make.snapshot(make.endpoints("a", 1), make.endpoints("b")))
    assert [one.names for one in sotw.settle()] == [["b"]]


@pytest.mark.parametrize("published", [None, snapshot()], ids=["unknown node", "type not loaded"])
def test_rule_5c_not_loaded_is_silence(client: Client, published: Snapshot | None) -> None:
    """What is not loaded yet is not answered: an empty response would delete what the client has.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#deleting-resources
    """
    client.machine.publish(published)
    client.ask(CLUSTER)
    client.ask(ENDPOINT, "a")
    assert client.settle() == []
    assert client.machine.states(0)[CLUSTER].state == "NOT-SENT"
    client.machine.publish(make.snapshot(make.cluster("a"), make.endpoints("a")))
    assert [one.type_url for one in client.settle()] == [CLUSTER, ENDPOINT]
    client.machine.publish(published)
    assert client.settle() == []


def test_rule_5d_a_runtime_layer_is_answered_at_once(client: Client) -> None:
    """Runtime layers are the exception: without anything in it a layer is answered empty, because a start waits for it.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ttl
    """
    client.ask(RUNTIME, "limits")
    (only,) = client.settle()
    assert (only.names, only.ttls) == (["limits"], {})
    assert only.bodies == {"limits": codec.runtime_body("limits", {})}


def test_rule_5e_loaded_but_empty_is_answered(client: Client) -> None:
    """A client that asks for everything is answered even if there is nothing: its start waits for it.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-warming
    """
    client.machine.publish(make.snapshot())
    client.ask(CLUSTER)
    assert summary(client.settle()) == [(CLUSTER, [], [])]
    assert client.settle() == []


# 6. Endpoints follow clusters


def test_rule_6a_every_change_of_a_cluster_is_followed_by_its_endpoints(client: Client) -> None:
    """Every change of an EDS cluster is followed by its endpoints, even if they are the same; by no others.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-warming
    """
    old = make.snapshot(make.cluster("a"), make.cluster("b"), *map(make.endpoints, "ab"))
    accepted(client, old, (CLUSTER,), (ENDPOINT, "a", "b"))
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b"), *map(make.endpoints, "ab")))
    clusters, endpoints = client.settle()
    assert (clusters.type_url, endpoints.type_url, endpoints.names) == (CLUSTER, ENDPOINT, ["a"])


def test_rule_6b_also_after_a_reconnect(delta: DeltaClient) -> None:
    """Incremental: a cluster that changed during a reconnect is followed by its endpoints, whatever the client has.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-warming
    """
    delta.machine.publish(make.snapshot(make.cluster("a", 1), make.endpoints("a")))
    delta.ask(CLUSTER, known={"a": make.cluster("a").version})
    assert [one.type_url for one in delta.settle()] == [CLUSTER]
    delta.ask(ENDPOINT, "a", known={"a": make.endpoints("a").version})
    assert [one.type_url for one in delta.settle()] == [ENDPOINT]


def test_rule_6c_who_does_not_warm_gets_no_endpoints_twice(client: Client) -> None:
    """Clients other than Envoy use the endpoints that they have; they are not sent again.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#when-to-send-an-update
    """
    client.node = Node("catalog-0", user_agent="gRPC C-core")
    accepted(client, make.snapshot(make.cluster("a"), make.endpoints("a")), (CLUSTER, "a"), (ENDPOINT, "a"))
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.endpoints("a")))
    assert [one.type_url for one in client.settle()] == [CLUSTER]


# 7. Make before break


def test_rule_7a_additions_go_from_clusters_to_routes(client: Client) -> None:
    """Clusters, their endpoints, listeners, routes: in this order, whatever the order of the requests.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
    """
    for type_url, *names in ((ROUTE, "r"), (LISTENER,), (ENDPOINT, "a"), (CLUSTER,)):
        client.ask(type_url, *names)
    client.machine.publish(
        make.snapshot(make.cluster("a"), make.endpoints("a"), make.listener("l"), make.route("r", "a"))
    )
    assert [one.type_url for one in client.settle()] == [CLUSTER, ENDPOINT, LISTENER, ROUTE]


def test_rule_7b_removals_come_last(delta: DeltaClient) -> None:
    """Incremental: what is gone is removed after everything new is there, from what refers to what is referred to.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
    """
    old = make.snapshot(make.cluster("a"), make.endpoints("a"), make.listener("l"), make.route("r", "a"))
    accepted(delta, old, (CLUSTER,), (ENDPOINT, "a", "b"), (LISTENER,), (ROUTE, "r", "s"))
    delta.machine.publish(
        make.snapshot(make.cluster("b"), make.endpoints("b"), make.listener("m"), make.route("s", "b"))
    )
    assert summary(delta.settle()) == [
        (CLUSTER, ["b"], []),
        (ENDPOINT, ["b"], []),
        (LISTENER, ["m"], []),
        (ROUTE, ["s"], []),
        (LISTENER, [], ["l"]),
        (ROUTE, [], ["r"]),
        (CLUSTER, [], ["a"]),
        (ENDPOINT, [], ["a"]),
    ]


def test_rule_7e_a_removal_waits_for_the_answers(delta: DeltaClient) -> None:
    """Incremental: a cluster is not removed before the client has acknowledged the routes that no longer name it.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
    """
    old = make.snapshot(make.cluster("a"), make.cluster("b"), make.route("r", "a"))
    accepted(delta, old, (CLUSTER,), (ROUTE, "r"))
    delta.machine.publish(make.snapshot(make.cluster("b"), make.route("r", "b")))
    routes = got(delta)
    assert routes.type_url == ROUTE
    assert delta.get() is None
    delta.ack(routes)
    assert summary(delta.settle()) == [(CLUSTER, [], ["a"])]


def test_rule_7c_a_route_waits_until_its_cluster_is_accepted(client: Client) -> None:
    """A route never names a cluster that this client has not acknowledged.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
    """
    accepted(client, make.snapshot(make.cluster("a"), make.route("r", "a")), (CLUSTER,), (ROUTE, "r"))
    client.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b"), make.route("r", "a", "b")))
    clusters = got(client)
    assert clusters.type_url == CLUSTER
    assert client.get() is None
    assert client.machine.states(0)[ROUTE].state == "STALE"
    client.ack(clusters)
    assert [one.type_url for one in client.settle()] == [ROUTE]
    client.machine.publish(make.snapshot(*map(make.cluster, "abcd"), make.route("r", "a", "c")))
    client.nack(got(client), "one of them is bad")
    assert client.get() is None, "nobody knows whether the client has c"


def test_rule_7d_what_absence_would_delete_is_kept_until_it_may_go(sotw: SotwClient) -> None:
    """State of the world: first the old and the new clusters, then the routes, then the new clusters alone.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
    """
    accepted(sotw, make.snapshot(make.cluster("a"), make.route("r", "a")), (CLUSTER,), (ROUTE, "r"))
    new = make.snapshot(make.cluster("b"), make.route("r", "b"))
    sotw.machine.publish(new)
    received = sotw.settle()
    assert summary(received) == [(CLUSTER, ["a", "b"], []), (ROUTE, ["r"], []), (CLUSTER, ["b"], [])]
    assert received[0].version != new.sets[CLUSTER].version, "a reconnect between the two must not look complete"
    assert received[2].version == new.sets[CLUSTER].version


def test_rule_7f_what_waits_does_not_hold_up_the_others(sotw: SotwClient) -> None:
    """State of the world: a listener whose cluster is not accepted yet stays as it was; the others go with it.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
    """
    old = make.snapshot(make.cluster("a"), make.listener("l", 0, "a"), make.listener("m"))
    accepted(sotw, old, (CLUSTER,), (LISTENER,))
    new = (make.listener("l", 1, "a", "b"), make.listener("m", 1))
    sotw.machine.publish(make.snapshot(make.cluster("a"), make.cluster("b"), *new))
    clusters, listeners = got(sotw), got(sotw)
    assert (clusters.type_url, listeners.type_url) == (CLUSTER, LISTENER)
    assert listeners.bodies == {"l": make.listener("l", 0, "a").body, "m": make.listener("m", 1).body}
    sotw.ack(clusters)
    sotw.ack(listeners)
    (last,) = sotw.settle()
    assert last.bodies == {one.name: one.body for one in new}


def test_rule_7g_what_is_asked_for_again_is_not_taken_away_before_its_turn(delta: DeltaClient) -> None:
    """Incremental: endpoints that are gone are removed after their cluster, also from a client that asks again.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
    """
    accepted(delta, make.snapshot(make.cluster("a"), make.endpoints("a")), (CLUSTER,), (ENDPOINT, "a"))
    delta.machine.publish(make.snapshot())
    clusters = got(delta)
    assert (clusters.type_url, clusters.removed) == (CLUSTER, ["a"])
    delta.ask(ENDPOINT, "a")
    assert delta.get() is None
    delta.ack(clusters)
    assert summary(delta.settle()) == [(ENDPOINT, [], ["a"])]


@pytest.mark.parametrize("version", ["", "of-a-dead-server"])
def test_rule_7h_who_returns_may_have_a_route_that_works(sotw: SotwClient, version: str) -> None:
    """State of the world: a route to a rejected cluster is for clients that have no older one. Who names a version in
    the first request may have one.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
    """
    sotw.machine.publish(make.snapshot(make.cluster("a"), make.route("r", "a")))
    sotw.ask(CLUSTER)
    sotw.ask(ROUTE, "r", version=version)
    sotw.nack(got(sotw))
    assert [one.type_url for one in sotw.settle()] == ([] if version else [ROUTE])


def test_rule_7i_what_waited_when_everything_was_asked_for_follows() -> None:
    """The first answer to a wildcard brings what need not wait, or nothing: the rest is owed all the same.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
    """
    client = DeltaClient()
    waiting = make.routing("l", "a")
    client.machine.publish(make.everything(make.cluster("a", eds=False), waiting, make.listener("m")))
    client.ask(CLUSTER)
    client.ask(LISTENER)
    clusters, listeners = got(client), got(client)
    assert listeners.names == ["m"]
    client.ack(listeners)
    assert client.settle() == []
    client.ack(clusters)
    assert [one.bodies for one in client.settle()] == [{"l": waiting.body}]


# 8. Nothing twice


def test_rule_8a_the_same_content_is_never_sent_twice(client: Client) -> None:
    """The same resources in the same versions are sent once, however often they are published.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#when-to-send-an-update
    """
    client.ask(CLUSTER)
    for _ in range(3):
        client.machine.publish(make.snapshot(make.cluster("a")))
    assert len(client.settle()) == 1
    client.machine.publish(make.snapshot(make.cluster("a")))
    assert client.settle() == []


def test_rule_8b_a_restart_changes_nothing_on_the_wire(client: Client) -> None:
    """Versions are hashes of the content: a restarted server sends nothing to a client that has it.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#when-to-send-an-update
    """
    accepted(client, make.snapshot(make.cluster("a")), (CLUSTER,))
    again = reconnected(client)
    again.machine.publish(make.snapshot(make.cluster("a")))
    if isinstance(again, DeltaClient):
        again.ask(CLUSTER, known={"a": make.cluster("a").version})
    else:
        again.ask(CLUSTER)
    assert again.settle() == []
    assert again.machine.states(0)[CLUSTER].state == "SYNCED"


def test_rule_8c_bytes_do_not_depend_on_the_order_of_maps() -> None:
    """The same content has the same bytes, map fields included, so it has the same version.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#when-to-send-an-update
    """
    from envoy_data_plane.envoy.config.core.v3 import Metadata
    from envoy_data_plane.google.protobuf import Struct

    names = [f"key-{number}" for number in range(20)]
    one = codec.encode(Metadata(filter_metadata={name: Struct() for name in names}))
    other = codec.encode(Metadata(filter_metadata={name: Struct() for name in reversed(names)}))
    assert one == other
    values: dict[str, Any] = dict.fromkeys(names, 1)
    assert codec.runtime_body("l", values) == codec.runtime_body("l", dict(reversed(values.items())))


def test_rule_8d_incremental_responses_bring_what_changed(delta: DeltaClient) -> None:
    """Incremental: of many resources only those that changed are sent.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#grouping-resources-into-responses
    """
    accepted(delta, make.snapshot(make.cluster("a"), make.cluster("b")), (CLUSTER,))
    delta.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b")))
    assert [one.names for one in delta.settle()] == [["a"]]


def test_rule_8e_state_of_the_world_brings_all_clusters(sotw: SotwClient) -> None:
    """State of the world: of clusters and listeners all are sent if one changed; of other types only that one.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#grouping-resources-into-responses
    """
    old = make.snapshot(make.listener("a"), make.listener("b"), make.endpoints("a"), make.endpoints("b"))
    accepted(sotw, old, (LISTENER,), (ENDPOINT, "a", "b"))
    sotw.machine.publish(
        make.snapshot(make.listener("a", 1), make.listener("b"), make.endpoints("a", 1), make.endpoints("b"))
    )
    assert summary(sotw.settle()) == [(ENDPOINT, ["a"], []), (LISTENER, ["a", "b"], [])]


# 9. Nodes


def test_rule_9a_the_first_message_says_who_the_client_is(client: Client) -> None:
    """Only the first request of a stream is sure to carry the node: it is pinned, and a stream without one is refused.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#basic-protocol-overview
    """
    client.machine.publish(make.snapshot(make.cluster("a"), make.endpoints("a")))
    node, client.node = client.node, None
    with pytest.raises(RemoteError, match=r"no node\.id"):
        client.ask(CLUSTER)
    client.node = node
    client.ask(ENDPOINT, "a")
    client.node = None
    client.ask(CLUSTER)
    assert summary(client.settle())[:2] == [(CLUSTER, ["a"], []), (ENDPOINT, ["a"], [])]


def test_rule_9b_a_node_does_not_change(client: Client) -> None:
    """A node that says that it is another one from now on is refused.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#basic-protocol-overview
    """
    client.ask(CLUSTER)
    client.node = Node("other")
    with pytest.raises(RemoteError, match=r"node\.id changed from 'catalog-0' to 'other'"):
        client.ask(LISTENER)


def test_rule_9c_the_certificate_is_the_identity() -> None:
    """What a node says of itself is never trusted: its certificate decides which node it may be.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#basic-protocol-overview
    """
    peer = Peer("10.0.0.7", "spiffe://mesh/catalog-0", secure=True)
    Policy().admit(peer, "catalog-0", "catalog")
    with pytest.raises(AccessDenied):
        Policy().admit(peer, "payments-0", "payments")


# 10. Sizes


def test_rule_10_a_first_request_after_a_reconnect_may_be_large_and_is_bounded() -> None:
    """Incremental: ``initial_resource_versions`` makes requests of more than gRPC's 4 MiB, up to a limit that is told.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
    """
    request = wire.DeltaDiscoveryRequest(type_url=CLUSTER)
    for number in range(60_000):
        request.initial_resource_versions[f"outbound|443||service-{number:06}.shop.svc.cluster.local"] = "0" * 16
    data = request.SerializeToString()
    assert 4 * 2**20 < len(data) < Limits().message_bytes
    check_request(Limits(), codec.decode_delta_request(data), len(data))
    many = DeltaRequest(CLUSTER, tuple(map(str, range(Limits().names + 1))))
    with pytest.raises(LimitExceeded, match=f"expected at most {Limits().names}"):
        check_request(Limits(), many, 10**6)


# 11. Leases


def test_rule_11a_only_who_announces_it_gets_a_lease(client: Client) -> None:
    """A TTL is sent only to clients that honour it; others get nothing that could not end by itself.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ttl
    """
    client.node = Node("old")
    client.machine.lease(make.lease("limits", {"a": 1}))
    client.ask(RUNTIME, "limits")
    (only,) = client.settle()
    assert (only.ttls, only.bodies) == ({}, {"limits": codec.runtime_body("limits", {})})


def test_rule_11b_state_of_the_world_wraps_what_has_a_lease(sotw: SotwClient) -> None:
    """State of the world: a resource with a TTL travels inside a ``Resource``, and others do not.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#sotw-ttl
    """
    sotw.machine.lease(make.lease("limits", {"a": 1}))
    sotw.machine.publish(make.snapshot(make.endpoints("a")))
    sotw.ask(RUNTIME, "limits")
    sotw.ask(ENDPOINT, "a")
    sent = [sotw.machine.poll(0.0), sotw.machine.poll(0.0)]
    messages = [wire.DiscoveryResponse.FromString(one.data) for one in sent if one is not None]
    inner = {one.type_url: one.resources[0].type_url for one in messages}
    assert inner == {ENDPOINT: ENDPOINT, RUNTIME: "type.googleapis.com/envoy.service.discovery.v3.Resource"}


def test_rule_11c_a_heartbeat_has_no_body(delta: DeltaClient) -> None:
    """Incremental: a heartbeat is a resource with its name, version and TTL, and without a body.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ttl
    """
    delta.machine.lease(make.lease("limits", {"a": 1}))
    delta.ask(RUNTIME, "limits")
    (full,) = delta.settle()
    delta.now = 5.0
    (beat,) = delta.settle()
    assert (beat.bodies, beat.ttls, beat.versions) == ({"limits": None}, {"limits": 15.0}, full.versions)


def test_rule_11d_a_state_of_the_world_heartbeat_has_its_body(sotw: SotwClient) -> None:
    """State of the world: Envoy acknowledges a heartbeat without a body and prolongs nothing, so each has one.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#sotw-ttl
    """
    sotw.machine.lease(make.lease("limits", {"a": 1}))
    sotw.ask(RUNTIME, "limits")
    (full,) = sotw.settle()
    sotw.now = 5.0
    (beat,) = sotw.settle()
    assert (beat.bodies, beat.ttls) == (full.bodies, {"limits": 15.0})


def test_rule_11e_a_live_lease_is_sent_anew_after_a_reconnect(delta: DeltaClient) -> None:
    """Incremental: after a reconnect every live lease is sent in full, whatever versions the client has.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ttl
    """
    lease = make.lease("limits", {"a": 1})
    ((_, one),) = lease.items()
    delta.machine.lease(lease)
    delta.ask(RUNTIME, "limits", known={"limits": one.version})
    (full,) = delta.settle()
    assert full.bodies == {"limits": codec.runtime_body("limits", RuntimeLayer("limits", {"a": 1}, 15.0).values)}


# 12. What is in flight


def test_rule_12a_a_rejected_response_may_be_partly_applied(client: Client) -> None:
    """What a rejected response named is unknown: going back to the last good content sends it.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#nack
    """
    good = make.snapshot(make.cluster("a"), make.cluster("b"))
    accepted(client, good, (CLUSTER,))
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b", 1)))
    client.nack(got(client), "no")
    client.machine.publish(good)
    assert [one.names for one in client.settle()] == [["a", "b"]]


def test_rule_12d_what_came_along_with_a_bad_resource_is_sent_again(client: Client) -> None:
    """Where the client says which resource was bad, the others of the response are sent again without it.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ack-and-nack-semantics-summary
    """
    accepted(client, make.snapshot(make.cluster("a"), make.cluster("b")), (CLUSTER,))
    client.machine.publish(make.snapshot(make.cluster("a", 1), make.cluster("b", 1)))
    client.nack(got(client), "Error adding/updating cluster(s) a: no")
    (again,) = client.settle()
    assert again.bodies["b"] == make.cluster("b", 1).body
    assert again.bodies.get("a", make.cluster("a").body) == make.cluster("a").body


def test_rule_12b_what_no_longer_matches_the_subscription_is_not_sent(client: Client) -> None:
    """A response that was due and no longer matches the subscription is dropped.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#when-to-send-an-update
    """
    client.machine.publish(make.snapshot(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a", "b")
    if isinstance(client, SotwClient):
        client.ask(ENDPOINT, "b")
    else:
        client.ask(ENDPOINT, unsubscribe=("a",))
    assert [one.names for one in client.settle()] == [["b"]]


def test_rule_12c_one_response_of_a_type_is_on_its_way_and_the_newest_wins(client: Client) -> None:
    """While a response is unanswered no other of its type is sent; what was overtaken meanwhile never is.

    https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#when-to-send-an-update
    """
    client.machine.publish(make.snapshot(make.cluster("a")))
    client.ask(CLUSTER)
    first = got(client)
    for content in (1, 2, 3):
        client.machine.publish(make.snapshot(make.cluster("a", content)))
        assert client.get() is None
    client.ack(first)
    assert [one.bodies["a"] for one in client.settle()] == [make.cluster("a", 3).body]


# The index


def index() -> str:
    """The page that lists the rules, made from the tests above."""
    rows = [_row(test) for test in ast.parse(Path(__file__).read_text()).body if _is_rule(test)]
    return "\n".join((_HEAD, *rows)) + "\n"


_HEAD = """# The rules of the protocol

Generated from tests/unit/xds/test_protocol_rules.py, where each rule is a test by its number. Rules with a variant hold
in that one only; *state of the world* and *incremental* are explained in the
[specification](https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#four-variants). What follows from the
rules together, over random histories of clients, is checked by tests/properties/test_xds_machines.py, and
`python -m tests.support.mutations` shows that breaking any of them is noticed.

| rule | what must hold | test | paragraph |
|---|---|---|---|"""


def _is_rule(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_rule_")


def _row(node: ast.stmt) -> str:
    assert isinstance(node, ast.FunctionDef)
    rule, _, url = (ast.get_docstring(node) or "").partition("\n\n")
    number = node.name.split("_")[2]
    anchor = url.strip().partition("#")[2]
    name = node.name.removeprefix(f"test_rule_{number}_")
    return f"| {number} | {' '.join(rule.split()).replace('``', '`')} | `{name}` | [{anchor}]({url.strip()}) |"


def test_the_index_of_rules_is_current(update_golden: bool) -> None:
    if update_golden:
        PAGE.write_text(index())
    assert PAGE.read_text() == index(), "if that is meant: pytest tests/unit/xds/test_protocol_rules.py --update-golden"


def test_every_rule_has_a_number_and_a_paragraph_that_exists() -> None:
    rows = [row.split(" | ") for row in index().splitlines() if re.match(r"\| \d", row)]
    numbers = [row[0].removeprefix("| ") for row in rows]
    assert len(set(numbers)) == len(numbers)
    assert {int(re.sub("[a-z]", "", number)) for number in numbers} == set(range(1, 13))
    for _, rule, _, paragraph in rows:
        assert rule.endswith("."), rule
        anchor = paragraph.partition("]")[0].removeprefix("[")
        assert f"({SPECIFICATION}#{anchor})" in paragraph
        assert anchor in PARAGRAPHS
