"""How much a peer may have: streams, requests, names. Pure; the clock is an argument, in seconds.

What is too fast is delayed, because a crowd that reconnects is no attack; what is too much is refused with its
reason. A delayed peer's data waits in its own connection, where flow control ends it. What gRPC itself bounds, before
anybody is known, is in :func:`xds.server.gate.options`.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from dataclasses import dataclass

from xds.errors import CodecError, LimitExceeded
from xds.protocol.events import DeltaRequest, Node, SotwRequest, names_of
from xds.protocol.stream import Stream
from xds.server.settings import Limits

#: Peers remembered after their last stream ended, so that a new one does not start with a full bucket.
_REMEMBERED = 10_000
#: No text that a peer says of itself is longer than this, and no peer announces more features.
MAX_TEXT, _MOST_FEATURES = 1024, 256
_GZIP, _ZLIB = b"\x1f\x8b", b"\x78"


class Pace:
    """A token bucket as one number: when everything that was taken will have been paid for.

    ``rate`` is tokens per second, ``burst`` how many may be taken at once.
    https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
    """

    __slots__ = ("_paid_at", "_step", "_tolerance")

    def __init__(self, rate: float, burst: float) -> None:
        self._step = 1.0 / rate
        self._tolerance = burst / rate
        self._paid_at = -math.inf

    def take(self, now: float, patience: float = math.inf) -> float:
        """Take a token; seconds to wait for it. Beyond ``patience`` none is taken."""
        paid_at = (self._paid_at if self._paid_at > now else now) + self._step
        wait = paid_at - now - self._tolerance
        if wait > patience:
            return wait
        self._paid_at = paid_at
        return wait if wait > 0.0 else 0.0

    def full(self, now: float) -> bool:
        """Whether nothing is owed: a new bucket would be the same."""
        return self._paid_at <= now


@dataclass(slots=True, eq=False)
class Share:
    """What one peer (an identity, or an address without TLS) has and takes."""

    new: Pace
    requests: Pace
    streams: int = 0


@dataclass(slots=True, eq=False)
class Ticket:
    """One admitted stream. ``delay``: seconds to wait before it is served."""

    limits: Limits
    delay: float
    share: Share
    requests: Pace

    def pace(self, now: float) -> float:
        """Count a request; seconds to wait before it is handled, which is before the next one is read."""
        own, shared = self.requests.take(now), self.share.requests.take(now)
        return own if own > shared else shared


class Admission:
    """Counts streams. ``refused`` counts what was turned away, by reason."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.streams = 0
        self.refused: Counter[str] = Counter()
        self._new = Pace(limits.new_streams_per_second, limits.new_streams_burst)
        self._shares: dict[str, Share] = {}

    def enter(self, peer: str, now: float) -> Ticket:
        """Admit a stream, or LimitExceeded. Every ticket is given back with :meth:`leave`."""
        limits, share = self.limits, self._share(peer, now)
        if self.streams >= limits.streams:
            raise LimitExceeded("streams", f"{limits.streams} streams are open; try later")
        if share.streams >= limits.streams_per_peer:
            raise LimitExceeded("peer_streams", f"{limits.streams_per_peer} streams of this peer are open; close some")
        delay = self._wait(share, now)
        self.streams += 1
        share.streams += 1
        return Ticket(limits, delay, share, Pace(limits.requests_per_second, limits.requests_burst))

    def leave(self, ticket: Ticket) -> None:
        """The stream ended."""
        self.streams -= 1
        ticket.share.streams -= 1

    def _wait(self, share: Share, now: float) -> float:
        """A peer pays with its own tokens first, so that one in a hurry delays itself and not the others."""
        patience = self.limits.new_stream_patience_seconds
        own = share.new.take(now, patience)
        wait = own if own > patience else max(own, self._new.take(now, patience))
        if wait > patience:
            raise LimitExceeded("new_streams", f"too many new streams; try again in {math.ceil(wait)} s")
        return wait

    def _share(self, peer: str, now: float) -> Share:
        share = self._shares.get(peer)
        if share is None:
            if len(self._shares) >= _REMEMBERED + self.limits.streams:
                self._forget(now)
            share = self._shares[peer] = self._new_share()
        return share

    def _new_share(self) -> Share:
        limits = self.limits
        return Share(
            Pace(limits.new_streams_per_second_per_peer, limits.new_streams_burst_per_peer),
            Pace(limits.requests_per_second_per_peer, limits.requests_burst_per_peer),
        )

    def _forget(self, now: float) -> None:
        """Those who owe nothing; if there are none, whoever has no stream, the oldest first."""
        idle = [peer for peer, share in self._shares.items() if not share.streams]
        paid = [peer for peer in idle if self._shares[peer].new.full(now)]
        for peer in paid or idle[: len(idle) // 2]:
            del self._shares[peer]


# What a request may hold


def check_node(node: Node) -> None:
    """LimitExceeded if a peer says more of itself than anybody needs: what it says is kept as long as its stream."""
    longest = max(len(node.id), len(node.cluster), len(node.user_agent), len(node.user_agent_version))
    longest = max(longest, max(map(len, node.features), default=0))
    if longest > MAX_TEXT or len(node.features) > _MOST_FEATURES:
        raise LimitExceeded("node", f"node holds a text over {MAX_TEXT} characters, or over {_MOST_FEATURES} features")


def check_request(limits: Limits, request: SotwRequest | DeltaRequest, size: int) -> None:
    """LimitExceeded if a request of ``size`` bytes names too much. One that is small cannot."""
    if size <= limits.name_bytes:
        return
    named = _names(request)
    count = sum(map(len, named))
    if count > limits.names:
        raise LimitExceeded("names", f"{count} names in one request; expected at most {limits.names}")
    longest = max(*(names_of(names).longest for names in named), len(request.type_url))
    if longest > limits.name_bytes:
        raise LimitExceeded("name_length", f"a name of {longest} characters; expected at most {limits.name_bytes}")


def check_stream(limits: Limits, machine: Stream) -> None:
    """LimitExceeded if a stream asks for too many types, or its subscriptions name too much together."""
    subscriptions = machine.subscriptions
    if len(subscriptions) > limits.types:
        raise LimitExceeded("types", f"more than {limits.types} types on one stream; expected the types of xDS")
    count = sum(len(one.names) for one in subscriptions.values())
    if count > limits.names:
        raise LimitExceeded("names", f"{count} names on one stream; expected at most {limits.names}")


def _names(request: SotwRequest | DeltaRequest) -> tuple[tuple[str, ...], ...]:
    if isinstance(request, SotwRequest):
        return (request.names,)
    return request.subscribe, request.unsubscribe, tuple(request.initial_versions)


def inflated(data: bytes, limit: int) -> bytes:
    """``data`` as it was before gzip or deflate; data that is neither comes back as it is.

    gRPC would inflate a message whole before it looks at its size, so it is told not to. No protobuf message of xDS or
    OTLP begins with the bytes that compressed data begins with (field 3 or 15, of a type that they do not have).
    LimitExceeded over ``limit`` bytes; CodecError if it is broken.
    """
    if data[:2] != _GZIP and not (data[:1] == _ZLIB and int.from_bytes(data[:2], "big") % 31 == 0):
        return data
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise CodecError(f"{len(data)} bytes look compressed and do not inflate: {error}; send them plain") from error
    if len(plain) > limit:
        raise LimitExceeded("message_size", f"a message of over {limit} bytes when inflated; send less at once")
    return plain
