"""The state-of-the-world variant: every request repeats all names, and clusters and listeners come all together.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#four-variants
"""

from __future__ import annotations

from collections.abc import Sequence

from xds import codec
from xds.protocol.events import DeltaRequest, Item, Response, SotwRequest
from xds.protocol.responses import ResponseCache
from xds.protocol.stream import Stream
from xds.protocol.subscription import WILDCARD, Subscription
from xds.snapshot import Resource, ResourceSet, Snapshot, combined_version, versions_of
from xds.types import FULL_STATE, RUNTIME


class SotwStream(Stream):
    """One stream of AggregatedDiscoveryService.StreamAggregatedResources, or of a single type."""

    sotw = True

    def __init__(self, nonce_prefix: str, cache: ResponseCache, type_url: str = "") -> None:
        super().__init__(nonce_prefix, cache, type_url)
        self._claims: dict[str, str] = {}
        self._last_names: dict[str, tuple[str, ...]] = {}
        self._retained: dict[str, dict[str, Resource]] = {url: {} for url in FULL_STATE}

    def publish(self, snapshot: Snapshot | None) -> None:
        """Clusters and listeners that vanished are remembered: absence deletes, and deletion comes last."""
        for url, kept in self._retained.items():
            sub = self.subscriptions.get(url)
            before = self.snapshot.get(url) if self.snapshot else None
            after = snapshot.get(url) if snapshot else None
            if sub is not None and before is not None and before is not after:
                kept.update(_vanished(sub, before, after))
        super().publish(snapshot)

    def _take(self, sub: Subscription, request: SotwRequest | DeltaRequest, now: float) -> None:
        """Requests with a stale nonce are ignored; an older stream's nonce on a new stream says nothing.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-updates
        """
        if not isinstance(request, SotwRequest):
            raise TypeError("a state-of-the-world stream takes SotwRequest")
        if sub.nonce and request.nonce != sub.nonce:
            return
        if sub.nonce:
            self._answered(sub, request.nonce, request.error, now)
        elif request.version:
            self._claims[sub.type_url] = request.version
        self._rename(sub, request.names)

    def _rename(self, sub: Subscription, names: tuple[str, ...]) -> None:
        """The request's names replace the earlier ones; only what is new is owed an answer."""
        if names == self._last_names.get(sub.type_url):
            return
        self._last_names[sub.type_url] = names
        before = sub.names | ({WILDCARD} if sub.wildcard else set())
        if not names and not sub.named:
            sub.start_implicit_wildcard()
            return
        added, dropped = set(names) - before, before - set(names)
        if sub.type_url == RUNTIME:
            self.layers.subscribe(name for name in names if name in added)
            self.layers.unsubscribe(dropped)
        sub.subscribe(added)
        sub.named = True
        sub.unsubscribe(dropped)
        if sub.type_url == RUNTIME:
            sub.forced.clear()

    def _addition(self, sub: Subscription, current: ResourceSet, due: list[Resource], now: float) -> Response | None:
        if self._believes_claim(sub, current, now):
            return None
        sub.forced.intersection_update(current.resources)
        if not due and not sub.unanswered:
            return None
        if sub.type_url in FULL_STATE:
            return self._full_state(sub, current, now)
        body = self.cache.sotw(current, current.version, due)
        return self._send(sub, current, body, sent=versions_of(due), now=now)

    def _removal(self, sub: Subscription, current: ResourceSet, gone: list[str], now: float) -> Response | None:
        """Absence deletes clusters and listeners; of other types it means nothing.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#deleting-resources
        """
        if sub.type_url not in FULL_STATE:
            for name in gone:
                sub.held.pop(name)
                sub.confirmed.discard(name)
            return None
        self._retained[sub.type_url].clear()
        return self._full_state(sub, current, now)

    def _full_state(self, sub: Subscription, current: ResourceSet, now: float) -> Response:
        """Everything that the client wants, and what it still has until it may be removed."""
        kept = self._kept(sub, current)
        if sub.wildcard and not kept:
            content: Sequence[Resource] = list(current.resources.values())
            version, sent = current.version, current.versions
        else:
            content = [*(one for name, one in current.resources.items() if sub.wants(name)), *kept]
            version, sent = (self._unfinished(content) if kept else current.version), versions_of(content)
        body = self.cache.sotw(current, version, content)
        gone = sorted(sub.held.keys() - sent.keys())
        return self._send(sub, current, body, sent=sent, removed=gone, now=now)

    def _unfinished(self, content: Sequence[Resource]) -> str:
        """A version of its own: who reconnects with it has not seen the removals."""
        return combined_version(versions_of(content).items())

    def _kept(self, sub: Subscription, current: ResourceSet) -> list[Resource]:
        gone = sub.removals(current)
        retained = self._retained[sub.type_url]
        return [retained[name] for name in gone if name in retained]

    def _believes_claim(self, sub: Subscription, current: ResourceSet, now: float) -> bool:
        """A reconnecting client names the version that it has. Only for a pure wildcard does an equal version prove
        that it has the same resources.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ack-nack-and-resource-type-instance-version
        """
        claim = self._claims.pop(sub.type_url, "")
        if claim != current.version or not sub.wildcard or sub.names or sub.nonce:
            return False
        sub.adopt({name: one.version for name, one in current.resources.items()})
        sub.acked_version, sub.changed_at = current.version, now
        return True

    def _encode_layer(self, version: str, item: Item) -> bytes:
        return codec.sotw_response(RUNTIME, version, [item])


def _vanished(sub: Subscription, before: ResourceSet, after: ResourceSet | None) -> dict[str, Resource]:
    """Resources that the client has exactly as they were and that are no more."""
    remaining = after.resources.keys() if after else before.resources.keys()
    gone = before.resources.keys() - remaining
    return {name: before.resources[name] for name in gone if sub.held.get(name) == before.resources[name].version}
