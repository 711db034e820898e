"""All runtime layers of one stream. Each layer is answered, kept alive and rejected on its own.

On a state-of-the-world stream (``exclusive``) one layer at most may hold a lease: Envoy 1.40 aborts when one of two
expires. The second is refused: it gets an empty layer, and a notice says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from xds.protocol.events import TTL_FEATURE, Notice
from xds.protocol.leases import Layer, Lease, Send, empty_lease
from xds.snapshot import combined_version
from xds.types import RUNTIME


class Layers:
    """The layers that a client has named, by name."""

    def __init__(self, *, exclusive: bool) -> None:
        self.by_name: dict[str, Layer] = {}
        self.refused: dict[str, str] = {}
        self._exclusive = exclusive
        self._wanted: Mapping[str, Lease] = {}
        self._holder: str | None = None
        self.supports_ttl = False

    # In

    def subscribe(self, names: Iterable[str], known: Iterable[str] = ()) -> None:
        """Add layers; ``known`` ones the client has from an earlier stream."""
        had = frozenset(known)
        for name in names:
            if name in self.by_name:
                self.by_name[name].resubscribed()
            else:
                wanted = self._wanted.get(name)
                self.by_name[name] = Layer(name, self.supports_ttl, known_before=name in had, wanted=wanted)

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Drop layers that the client is no longer interested in."""
        for name in names:
            self.by_name.pop(name, None)
            self.refused.pop(name, None)
            if self._holder == name:
                self._holder = None

    def want(self, leases: Mapping[str, Lease]) -> None:
        """Take the leases that should be held from now on; a layer without one is left to lapse."""
        self._wanted = leases
        for name, layer in self.by_name.items():
            layer.want(leases.get(name))

    def flying(self, nonce: str) -> Layer | None:
        """The layer whose response with this nonce is not answered yet."""
        return next((one for one in self.by_name.values() if one.flight and one.nonce == nonce), None)

    # Out

    def due(self, now: float) -> tuple[Layer, Send, Notice | None] | None:
        """The next layer to send something for; with a notice if it was refused its lease."""
        if self._exclusive and any(layer.flight for layer in self.by_name.values()):
            return None
        for layer in self.by_name.values():
            send = layer.due(now)
            if send is None:
                continue
            if not self._exclusive:
                return layer, send, None
            chosen = self._one_lease(layer, send, now)
            if chosen is not None:
                return layer, *chosen
        return None

    def wakes_at(self) -> float:
        """When the next heartbeat is due (seconds), infinity without one."""
        return min((layer.wakes_at() for layer in self.by_name.values()), default=math.inf)

    def problems(self) -> list[str]:
        """What people should know: the client's words about rejected layers, and leases that cannot be given."""
        words = [layer.error for layer in self.by_name.values() if layer.error]
        deaf = [] if self.supports_ttl else [name for name, one in self.by_name.items() if one.has_values]
        words += [f"layer {name!r} is not leased: the client does not announce {TTL_FEATURE}" for name in deaf]
        return [*words, *self.refused.values()]

    @property
    def version(self) -> str:
        """One version for what the client has accepted in all layers."""
        return _combined({name: layer.acked_version for name, layer in self.by_name.items()})

    def desired(self, now: float) -> str:
        """One version for what the client should have in all layers; what is left to lapse counts as it is."""
        targets = {name: layer.target(now) or layer.sent for name, layer in self.by_name.items()}
        return _combined({name: lease.version if lease else "" for name, lease in targets.items()})

    @property
    def sent(self) -> str:
        """One version for what the client was sent in all layers."""
        return _combined({name: layer.sent.version if layer.sent else "" for name, layer in self.by_name.items()})

    # State of the world: one lease at most

    def _one_lease(self, layer: Layer, send: Send, now: float) -> tuple[Send, Notice | None] | None:
        """The same with its body, for the holder of the lease; else an empty layer, once."""
        if send.ttl is None:
            return send, None
        if self._holds(layer, now):
            self.refused.pop(layer.name, None)
            return replace(send, full=True), None
        return self._refuse(layer)

    def _holds(self, layer: Layer, now: float) -> bool:
        holder = self.by_name.get(self._holder) if self._holder is not None else None
        if holder is None or holder.sent is None or holder.sent.empty or now >= holder.lapses_at + holder.sent.ttl:
            self._holder = layer.name
        return self._holder == layer.name

    def _refuse(self, layer: Layer) -> tuple[Send, Notice | None] | None:
        empty = empty_lease(layer.name)
        answered = layer.sent is not None and layer.sent.version == empty.version
        if layer.name in self.refused and answered:
            return None
        message = (
            f"layer {layer.name!r} is not leased: {self._holder!r} holds the lease of this state-of-the-world stream "
            "and Envoy aborts when one of two expires; use delta ADS or a RuntimeDiscoveryService stream for each layer"
        )
        notice = None if layer.name in self.refused else Notice("refused", RUNTIME, "", message)
        self.refused[layer.name] = message
        return Send(empty, None, full=True, heartbeat=False), notice


def _combined(versions: Mapping[str, str]) -> str:
    return combined_version(versions.items()) if versions else ""
