"""Where each resource of one stream stands, one by one: what people ask for who debug a proxy.

Computed when somebody asks, from what the subscription keeps anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xds.protocol.holding import Holding
from xds.protocol.holdings import Holdings
from xds.protocol.states import State
from xds.protocol.stream import Stream
from xds.protocol.subscription import Subscription
from xds.snapshot import Resource, ResourceSet
from xds.types import FULL_STATE, RUNTIME


@dataclass(frozen=True, slots=True)
class ResourceState:
    """One resource on one stream.

    ``resource`` is what the client should have, and ``version`` its version as this variant of the protocol tells it
    to the client. ``missing``: the type is loaded, and there is no such resource. ``accepted``: the client has
    accepted some version. ``at`` is when the client last was sent something of this type or answered (seconds).
    """

    type_url: str
    name: str
    state: State
    version: str
    resource: Resource | None
    accepted: bool
    at: float | None
    missing: bool = False
    current: ResourceSet | None = None
    rejected: str = ""
    error: str = ""


def inventory(stream: Stream, now: float) -> Iterator[ResourceState]:
    """Every resource that the client has, should have or asks for, by type and name."""
    for type_url, sub in sorted(stream.subscriptions.items()):
        if type_url in stream.leased:
            yield from _leases(stream.leased[type_url], sub, now)
        if type_url == RUNTIME:
            continue
        current = stream.snapshot.get(type_url) if stream.snapshot else None
        names = sub.names | sub.held.keys()
        if current is not None and sub.wildcard:
            names |= current.resources.keys()
        yield from (_resource(stream, sub, current, name) for name in sorted(names - sub.aside))


def _resource(stream: Stream, sub: Subscription, current: ResourceSet | None, name: str) -> ResourceState:
    wanted = current.resources.get(name) if current is not None else None
    blamed = sub.rejection(wanted) if wanted is not None else None
    rejected = blamed.version if blamed is not None else sub.rejected.get(name)
    return ResourceState(
        type_url=sub.type_url,
        name=name,
        state="NACKED" if rejected is not None else _state(stream, sub, wanted, name),
        version=_version(stream, current, wanted),
        resource=wanted,
        accepted=sub.confirms(name),
        at=sub.changed_at,
        missing=current is not None and wanted is None,
        current=current,
        rejected=rejected or "",
        error=blamed.message if blamed is not None else sub.error if rejected is not None else "",
    )


def _state(stream: Stream, sub: Subscription, wanted: Resource | None, name: str) -> State:
    flying = sub.flight is not None and (name in sub.flight.sent or name in sub.flight.removed)
    if flying:
        return "STALE"
    held = sub.held.get(name)
    if wanted is None:
        return _state_of_nothing(stream, sub, name, held)
    if held is None:
        return "NOT-SENT"
    return "SYNCED" if held == wanted.version and name not in sub.forced else "STALE"


def _state_of_nothing(stream: Stream, sub: Subscription, name: str, held: str | None) -> State:
    """What does not exist is in sync once the client knows; of most types state of the world cannot tell it."""
    if held is not None:
        return "STALE"
    tells = not stream.sotw or sub.type_url in FULL_STATE
    loaded = stream.snapshot is not None and stream.snapshot.get(sub.type_url) is not None
    return "SYNCED" if tells and loaded and name not in sub.forced else "NOT-SENT"


def _version(stream: Stream, current: ResourceSet | None, wanted: Resource | None) -> str:
    """State of the world has one version for all resources of a type."""
    if wanted is None or current is None:
        return ""
    return current.version if stream.sotw else wanted.version


def _leases(leased: Holdings, sub: Subscription, now: float) -> Iterator[ResourceState]:
    """What is on a lease now; the rest of the type is the snapshot's."""
    for name, one in sorted(leased.by_name.items()):
        if not leased.exclusive and name not in sub.aside:
            continue
        lease = one.sent or one.target(now)
        yield ResourceState(
            type_url=sub.type_url,
            name=name,
            state=_lease_state(one, now),
            version=lease.version if lease else "",
            resource=lease.resource if lease else None,
            accepted=bool(one.acked_version),
            at=one.changed_at,
            rejected=next(iter(one.rejected), ""),
            error=one.error if one.rejected else "",
        )


def _lease_state(one: Holding, now: float) -> State:
    if one.rejected:
        return "NACKED"
    if one.sent is None and not one.known_before:
        return "NOT-SENT"
    return "STALE" if one.stale(now) else "SYNCED"
