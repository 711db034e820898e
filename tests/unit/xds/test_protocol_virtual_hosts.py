"""Virtual hosts on demand.

vhds stands for https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/vhds.
"""

from __future__ import annotations

import pytest

from tests.unit.xds.link import DeltaClient, SotwClient, make
from xds.errors import RemoteError
from xds.protocol.virtual_hosts import lookup
from xds.types import CLUSTER, ROUTE, VIRTUAL_HOST


@pytest.fixture
def client() -> DeltaClient:
    return DeltaClient()


HOSTS = make.set(
    VIRTUAL_HOST,
    make.host("r/exact", "a.example.com", "a.example.com:80", "B.Example.com"),
    make.host("r/suffix", "*.example.com", "*-x.example.com"),
    make.host("r/longer", "*.b.example.com"),
    make.host("r/prefix", "a.*"),
    make.host("r/all", "*"),
    make.host("in/side/exact", "a.example.com"),
)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("r/a.example.com", "r/exact"),
        ("r/A.EXAMPLE.com", "r/exact"),
        ("r/b.example.com", "r/exact"),
        ("r/a.example.com:80", "r/exact"),
        ("r/c.example.com", "r/suffix"),
        ("r/y-x.example.com", "r/suffix"),
        ("r/c.b.example.com", "r/longer"),
        ("r/a.example.org", "r/prefix"),
        ("r/example.org", "r/all"),
        ("r/suffix", "r/suffix"),
        ("in/side/a.example.com", "in/side/exact"),
        ("in/side/b.example.com", None),
        ("other/a.example.com", None),
        ("a.example.com", None),
        ("r/" + "a" * 300 + ".example.com", "r/all"),
    ],
)
def test_hosts_are_found_as_envoy_would(asked: str, found: str | None) -> None:
    """https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/route/v3/route_components.proto
    #envoy-v3-api-field-config-route-v3-virtualhost-domains; the route configuration's name may hold slashes:
    vhds#virtual-host-resource-naming-convention"""
    assert lookup(HOSTS, asked) == found


def test_nobody_gets_a_host_that_was_not_asked_for(client: DeltaClient) -> None:
    client.machine.publish(make.everything(make.home("r"), make.host("r/a", "a")))
    client.ask(ROUTE, "r")
    client.settle()
    client.ask(VIRTUAL_HOST)
    (got,) = client.settle()
    assert (got.names, got.removed) == ([], ["r/*"]), "or the listener would wait 15 s for its first answer"
    assert client.settle() == []


def test_the_answer_carries_the_name_and_what_it_was_asked_by(client: DeltaClient) -> None:
    """vhds#subscribing-to-resources"""
    client.machine.publish(make.everything(make.home("r"), make.host("r/a", "a", "*.a")))
    client.ask(VIRTUAL_HOST)
    client.settle()
    client.ask(VIRTUAL_HOST, "r/x.a")
    (got,) = client.settle()
    assert (got.names, got.aliases) == (["r/a"], {"r/a": ["r/x.a"]})
    client.ask(VIRTUAL_HOST, "r/a", "r/y.a")
    (got,) = client.settle()
    assert (got.names, got.aliases) == (["r/a"], {"r/a": ["r/x.a", "r/y.a"]})
    assert client.machine.states(0)[VIRTUAL_HOST].state == "SYNCED"


def test_an_unknown_host_is_answered_without_a_body_each_time(client: DeltaClient) -> None:
    """vhds#subscribing-to-resources: name and alias set to the requested host entry, the resource unpopulated."""
    client.machine.publish(make.everything(make.home("r")))
    client.ask(VIRTUAL_HOST)
    client.settle()
    for _ in range(2):
        client.ask(VIRTUAL_HOST, "r/nobody")
        (got,) = client.settle()
        assert (got.names, got.bodies, got.aliases) == (["r/nobody"], {"r/nobody": None}, {"r/nobody": ["r/nobody"]})
        assert got.removed == []


def test_a_host_that_comes_to_exist_is_sent(client: DeltaClient) -> None:
    """xds_protocol#knowing-when-a-requested-resource-does-not-exist: names stay of interest."""
    client.machine.publish(make.everything(make.home("r")))
    client.ask(VIRTUAL_HOST, "r/a.example.com")
    client.settle()
    client.machine.publish(make.everything(make.home("r"), make.host("r/a", "a.example.com")))
    (got,) = client.settle()
    assert (got.names, got.aliases) == (["r/a"], {"r/a": ["r/a.example.com"]})


def test_changes_and_removals_of_a_host_follow(client: DeltaClient) -> None:
    """vhds: if a virtual host was subscribed to over VHDS, updates take place over VHDS."""
    client.machine.publish(make.everything(make.home("r"), make.host("r/a", "a"), make.host("r/b", "b")))
    client.ask(VIRTUAL_HOST, "r/a")
    client.settle()
    client.machine.publish(make.everything(make.home("r"), make.host("r/a", "a", content=1), make.host("r/b", "b")))
    assert [(got.names, got.removed) for got in client.settle()] == [(["r/a"], [])]
    client.machine.publish(make.everything(make.home("r"), make.host("r/b", "b")))
    assert [(got.names, got.removed) for got in client.settle()] == [([], ["r/a"])]


def test_a_host_that_moves_to_another_name_is_sent_again(client: DeltaClient) -> None:
    client.machine.publish(make.everything(make.home("r"), make.host("r/old", "a")))
    client.ask(VIRTUAL_HOST, "r/a")
    client.settle()
    client.machine.publish(make.everything(make.home("r"), make.host("r/new", "a")))
    assert [(got.names, got.removed) for got in client.settle()] == [(["r/new"], []), ([], ["r/old"])]


def test_who_unsubscribes_from_all_aliases_hears_no_more(client: DeltaClient) -> None:
    """xds_protocol#unsubscribing-from-resources: these may be resource names or aliases."""
    client.machine.publish(make.everything(make.home("r"), make.host("r/x", "a", "b")))
    client.ask(VIRTUAL_HOST, "r/a", "r/b")
    client.settle()
    client.ask(VIRTUAL_HOST, unsubscribe=("r/a",))
    client.machine.publish(make.everything(make.home("r"), make.host("r/x", "a", "b", content=1)))
    assert [got.aliases for got in client.settle()] == [{"r/x": ["r/b"]}]
    client.ask(VIRTUAL_HOST, unsubscribe=("r/b",))
    client.machine.publish(make.everything(make.home("r"), make.host("r/x", "a", "b", content=2)))
    assert client.settle() == []


def test_a_returning_client_is_told_only_what_changed() -> None:
    """xds_protocol#incremental-xds: initial_resource_versions, where Envoy lists unknown hosts without a version."""
    client = DeltaClient()
    host, other = make.host("r/x", "a"), make.host("r/y", "b", content=1)
    client.machine.publish(make.everything(make.home("r"), host, other))
    known = {"r/x": host.version, "r/y": "older", "r/nobody": ""}
    client.ask(VIRTUAL_HOST, "*", "r/a", "r/b", "r/nobody", known=known)
    (got,) = client.settle()
    assert (got.names, got.removed) == (["r/y", "r/nobody"], ["r/*"])
    client.ask(VIRTUAL_HOST, "r/a")
    assert [got.names for got in client.settle()] == [["r/x"]], "now it asks"


def test_every_new_route_configuration_is_greeted(client: DeltaClient) -> None:
    """xds_protocol#eventual-consistency-considerations: VHDS after the related route configurations. Envoy does not
    ask again for a second one."""
    client.machine.publish(make.everything(make.home("r")))
    client.ask(ROUTE, "r")
    client.settle()
    client.ask(VIRTUAL_HOST)
    client.settle()
    client.machine.publish(make.everything(make.home("r", content=1), make.home("s")))
    client.ask(ROUTE, "s")
    received = [(got.type_url, got.names, got.removed) for got in client.settle()]
    assert received == [(ROUTE, ["r", "s"], []), (VIRTUAL_HOST, [], ["s/*"])]


def test_a_host_waits_for_its_clusters(client: DeltaClient) -> None:
    """xds_protocol#eventual-consistency-considerations"""
    client.machine.publish(
        make.everything(make.cluster("c", eds=False), make.home("r"), make.host("r/a", "a", cluster="c"))
    )
    client.ask(CLUSTER)
    client.ask(VIRTUAL_HOST, "r/a")
    clusters = client.get()
    greeting = client.get()
    assert clusters is not None
    assert greeting is not None
    assert (clusters.names, greeting.names) == (["c"], [])
    client.ack(greeting)
    assert client.get() is None
    client.ack(clusters)
    assert [got.names for got in client.settle()] == [["r/a"]]


def test_there_is_no_state_of_the_world_of_virtual_hosts() -> None:
    """xds_protocol#rpc-services-and-methods-for-each-variant: SotW N/A."""
    with pytest.raises(RemoteError, match="incremental variant only"):
        SotwClient().ask(VIRTUAL_HOST, "r/a")
