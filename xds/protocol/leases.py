"""Runtime layers as leases: each lives for its TTL after the last heartbeat, and nothing outlives its deadline.

A layer with values is sent with a TTL and kept alive every third of it. An *empty* layer overrides nothing, so it
needs no lease and is sent without one. A layer that nothing is known about is answered at once with an empty one:
unanswered, it delays Envoy's start by 15 s. A rejected layer is followed at once by the last good one, or by an
empty one, because a value that Envoy rejects stays armed in it.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ttl
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from xds import codec
from xds.errors import LeaseError
from xds.model import RuntimeLayer
from xds.snapshot import Resource, encoded
from xds.types import RUNTIME

#: Heartbeats per TTL: two may be lost.
HEARTBEATS = 3
#: Within this share of the TTL before a lease lapses a heartbeat might come too late: the body is sent again.
LATE = 0.1
#: A deadline that moved by less than this (seconds) is the same.
SAME_DEADLINE = 0.01

_DENOMINATORS = frozenset({"HUNDRED", "TEN_THOUSAND", "MILLION"})
_LARGEST = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Lease:
    """A runtime layer that may be sent. ``ttl`` in seconds; ``expires_at`` on the caller's clock."""

    resource: Resource
    ttl: float
    expires_at: float | None = None
    empty: bool = False

    @property
    def version(self) -> str:
        return self.resource.version

    def remaining(self, now: float) -> float:
        """Seconds that a message sent now may grant: the TTL, but never beyond the deadline."""
        return self.ttl if self.expires_at is None else min(self.ttl, self.expires_at - now)

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at


def lease_of(layer: RuntimeLayer) -> Lease:
    """Check and encode a layer. LeaseError if it holds a value that Envoy would reject or silently ignore."""
    if layer.values and not (math.isfinite(layer.ttl) and layer.ttl > 0):
        raise LeaseError(f"layer {layer.name!r}: ttl is {layer.ttl!r}; expected seconds above 0")
    for key, value in layer.values.items():
        _check_value(layer.name, key, value)
    body = codec.runtime_body(layer.name, layer.values)
    return Lease(encoded(RUNTIME, layer.name, body), layer.ttl, layer.expires_at, empty=not layer.values)


def empty_lease(name: str) -> Lease:
    """A layer that overrides nothing."""
    return lease_of(RuntimeLayer(name, {}, 0.0))


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


@dataclass(frozen=True, slots=True)
class Send:
    """What is due for one layer: ``full`` with its body, else a heartbeat. ``ttl`` None means no lease."""

    lease: Lease
    ttl: float | None
    full: bool
    heartbeat: bool


@dataclass(slots=True)
class Layer:
    """One layer on one stream: what is wanted, what the client was sent and until when it believes it.

    On a state-of-the-world stream (``sotw``) heartbeats carry the body. ``known_before``: the client has the layer
    from an earlier stream. ``barred``: no lease may be given.
    """

    name: str
    supports_ttl: bool
    sotw: bool = False
    known_before: bool = False
    barred: bool = False
    wanted: Lease | None = None
    sent: Lease | None = None
    sent_at: float = 0.0
    lapses_at: float = math.inf
    good: Lease | None = None
    rejected: set[str] = field(default_factory=set)
    error: str = ""
    flight: Send | None = None
    nonce: str = ""
    changed_at: float | None = None
    acked_version: str = ""

    def want(self, lease: Lease | None) -> None:
        """Take what should be in the layer from now on; new content pardons an earlier rejection."""
        if (lease and lease.version) != (self.wanted and self.wanted.version):
            self.rejected.clear()
        self.wanted = lease

    def resubscribed(self) -> None:
        """The client asks again: whatever it had may be forgotten."""
        self.sent, self.known_before = None, False

    @property
    def has_values(self) -> bool:
        return self.wanted is not None and not self.wanted.empty

    def stale(self, now: float) -> bool:
        """Whether content (not merely a heartbeat) is on its way or due."""
        send = self.flight or self.due(now)
        return send is not None and not send.heartbeat

    def target(self, now: float) -> Lease | None:
        """What the client should have; None where it is left with what it has until that lapses."""
        if self.wanted is None or self.wanted.expired(now):
            return None if self.sent or self.known_before else empty_lease(self.name)
        if not self.supports_ttl or self.barred:
            return self._fallback(now, None)
        if self.wanted.version in self.rejected:
            return self._fallback(now, self.good)
        return self.wanted

    def due(self, now: float) -> Send | None:
        """The next thing to send, if it is time."""
        target = self.target(now)
        if self.flight is not None or target is None:
            return None
        if self.sent is None or self.sent.version != target.version:
            return self._send(target, now, full=True, heartbeat=False)
        if target.empty or not self._deadline_moved(target):
            return None
        late = now >= self.lapses_at - LATE * target.ttl
        if late or not self._fresh(target, now):
            return self._send(target, now, full=late or self.sotw, heartbeat=not late)
        return None

    def wakes_at(self) -> float:
        """When the next heartbeat is due (seconds), infinity without one."""
        if self.flight is not None or self.sent is None or self.sent.empty:
            return math.inf
        return self.sent_at + self.sent.ttl / HEARTBEATS

    def took_off(self, send: Send, nonce: str, now: float) -> None:
        """A response with this layer went out."""
        self.flight, self.nonce = send, nonce
        self.sent, self.sent_at = send.lease, now
        self.lapses_at = math.inf if send.ttl is None else now + send.ttl
        if not send.heartbeat:
            self.changed_at = now

    def landed(self, error: str | None, now: float) -> Send:
        """The client answered: ``error`` is its message, None where it accepted."""
        send, self.flight = self.flight, None
        if send is None:
            raise AssertionError("an answer without a response in flight is filtered by the stream")
        if error is None:
            self._accepted(send, now)
        else:
            self._refused(send, error, now)
        return send

    def _accepted(self, send: Send, now: float) -> None:
        self.good, self.acked_version = send.lease, send.lease.version
        if not send.heartbeat:
            self.changed_at = now
        if not self.rejected:
            self.error = ""

    def _refused(self, send: Send, error: str, now: float) -> None:
        """A rejected heartbeat came after expiry: the body follows. A rejected body must not be sent again."""
        self.error, self.changed_at, self.sent = error, now, None
        if send.full and not send.heartbeat:
            self.rejected.add(send.lease.version)

    def _fallback(self, now: float, good: Lease | None) -> Lease | None:
        """The last good layer while it lasts, else an empty one; None once even that was rejected."""
        if good is not None and not good.expired(now) and good.version not in self.rejected:
            return good
        empty = empty_lease(self.name)
        return None if empty.version in self.rejected else empty

    def _fresh(self, target: Lease, now: float) -> bool:
        """Neither is a heartbeat due, nor did the deadline move closer, nor the clock backwards."""
        closer = target.expires_at is not None and self.lapses_at > target.expires_at + SAME_DEADLINE
        return not closer and self.sent_at <= now < self.sent_at + target.ttl / HEARTBEATS

    def _deadline_moved(self, target: Lease) -> bool:
        """False where the client's lease ends exactly at the deadline: no heartbeat can add anything."""
        return target.expires_at is None or abs(self.lapses_at - target.expires_at) > SAME_DEADLINE

    def _send(self, lease: Lease, now: float, *, full: bool, heartbeat: bool) -> Send:
        ttl = None if lease.empty or not self.supports_ttl else lease.remaining(now)
        return Send(lease, ttl, full, heartbeat)
