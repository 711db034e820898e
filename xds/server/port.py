"""The port: gRPC's options for it, and the address that it is bound to."""

from __future__ import annotations

from typing import Any

import grpc.aio

from xds.errors import PortInUse
from xds.server.gate import options as limits
from xds.server.settings import Settings
from xds.server.tls import Rotation

#: Above their defaults (1,000) gRPC's C core drops pending streams at random when everybody reconnects at once.
_PENDING_REQUESTS = 100_000


def options(settings: Settings, *, secure: bool, reuse: bool) -> list[tuple[str, Any]]:
    """Channel arguments. ``secure``: the port has TLS; ``reuse``: other processes may share it."""
    timeout = round(settings.keepalive_timeout_seconds * 1e3)
    return [
        ("grpc.so_reuseport", int(reuse)),
        ("grpc.server.max_pending_requests", _PENDING_REQUESTS),
        ("grpc.server.max_pending_requests_hard_limit", _PENDING_REQUESTS),
        *limits(settings.limits, secure=secure),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", round(settings.keepalive_seconds * 1e3)),
        ("grpc.keepalive_timeout_ms", timeout),
        # An unanswered ping ends a connection after this, by default a minute, whatever keepalive's own timeout is.
        ("grpc.http2.ping_timeout_ms", timeout),
    ]


def bind(server: grpc.aio.Server, host: str, port: int, tls: Rotation | None) -> int:
    """Bind the address, and return the port. PortInUse if it is taken."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_secure_port(address, tls.credentials()) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortInUse(host, port) from error
    if not bound:
        raise PortInUse(host, port)
    return bound
