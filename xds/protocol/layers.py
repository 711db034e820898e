"""All runtime layers of one stream. Each layer is answered, kept alive and rejected on its own.

On a state-of-the-world stream (``sotw``) a lease is given only while a single layer is named. When a lease ends
there, Envoy 1.40 tells *every* layer of the stream that it is gone, and aborts in the first one that is not
("Unexpected removal of unknown RTDS runtime layer"), even if only one of them was leased. With two or more layers
each gets an empty one without a lease, and a notice says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from xds.protocol.events import TTL_FEATURE, Notice
from xds.protocol.leases import Layer, Lease, Send
from xds.snapshot import combined_version
from xds.types import RUNTIME


class Layers:
    """The layers that a client has named, by name."""

    def __init__(self, *, sotw: bool) -> None:
        self.by_name: dict[str, Layer] = {}
        self.supports_ttl = False
        self._sotw = sotw
        self._wanted: Mapping[str, Lease] = {}
        self._noticed: set[str] = set()

    # In

    def subscribe(self, names: Iterable[str], known: Iterable[str] = ()) -> None:
        """Add layers; ``known`` ones the client has from an earlier stream."""
        had = frozenset(known)
        for name in names:
            if name in self.by_name:
                self.by_name[name].resubscribed()
            else:
                wanted = self._wanted.get(name)
                self.by_name[name] = Layer(name, self.supports_ttl, self._sotw, name in had, wanted=wanted)
        self._bar()

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Drop layers that the client is no longer interested in."""
        for name in names:
            self.by_name.pop(name, None)
        self._bar()

    def want(self, leases: Mapping[str, Lease]) -> None:
        """Take the leases that should be held from now on; a layer without one is left to lapse."""
        self._wanted = leases
        for name, layer in self.by_name.items():
            layer.want(leases.get(name))

    def flying(self, nonce: str) -> Layer | None:
        """The layer whose response with this nonce is not answered yet."""
        return next((one for one in self.by_name.values() if one.flight and one.nonce == nonce), None)

    # Out

    def due(self, now: float) -> tuple[Layer, Send] | None:
        """The next layer to send something for. A state-of-the-world client answers only the newest response of a
        type, so there one is in flight at a time."""
        if self._sotw and any(layer.flight for layer in self.by_name.values()):
            return None
        for layer in self.by_name.values():
            send = layer.due(now)
            if send is not None:
                return layer, send
        return None

    def wakes_at(self) -> float:
        """When the next heartbeat is due (seconds), infinity without one."""
        return min((layer.wakes_at() for layer in self.by_name.values()), default=math.inf)

    def refusals(self) -> list[Notice]:
        """A notice for each layer whose lease is refused, once."""
        fresh = [layer for layer in self.by_name.values() if layer.barred and layer.has_values]
        notices = [Notice("refused", RUNTIME, "", _barred(one.name)) for one in fresh if one.name not in self._noticed]
        self._noticed = {layer.name for layer in fresh}
        return notices

    def problems(self) -> list[str]:
        """What people should know: the client's words about rejected layers, and leases that cannot be given."""
        layers = self.by_name.values()
        words = [layer.error for layer in layers if layer.error]
        unleased = [layer for layer in layers if layer.has_values]
        if not self.supports_ttl:
            deaf = f"the client does not announce {TTL_FEATURE}"
            words += [f"layer {layer.name!r} is not leased: {deaf}" for layer in unleased]
        return words + [_barred(layer.name) for layer in unleased if layer.barred]

    @property
    def acked(self) -> str:
        """One version for what the client has accepted in all layers."""
        return _combined({name: layer.acked_version for name, layer in self.by_name.items()})

    @property
    def sent(self) -> str:
        """One version for what the client was sent in all layers."""
        return _combined({name: layer.sent.version if layer.sent else "" for name, layer in self.by_name.items()})

    def desired(self, now: float) -> str:
        """One version for what the client should have in all layers; what is left to lapse counts as it is."""
        targets = {name: layer.target(now) or layer.sent for name, layer in self.by_name.items()}
        return _combined({name: lease.version if lease else "" for name, lease in targets.items()})

    def _bar(self) -> None:
        barred = self._sotw and len(self.by_name) > 1
        for layer in self.by_name.values():
            layer.barred = barred


def _barred(name: str) -> str:
    return (
        f"layer {name!r} is not leased: the state-of-the-world stream names several layers and Envoy aborts when the "
        "lease of one of them ends; use delta ADS, or a RuntimeDiscoveryService stream for each layer"
    )


def _combined(versions: Mapping[str, str]) -> str:
    return combined_version(versions.items()) if versions else ""
