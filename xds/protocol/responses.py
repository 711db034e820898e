"""Encode a response once for all streams: everything but its nonce.

A response body depends on the set of the group and on the names in it, not on the stream; streams append their own
nonce, because protobuf fields concatenate (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from weakref import WeakKeyDictionary

from xds import codec
from xds.protocol.events import Item
from xds.snapshot import Resource, ResourceSet

_Key = tuple[object, ...]


class ResponseCache:
    """Bodies of responses by set and content; they live as long as their set. ``encoded`` counts the misses.

    At most ``per_set`` bodies are kept for one set: streams that each ask for other names are encoded for one by one.
    """

    def __init__(self, per_set: int = 256) -> None:
        self._bodies: WeakKeyDictionary[ResourceSet, dict[_Key, bytes]] = WeakKeyDictionary()
        self._per_set = per_set
        self.encoded = 0

    def sotw(self, one_set: ResourceSet, version: str, resources: Sequence[Resource]) -> bytes:
        """The body of a state-of-the-world response."""
        key = ("sotw", version, _content(resources))
        return self._once(one_set, key, lambda: codec.sotw_response(one_set.type_url, version, items(resources)))

    def delta(self, one_set: ResourceSet, resources: Sequence[Resource], removed: Sequence[str]) -> bytes:
        """The body of a delta response."""
        key = ("delta", _content(resources), tuple(removed))
        return self._once(
            one_set,
            key,
            lambda: codec.delta_response(one_set.type_url, one_set.version, items(resources), removed),
        )

    def _once(self, one_set: ResourceSet, key: _Key, encode: Callable[[], bytes]) -> bytes:
        bodies = self._bodies.setdefault(one_set, {})
        body = bodies.get(key)
        if body is None:
            body = encode()
            self.encoded += 1
            if len(bodies) < self._per_set:
                bodies[key] = body
        return body


def items(resources: Iterable[Resource]) -> list[Item]:
    """Resources as parts of a response, without a lease."""
    return [Item(one.type_url, one.name, one.version, one.body) for one in resources]


def _content(resources: Sequence[Resource]) -> tuple[tuple[str, str], ...]:
    return tuple((one.name, one.version) for one in resources)
