"""What goes into a stream's machine and what comes out of it.

What every stream makes for every push is a named tuple: a frozen dataclass costs three times as much to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal, NamedTuple

#: A client that announces this feature honours TTLs. The protocol's text and Envoy's list spell it differently.
#: https://www.envoyproxy.io/docs/envoy/latest/api/client_features
TTL_FEATURE = "envoy.config.supports-resource-ttl"
_TTL_FEATURES = frozenset({TTL_FEATURE, "xds.config.supports-resource-ttl"})

#: What Envoy calls itself.
_ENVOY = "envoy"

#: Envoy honours TTLs since this version, but announces the feature only if its bootstrap says so.
_TTL_ENVOY = (1, 17)

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Node:
    """Who a client says it is, pinned from the first message of its stream."""

    id: str
    cluster: str = ""
    user_agent_version: str = ""
    features: frozenset[str] = frozenset()
    user_agent: str = ""

    @property
    def supports_ttl(self) -> bool:
        """Whether a lease would end by itself: announced, or an Envoy that is known to."""
        if self.features & _TTL_FEATURES:
            return True
        parts = self.user_agent_version.split(".")[:2]
        known = self.user_agent == _ENVOY and len(parts) == 2 and all(part.isdecimal() for part in parts)
        return known and tuple(map(int, parts)) >= _TTL_ENVOY

    @property
    def warms_clusters(self) -> bool:
        """Whether a changed cluster waits for its endpoints, even if they are the same. Envoy does ("Warming of Cluster
        is completed only when a new ClusterLoadAssignment response is supplied by management server even though there
        is no change in endpoints"); gRPC uses the ones that it has.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-warming
        """
        return self.user_agent == _ENVOY


class Names(tuple[str, ...]):
    """Names that many requests repeat, as one object: what is found out about them is found once."""

    @cached_property
    def distinct(self) -> frozenset[str]:
        """Each of them once."""
        return frozenset(self)

    @cached_property
    def longest(self) -> int:
        """Characters of the longest; 0 if there are none."""
        return max(map(len, self), default=0)


def names_of(names: tuple[str, ...]) -> Names:
    """``names`` themselves where they are known already."""
    return names if isinstance(names, Names) else Names(names)


class SotwRequest(NamedTuple):
    """A DiscoveryRequest. ``error`` is the client's message when it rejects, and None when it does not."""

    type_url: str
    names: tuple[str, ...] = ()
    version: str = ""
    nonce: str = ""
    error: str | None = None
    node: Node | None = None

    @property
    def returns(self) -> bool:
        """Of a stream's first request: the client has something from an earlier stream."""
        return bool(self.version)


class DeltaRequest(NamedTuple):
    """A DeltaDiscoveryRequest. ``error`` is the client's message when it rejects, and None when it does not."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = _NOTHING
    nonce: str = ""
    error: str | None = None
    node: Node | None = None

    @property
    def returns(self) -> bool:
        """Of a stream's first request: the client has something from an earlier stream."""
        return bool(self.initial_versions)


@dataclass(frozen=True, slots=True)
class Item:
    """One resource in a response. ``body`` None is a heartbeat; ``ttl`` is in seconds, None without a lease;
    ``aliases`` are other names that it was asked for by."""

    type_url: str
    name: str
    version: str
    body: bytes | None
    ttl: float | None = None
    aliases: tuple[str, ...] = ()


class Response(NamedTuple):
    """Bytes for the wire. ``names`` and ``removed`` say what is in them; ``heartbeat`` that nothing is new."""

    type_url: str
    version: str
    nonce: str
    data: bytes
    names: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    heartbeat: bool = False

    def __repr__(self) -> str:
        """Without the bytes: they may hold secrets."""
        return f"Response({self.type_url!r}, {self.version!r}, {self.nonce!r}, {len(self.data)} bytes)"


class Notice(NamedTuple):
    """Something that people want to know: the client's answer to a response, ``seconds`` after it was sent, or a
    refusal of ours."""

    kind: Literal["ack", "nack", "refused"]
    type_url: str
    version: str
    message: str = ""
    seconds: float = 0.0
