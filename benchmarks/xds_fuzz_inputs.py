"""What nobody should send: requests that are almost right, and bytes that are not HTTP/2.

Everything follows from a random generator, so that a seed is a run.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Sequence
from random import Random

from xds import _wire_pb2 as wire
from xds.server.services import METHODS
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, RUNTIME, SECRET

EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
HEALTH = "/grpc.health.v1.Health/Check"
CSDS = "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus"
LRS = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
PATHS = (*(method.path for method in METHODS), CSDS, LRS, EXPORT, HEALTH, "/no.such.Service/Method", "/", "")

TYPES = (
    CLUSTER,
    ENDPOINT,
    LISTENER,
    ROUTE,
    RUNTIME,
    SECRET,
    "",
    "type.googleapis.com/",
    "type.googleapis.com/a.B",
    "x",
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BIG = 300_000


def request(rng: Random) -> bytes:
    """One message for a stream."""
    base = rng.choice(VALID)(rng)
    return rng.choice(SPOILERS)(rng, base) if rng.random() < 0.8 else base


# Right


def sotw(rng: Random) -> bytes:
    message = wire.DiscoveryRequest(
        type_url=rng.choice(TYPES),
        resource_names=names(rng),
        version_info=rng.choice(("", "1", "no such version")),
        response_nonce=rng.choice(("", "stale", "\x00")),
    )
    return _dressed(rng, message)


def delta(rng: Random) -> bytes:
    message = wire.DeltaDiscoveryRequest(
        type_url=rng.choice(TYPES),
        resource_names_subscribe=names(rng),
        resource_names_unsubscribe=names(rng),
        initial_resource_versions=dict.fromkeys(names(rng), "1"),
        response_nonce=rng.choice(("", "stale")),
    )
    return _dressed(rng, message)


def names(rng: Random) -> list[str]:
    odd = ("*", "", "a", "xdstp://a/b?c=d#e", "../../etc/passwd", "\x00", "é\U0001f600", "n" * 5_000)
    return [rng.choice(odd) for _ in range(rng.choice((0, 0, 1, 2, 10)))]


def _dressed(rng: Random, message: wire.DiscoveryRequest | wire.DeltaDiscoveryRequest) -> bytes:
    if rng.random() < 0.8:
        message.node.id = rng.choice(("fuzz-0", "fuzz-1", "witness-0", "", "x" * 2_000, f"made-up-{rng.random()}"))
        message.node.cluster = rng.choice(("fuzz", "", "witness"))
        message.node.client_features.extend(["envoy.config.supports-resource-ttl"] * rng.choice((0, 1, 300)))
    if rng.random() < 0.2:
        message.error_detail.message = rng.choice(("no", "", "e" * 100_000, 'inline_string: "' * 500))
    return message.SerializeToString()


VALID: Sequence[Callable[[Random], bytes]] = (sotw, delta)

# Spoilt


def flipped(rng: Random, data: bytes) -> bytes:
    spoilt = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8))):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def spliced(rng: Random, data: bytes) -> bytes:
    other, at = rng.choice(VALID)(rng), rng.randrange(len(data) + 1)
    return data[:at] + other[rng.randrange(len(other) + 1) :]


def longer_than_it_is(rng: Random, data: bytes) -> bytes:
    """A length that promises more than there is, up to 2^63."""
    return (
        data
        + bytes([rng.choice((0x0A, 0x12, 0x1A, 0x22, 0x2A))])
        + rng.choice((b"\xff" * 9 + b"\x7f", b"\xff\xff\x7f"))
    )


def nested(rng: Random, data: bytes) -> bytes:
    """Messages inside messages inside the node's metadata, deeper than anybody parses."""
    inner = b""
    for _ in range(rng.choice((50, 150, 5_000))):
        inner = b"\x0a" + _varint(len(inner)) + inner
        if len(inner) > BIG:
            break
    return data + b"\x0a" + _varint(len(inner)) + inner


def crowded(rng: Random, data: bytes) -> bytes:
    return data + b"".join(b"\x1a\x03" + b"%03d" % (n % 1000) for n in range(rng.choice((1_000, 30_000))))


def not_text(_: Random, data: bytes) -> bytes:
    return data + b"\x1a\x04\xff\xfe\xc0\x80"


def noise(rng: Random, _: bytes) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 5, 50, 1_000, 50_000)))


def groups(rng: Random, data: bytes) -> bytes:
    """Groups, which nobody has used since proto1, opened and left open."""
    return data + b"\x0b" * rng.choice((1, 90, 20_000))


def compressed(rng: Random, data: bytes) -> bytes:
    return rng.choice((gzip.compress(data), gzip.compress(data)[:-9], BOMB, b"\x1f\x8b" + data))


BOMB = gzip.compress(bytes(200 * 1024 * 1024), 9)
SPOILERS: Sequence[Callable[[Random, bytes], bytes]] = (
    *(flipped, cut, spliced, longer_than_it_is, nested, crowded, not_text, noise, groups, compressed),
)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


# Bytes on a connection


def connection(rng: Random) -> bytes:
    """What a connection begins with, before it is left alone or closed."""
    return rng.choice(CONNECTIONS)(rng)


def silence(_: Random) -> bytes:
    return b""


def garbage(rng: Random) -> bytes:
    return rng.randbytes(rng.choice((1, 24, 1_000, 100_000)))


def http1(rng: Random) -> bytes:
    return rng.choice((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /" + b"a" * 70_000))


def client_hello(rng: Random) -> bytes:
    """A TLS record that says it is a ClientHello."""
    body = rng.randbytes(rng.choice((0, 40, 500)))
    return b"\x16\x03\x01" + struct.pack("!H", rng.choice((len(body), 0xFFFF))) + b"\x01\x00" + body


def half_a_preface(rng: Random) -> bytes:
    return PREFACE[: rng.randrange(len(PREFACE))]


def frames(rng: Random) -> bytes:
    """The preface, perhaps settings, and frames of any type, flags, stream and length, true or not."""
    out = [PREFACE, frame(4, 0, 0, b"") if rng.random() < 0.7 else b""]
    for _ in range(rng.choice((1, 5, 100))):
        payload = rng.randbytes(rng.choice((0, 4, 8, 9, 100, 20_000)))
        out.append(
            frame(
                rng.randrange(12),
                rng.randrange(256),
                rng.choice((0, 1, 2, 3, 2**31 - 1)),
                payload,
                rng.choice((0, 0, 1, -1, 2**20)),
            )
        )
    return b"".join(out)


def pings(_: Random) -> bytes:
    return PREFACE + frame(4, 0, 0, b"") + frame(6, 0, 0, b"\0" * 8) * 500


def settings(_: Random) -> bytes:
    return PREFACE + frame(4, 0, 0, b"\x00\x03\xff\xff\xff\xff") * 500


def rapid_reset(_: Random) -> bytes:
    """Streams that are opened and reset at once. https://nvd.nist.gov/vuln/detail/CVE-2023-44487"""
    streams = (frame(1, 4, number, HEADERS) + frame(3, 0, number, b"\0\0\0\x08") for number in range(1, 401, 2))
    return PREFACE + frame(4, 0, 0, b"") + b"".join(streams)


def endless_headers(rng: Random) -> bytes:
    """HEADERS that CONTINUATIONs never end. https://kb.cert.org/vuls/id/421644"""
    more = frame(9, 0, 1, b"\x00\x01a" + b"\x7f\xff\x7f" + b"b" * 16_000)
    return PREFACE + frame(4, 0, 0, b"") + frame(1, 0, 1, HEADERS) + more * rng.choice((1, 20, 200))


def many_streams(_: Random) -> bytes:
    opened = (frame(1, 4, number, HEADERS) for number in range(1, 4_001, 2))
    return PREFACE + frame(4, 0, 0, b"") + b"".join(opened)


def frame(kind: int, flags: int, stream: int, payload: bytes, lie: int = 0) -> bytes:
    """An HTTP/2 frame (https://www.rfc-editor.org/rfc/rfc9113#section-4.1); ``lie`` is added to its length."""
    return (
        struct.pack("!I", max(0, len(payload) + lie) & 0xFFFFFF)[1:]
        + struct.pack("!BBI", kind, flags, stream)
        + payload
    )


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that no table knows: https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2"""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEADERS = b"\x83\x86" + b"".join(
    _literal(name, value)
    for name, value in (
        (b":path", METHODS[1].path.encode()),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
)

CONNECTIONS: Sequence[Callable[[Random], bytes]] = (
    *(silence, garbage, http1, client_hello, half_a_preface, frames, frames, frames),
    *(pings, settings, rapid_reset, endless_headers, many_streams),
)
