"""What an operator may want to change about the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits of the server."""

    max_message_bytes: int = 64 * 1024 * 1024
    """Largest request. The first delta request after a reconnect lists every resource that a client has and easily
    exceeds gRPC's default of 4 MiB; a larger one ends its stream."""

    max_streams: int = 10_000
    """Open streams; one too many is refused with RESOURCE_EXHAUSTED."""

    keepalive_seconds: float = 30.0
    """A connection that is silent for so long is pinged, so that a half-open one is found."""

    keepalive_timeout_seconds: float = 10.0
    """A connection that leaves a ping unanswered for so long is closed."""
