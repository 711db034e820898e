"""Who a peer is, and what it may have: the SPIFFE id in its certificate decides, never what it says of itself.

Pure, but for :func:`peer_of`, the one place that asks gRPC. A SPIFFE id is the only URI among the subject alternative
names of an X.509 certificate: https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from xds.errors import AccessDenied, TlsError
from xds.server.tls import not_after
from xds.snapshot import ResourceSet, Snapshot
from xds.types import SECRET

_NUMBERED = re.compile(r"(?P<group>.+)-[0-9]+")


class CallContext(Protocol):
    """What gRPC knows of a call."""

    def peer(self) -> str:
        """The transport's address, such as ``ipv4:10.0.0.7:51234``."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What the handshake proved; empty without TLS."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a call. ``address`` has no port; ``spiffe`` is empty where no certificate names one.

    ``expires`` (seconds since the epoch) is when its certificate ends; infinity without one.
    """

    address: str = ""
    spiffe: str = ""
    secure: bool = False
    expires: float = math.inf

    @property
    def key(self) -> str:
        """Under which name its share of the limits is counted."""
        return self.spiffe or self.address


def peer_of(context: CallContext) -> Peer:
    """Who is at the other end, by the transport's word alone."""
    address = _without_port(context.peer())
    proven = context.auth_context()
    if not proven or "insecure" in map(bytes.decode, proven.get("transport_security_type", ())):
        return Peer(address)
    certificate = next(iter(proven.get("x509_pem_cert", ())), b"")
    # gRPC sets this only if the certificate has exactly one URI, and that is a valid SPIFFE id.
    spiffe = next(iter(proven.get("peer_spiffe_id", ())), b"").decode("ascii", "replace")
    return Peer(address, spiffe, secure=True, expires=_end(certificate))


def _end(certificate: bytes) -> float:
    """A certificate whose end cannot be read has ended."""
    try:
        return not_after(certificate)
    except TlsError:
        return 0.0


def _without_port(peer: str) -> str:
    scheme, _, address = peer.partition(":")
    return address.rpartition(":")[0] if scheme in ("ipv4", "ipv6") else peer


# What an identity may have


@dataclass(frozen=True, slots=True)
class Rule:
    """What peers whose SPIFFE id matches ``spiffe`` may have. ``*`` stands for any text within one path segment."""

    spiffe: str
    """A SPIFFE id, such as ``spiffe://mesh/ns/*/sa/frontend``; its trust domain has no wildcard."""

    nodes: tuple[str, ...] = ()
    """Node ids that they may have, such as ``frontend-*``. Empty: those named after the id (:class:`Policy`)."""

    group: str = ""
    """The group (``node.cluster``) that they may name, ``*`` allowed. Empty: the one in the node id."""

    secrets: tuple[str, ...] = ()
    """Names of secrets that they may have, ``*`` allowed. Empty: none."""

    observe: bool = False
    """Whether they may read the status of every node (CSDS)."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one stream may have, once its node is known. ``secrets`` None: every secret of its own snapshot."""

    secrets: frozenset[str] | None = None
    _restricted: WeakKeyDictionary[ResourceSet, ResourceSet] = field(default_factory=WeakKeyDictionary, compare=False)

    def restrict(self, snapshot: Snapshot | None) -> Snapshot | None:
        """The snapshot without the secrets that the stream may not have; the same object where that changes nothing."""
        held = snapshot.get(SECRET) if snapshot is not None else None
        if snapshot is None or held is None or self.secrets is None:
            return snapshot
        allowed = self._restricted.get(held)
        if allowed is None:
            allowed = self._restricted[held] = _allowed(held, self.secrets)
        return Snapshot(MappingProxyType({**snapshot.sets, SECRET: allowed}))


def _allowed(held: ResourceSet, patterns: frozenset[str]) -> ResourceSet:
    """A set of its own even if it is the whole: it must not keep alive the one that it was made from."""
    kept = {name: one for name, one in held.resources.items() if any(_matches(each, name) for each in patterns)}
    return ResourceSet(SECRET, MappingProxyType(kept))


class Policy:
    """Which identity may be which node.

    Without rules an identity may be the nodes that are named after it: the last segment of its path is the node id
    (``spiffe://mesh/catalog-0``) or its group (``spiffe://mesh/ns/shop/sa/catalog`` for ``catalog-0``). It has the
    secrets of that node's snapshot. Rules replace this; an identity has what all rules that match it give together.

    ``groups`` are the names of groups that exist: the name of a group is never the id of one of another group's nodes.
    ``trust_domain`` empty accepts every one that the CA signs. ``open_secrets`` gives a peer without TLS the secrets
    of its snapshot, too; whoever reaches a plaintext port is whatever node it says it is.
    """

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        *,
        trust_domain: str = "",
        groups: Iterable[str] = (),
        open_secrets: bool = False,
    ) -> None:
        self.rules = tuple(rules)
        self._plain = frozenset[str]() if not open_secrets else None
        self._trust_domain = trust_domain
        self._groups = frozenset(groups)
        self._grants: dict[frozenset[str] | None, Grant] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """What was granted stays: it is made again where the policy goes."""
        open_secrets = self._plain is None
        return _policy, (self.rules, self._trust_domain, self._groups, open_secrets)

    def admit(self, peer: Peer, node_id: str, group: str) -> Grant:
        """What ``peer`` may have as this node of this group, or AccessDenied.

        A peer without TLS may be any node: whether it may connect at all was decided by the port's address.
        """
        if not peer.secure:
            return self._grant(self._plain)
        self._check_identity(peer)
        if not self.rules:
            if not (self._is(peer.spiffe, node_id) and _is_group(group, node_id)):
                raise AccessDenied("node", f"{peer.spiffe} is neither node {node_id!r} nor its group {group!r}")
            return self._grant(None)
        matching = [rule for rule in self.rules if self._applies(rule, peer.spiffe, node_id, group)]
        if not matching:
            raise AccessDenied("node", f"no rule lets {peer.spiffe} be node {node_id!r} of group {group!r}")
        return self._grant(frozenset(name for rule in matching for name in rule.secrets))

    def may_observe(self, peer: Peer) -> bool:
        """Whether ``peer`` may read the status of every node: without TLS whoever reaches the port, else by a rule."""
        if not peer.secure:
            return True
        return bool(peer.spiffe) and any(rule.observe and _matches(rule.spiffe, peer.spiffe) for rule in self.rules)

    def _check_identity(self, peer: Peer) -> None:
        if not peer.spiffe:
            raise AccessDenied("identity", "the certificate names no SPIFFE id, or more than one URI")
        domain = peer.spiffe.removeprefix("spiffe://").partition("/")[0]
        if self._trust_domain and domain != self._trust_domain:
            raise AccessDenied("identity", f"{peer.spiffe} is not of trust domain {self._trust_domain!r}")

    def _applies(self, rule: Rule, spiffe: str, node_id: str, group: str) -> bool:
        if not _matches(rule.spiffe, spiffe):
            return False
        own = any(_matches(each, node_id) for each in rule.nodes) if rule.nodes else self._is(spiffe, node_id)
        return own and (_matches(rule.group, group) if rule.group else _is_group(group, node_id))

    def _is(self, spiffe: str, node_id: str) -> bool:
        """Whether the node, or the group that it is named after, has the name that the identity ends with."""
        name = spiffe.removeprefix("spiffe://").partition("/")[2].rpartition("/")[2]
        return bool(name) and (name == group_of(node_id) or (name == node_id and name not in self._groups))

    def _grant(self, secrets: frozenset[str] | None) -> Grant:
        """Equal grants are one object, so that streams share what was restricted."""
        known = self._grants.get(secrets)
        if known is None:
            known = self._grants[secrets] = Grant(secrets)
        return known


def _policy(rules: tuple[Rule, ...], trust_domain: str, groups: frozenset[str], open_secrets: bool) -> Policy:
    return Policy(rules, trust_domain=trust_domain, groups=groups, open_secrets=open_secrets)


def _is_group(group: str, node_id: str) -> bool:
    """Whether a node may say that it is of this group: what it leaves out it does not claim."""
    return group in ("", group_of(node_id), node_id)


def group_of(node_id: str) -> str:
    """The group that a node is named after: ``catalog`` for ``catalog-2``; its own name where it has no number."""
    match = _NUMBERED.fullmatch(node_id)
    return match["group"] if match else node_id


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Only ``*`` is special, and it stays within a segment: ``ns/*/sa/x`` must not match ``ns/a/sa/evil/sa/x``."""
    return re.compile("[^/]*".join(map(re.escape, pattern.split("*"))))
