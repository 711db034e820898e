"""What one node will not have: resources that it rejected, told apart from those that merely came with them.

A rejection speaks of a whole response. Envoy applies none of it where a resource breaks a constraint of its API, and
all but the bad ones where a cluster or a listener is refused later; either way it says which it was. So does gRPC. The
bad version of that resource is kept from the node from then on, and everything else goes on.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ack-and-nack-semantics-summary
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from xds.sensitive import scrubbed
from xds.snapshot import Resource, ResourceSet
from xds.types import CLUSTER, SECRET


@dataclass(frozen=True, slots=True)
class Rejection:
    """A version that a node rejected, and its words. ``good`` is what the node has instead: None if it has nothing or
    if that is not known, which ``kept`` tells."""

    version: str
    message: str
    good: Resource | None = None
    kept: bool = False

    def may_need(self, type_url: str, name: str) -> bool:
        """Whether what the node has instead may refer to this resource."""
        return self.kept if self.good is None else (type_url, name) in self.good.references

    def refutes(self, version: str) -> bool:
        """Whether a node that accepted ``version`` has got over this."""
        return version != self.version and (self.good is None or version != self.good.version)


class Quarantine:
    """The rejections of one node, by type and name; they outlive its streams. A newer one replaces an older one."""

    __slots__ = ("_by_type",)

    def __init__(self) -> None:
        self._by_type: dict[str, dict[str, Rejection]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_type)

    def of(self, type_url: str) -> Mapping[str, Rejection]:
        """The rejections of one type by name, as long as none of them is pardoned."""
        return self._by_type.get(type_url, _NONE)

    def add(self, type_url: str, name: str, rejection: Rejection) -> None:
        self._by_type.setdefault(type_url, {})[name] = rejection

    def pardon(self, type_url: str, names: Iterable[str]) -> bool:
        """Forget what was held against these; whether there was anything."""
        rejections = self._by_type.get(type_url, {})
        pardoned = sum(rejections.pop(name, None) is not None for name in names) > 0
        if pardoned and not rejections:
            del self._by_type[type_url]
        return pardoned

    def in_force(self, current: ResourceSet) -> dict[str, Rejection]:
        """Rejections of versions that the node should have now."""
        found = self.of(current.type_url)
        return {name: one for name, one in found.items() if _version(current, name) == one.version} if found else {}

    def prune(self, current: ResourceSet) -> None:
        """Forget resources that exist no longer."""
        self.pardon(current.type_url, [name for name in self.of(current.type_url) if name not in current.resources])


_NONE: Mapping[str, Rejection] = {}


def _version(current: ResourceSet, name: str) -> str:
    one = current.resources.get(name)
    return one.version if one is not None else ""


# Whose fault it was

#: What comes before the name of a bad resource in a list of them: Envoy's "Error adding/updating cluster(s) a: ..., b:
#: ..." (listeners are separated by line ends), gRPC's "[resource index 3: a: ...; ...".
_BEFORE_ENTRY = r"(?:^|\) |, |\n|\[|; |index \d+: )"
#: The first resource that breaks a constraint is dumped, its own name at the start of a line.
_DUMPED = re.compile(r'^(?:cluster_)?name: "(?P<name>[^"]*)"$', re.MULTILINE)
_BEFORE_NAME = r"(?:['\"`]|\b(?:cluster|listener|route|scope|secret|config|name|named|expecting) ['\"`]?)"
_AFTER_NAME = r"(?=['\"`)\s,;]|[.:](?:\s|$)|$)"
#: What a route refers to is not what it is called.
_REFERENCE = re.compile(r"unknown cluster '[^']*'")


def culprits(type_url: str, message: str, candidates: Collection[str]) -> frozenset[str]:
    """The resources that a client's words blame, out of those that were new to it; none if that cannot be told.

    The only candidate is to blame whatever the words are. Otherwise its whole name must stand in an entry of its own,
    or, where the message is no list, as the name of the resource that it shows, or in quotes, or after what it is.
    """
    if len(candidates) <= 1:
        return frozenset(candidates)
    if type_url != CLUSTER:
        message = _REFERENCE.sub("", message)
    mentioned = [name for name in candidates if name and name in message]
    return _entries(message, mentioned) or _dumped(message, mentioned) or _named(message, mentioned)


def _entries(message: str, names: Iterable[str]) -> frozenset[str]:
    """``"`` after the colon would be a field of a dump, not the reason of an entry."""
    return frozenset(n for n in names if re.search(f'{_BEFORE_ENTRY}{re.escape(n)}: (?!")', message))


def _dumped(message: str, names: Collection[str]) -> frozenset[str]:
    found = _DUMPED.search(message)
    return frozenset({found["name"]} & set(names)) if found else frozenset()


def _named(message: str, names: Iterable[str]) -> frozenset[str]:
    return frozenset(n for n in names if re.search(_BEFORE_NAME + re.escape(n) + _AFTER_NAME, message))


# What a client shows of what it cannot accept

_REASON = "Proto constraint validation failed"


def without_secrets(type_url: str, message: str) -> str:
    """A client's words, without the keys in them: Envoy dumps what it cannot accept, and cuts that off anywhere."""
    if type_url == SECRET and "\n" in message:
        _, found, reason = message.partition(_REASON)
        return found + reason if found else "the client's words show the secret, and are withheld"
    return scrubbed(message)
