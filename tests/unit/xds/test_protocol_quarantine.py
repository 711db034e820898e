"""Telling the offending resource apart, and going on without it.

The messages are those of Envoy 1.40 and of gRPC. xds_protocol stands for
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.unit.xds.link import DeltaClient, Got, SotwClient, make
from xds.protocol.events import DeltaRequest, Node
from xds.protocol.quarantine import culprits, without_secrets
from xds.snapshot import Resource, versions_of
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE, SECRET

CONSTRAINT = (
    'goo.gle/debugonly    \nname: "bad.one"\ntype: EDS\neds_cluster_config {\n  eds_config {\n    ads {\n    }\n  }\n'
    '  service_name: "good.one"\n}\nconnect_timeout {\n}\n: Proto constraint validation failed '
    "(ClusterValidationError.ConnectTimeout: value must be greater than 0s)"
)
CLUSTERS = (
    "Error adding/updating cluster(s) bad.two: Didn't find a registered implementation for 'good.one' with type URL: "
    "'envoy.foo.v3.Bar', bad.three: Failed to load certificate chain from <inline>"
)
LISTENERS = (
    "Error adding/updating listener(s) bad.listener: Didn't find a registered implementation for 'nope' with type URL: "
    "'envoy.foo.v3.Bar'\nbad.listener2: error adding listener named 'bad.listener2': address is necessary\n"
    'bad.listener3: goo.gle/debugstr   \nrds {\n  route_config_name: "outbound"\n}\n: Proto constraint validation '
    "failed (HttpConnectionManagerValidationError.StatPrefix: value length must be at least 1 characters)\n"
)
ASSIGNMENT = (
    'goo.gle/debugproto  \ncluster_name: "good.two"\nendpoints {\n  priority: 200\n}\n: Proto constraint validation '
    "failed (ClusterLoadAssignmentValidationError.Endpoints[0]: embedded message failed validation)"
)
GRPC = (
    "xDS response validation errors: [resource index 0: a.b: INVALID_ARGUMENT: errors validating Cluster resource: "
    "[field:type error:unknown discovery type]; resource index 2: c: INVALID_ARGUMENT: [no]]"
)
CONFLICT = (
    "Error adding/updating scoped route(s): scope key conflict found, first scope is 'a.one', second scope is 'b.two'"
)
WILDCARD = "Only a single wildcard domain is permitted in route outbound"


@pytest.mark.parametrize(
    ("type_url", "message", "candidates", "guilty"),
    [
        (CLUSTER, CONSTRAINT, {"good.one", "bad.one", "bad"}, {"bad.one"}),
        (CLUSTER, CLUSTERS, {"good.one", "bad.two", "bad.three", "two"}, {"bad.two", "bad.three"}),
        (
            LISTENER,
            LISTENERS,
            {"outbound", "bad.listener", "bad.listener3", "listener"},
            {"bad.listener", "bad.listener3"},
        ),
        (ENDPOINT, ASSIGNMENT, {"good.two", "good"}, {"good.two"}),
        (CLUSTER, GRPC, {"a.b", "c", "a", "b"}, {"a.b", "c"}),
        (SCOPED_ROUTE, CONFLICT, {"a.one", "b.two", "b"}, {"a.one", "b.two"}),
        (ROUTE, WILDCARD, {"outbound", "out", "domain"}, {"outbound"}),
        (ROUTE, "route: unknown cluster 'x'", {"x", "y"}, set()),
        (ROUTE, "Unexpected RDS configuration (expecting r1): other", {"r1", "r2"}, {"r1"}),
        (CLUSTER, "a listener is bad, and a cluster", {"a", "bad", "cluster"}, set()),
        (CLUSTER, "everything is wrong", {"x", "y"}, set()),
        (CLUSTER, "everything is wrong", {"x"}, {"x"}),
        (CLUSTER, CLUSTERS, set(), set()),
        (
            CLUSTER,
            "outbound|80|v1|web.svc: no",
            {"outbound|80|v1|web.svc", "web.svc", "other"},
            {"outbound|80|v1|web.svc"},
        ),
    ],
)
def test_whose_fault_it_was(type_url: str, message: str, candidates: set[str], guilty: set[str]) -> None:
    """xds_protocol#nack: the message says more about it."""
    assert culprits(type_url, message, candidates) == guilty


DUMP = (
    'goo.gle/debugonly  \nname: "server"\ntls_certificate {\n  private_key {\n    inline_string: "-- \\"\\nKEY"\n'
    "  }\n}\n: Proto constraint validation failed (SecretValidationError.TlsCertificate: value is required)"
)


def test_a_private_key_in_a_rejection_goes_no_further() -> None:
    """Envoy's words may be cut off in the middle of a key (it sends 4096 characters at most)."""
    told = without_secrets(SECRET, DUMP)
    assert told == "Proto constraint validation failed (SecretValidationError.TlsCertificate: value is required)"
    for end in range(DUMP.index("KEY"), DUMP.index("}")):
        for type_url in (SECRET, CLUSTER):
            assert "KEY" not in without_secrets(type_url, DUMP[:end])
    assert without_secrets(CLUSTER, DUMP).count("[redacted]") == 1
    assert without_secrets(SECRET, "Failed to load private key") == "Failed to load private key"


# The machines

Client = DeltaClient | SotwClient


@pytest.fixture(params=[DeltaClient, SotwClient])
def client(request: pytest.FixtureRequest) -> Client:
    made: Client = request.param()
    return made


def clusters(**contents: int) -> list[Resource]:
    return [make.cluster(name, content, eds=False) for name, content in contents.items()]


def push(client: Client, *resources: Resource) -> Got:
    """Publish, and the response that follows."""
    client.machine.publish(make.everything(*resources))
    got = client.get()
    assert got is not None
    return got


def named(client: Client, got: Got) -> list[str]:
    """What is new in a response: state of the world repeats the rest, which a test must not depend on."""
    return sorted(got.names)


def blame(*names: str) -> str:
    return "Error adding/updating cluster(s) " + ", ".join(f"{name}: it is bad" for name in names)


def start(client: Client, *resources: Resource) -> None:
    client.machine.publish(make.everything(*resources))
    client.ask(CLUSTER)
    client.settle()


def test_the_rest_goes_on_without_a_new_resource_that_is_bad(client: Client) -> None:
    """xds_protocol#nack: the client's words say which resource it was."""
    start(client, *clusters(old=0))
    client.nack(push(client, *clusters(old=0, bad=0, good=0)), blame("bad"))
    assert [named(client, got) for got in client.settle()] == [["good"] if not client.machine.sotw else ["good", "old"]]
    state = client.machine.states(0)[CLUSTER]
    assert (state.state, state.quarantined, state.error) == ("NACKED", ("bad",), blame("bad"))
    assert client.settle() == []


def test_a_changed_resource_that_is_bad_stays_as_it_was(client: Client) -> None:
    """The last good version is the truth: state of the world repeats it, and does not leave it out, which would delete
    it (xds_protocol#deleting-resources)."""
    start(client, *clusters(a=0, b=0))
    client.nack(push(client, *clusters(a=1, b=1)), blame("a"))
    (got,) = client.settle()
    good, changed = clusters(a=0, b=1)
    if client.machine.sotw:
        assert got.bodies == {"a": good.body, "b": changed.body}
    else:
        assert got.bodies == {"b": changed.body}


def test_later_changes_of_the_others_go_on_and_the_bad_one_is_not_tried_again(client: Client) -> None:
    start(client, *clusters(a=0, b=0))
    client.nack(push(client, *clusters(a=1, b=0)))
    assert client.settle() == [], "the only new one is to blame, whatever the words"
    got = push(client, *clusters(a=1, b=1))
    assert got.bodies["b"] == clusters(b=1)[0].body
    assert got.bodies.get("a", clusters(a=0)[0].body) == clusters(a=0)[0].body
    client.ack(got)
    assert client.settle() == []
    assert client.machine.states(0)[CLUSTER].quarantined == ("a",)


def test_a_new_version_is_pardoned(client: Client) -> None:
    start(client, *clusters(a=0, b=0))
    client.nack(push(client, *clusters(a=1, b=0)))
    got = push(client, *clusters(a=2, b=0))
    assert got.bodies["a"] == clusters(a=2)[0].body
    client.ack(got)
    state = client.machine.states(0)[CLUSTER]
    assert (state.state, state.quarantined, state.error) == ("SYNCED", (), "")


def test_the_last_good_version_is_sent_when_the_content_goes_back_to_it(client: Client) -> None:
    """xds_protocol#nack: a rejected response may be partly applied."""
    start(client, *clusters(a=0, b=0))
    client.nack(push(client, *clusters(a=1, b=0)))
    assert push(client, *clusters(a=0, b=0)).bodies["a"] == clusters(a=0)[0].body


def test_a_bad_resource_that_is_withdrawn_needs_no_word(client: Client) -> None:
    """The client never had it."""
    start(client, *clusters(a=0))
    client.nack(push(client, *clusters(a=0, bad=0)))
    client.machine.publish(make.everything(*clusters(a=0)))
    assert client.settle() == []
    assert client.machine.states(0)[CLUSTER].state == "SYNCED"


def test_several_bad_ones_are_found_one_after_the_other(client: Client) -> None:
    """Envoy names only the first resource that breaks a constraint."""
    start(client, *clusters(a=0))
    client.nack(push(client, *clusters(a=0, b=0, c=0, d=0)), '\nname: "b"\n: Proto constraint validation failed')
    second = client.get()
    assert second is not None
    client.nack(second, '\nname: "d"\n: Proto constraint validation failed')
    assert [set(got.names) - {"a"} for got in client.settle()] == [{"c"}]
    assert client.machine.states(0)[CLUSTER].quarantined == ("b", "d")


def test_what_cannot_be_told_apart_waits_until_the_content_changes(client: Client) -> None:
    """xds_protocol#nack"""
    start(client, *clusters(a=0))
    client.nack(push(client, *clusters(a=0, b=0, c=0)), "no, thanks")
    assert client.settle() == []
    state = client.machine.states(0)[CLUSTER]
    assert (state.state, state.quarantined, state.error) == ("NACKED", (), "no, thanks")
    assert set(push(client, *clusters(a=0, b=0, c=1)).names) >= {"b", "c"}


def test_a_nack_that_tells_apart_may_also_change_names() -> None:
    """xds_protocol#nack"""
    client = SotwClient()
    client.machine.publish(make.everything(*map(make.endpoints, "abc")))
    client.ask(ENDPOINT, "a", "b")
    got = client.get()
    assert got is not None
    client.ask(ENDPOINT, "a", "b", "c", nonce=got.nonce, error='\ncluster_name: "a"\n')
    assert [got.names for got in client.settle()] == [["b", "c"]]


def test_a_missing_name_in_a_rejected_response_is_answered_again() -> None:
    """xds_protocol#knowing-when-a-requested-resource-does-not-exist"""
    client = DeltaClient()
    client.machine.publish(make.everything(*map(make.endpoints, "ab")))
    client.ask(ENDPOINT, "a", "b", "missing")
    got = client.get()
    assert got is not None
    client.nack(got, '\ncluster_name: "a"\n')
    assert [(got.names, got.removed) for got in client.settle()] == [(["b"], ["missing"])]


# The node

ANOTHER = Node("catalog-0", "catalog", "1.40.0", frozenset(), "envoy")


def reconnected(client: Client, known: Iterable[Resource] = ()) -> Client:
    """The next stream of the node, with what the client says it has."""
    again = type(client)("next", ANOTHER)
    again.machine.quarantine = client.machine.quarantine
    again.machine.publish(client.machine.snapshot)
    if isinstance(again, SotwClient):
        again.ask(CLUSTER, version="an earlier one" if known else "")
    else:
        again.ask(CLUSTER, known=versions_of(known))
    return again


def test_a_quarantine_outlives_the_stream(client: Client) -> None:
    start(client, *clusters(a=0, b=0))
    client.nack(push(client, *clusters(a=1, b=1)), blame("a"))
    client.settle()
    again = reconnected(client, clusters(a=0, b=1))
    if again.machine.sotw:
        assert [got.bodies for got in again.settle()] == [{one.name: one.body for one in clusters(a=0, b=1)}]
    else:
        assert again.settle() == []
    assert again.machine.states(0)[CLUSTER].quarantined == ("a",)


def test_a_restarted_client_gets_the_last_good_version(client: Client) -> None:
    start(client, *clusters(a=0, b=0))
    client.nack(push(client, *clusters(a=1, b=0)))
    again = reconnected(client)
    assert [got.bodies for got in again.settle()] == [{one.name: one.body for one in clusters(a=0, b=0)}]
    assert again.settle() == []


def test_a_returning_client_is_told_that_what_it_rejected_does_not_exist() -> None:
    """xds_protocol#knowing-when-a-requested-resource-does-not-exist: the client need not wait for a timeout."""
    client = DeltaClient()
    client.machine.publish(make.everything(*map(make.endpoints, "ab")))
    client.ask(ENDPOINT, "a", "b")
    got = client.get()
    assert got is not None
    client.nack(got, '\ncluster_name: "a"\n')
    again = DeltaClient("next", ANOTHER)
    again.machine.quarantine = client.machine.quarantine
    again.machine.publish(client.machine.snapshot)
    again.ask(ENDPOINT, "a", "b")
    assert [(got.names, got.removed) for got in again.settle()] == [(["b"], ["a"])]
    again.machine.publish(make.everything(make.endpoints("a", 1), make.endpoints("b")))
    assert [(got.names, got.removed) for got in again.settle()] == [(["a"], [])]


def test_a_full_state_leaves_nothing_out_that_the_client_may_have() -> None:
    """Of a client that comes from an unknown stream it is not known what it has: absence would delete it."""
    client = SotwClient()
    client.machine.publish(make.everything(*clusters(a=1, b=0)))
    client.ask(CLUSTER, version="of a dead server")
    got = client.get()
    assert got is not None
    client.nack(got, blame("a"))
    assert client.settle() == []
    assert client.machine.states(0)[CLUSTER].quarantined == ()
    assert push(client, *clusters(a=2, b=0)).names == ["a", "b"]


def test_asking_again_for_what_was_rejected_is_answered() -> None:
    """xds_protocol#subscribing-to-resources: the server must still provide those resources."""
    client = DeltaClient()
    client.machine.publish(make.everything(make.endpoints("a"), make.endpoints("b")))
    client.ask(ENDPOINT, "a", "b")
    got = client.get()
    assert got is not None
    client.nack(got, '\ncluster_name: "a"\n')
    client.settle()
    client.ask(ENDPOINT, "a")
    assert [got.names for got in client.settle()] == [["a"]]


def test_who_rejects_something_and_asks_for_it_at_once_does_not_get_it_again() -> None:
    """xds_protocol#nack: that would never end."""
    client = DeltaClient()
    client.machine.publish(make.everything(*map(make.endpoints, "ab")))
    client.ask(ENDPOINT, "a", "b")
    got = client.get()
    assert got is not None
    client.ask(ENDPOINT, "a", nonce=got.nonce, error='\ncluster_name: "a"\n')
    assert [(got.names, got.removed) for got in client.settle()] == [(["b"], ["a"])], (
        "for this client it does not exist"
    )


# What refers to what


def test_routes_wait_for_the_last_good_version_of_a_cluster(client: Client) -> None:
    """Of a client that comes back: what it gets instead is on its way."""
    start(client, *clusters(a=0))
    client.nack(push(client, *clusters(a=1), make.route("r", "a")))
    again = reconnected(client)
    again.ask(ROUTE, "r")
    got = again.get()
    assert got is not None
    assert (got.type_url, got.bodies) == (CLUSTER, {"a": clusters(a=0)[0].body})
    assert again.get() is None
    again.ack(got)
    assert [got.type_url for got in again.settle()] == [ROUTE]


def test_a_cluster_stays_while_the_last_good_routes_need_it(client: Client) -> None:
    """xds_protocol#eventual-consistency-considerations: stale clusters go when nothing refers to them any more."""
    client.machine.publish(make.everything(*clusters(a=0, b=0, c=0), make.route("r", "a"), make.route("q", "b")))
    client.ask(CLUSTER)
    client.ask(ROUTE, "q", "r")
    client.settle()
    got = push(client, *clusters(c=0), make.route("r", "c"), make.route("q", "c"))
    assert got.type_url == ROUTE
    client.nack(got, "Only a single wildcard domain is permitted in route r")
    received = [(got.type_url, got.names if client.machine.sotw else got.removed) for got in client.settle()]
    gone = ["c", "a"] if client.machine.sotw else ["b"]
    assert received[-1] == (CLUSTER, gone), "r still sends to a"
    client.machine.publish(make.everything(*clusters(c=0), make.home("r", "c"), make.route("q", "c")))
    received = [(got.type_url, got.names if client.machine.sotw else got.removed) for got in client.settle()]
    assert received[-1] == (CLUSTER, ["c"] if client.machine.sotw else ["a"])


def test_old_routes_stay_while_their_new_cluster_is_in_quarantine(client: Client) -> None:
    """Make before break: the cluster does not exist for this client."""
    client.machine.publish(make.everything(*clusters(a=0), make.route("r", "a")))
    client.ask(CLUSTER)
    client.ask(ROUTE, "r")
    client.settle()
    client.nack(push(client, *clusters(a=0, bad=0, good=0), make.route("r", "bad")), blame("bad"))
    assert [got.type_url for got in client.settle()] == [CLUSTER]
    client.machine.publish(make.everything(*clusters(a=0, bad=1, good=0), make.route("r", "bad")))
    assert [got.type_url for got in client.settle()] == [CLUSTER, ROUTE]


def test_new_routes_go_out_even_if_one_of_their_clusters_is_in_quarantine(client: Client) -> None:
    """Most routes are better than none; but what is merely on its way is waited for."""
    client.machine.publish(make.everything(*clusters(bad=0, good=0), make.route("r", "bad", "good")))
    client.ask(CLUSTER)
    client.ask(ROUTE, "r")
    got = client.get()
    assert got is not None
    client.nack(got, blame("bad"))
    second = client.get()
    assert second is not None
    assert (second.type_url, second.names) == (CLUSTER, ["good"])
    assert client.get() is None
    client.ack(second)
    assert [got.type_url for got in client.settle()] == [ROUTE]


def test_a_removal_is_no_reason_to_try_again_what_was_bad_by_itself(client: Client) -> None:
    """xds_protocol#nack"""
    client.machine.publish(make.everything(make.listener("old", 1)))
    client.ask(LISTENER)
    client.settle()
    client.nack(
        push(client, make.listener("old", 1), make.listener("bad", 1)), "Error adding/updating listener(s) bad: no"
    )
    client.machine.publish(make.everything(make.listener("bad", 1)))
    assert [got.names for got in client.settle()] == [[]]


def test_word_of_what_never_existed_is_no_removal() -> None:
    """Only what goes away makes room."""
    client = DeltaClient()
    client.machine.publish(make.everything(make.listener("bad", 1)))
    client.ask(LISTENER, "bad", "missing")
    got = client.get()
    assert got is not None
    client.nack(got)
    assert [(got.names, got.removed) for got in client.settle()] == [([], ["missing"])]


def test_a_successor_on_the_same_address_is_tried_again_when_its_predecessor_is_gone(client: Client) -> None:
    """Additions come first, so Envoy finds the address taken; then the removal frees it."""
    client.machine.publish(make.everything(make.listener("old", 1)))
    client.ask(LISTENER)
    client.settle()
    got = push(client, make.listener("new", 1))
    assert "new" in got.names
    client.nack(got, "Error adding/updating listener(s) new: error adding listener: 'new' has duplicate address\n")
    received = [(got.names, got.removed) for got in client.settle()]
    assert received == ([([], []), (["new"], [])] if client.machine.sotw else [([], ["old"]), (["new"], [])])
    assert client.machine.states(0)[LISTENER].state == "SYNCED"


def test_what_a_returning_client_never_had_does_not_hold_up_the_rest() -> None:
    """State of the world: leaving it out takes nothing away."""
    first, second = SotwClient(), SotwClient("efgh")
    first.machine.publish(make.everything(*clusters(a=0)))
    first.ask(CLUSTER)
    (good,) = first.settle()
    first.nack(push(first, *clusters(a=0, bad=0)), blame("bad"))
    second.machine.quarantine = first.machine.quarantine
    second.machine.publish(make.everything(*clusters(a=1, bad=0)))
    second.ask(CLUSTER, version=good.version)
    assert [got.names for got in second.settle()] == [["a"]]


def test_what_came_along_in_its_last_good_version_is_not_sent_again() -> None:
    client = SotwClient()
    client.machine.publish(make.everything(*clusters(bad=0, c=0)))
    client.ask(CLUSTER)
    client.settle()
    client.nack(push(client, *clusters(bad=1, c=0)), blame("bad"))
    client.machine.publish(make.everything(*clusters(bad=1, c=1)))
    (got,) = client.settle()
    assert got.bodies["bad"] == make.cluster("bad", 0, eds=False).body
    client.machine.publish(make.everything(*clusters(bad=0, c=1)))
    assert client.settle() == []


def test_what_a_rejected_response_may_have_left_behind_is_removed_when_it_is_gone() -> None:
    """First the client does not say what was bad, and may have applied the rest; then it does."""
    client = DeltaClient()
    client.machine.publish(make.everything(*clusters(a=0, b=0)))
    client.ask(CLUSTER)
    first = client.get()
    assert first is not None
    client.nack(first, "no")
    client.nack(push(client, *clusters(b=1)), blame("b"))
    client.machine.publish(make.everything())
    assert [got.removed for got in client.settle()] == [["a", "b"]]


def test_what_a_rejected_response_may_have_left_behind_is_not_left_out_of_a_full_state() -> None:
    """Nobody knows which version of it there is, so it cannot be sent instead of the bad one; absence would delete."""
    client = SotwClient()
    client.machine.publish(make.everything(*clusters(a=0, b=0)))
    client.ask(CLUSTER)
    first = client.get()
    assert first is not None
    client.nack(first, "no")
    client.nack(push(client, *clusters(b=1)), blame("b"))
    assert client.settle() == []
    assert set(push(client, *clusters(b=1, c=0)).names) == {"b", "c"}, "tried once more with whatever is new"


def test_what_comes_back_bad_before_it_was_taken_away_stays_as_it_was() -> None:
    client = SotwClient()
    start(client, *clusters(b=0))
    client.ack(push(client, *clusters(c=0)))  # and b, which goes last
    client.nack(push(client, *clusters(a=0, b=7)), blame("b"))
    again, *_ = client.settle()
    assert again.bodies["a"] == make.cluster("a", eds=False).body
    assert again.bodies["b"] == make.cluster("b", eds=False).body


def test_what_was_rejected_as_a_whole_does_not_come_along_with_something_else() -> None:
    client = SotwClient()
    start(client, *clusters(a=0, b=0))
    client.nack(push(client, *clusters(a=0, b=1, c=1)), "no")
    assert client.settle() == []


def test_what_is_asked_for_again_with_a_rejection_is_not_taken_for_accepted() -> None:
    """Dropped while it was on its way, wanted again with the answer: the client does not have it."""
    client = DeltaClient()
    client.machine.publish(make.everything(*clusters(a=0, b=0)))
    client.ask(CLUSTER, "a", "b")
    first = client.get()
    assert first is not None
    client.machine.receive(DeltaRequest(CLUSTER, unsubscribe=("a", "b")), 0.0)
    error = blame("a")
    client.machine.receive(DeltaRequest(CLUSTER, subscribe=("b",), nonce=first.nonce, error=error), 0.0)
    assert not client.machine.subscriptions[CLUSTER].confirms("b")
