"""Encode a response once for all streams: everything but its nonce.

A response body depends on the set of the group and on the names in it, not on the stream; streams append their own
nonce, because protobuf fields concatenate (https://protobuf.dev/programming-guides/encoding/#last-one-wins). For the
same reason a body is no more than its resources' own bytes, joined: each is encoded once for all sets that hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from xds import codec
from xds.snapshot import Resource, ResourceSet, Selection

_WHOLE, _ASKED = "the whole set", "whether that was asked for"


class ResponseCache:
    """Bodies of responses by set and content; they live as long as their set. ``encoded`` counts the misses.

    At most ``per_set`` bodies are kept for one set, and for one selection (a body for each version of a set that it
    brings up to date): streams that each ask for other names are encoded for one by one.
    """

    def __init__(self, per_set: int = 256) -> None:
        self._per_set = per_set
        self.encoded = 0

    def whole(self, one_set: ResourceSet, nonce: bytes) -> bytes:
        """A state-of-the-world response with all resources of a set. Who is the only one to have a set needs no body
        for others: it is kept when it is asked for again."""
        bodies = one_set.beside
        body: bytes | None = bodies.get(_WHOLE)
        if body is not None:
            return body + nonce
        self.encoded += 1
        parts = [*one_set.sotw_parts, codec.sotw_envelope(one_set.type_url, one_set.version)]
        if _ASKED in bodies:
            bodies[_WHOLE] = b"".join(parts)
        bodies[_ASKED] = True
        return b"".join([*parts, nonce])

    def sotw(self, one_set: ResourceSet, version: str, resources: Sequence[Resource]) -> bytes:
        """The body of a state-of-the-world response with some resources, of this set or of an earlier one."""
        place, content = _place(one_set, resources)
        return self._once(place, ("sotw", version, content), lambda: _sotw(one_set.type_url, version, resources))

    def delta(self, one_set: ResourceSet, resources: Sequence[Resource], removed: Sequence[str]) -> bytes:
        """The body of a delta response."""
        place, content = (one_set, _content(resources)) if removed else _place(one_set, resources)
        key = ("delta", one_set.version, content, tuple(removed))
        return self._once(place, key, lambda: _delta(one_set, resources, removed))

    def _once(self, place: ResourceSet | Selection, key: object, encode: Callable[[], bytes]) -> bytes:
        bodies: dict[object, bytes] = place.beside
        body = bodies.get(key)
        if body is None:
            body = encode()
            self.encoded += 1
            if len(bodies) < self._per_set:
                bodies[key] = body
        return body


def _sotw(type_url: str, version: str, resources: Iterable[Resource]) -> bytes:
    return b"".join([*(one.sotw_part for one in resources), codec.sotw_envelope(type_url, version)])


def _delta(one_set: ResourceSet, resources: Iterable[Resource], removed: Iterable[str]) -> bytes:
    envelope = codec.delta_response(one_set.type_url, one_set.version, (), removed)
    return envelope + b"".join([one.delta_part for one in resources])


def _place(one_set: ResourceSet, resources: Sequence[Resource]) -> tuple[ResourceSet | Selection, object]:
    """Where the body of a response is kept, and by what it is told from others there. What many streams are due
    together keeps its own."""
    return (resources, None) if isinstance(resources, Selection) else (one_set, _content(resources))


def _content(resources: Sequence[Resource]) -> tuple[tuple[str, str], ...]:
    return tuple([(one.name, one.version) for one in resources])
