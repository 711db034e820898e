"""Who may connect to the xDS port, and how much they may have: ``controller.xds.{tls, identities, limits}``.

What a limit does is told in :class:`xds.server.settings.Limits`, whose names and defaults these are.
"""

from __future__ import annotations

from typing import Annotated

from meshctl.config.scalars import FilePath, Flag, Pattern, SpiffePattern, duration, integer, number
from meshctl.config.section import Section

_COUNT = integer(1, 10_000_000)
_RATE = number(0, 1e6, above=True)


class XdsTls(Section):
    """Mutual TLS on the xDS port. The files are read again when they change."""

    certificate: FilePath
    """PEM file of the server's certificate, followed by intermediates; relative to the mesh file."""
    key: FilePath
    """PEM file of its private key, without a password."""
    client_ca: FilePath
    """PEM file of the CAs that sign what sidecars present."""


class XdsIdentity(Section):
    """What sidecars whose certificate has a SPIFFE id may have. `*` stands for any text within a path segment."""

    spiffe: SpiffePattern
    """SPIFFE id, such as `spiffe://mesh/ns/*/sa/frontend`."""
    nodes: tuple[Pattern, ...] = ()
    """Node ids that they may have, such as `frontend-*`. Empty: those that are named after the id."""
    group: Pattern | None = None
    """The group that they may name; where unset, the one in the node id (`frontend` of `frontend-0`)."""
    secrets: tuple[Pattern, ...] = ()
    """Names of secrets that they may have. Empty: none."""
    observe: Flag = False
    """May read, over CSDS, what every sidecar has."""


class XdsLimits(Section):
    """How much a peer of the xDS port may have. A peer is an identity or, without TLS, an address."""

    message_bytes: Annotated[int, *integer(65_536, 2**31 - 1)] = 16 * 1024 * 1024
    """Largest request, also after decompression."""
    streams: Annotated[int, *_COUNT] = 10_000
    """Open streams."""
    streams_per_peer: Annotated[int, *_COUNT] = 5_000
    """Open streams of one peer."""
    new_streams_per_second: Annotated[float, *_RATE] = 2_000.0
    """New streams above this rate wait for their turn."""
    new_streams_burst: Annotated[int, *_COUNT] = 5_000
    """New streams that need not wait: all sidecars come back at once after a restart."""
    new_streams_per_second_per_peer: Annotated[float, *_RATE] = 1_000.0
    """The same for one peer."""
    new_streams_burst_per_peer: Annotated[int, *_COUNT] = 5_000
    """The same for one peer."""
    new_stream_patience: Annotated[float, *duration(0, 600)] = 10.0
    """The longest that a new stream waits; one that would wait longer is refused."""
    first_request: Annotated[float, *duration(0.1, 600)] = 15.0
    """A stream that has said nothing for so long is ended."""
    requests_per_second: Annotated[float, *_RATE] = 100.0
    """Requests of one stream above this rate wait."""
    requests_burst: Annotated[int, *_COUNT] = 2_000
    """Requests of one stream that need not wait."""
    requests_per_second_per_peer: Annotated[float, *_RATE] = 5_000.0
    """The same for all streams of one peer together."""
    requests_burst_per_peer: Annotated[int, *_COUNT] = 50_000
    """The same for all streams of one peer together."""
    names: Annotated[int, *_COUNT] = 100_000
    """Resource names in one request, and in one stream's subscriptions."""
    name_bytes: Annotated[int, *integer(64, 65_536)] = 4_096
    """Longest resource name or type URL."""
    types: Annotated[int, *integer(1, 64)] = 32
    """Resource types that one stream may ask for."""
    connections: Annotated[int, *_COUNT] = 20_000
    """Open connections; file descriptors allow fewer where `ulimit -n` is low."""
    streams_per_connection: Annotated[int, *integer(1, 1_000_000)] = 256
    """Concurrent calls on one connection; more wait at the client."""
    connection_age: Annotated[float, *duration(0, 86_400)] = 600.0
    """With TLS, new streams leave a connection that is older, so that they show today's certificate; 0 never."""
    handshake: Annotated[float, *duration(0.1, 600)] = 10.0
    """A connection whose handshake takes longer is closed."""
    metadata_bytes: Annotated[int, *integer(1_024, 1_048_576)] = 16 * 1024
    """Largest headers of a call."""
    ping_interval: Annotated[float, *duration(0, 3_600)] = 1.0
    """HTTP/2 pings more often than this are strikes."""
    ping_strikes: Annotated[int, *integer(0, 1_000_000)] = 10
    """A connection with more strikes is closed; 0 never."""
