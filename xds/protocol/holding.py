"""One leasable resource on one stream: what is wanted, what the client was sent and until when it believes it.

A lease is sent with a TTL and kept alive every third of it. What has a neutral form (an *empty* runtime layer
overrides nothing) is sent that without a lease, whenever there is nothing else: an unanswered layer delays Envoy's
start by 15 s, and a rejected one stays armed until another follows. What has none (an extension config) is left to
the snapshot then, and where that has no version, to the end of the lease.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ttl
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from xds.protocol.leases import Kind, Lease

#: Heartbeats per TTL: two may be lost.
HEARTBEATS = 3
#: Within this share of the TTL before a lease lapses a heartbeat might come too late: the body is sent again. So
#: early the snapshot's version follows a lease whose deadline comes, too, so that there is no gap between them.
LATE = 0.1
#: A deadline that moved by less than this (seconds) is the same.
SAME_DEADLINE = 0.01


@dataclass(frozen=True, slots=True)
class Send:
    """What is due for one resource: ``full`` with its body, else a heartbeat. ``ttl`` None means no lease."""

    lease: Lease
    ttl: float | None
    full: bool
    heartbeat: bool


@dataclass(slots=True)
class Holding:
    """On a state-of-the-world stream (``sotw``) heartbeats carry the body. ``known_before``: the client has the
    resource from an earlier stream. ``barred`` says why no lease may be given, and is empty where one may.
    ``replaceable``: the snapshot has a version to fall back to. ``ends_by`` is when the client's lease has surely
    ended: it began before the client's answer arrived.
    """

    name: str
    kind: Kind
    sotw: bool = False
    known_before: bool = False
    barred: str = ""
    replaceable: bool = False
    wanted: Lease | None = None
    sent: Lease | None = None
    sent_at: float = 0.0
    lapses_at: float = math.inf
    ends_by: float = -math.inf
    good: Lease | None = None
    rejected: set[str] = field(default_factory=set)
    error: str = ""
    flight: Send | None = None
    nonce: str = ""
    changed_at: float | None = None
    acked_version: str = ""

    def want(self, lease: Lease | None) -> None:
        """Take what should be leased from now on; new content pardons an earlier rejection."""
        if (lease and lease.version) != (self.wanted and self.wanted.version):
            self.rejected.clear()
        self.wanted = lease

    def forgotten(self) -> None:
        """The client asks again, or has something else by now: whatever it had from us counts no longer."""
        self.sent, self.known_before = None, False

    @property
    def has_values(self) -> bool:
        return self.wanted is not None and not self.wanted.empty

    def stale(self, now: float) -> bool:
        """Whether content (not merely a heartbeat) is on its way or due."""
        send = self.flight or self.due(now)
        return send is not None and not send.heartbeat

    def target(self, now: float) -> Lease | None:
        """What the client should have from us; None where it is left with what it has, or to the snapshot."""
        if self.wanted is None or self._over(self.wanted, now):
            return None if self.sent or self.known_before else self._neutral()
        if self.barred:
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
        """When the next heartbeat is due, or the snapshot's turn comes (seconds); infinity without either."""
        if self.wanted is None or self.flight is not None or self.sent is None or self.sent.empty:
            return math.inf
        lease = self.wanted if self.wanted.version == self.sent.version else self.sent  # its deadline may have moved
        beat = self._beat_at(lease) if self._deadline_moved(lease) else math.inf
        return beat if self.kind.neutral is not None else min(beat, self._end(lease))

    def took_off(self, send: Send, nonce: str, now: float) -> None:
        """A response with this resource went out."""
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
        self.ends_by = -math.inf if send.ttl is None else now + send.ttl
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

    def _neutral(self) -> Lease | None:
        return self.kind.neutral(self.name) if self.kind.neutral is not None else None

    def _fallback(self, now: float, good: Lease | None) -> Lease | None:
        """The last good lease while it lasts, else the neutral form; None once even that was rejected."""
        if good is not None and not self._over(good, now) and good.version not in self.rejected:
            return good
        neutral = self._neutral()
        return None if neutral is None or neutral.version in self.rejected else neutral

    def _over(self, lease: Lease, now: float) -> bool:
        return now >= self._end(lease)

    def _end(self, lease: Lease) -> float:
        """When this lease is no longer wanted (seconds): at its deadline, or just before the snapshot takes over."""
        if lease.expires_at is None:
            return math.inf
        return lease.expires_at - (LATE * lease.ttl if self.replaceable else 0.0)

    def _fresh(self, target: Lease, now: float) -> bool:
        """Neither is a heartbeat due, nor did the deadline move closer, nor the clock backwards."""
        closer = target.expires_at is not None and self.lapses_at > target.expires_at + SAME_DEADLINE
        return not closer and self.sent_at <= now < self._beat_at(target)

    def _beat_at(self, lease: Lease) -> float:
        """When the next heartbeat is due (seconds): less may have been granted than the TTL, for a deadline that has
        moved away since."""
        return self.sent_at + min(lease.ttl, self.lapses_at - self.sent_at) / HEARTBEATS

    def _deadline_moved(self, target: Lease) -> bool:
        """False where the client's lease ends exactly at the deadline: no heartbeat can add anything."""
        return target.expires_at is None or abs(self.lapses_at - target.expires_at) > SAME_DEADLINE

    def _send(self, lease: Lease, now: float, *, full: bool, heartbeat: bool) -> Send:
        return Send(lease, None if lease.empty else lease.remaining(now), full, heartbeat)
