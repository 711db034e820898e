"""The gate of the port: limits before a peer is known, its identity with its first request, and what both refuse.

:mod:`~xds.server.admission` counts and :mod:`~xds.server.identity` decides; here they meet gRPC's calls. Every
service on the port that names a node or shows configuration asks here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from xds.errors import AccessDenied, CodecError, InternalError, LimitExceeded, RemoteError
from xds.protocol.events import Node
from xds.server.admission import MAX_TEXT, Admission, Ticket, check_node
from xds.server.identity import Grant, Peer, Policy, peer_of
from xds.server.services import Context
from xds.server.settings import Limits

#: What a peer that is denied learns. Why is for the operator: names of rules and of other nodes are nobody's business.
DENIED = "this peer may not be this node; see the control plane's events"
#: File descriptors that connections leave to the rest of the process.
_SPARE_FILES = 128
_TOO_LATE = "nothing was said on the stream in time; send the first request at once"
_EXPIRED = "the certificate has expired; connect with a new one"

Refusal = AccessDenied | LimitExceeded
Report = Callable[[Refusal, Peer, str], None]


class CertificateEndedError(RemoteError):
    """The certificate that opened a stream has ended, and the stream with it."""


@dataclass(slots=True, eq=False)
class Visit:
    """One stream's way in: who is there, its share of the limits, who it says it is, and what it may have."""

    peer: Peer
    ticket: Ticket
    claimed: str = ""
    grant: Grant | None = None


class Gate:
    """``report`` hears of every refusal, with the peer and the node id that it claimed (if it got so far).

    ``now`` is in seconds since the epoch.
    """

    def __init__(self, limits: Limits, policy: Policy, report: Report, now: Callable[[], float]) -> None:
        self.limits = limits
        self.policy = policy
        self.admission = Admission(limits)
        self._report = report
        self._now = now

    @contextlib.asynccontextmanager
    async def visit(self, peer: Peer) -> AsyncIterator[Visit]:
        """Admit a stream for as long as the block runs, after its turn has come. LimitExceeded if it is refused."""
        ticket = self.admission.enter(peer.key, asyncio.get_running_loop().time())
        try:
            if ticket.delay:
                await asyncio.sleep(ticket.delay)
            yield Visit(peer, ticket)
        finally:
            self.admission.leave(ticket)

    def introduce(self, visit: Visit, node: Node) -> Grant:
        """What the stream may have as this node. AccessDenied or LimitExceeded ends it."""
        visit.claimed = node.id[:MAX_TEXT]
        check_node(node)
        visit.grant = self._admit(visit.peer, node)
        return visit.grant

    def refuse(self, refusal: Refusal, peer: Peer, node_id: str) -> None:
        """Count a refusal and say so."""
        self.admission.refused[refusal.reason] += 1
        self._report(refusal, peer, node_id)

    def may_observe(self, context: Context) -> str | None:
        """Why the peer of a call may not see what other nodes have; None if it may."""
        peer = peer_of(context)
        if self.policy.may_observe(peer):
            return None
        self.refuse(AccessDenied("observe", f"{peer.key} may not read the status of nodes"), peer, "")
        return "this peer may not observe; a rule with observe: true lets it"

    def may_report(self, context: Context, node: Node) -> str | None:
        """Why the peer of a call may not speak for this node; None if it may."""
        peer = peer_of(context)
        try:
            check_node(node)
            self._admit(peer, node)
        except (AccessDenied, LimitExceeded) as refusal:
            self.refuse(refusal, peer, node.id[:MAX_TEXT])
            return DENIED
        return None

    def _admit(self, peer: Peer, node: Node) -> Grant:
        if peer.expires <= self._now():
            raise AccessDenied("expired", f"the certificate of {peer.key} has expired")
        return self.policy.admit(peer, node.id, node.cluster)


def status_of(failure: RemoteError | CodecError | InternalError) -> tuple[grpc.StatusCode, str]:
    """The status and the words with which a stream ends."""
    if isinstance(failure, InternalError):
        return grpc.StatusCode.INTERNAL, str(failure)
    if isinstance(failure, AccessDenied) and failure.reason == "expired":
        return grpc.StatusCode.UNAUTHENTICATED, _EXPIRED
    if isinstance(failure, AccessDenied):
        return grpc.StatusCode.PERMISSION_DENIED, DENIED
    if isinstance(failure, LimitExceeded):
        late = failure.reason == "first_request"
        return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.RESOURCE_EXHAUSTED, str(failure)
    if isinstance(failure, CertificateEndedError):
        return grpc.StatusCode.UNAUTHENTICATED, str(failure)
    return grpc.StatusCode.INVALID_ARGUMENT, str(failure)


def too_late() -> LimitExceeded:
    """A stream said nothing before its deadline."""
    return LimitExceeded("first_request", _TOO_LATE)


def expired() -> CertificateEndedError:
    """A stream's certificate ended."""
    return CertificateEndedError(_EXPIRED)


class QuietHeaders(logging.Filter):
    """gRPC logs headers that are no UTF-8 whole, as errors: whoever reaches the port could fill a disk."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Invalid encoding")


_QUIET = QuietHeaders()


def quiet() -> None:
    """Keep strangers' bytes out of the log."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_QUIET)


def connections(limits: Limits) -> int:
    """How many connections may be open: as many as the limit and the process's file descriptors allow."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limits.connections if allowed < 0 else max(1, min(limits.connections, allowed - _SPARE_FILES))


def options(limits: Limits, *, secure: bool) -> list[tuple[str, Any]]:
    """gRPC's own limits, mostly before it knows who is there. ``secure``: the port has TLS.

    https://github.com/grpc/grpc/blob/master/include/grpc/impl/channel_arg_names.h
    """
    ages = secure and limits.connection_age_seconds > 0.0
    age = [("grpc.max_connection_age_ms", round(limits.connection_age_seconds * 1e3))] if ages else []
    return [
        *age,
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.per_message_decompression", 0),  # gRPC would inflate a message whole before it looks at its size
        ("grpc.max_allowed_incoming_connections", connections(limits)),
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        ("grpc.server_handshake_timeout_ms", round(limits.handshake_seconds * 1e3)),
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", round(limits.ping_interval_seconds * 1e3)),
        ("grpc.http2.max_ping_strikes", limits.ping_strikes),
    ]
