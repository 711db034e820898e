"""Names of the form xdstp://, and collections of them.

xdstp stands for https://github.com/cncf/xds/blob/main/proposals/TP1-xds-transport-next.md.
"""

from __future__ import annotations

import pytest

from tests.unit.xds.link import DeltaClient, SotwClient, make
from xds.protocol.collections import collection_of, is_collection
from xds.snapshot import Resource
from xds.types import CLUSTER, ENDPOINT

Client = DeltaClient | SotwClient

FOO = "xdstp://a/envoy.config.cluster.v3.Cluster/foo"


@pytest.fixture(params=[DeltaClient, SotwClient])
def client(request: pytest.FixtureRequest) -> Client:
    made: Client = request.param()
    return made


def clusters(*names: str) -> list[Resource]:
    return [make.cluster(name, eds=False) for name in names]


@pytest.mark.parametrize(
    ("name", "collection"),
    [
        (f"{FOO}/one", f"{FOO}/*"),
        (f"{FOO}/one?env=prod", f"{FOO}/*?env=prod"),
        (f"{FOO}/one?path=a/b", f"{FOO}/*?path=a/b"),
        (f"{FOO}/bar/one", f"{FOO}/bar/*"),
        ("foo/one", ""),
    ],
)
def test_the_collection_of_a_name(name: str, collection: str) -> None:
    """xdstp: glob collections; Envoy's convertToWildcard keeps the context parameters."""
    assert collection_of(name) == collection
    assert is_collection(collection) is bool(collection)
    assert not is_collection(name)


def test_a_single_xdstp_name_is_a_name_like_any_other(client: Client) -> None:
    client.machine.publish(make.everything(*clusters(f"{FOO}/one?env=prod", f"{FOO}/two")))
    client.ask(CLUSTER, f"{FOO}/one?env=prod")
    assert [got.names for got in client.settle()] == [[f"{FOO}/one?env=prod"]]


def test_a_collection_is_what_exists_in_it(client: Client) -> None:
    """xdstp: the server returns the members, which come and go."""
    client.machine.publish(make.everything(*clusters(f"{FOO}/a", f"{FOO}/b", f"{FOO}/bar/c", "d")))
    client.ask(CLUSTER, f"{FOO}/*")
    assert [got.names for got in client.settle()] == [[f"{FOO}/a", f"{FOO}/b"]]
    client.machine.publish(make.everything(*clusters(f"{FOO}/b", f"{FOO}/e", "d", "f")))
    first, last = client.settle()
    if client.machine.sotw:
        assert (first.names, last.names) == ([f"{FOO}/b", f"{FOO}/e", f"{FOO}/a"], [f"{FOO}/b", f"{FOO}/e"])
    else:
        assert (first.names, last.removed) == ([f"{FOO}/e"], [f"{FOO}/a"])
    assert client.settle() == []
    assert client.machine.states(0)[CLUSTER].state == "SYNCED"


def test_a_collection_beside_names_and_another_one(client: Client) -> None:
    client.machine.publish(make.everything(*clusters(f"{FOO}/a", f"{FOO}/bar/b", "c", "d")))
    client.ask(CLUSTER, "c")
    client.settle()
    client.ask(CLUSTER, "c", f"{FOO}/*", f"{FOO}/bar/*") if client.machine.sotw else client.ask(
        CLUSTER, f"{FOO}/*", f"{FOO}/bar/*"
    )
    (got,) = client.settle()
    assert set(got.names) - {"c"} == {f"{FOO}/a", f"{FOO}/bar/b"}


def test_an_empty_collection_is_missing_until_it_is_filled() -> None:
    """xds_protocol#knowing-when-a-requested-resource-does-not-exist"""
    client = DeltaClient()
    client.machine.publish(make.everything())
    client.ask(ENDPOINT, f"{FOO}/*")
    assert [(got.names, got.removed) for got in client.settle()] == [([], [f"{FOO}/*"])]
    client.machine.publish(make.everything(make.endpoints(f"{FOO}/a")))
    assert [(got.names, got.removed) for got in client.settle()] == [([f"{FOO}/a"], [])]


def test_who_leaves_a_collection_keeps_what_it_named() -> None:
    client = DeltaClient()
    client.machine.publish(make.everything(*map(make.endpoints, (f"{FOO}/a", f"{FOO}/b"))))
    client.ask(ENDPOINT, f"{FOO}/*", f"{FOO}/a")
    client.settle()
    client.ask(ENDPOINT, unsubscribe=(f"{FOO}/*",))
    client.machine.publish(make.everything(*(make.endpoints(f"{FOO}/{name}", 1) for name in "ab")))
    assert [got.names for got in client.settle()] == [[f"{FOO}/a"]]


def test_a_returning_client_gets_what_changed_in_a_collection() -> None:
    """xds_protocol#incremental-xds"""
    client = DeltaClient()
    known = {one.name: one.version for one in clusters(*(f"{FOO}/{name}" for name in "abc"))}
    client.machine.publish(make.everything(*clusters(f"{FOO}/a"), make.cluster(f"{FOO}/b", 1, eds=False)))
    client.ask(CLUSTER, f"{FOO}/*", known=known)
    assert [(got.names, got.removed) for got in client.settle()] == [([f"{FOO}/b"], []), ([], [f"{FOO}/c"])]
