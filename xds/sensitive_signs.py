"""Whether an encoded resource may hold something secret: told from its bytes, much cheaper than decoding.

Sound, not exact: what is told apart wrongly is decoded for nothing. What is sensitive in a cluster, a route or an
assignment of endpoints stands under a telling name (of a header, of an entry of a map or struct), in a message whose
type URL says what it is, or in the credentials of a config source that names a server of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from xds.types import CLUSTER, ENDPOINT, PREFIX, ROUTE, RUNTIME, VIRTUAL_HOST

#: Part of every telling name (:func:`xds.sensitive.telling`), and how keys in PEM begin.
_SIGNS = re.compile(
    rb"authorization|cookie|passw|passphrase|secret|api.?key|private.?key|access.?key|token|credential|jwt",
    re.IGNORECASE,
)
_TYPE_URL = re.compile(re.escape(PREFIX.encode()) + rb"([A-Za-z0-9_.]+)")
#: Messages that hold nothing sensitive but what their own parts tell.
_HARMLESS = frozenset(
    {
        b"envoy.extensions.filters.http.fault.v3.HTTPFault",
        b"envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        b"envoy.extensions.filters.http.router.v3.Router",
        b"envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    }
)
#: By type, the fields that lead to an ApiConfigSource. Types that are not listed are always decoded.
_SOURCES: dict[str, tuple[tuple[int, ...], ...]] = {
    CLUSTER: ((3, 1, 2), (42, 2)),  # eds_cluster_config.eds_config.api_config_source, lrs_server.api_config_source
    ENDPOINT: (),
    ROUTE: ((9, 1, 2),),  # vhds.config_source.api_config_source
    RUNTIME: (),
    VIRTUAL_HOST: (),
}


def may_hold(type_url: str, body: bytes) -> bool:
    """Whether ``body`` must be decoded to be sure."""
    sources = _SOURCES.get(type_url)
    if sources is None or _SIGNS.search(body):
        return True
    if not _HARMLESS.issuperset(_TYPE_URL.findall(body)):
        return True
    return any(_leads(body, path) for path in sources)


def _leads(body: bytes, path: tuple[int, ...]) -> bool:
    if not path:
        return True
    return any(_leads(inner, path[1:]) for number, inner in _messages(body) if number == path[0])


def _messages(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Field numbers and contents of what has a length (https://protobuf.dev/programming-guides/encoding/)."""
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        kind, length = tag & 7, 0
        if kind == 0:
            _, at = _varint(body, at)
        elif kind == 2:
            length, at = _varint(body, at)
            yield tag >> 3, body[at : at + length]
        else:
            length = 8 if kind == 1 else 4
        at += length


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(body):
        byte, at = body[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, at
