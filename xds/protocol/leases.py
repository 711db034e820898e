"""What may be leased: a resource that lives for its TTL after the last heartbeat and never beyond its deadline.

Only two types survive the end of a lease on Envoy. A runtime layer (RTDS) falls back to the layers below it; an
extension configuration (ECDS) falls back to the default that its listener gives. What the end would do to every
other type is in ``REFUSED``, as it was measured on Envoy 1.36 and 1.40.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ttl
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from xds import codec
from xds.errors import LeaseError
from xds.model import LeasedResource, RuntimeLayer
from xds.snapshot import Resource, Snapshot, encoded
from xds.types import CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE, RUNTIME, SECRET, short_name

#: Type URL and name of a leased resource.
Key = tuple[str, str]

#: What an owner gives to be leased.
Leasable = RuntimeLayer | LeasedResource

_STAYS = "at its end an incremental stream keeps the {}, and a state-of-the-world stream crashes Envoy"

#: What the end of a lease would do, in either variant of the protocol.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        CLUSTER: "at its end Envoy removes the cluster and answers its requests with 503",
        ENDPOINT: _STAYS.format("endpoints"),
        LISTENER: "at its end Envoy closes the listener and refuses connections",
        ROUTE: _STAYS.format("routes"),
        SECRET: _STAYS.format("secret"),
    }
)

_DENOMINATORS = frozenset({"HUNDRED", "TEN_THOUSAND", "MILLION"})
_LARGEST = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Lease:
    """A resource that may be sent. ``ttl`` in seconds; ``expires_at`` on the caller's clock.

    ``empty``: it changes nothing, so it needs no lease and is sent without one.
    """

    resource: Resource
    ttl: float
    expires_at: float | None = None
    empty: bool = False

    @property
    def key(self) -> Key:
        return self.resource.type_url, self.resource.name

    @property
    def version(self) -> str:
        return self.resource.version

    def remaining(self, now: float) -> float:
        """Seconds that a message sent now may grant: the TTL, but never beyond the deadline."""
        return self.ttl if self.expires_at is None else min(self.ttl, self.expires_at - now)

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at


#: What one node has on a lease.
Leases = Mapping[Key, Lease]


@dataclass(frozen=True, slots=True)
class Kind:
    """A type that survives the end of a lease.

    ``neutral`` makes the resource that changes nothing; None where only the end of the lease, or the snapshot's
    version, gives the client something else. ``together`` is why no lease is given on a state-of-the-world stream
    that names several resources.
    """

    type_url: str
    noun: str
    together: str
    neutral: Callable[[str], Lease] | None = None


def lease_of(one: Leasable) -> Lease:
    """Check and encode what should be leased.

    LeaseError if a layer holds a value that Envoy would reject or silently ignore, if the type of a resource does
    not survive the end of a lease, or if there is no TTL.
    """
    if isinstance(one, RuntimeLayer):
        return _lease_of_layer(one)
    kind = KINDS.get(one.resource.type_url)
    if kind is None or kind.neutral is not None:
        raise LeaseError(_refusal(one.resource))
    _check_ttl(f"{kind.noun} {one.resource.name!r}", one.ttl)
    return Lease(one.resource, one.ttl, one.expires_at)


def leases_of(node_id: str, ones: Iterable[Leasable], snapshot: Snapshot | None, known: dict[int, Lease]) -> Leases:
    """The leases of a node, by type and name. LeaseError if one must not be leased, or two have one name.

    ``known`` is filled with the leases made, by the ``id`` of what they were made of: nodes share most.
    """
    leases: dict[Key, Lease] = {}
    for one in ones:
        lease = known.get(id(one)) or known.setdefault(id(one), lease_of(one))
        if lease.key in leases:
            noun, name = KINDS[lease.key[0]].noun, lease.key[1]
            raise LeaseError(f"node {node_id!r} gets two {noun}s named {name!r}; merge them into one")
        check_default(snapshot, lease)
        leases[lease.key] = lease
    return leases


def check_default(snapshot: Snapshot | None, lease: Lease) -> None:
    """LeaseError if a listener of the snapshot discovers the extension without a default for the lease's end.

    What no listener shows cannot be checked: filters of clusters, and listeners that come from elsewhere.
    """
    if snapshot is None or lease.resource.type_url != EXTENSION_CONFIG:
        return
    name = lease.resource.name
    listeners = snapshot.get(LISTENER)
    known = listeners.discovered.get(name) if listeners is not None else None
    if known is not None and known.without_default:
        raise LeaseError(f"extension config {name!r} cannot be leased: {no_default(known.without_default)}")


def no_default(listener: str) -> str:
    """Why a lease of an extension that this listener discovers is refused."""
    return (
        f"listener {listener!r} discovers it without default_config, so at the end of the lease Envoy would answer "
        "every request of the filter chain with 500; set config_discovery.default_config"
    )


def empty_lease(name: str) -> Lease:
    """A layer that overrides nothing."""
    return lease_of(RuntimeLayer(name, {}, 0.0))


#: What may be leased, by type.
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        RUNTIME: Kind(
            RUNTIME,
            "layer",
            "the state-of-the-world stream names several layers and Envoy aborts when the lease of one of them ends; "
            "use delta ADS, or a RuntimeDiscoveryService stream for each layer",
            empty_lease,
        ),
        EXTENSION_CONFIG: Kind(
            EXTENSION_CONFIG,
            "extension config",
            "the state-of-the-world stream names several extension configs and Envoy drops all of them when the lease "
            "of one ends; use delta ADS, or an ExtensionConfigDiscoveryService stream for each",
        ),
    }
)


def _refusal(one: Resource) -> str:
    if one.type_url == RUNTIME:
        return f"rtds {one.name!r}: give it as a RuntimeLayer, whose values are checked before Envoy sees them"
    why = REFUSED.get(one.type_url, "what its end does to Envoy is not known")
    leasable = "a RuntimeLayer (RTDS) or an extension config (ECDS) with a default"
    return f"{short_name(one.type_url)} {one.name!r} cannot be leased: {why}; lease {leasable} instead"


def _check_ttl(what: str, ttl: float) -> None:
    if not (math.isfinite(ttl) and ttl > 0):
        raise LeaseError(f"{what}: ttl is {ttl!r}; expected seconds above 0")


def _lease_of_layer(layer: RuntimeLayer) -> Lease:
    if layer.values:
        _check_ttl(f"layer {layer.name!r}", layer.ttl)
    for key, value in layer.values.items():
        _check_value(layer.name, key, value)
    body = codec.runtime_body(layer.name, layer.values)
    return Lease(encoded(RUNTIME, layer.name, body), layer.ttl, layer.expires_at, empty=not layer.values)


def _check_value(layer: str, key: str, value: object) -> None:
    if not key:
        raise LeaseError(f"layer {layer!r}: a key is empty; expected the name of a runtime key")
    if isinstance(value, Mapping):
        good = value.keys() == {"numerator", "denominator"} and value["denominator"] in _DENOMINATORS
        good = good and _is_count(value["numerator"])
    else:
        good = _is_count(value)
    if not good:
        raise LeaseError(
            f"layer {layer!r}, key {key!r}: {value!r} is no runtime value; expected an integer from 0 to {_LARGEST} "
            f"or {{'numerator': integer, 'denominator': one of {', '.join(sorted(_DENOMINATORS))}}}"
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
