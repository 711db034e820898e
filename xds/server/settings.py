"""What an operator may want to change about the server."""

from __future__ import annotations

from dataclasses import dataclass

from xds.canary import Policy as Canary


@dataclass(frozen=True, slots=True)
class Limits:
    """How much peers may have. A *peer* is an identity (SPIFFE id), or an address where there is no TLS.

    What is too fast waits; what is too much is refused with RESOURCE_EXHAUSTED and counted by reason.
    """

    message_bytes: int = 16 * 1024 * 1024
    """Largest request, also after decompression. The first delta request after a reconnect lists every resource that a
    client has (100,000 of them in about 10 MiB) and easily exceeds gRPC's default of 4 MiB. A larger one ends its
    stream."""

    streams: int = 10_000
    """Open streams."""

    streams_per_peer: int = 5_000
    """Open streams of one peer: replicas of one service may share an identity, and hosts behind one address."""

    new_streams_per_second: float = 2_000.0
    """New streams above this rate wait for their turn."""

    new_streams_burst: int = 5_000
    """New streams that need not wait: all sidecars come back at once after a restart."""

    new_streams_per_second_per_peer: float = 1_000.0
    """The same for one peer, so that one that reconnects in a loop delays itself and not the others."""

    new_streams_burst_per_peer: int = 5_000
    """New streams of one peer that need not wait."""

    new_stream_patience_seconds: float = 10.0
    """The longest that a new stream waits; one that would wait longer is refused."""

    first_request_seconds: float = 15.0
    """A stream that has said nothing for so long is ended."""

    requests_per_second: float = 100.0
    """Requests of one stream above this rate wait, and with them all that follow on that stream."""

    requests_burst: int = 2_000
    """Requests of one stream that need not wait."""

    requests_per_second_per_peer: float = 5_000.0
    """The same for all streams of one peer together."""

    requests_burst_per_peer: int = 50_000
    """Requests of one peer that need not wait."""

    names: int = 100_000
    """Resource names in one request, and in one stream's subscriptions."""

    name_bytes: int = 4_096
    """Longest resource name or type URL, in characters."""

    types: int = 32
    """Resource types that one stream may ask for."""

    connections: int = 20_000
    """Open connections, counted before the TLS handshake; one more is closed."""

    streams_per_connection: int = 256
    """Concurrent calls on one connection (HTTP/2's SETTINGS_MAX_CONCURRENT_STREAMS); more wait at the client."""

    connection_age_seconds: float = 600.0
    """With TLS, new streams leave a connection that is older (GOAWAY, ten per cent earlier or later), so that they
    show the certificate of today. Streams that are open stay until their certificate ends: let certificates be
    renewed at least this long before. 0 never."""

    handshake_seconds: float = 10.0
    """A connection that has not finished TLS and HTTP/2 settings after so long is closed."""

    metadata_bytes: int = 16 * 1024
    """Largest headers of a call."""

    ping_interval_seconds: float = 1.0
    """HTTP/2 pings more often than this are strikes; data in between forgives them."""

    ping_strikes: int = 10
    """A connection with more strikes is closed (ENHANCE_YOUR_CALM); 0 never."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the server treats its streams."""

    limits: Limits = Limits()
    """How much peers may have."""

    keepalive_seconds: float = 30.0
    """A connection that is silent for so long is pinged, so that a half-open one is found."""

    keepalive_timeout_seconds: float = 10.0
    """A connection that leaves a ping unanswered for so long is closed."""

    debounce_seconds: float = 0.1
    """What is published after so long without a publication goes out at once; what follows sooner waits until it has
    been quiet for so long, and only the newest goes out. Leases never wait. 0 lets everything pass."""

    debounce_cap_seconds: float = 10.0
    """The longest that a publication waits for quiet."""

    canary: Canary | None = None
    """How one node of a group tries a change of anything but endpoints before the others get it; None: nobody does."""

    concurrent_pushes: int = 1024
    """Responses that are on their way at once; others wait for their turn, and meanwhile requests are handled."""

    slow_write_seconds: float = 1.0
    """A client that has not taken a response after so long no longer counts among `concurrent_pushes`."""

    write_deadline_seconds: float = 60.0
    """A client that has not taken a response after so long counts as gone; if it reads again, its stream is ended."""

    client_status: bool = True
    """Serve CSDS: what every client has and said about it."""

    client_status_max_bytes: int = 4 * 1024 * 1024
    """Largest answer of CSDS; what most gRPC clients take. A larger one is refused with RESOURCE_EXHAUSTED."""

    load_reports: bool = True
    """Serve LRS: clients report how many requests they sent to each cluster."""

    load_report_seconds: float = 10.0
    """How often a client reports its load."""
