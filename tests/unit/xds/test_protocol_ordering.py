"""What waits for what, for every type. xds_protocol stands for
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol.
"""

from __future__ import annotations

import pytest

from tests.unit.xds.link import DeltaClient, Got, SotwClient, make
from xds.protocol import ordering
from xds.protocol.events import Node
from xds.snapshot import Resource, encoded
from xds.types import (
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    ORDER,
    ROUTE,
    RUNTIME,
    SCOPED_ROUTE,
    SECRET,
    VIRTUAL_HOST,
)

Client = DeltaClient | SotwClient

GRPC = Node("client-0", "", "1.80.0", frozenset(), "gRPC C-core")


@pytest.fixture(params=[DeltaClient, SotwClient])
def client(request: pytest.FixtureRequest) -> Client:
    made: Client = request.param()
    return made


def changed(one: Resource) -> Resource:
    return encoded(one.type_url, one.name, one.body + b"\xa0\x06\x09")


def types(received: list[Got]) -> list[str]:
    return [got.type_url for got in received]


# The tables


def test_removals_go_from_what_refers_to_what_is_referred_to() -> None:
    """xds_protocol#eventual-consistency-considerations"""
    assert set(ordering.REMOVAL_ORDER) == set(ORDER) - {RUNTIME}
    for type_url, referrers in ordering.REMOVE_AFTER.items():
        for referrer in referrers:
            assert ordering.REMOVAL_ORDER.index(referrer) < ordering.REMOVAL_ORDER.index(type_url)


def test_all_types_in_order() -> None:
    """xds_protocol#eventual-consistency-considerations: CDS, EDS, LDS, RDS, VHDS."""
    client = DeltaClient()
    client.machine.publish(
        make.everything(
            *(make.cluster("c"), make.endpoints("c"), make.secret("s"), make.tls("l", "s"), make.extension("e")),
            *(make.scope("sc", "r"), make.home("r", "c"), make.host("r/h", "h", cluster="c")),
        )
    )
    asked = {ENDPOINT: "c", SECRET: "s", EXTENSION_CONFIG: "e", ROUTE: "r", VIRTUAL_HOST: "r/h"}
    for type_url in reversed(ORDER[:-1]):
        client.ask(type_url, *([asked[type_url]] if type_url in asked else []))
    received = [(got.type_url, got.names) for got in client.settle()]
    assert received == [
        (CLUSTER, ["c"]),
        (ENDPOINT, ["c"]),
        (SECRET, ["s"]),
        (LISTENER, ["l"]),
        (EXTENSION_CONFIG, ["e"]),
        (SCOPED_ROUTE, ["sc"]),
        (ROUTE, ["r"]),
        (VIRTUAL_HOST, ["r/h"]),
    ]


# Clusters first


@pytest.mark.parametrize("type_url", [LISTENER, ROUTE])
def test_nothing_names_a_cluster_that_was_not_accepted(client: Client, type_url: str) -> None:
    """xds_protocol#eventual-consistency-considerations: make before break."""
    old, new = (
        (make.routing("l", "a"), make.routing("l", "b"))
        if type_url == LISTENER
        else (make.route("l", "a"), make.route("l", "b"))
    )
    client.machine.publish(make.everything(make.cluster("a", eds=False), old))
    client.ask(CLUSTER)
    client.ask(type_url, *([] if type_url == LISTENER else ["l"]))
    client.settle()
    client.machine.publish(make.everything(make.cluster("b", eds=False), new))
    clusters = client.get()
    assert clusters is not None
    assert clusters.type_url == CLUSTER
    assert client.get() is None
    assert client.machine.states(0)[type_url].state == "STALE"
    client.ack(clusters)
    received = client.settle()
    assert types(received) == [type_url, CLUSTER]
    assert received[0].bodies == {"l": new.body}


def test_other_listeners_do_not_wait_and_those_that_do_stay_as_they_are() -> None:
    """State of the world: absence would delete a listener that waits (xds_protocol#deleting-resources)."""
    client = SotwClient()
    old = make.routing("l", "a")
    client.machine.publish(make.everything(make.cluster("a", eds=False), old, make.listener("m")))
    client.ask(CLUSTER)
    client.ask(LISTENER)
    client.settle()
    new = make.routing("l", "b")
    client.machine.publish(
        make.everything(*(make.cluster(name, eds=False) for name in "ab"), new, make.listener("m", 1))
    )
    clusters, listeners = client.get(), client.get()
    assert clusters is not None
    assert listeners is not None
    assert listeners.bodies == {"l": old.body, "m": make.listener("m", 1).body}
    client.ack(listeners)
    assert client.get() is None
    client.ack(clusters)
    assert [got.bodies["l"] for got in client.settle()] == [new.body]


def test_after_a_reconnect_no_listener_is_left_out_because_it_waits() -> None:
    """xds_protocol#deleting-resources: the client has it from an earlier stream."""
    client = SotwClient()
    client.machine.publish(make.everything(make.cluster("a", eds=False), make.routing("l", "a")))
    client.ask(CLUSTER, version="of a dead server")
    client.ask(LISTENER, version="of a dead server")
    clusters = client.get()
    assert clusters is not None
    assert client.get() is None
    client.ack(clusters)
    assert [got.names for got in client.settle()] == [["l"]]


# Removals last


def test_scopes_filters_and_secrets_go_after_the_listeners_that_need_them() -> None:
    """xds_protocol#eventual-consistency-considerations"""
    client = DeltaClient()
    old = (make.tls("l", "s"), make.secret("s"), make.extension("e"), make.scope("sc", "r"), make.route("r"))
    client.machine.publish(make.everything(*old))
    client.ask(LISTENER)
    client.ask(SCOPED_ROUTE)
    for type_url, name in ((SECRET, "s"), (EXTENSION_CONFIG, "e"), (ROUTE, "r")):
        client.ask(type_url, name)
    client.settle()
    client.machine.publish(make.everything())
    received = [(got.type_url, got.removed) for got in client.settle()]
    assert received == [
        (LISTENER, ["l"]),
        (EXTENSION_CONFIG, ["e"]),
        (SCOPED_ROUTE, ["sc"]),
        (ROUTE, ["r"]),
        (SECRET, ["s"]),
    ]


def test_a_route_that_waits_follows_though_another_of_its_set_went_first(client: Client) -> None:
    client.machine.publish(make.everything())
    client.ask(CLUSTER)
    client.ask(ROUTE, "r", "s")
    client.settle()
    client.machine.publish(make.everything(make.cluster("c"), make.route("r", "c"), make.route("s")))
    clusters, first = client.get(), client.get()
    assert clusters is not None
    assert first is not None
    assert (clusters.type_url, first.names) == (CLUSTER, ["s"])
    client.machine.publish(make.everything(make.cluster("c"), make.route("r", "c"), make.route("s", "c")))
    client.ack(first)
    client.ack(clusters)
    assert [got.names for got in client.settle()] == [["r", "s"]]


def test_a_secret_stays_while_a_listener_that_was_not_accepted_replaces_its_user() -> None:
    client = DeltaClient()
    client.machine.publish(make.everything(make.tls("l", "old"), make.secret("old"), make.secret("spare")))
    client.ask(LISTENER)
    client.ask(SECRET, "old", "spare")
    client.settle()
    client.machine.publish(make.everything(make.tls("l", "new"), make.secret("new")))
    listeners = client.get()
    assert listeners is not None
    assert client.get() is None, "the old listener is still there"
    client.nack(listeners, "no")
    assert [(got.type_url, got.removed) for got in client.settle()] == [(SECRET, ["spare"])]
    client.machine.publish(make.everything(changed(make.tls("l", "new")), make.secret("new")))
    assert [(got.type_url, got.removed) for got in client.settle()] == [(LISTENER, []), (SECRET, ["old"])]


def test_absence_deletes_scopes(client: Client) -> None:
    """Envoy's scoped_rds.cc: a response is the full state, and nothing is asked for by name."""
    one, other = make.scope("a", "r"), make.scope("b", "r")
    client.machine.publish(make.everything(one, other, make.route("r")))
    client.ask(SCOPED_ROUTE)
    assert [got.names for got in client.settle()] == [["a", "b"]]
    client.machine.publish(make.everything(changed(one), other, make.route("r")))
    sotw = client.machine.sotw
    assert [got.names for got in client.settle()] == [["a", "b"] if sotw else ["a"]]
    client.machine.publish(make.everything(changed(one), make.route("r")))
    assert [(got.names, got.removed) for got in client.settle()] == [(["a"], []) if sotw else ([], ["b"])]


# Warming


def change_a_cluster(client: Client) -> list[Got]:
    client.machine.publish(make.everything(make.cluster("a"), make.cluster("b"), *map(make.endpoints, "ab")))
    client.ask(CLUSTER, "a", "b")
    client.ask(ENDPOINT, "a", "b")
    client.settle()
    client.machine.publish(make.everything(make.cluster("a", 1), make.cluster("b"), *map(make.endpoints, "ab")))
    return client.settle()


@pytest.mark.parametrize("kind", [DeltaClient, SotwClient])
def test_a_client_that_warms_gets_the_endpoints_of_the_changed_cluster_again(kind: type[Client]) -> None:
    """xds_protocol#resource-warming: Envoy-specific; of the changed cluster alone."""
    received = change_a_cluster(kind())
    assert [(got.type_url, got.names) for got in received][1:] == [(ENDPOINT, ["a"])]


@pytest.mark.parametrize("kind", [DeltaClient, SotwClient])
@pytest.mark.parametrize("agent", ["gRPC C-core", ""])
def test_nobody_else_gets_the_same_endpoints_twice(kind: type[Client], agent: str) -> None:
    """xds_protocol#when-to-send-an-update"""
    assert types(change_a_cluster(kind("p", Node("n", user_agent=agent)))) == [CLUSTER]


@pytest.mark.parametrize(("agent", "warms"), [("envoy", True), ("gRPC C-core", False), ("", False)])
def test_who_warms_clusters(agent: str, warms: bool) -> None:
    """xds_protocol#resource-warming"""
    assert Node("n", user_agent=agent).warms_clusters is warms


def test_a_client_that_does_not_warm_gets_no_endpoints_twice_after_a_reconnect() -> None:
    client = DeltaClient("p", GRPC)
    client.machine.publish(make.everything(make.cluster("a", 1), make.endpoints("a")))
    client.ask(CLUSTER, "a", known={"a": make.cluster("a").version})
    client.ask(ENDPOINT, "a", known={"a": make.endpoints("a").version})
    assert types(client.settle()) == [CLUSTER]


def test_a_returning_client_keeps_its_routes_while_their_new_cluster_is_rejected() -> None:
    """State of the world does not tell which routes it has; the ones that it names it may have in an older version."""
    client = SotwClient()
    client.machine.publish(make.everything(make.cluster("b", eds=False), make.route("r", "b"), make.route("new", "b")))
    client.ask(CLUSTER, version="of a dead server")
    client.ask(ROUTE, "r", version="of a dead server")
    clusters = client.get()
    assert clusters is not None
    client.nack(clusters)
    assert client.settle() == []
    client.ask(ROUTE, "r", "new")
    assert [got.names for got in client.settle()] == [["new"]], "it is none of the old ones"
