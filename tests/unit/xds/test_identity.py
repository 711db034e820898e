"""Who may be which node: the certificate decides, not what a peer says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from tests.support.certificates import Authority
from xds.errors import AccessDenied
from xds.server.identity import Peer, Policy, Rule, group_of, peer_of
from xds.snapshot import Snapshot, encoded, resource_set, snapshot
from xds.types import CLUSTER, SECRET

FRONTEND = "spiffe://mesh/ns/shop/sa/frontend"


def peer(spiffe: str = FRONTEND) -> Peer:
    return Peer("10.0.0.1", spiffe, secure=True)


def allowed(policy: Policy, spiffe: str, node_id: str, group: str = "") -> bool:
    try:
        policy.admit(peer(spiffe), node_id, group)
    except AccessDenied:
        return False
    return True


@pytest.mark.parametrize(
    ("spiffe", "node_id", "group"),
    [
        (FRONTEND, "frontend-0", "frontend"),
        (FRONTEND, "frontend-17", ""),
        (FRONTEND, "frontend", "frontend"),
        ("spiffe://mesh/frontend-0", "frontend-0", "frontend"),
        ("spiffe://mesh/frontend-0", "frontend-0", "frontend-0"),
    ],
)
def test_an_identity_may_be_the_nodes_that_are_named_after_it(spiffe: str, node_id: str, group: str) -> None:
    assert allowed(Policy(), spiffe, node_id, group)


@pytest.mark.parametrize(
    ("spiffe", "node_id", "group"),
    [
        (FRONTEND, "payments-0", "payments"),
        (FRONTEND, "payments-0", "frontend"),  # it names its own group, and another's node
        (FRONTEND, "frontend-0", "payments"),  # its own node, and another's group
        (FRONTEND, "frontend-evil", "frontend"),
        (FRONTEND, "frontend-0-0", "frontend"),
        (FRONTEND, "frontend-", ""),
        (FRONTEND, "", ""),
        (FRONTEND, "FRONTEND-0", ""),
        ("spiffe://mesh/frontend-0", "frontend-1", "frontend"),
        ("spiffe://mesh/sa/frontend/extra", "frontend-0", "frontend"),
        ("spiffe://frontend", "frontend-0", "frontend"),  # a trust domain is no name
        ("", "frontend-0", "frontend"),
    ],
)
def test_a_mismatch_is_denied(spiffe: str, node_id: str, group: str) -> None:
    assert not allowed(Policy(), spiffe, node_id, group)


def test_a_group_that_looks_like_a_node_of_another_is_not_one() -> None:
    """Identity shop-1 is the group shop-1, and not replica 1 of shop."""
    spiffe = "spiffe://mesh/sa/shop-1"
    assert allowed(Policy(groups=["shop", "shop-1"]), spiffe, "shop-1-0", "shop-1")
    assert not allowed(Policy(groups=["shop", "shop-1"]), spiffe, "shop-1", "shop")
    assert allowed(Policy(groups=["shop"]), spiffe, "shop-1", "shop"), "a certificate per node"


def test_another_trust_domain_is_denied_where_one_is_named() -> None:
    assert allowed(Policy(), "spiffe://other/sa/frontend", "frontend-0")
    assert not allowed(Policy(trust_domain="mesh"), "spiffe://other/sa/frontend", "frontend-0")
    assert allowed(Policy(trust_domain="mesh"), FRONTEND, "frontend-0")


def test_rules_replace_the_names() -> None:
    policy = Policy([Rule("spiffe://mesh/ns/*/sa/frontend", nodes=("web-*", "edge"), group="web")])
    assert allowed(policy, FRONTEND, "web-7", "web")
    assert allowed(policy, FRONTEND, "edge", "web")
    assert not allowed(policy, FRONTEND, "web-7", "frontend")
    assert not allowed(policy, FRONTEND, "frontend-0", "frontend")
    assert not allowed(policy, "spiffe://mesh/sa/frontend", "web-7", "web")


def test_a_rule_without_nodes_keeps_the_names() -> None:
    policy = Policy([Rule("spiffe://mesh/ns/*/sa/*", secrets=("tls",))])
    assert allowed(policy, FRONTEND, "frontend-0", "frontend")
    assert not allowed(policy, FRONTEND, "payments-0", "payments")


def test_a_wildcard_stays_within_its_segment_and_nothing_else_is_special() -> None:
    policy = Policy([Rule("spiffe://mesh/ns/*/sa/frontend", nodes=("a.b",))])
    assert allowed(policy, FRONTEND, "a.b")
    assert not allowed(policy, FRONTEND, "axb")
    assert not allowed(policy, "spiffe://mesh/ns/evil/sa/x/ns/a/sa/frontend", "a.b")
    assert not allowed(policy, FRONTEND + "/more", "a.b")
    assert not allowed(policy, "spiffe://evil/x/spiffe://mesh/ns/a/sa/frontend", "a.b")


def secrets(*names: str) -> Snapshot:
    return snapshot(
        resource_set(CLUSTER, []), resource_set(SECRET, [encoded(SECRET, name, name.encode()) for name in names])
    )


def names(one: Snapshot | None) -> set[str]:
    held = one.get(SECRET) if one else None
    return set(held.resources) if held else set()


def test_secrets_are_what_the_rules_that_match_give_together() -> None:
    rules = [
        Rule("spiffe://mesh/*/*/sa/*", secrets=("shared",)),
        Rule(FRONTEND, nodes=("frontend-*",), secrets=("frontend-*", "extra")),
        Rule(FRONTEND, nodes=("other-*",), secrets=("other",)),
        Rule("spiffe://mesh/ns/shop/sa/payments", secrets=("*",)),
    ]
    held = secrets("shared", "frontend-tls", "extra", "other", "payments-tls")
    policy = Policy(rules)
    grant = policy.admit(peer(), "frontend-0", "frontend")
    assert names(grant.restrict(held)) == {"shared", "frontend-tls", "extra"}
    assert grant is policy.admit(peer(), "frontend-1", "frontend"), "equal grants share what they made"
    first, second = grant.restrict(held), grant.restrict(held)
    assert first is not None
    assert second is not None
    assert first.get(SECRET) is second.get(SECRET), "and a response is encoded once for all of them"


def test_a_rule_without_secrets_gives_none() -> None:
    grant = Policy([Rule(FRONTEND)]).admit(peer(), "frontend-0", "frontend")
    assert names(grant.restrict(secrets("a"))) == set()


def test_without_rules_a_node_has_the_secrets_of_its_snapshot() -> None:
    held = secrets("a", "b")
    assert Policy().admit(peer(), "frontend-0", "").restrict(held) is held


def test_without_tls_there_are_no_secrets_unless_the_owner_says_so() -> None:
    held, plain = secrets("a"), Peer("127.0.0.1")
    assert names(Policy().admit(plain, "frontend-0", "").restrict(held)) == set()
    assert names(Policy(open_secrets=True).admit(plain, "frontend-0", "").restrict(held)) == {"a"}
    assert Policy(open_secrets=True).admit(peer(), "frontend-0", "").secrets is None
    assert Policy().admit(plain, "a", "").restrict(None) is None


def test_observers_are_named() -> None:
    policy = Policy([Rule(FRONTEND), Rule("spiffe://mesh/ns/*/sa/admin", observe=True)])
    assert policy.may_observe(peer("spiffe://mesh/ns/shop/sa/admin"))
    assert not policy.may_observe(peer())
    assert not Policy().may_observe(peer())
    assert not policy.may_observe(peer(""))


@pytest.mark.parametrize(
    ("node_id", "group"), [("a-0", "a"), ("a-b-12", "a-b"), ("a", "a"), ("a-b", "a-b"), ("-1", "-1"), ("a-", "a-")]
)
def test_the_group_that_a_node_is_named_after(node_id: str, group: str) -> None:
    assert group_of(node_id) == group


class Call:
    """What gRPC would say of a call."""

    def __init__(self, address: str, **proven: Iterable[bytes]) -> None:
        self._address = address
        self._proven = proven

    def peer(self) -> str:
        return self._address

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._proven


def test_a_peer_is_what_the_transport_proves() -> None:
    assert peer_of(Call("ipv4:10.0.0.7:51234")) == Peer("10.0.0.7")
    assert peer_of(Call("ipv6:%5B::1%5D:51234")) == Peer("%5B::1%5D")
    assert peer_of(Call("ipv4:10.0.0.7:1", transport_security_type=[b"insecure"])) == Peer("10.0.0.7")
    certificate = Authority().issue(FRONTEND).certificate
    call = Call("ipv4:10.0.0.7:1", peer_spiffe_id=[FRONTEND.encode()], x509_pem_cert=[certificate])
    assert (peer_of(call).spiffe, peer_of(call).key, peer_of(call).secure) == (FRONTEND, FRONTEND, True)
    nameless = peer_of(Call("ipv4:10.0.0.7:1", x509_common_name=[b"frontend"], x509_pem_cert=[certificate]))
    assert (nameless.spiffe, nameless.key, nameless.secure) == ("", "10.0.0.7", True)
    assert peer_of(Call("ipv4:10.0.0.7:1", transport_security_type=[b"ssl"])).expires == 0.0
