"""The names of a state-of-the-world request, which every client of a group repeats with every ACK.

To read a thousand names is the dearest part of an ACK that has them, and they are the same bytes again and again. What
comes before a request's type URL is therefore looked up as it is. That gives what reading everything would give:
a message is a row of fields, fields of a row concatenate, and where the first part is a row of whole fields by itself,
the second part is one, too. https://protobuf.dev/programming-guides/encoding/#last-one-wins

What peers can make us keep is bounded (:data:`_MOST`), and none can change what another's bytes mean.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import DecodeError

from xds import _wire_pb2 as wire
from xds.protocol.events import Names

#: Bytes of a request that is worth it, and of the longest part that is kept.
_SHORTEST, _LONGEST = 512, 65_536
#: Bytes of what is kept, in all: in memory up to thirty times as much, where names are a letter or two. What was not
#: used for longest is forgotten first.
_MOST = 1 << 20

_URL = b"type.googleapis.com/"
_URL_TAG = 0x22  # field 4, a string, whose length is one byte


class _Head(NamedTuple):
    """``names`` of what comes before the type URL, and everything else that is in there, encoded."""

    names: Names
    rest: bytes


class _Heads(dict[bytes, _Head]):
    """Heads by their bytes, the newest last; ``size`` is how many bytes these are."""

    size = 0

    def keep(self, before: bytes, head: _Head) -> None:
        self[before] = head
        self.size += len(before)
        while self.size > _MOST:
            oldest = next(iter(self))
            self.size -= len(oldest)
            del self[oldest]


_heads = _Heads()


def split(data: bytes) -> tuple[tuple[str, ...], bytes]:
    """Names of a DiscoveryRequest that come before its type URL, and the request without them; nothing and the request
    as it is where there are none, or where it is no request."""
    if len(data) < _SHORTEST:
        return (), data
    cut = data.rfind(_URL) - 2
    if not 0 < cut <= _LONGEST or data[cut] != _URL_TAG:
        return (), data
    before = data[:cut]
    head = _heads.pop(before, None)
    if head is not None:
        _heads[before] = head  # the newest again
        return head.names, head.rest + data[cut:]
    head = _read(before)
    if head is None:
        return (), data
    _heads.keep(before, head)
    return head.names, head.rest + data[cut:]


def _read(before: bytes) -> _Head | None:
    """None if this is no row of whole fields."""
    try:
        message = wire.DiscoveryRequest.FromString(before)
    except DecodeError:
        return None
    names = Names(message.resource_names)
    message.ClearField("resource_names")
    return _Head(names, message.SerializeToString())
