"""Where one type stands on one stream, in a word and in versions: what people ask first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xds.protocol.holdings import Holdings
from xds.protocol.subscription import Subscription
from xds.snapshot import ResourceSet, combined_version

State = Literal["SYNCED", "STALE", "NACKED", "NOT-SENT"]

_FROM_BEST_TO_WORST: tuple[State, ...] = ("SYNCED", "NOT-SENT", "STALE", "NACKED")


@dataclass(frozen=True, slots=True)
class TypeState:
    """Where one type stands: versions that the client should have, was sent and accepted. ``at`` is the last change
    (seconds), None before the first; ``since`` is when the first change was published that the client lacks;
    ``quarantined`` names the resources that are kept from the client because it rejected them."""

    state: State
    desired: str
    sent: str
    acked: str
    at: float | None
    error: str = ""
    since: float | None = None
    quarantined: tuple[str, ...] = ()


def state_of(sub: Subscription, current: ResourceSet | None, leased: Holdings | None, now: float) -> TypeState:
    """The state of one type: of the set, of the leases, or of both."""
    if leased is None or not (leased.by_name or leased.exclusive):
        return _set_state(sub, current)
    if leased.exclusive or (current is None and sub.aside >= sub.names):
        return _leases_state(leased, now)
    return _joint_state(_set_state(sub, current), _leases_state(leased, now))


def _set_state(sub: Subscription, current: ResourceSet | None) -> TypeState:
    if current is None:
        return TypeState("NOT-SENT", "", sub.sent_version, sub.acked_version, sub.changed_at)
    owed = bool(sub.additions(current) or sub.missing(current) or sub.removals(current))  # this pardons, too
    versions = (current.version, sub.sent_version, sub.acked_version, sub.changed_at)
    quarantined = sub.quarantine.in_force(current)
    if sub.rejected or quarantined:
        words = dict.fromkeys((sub.error, *(one.message for one in quarantined.values())))
        return TypeState("NACKED", *versions, "; ".join(filter(None, words)), quarantined=tuple(sorted(quarantined)))
    if owed or sub.flight is not None:
        return TypeState("STALE", *versions, sub.error)
    return TypeState("SYNCED", current.version, current.version, current.version, sub.changed_at)


def _leases_state(leased: Holdings, now: float) -> TypeState:
    state: State = "NACKED" if leased.rejected else "STALE" if leased.stale(now) else "SYNCED"
    versions = (leased.desired(now), leased.sent, leased.acked)
    return TypeState(state, *versions, leased.changed_at, "; ".join(leased.problems()))


def _joint_state(one_set: TypeState, leases: TypeState) -> TypeState:
    """Of a type that has both: the worse state, and versions that change with either."""
    state = max(one_set.state, leases.state, key=_FROM_BEST_TO_WORST.index)
    pairs = ((one_set.desired, leases.desired), (one_set.sent, leases.sent), (one_set.acked, leases.acked))
    desired, sent, acked = (combined_version([("set", one), ("leases", other)]) for one, other in pairs)
    at = max((one.at for one in (one_set, leases) if one.at is not None), default=None)
    error = "; ".join(filter(None, (one_set.error, leases.error)))
    return TypeState(state, desired, sent, acked, at, error, quarantined=one_set.quarantined)
