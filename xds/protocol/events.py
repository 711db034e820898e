"""What goes into a stream's machine and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

#: A client that announces this feature honours TTLs.
#: https://www.envoyproxy.io/docs/envoy/latest/api-docs/client_features
TTL_FEATURE = "envoy.config.supports-resource-ttl"

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Node:
    """Who a client says it is, pinned from the first message of its stream."""

    id: str
    cluster: str = ""
    user_agent_version: str = ""
    features: frozenset[str] = frozenset()

    @property
    def supports_ttl(self) -> bool:
        return TTL_FEATURE in self.features


@dataclass(frozen=True, slots=True)
class SotwRequest:
    """A DiscoveryRequest. ``error`` is the client's message when it rejects, and None when it does not."""

    type_url: str
    names: tuple[str, ...] = ()
    version: str = ""
    nonce: str = ""
    error: str | None = None
    node: Node | None = None


@dataclass(frozen=True, slots=True)
class DeltaRequest:
    """A DeltaDiscoveryRequest. ``error`` is the client's message when it rejects, and None when it does not."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    nonce: str = ""
    error: str | None = None
    node: Node | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One resource in a response. ``body`` None is a heartbeat; ``ttl`` is in seconds, None without a lease."""

    type_url: str
    name: str
    version: str
    body: bytes | None
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """Bytes for the wire. ``names`` and ``removed`` say what is in them; ``heartbeat`` that nothing is new."""

    type_url: str
    version: str
    nonce: str
    data: bytes = field(repr=False)
    names: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    heartbeat: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that people want to know: the client's answer to a response, or a refusal of ours."""

    kind: Literal["ack", "nack", "refused"]
    type_url: str
    version: str
    message: str = ""
