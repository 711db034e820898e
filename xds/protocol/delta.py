"""The incremental variant: requests say what changes in the subscription, responses what changes in the resources.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
"""

from __future__ import annotations

from xds import codec
from xds.protocol import virtual_hosts
from xds.protocol.events import DeltaRequest, Item, Response, SotwRequest
from xds.protocol.holdings import Holdings
from xds.protocol.responses import ResponseCache
from xds.protocol.stream import Stream
from xds.protocol.subscription import Subscription
from xds.protocol.virtual_hosts import OnDemand
from xds.snapshot import Difference, Resource, ResourceSet, versions_of
from xds.types import CLUSTER, ENDPOINT, RUNTIME


class DeltaStream(Stream):
    """One stream of AggregatedDiscoveryService.DeltaAggregatedResources, or of a single type."""

    def __init__(self, nonce_prefix: str, cache: ResponseCache, type_url: str = "") -> None:
        super().__init__(nonce_prefix, cache, type_url)
        self._started: set[str] = set()

    def _merely_accepts(self, sub: Subscription, request: SotwRequest | DeltaRequest) -> bool:
        changes = isinstance(request, DeltaRequest) and (request.subscribe or request.unsubscribe)
        return not changes and request.error is None and sub.type_url in self._started

    def _take(self, sub: Subscription, request: SotwRequest | DeltaRequest, now: float) -> None:
        """A stale nonce answers nothing, but the changes that come with it count.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
        """
        if not isinstance(request, DeltaRequest):
            raise TypeError("a delta stream takes DeltaRequest")
        first = sub.type_url not in self._started
        self._started.add(sub.type_url)
        if sub.type_url != RUNTIME and (first or request.subscribe):
            # Before the answer: who rejects something and asks for it at once is not asked again.
            self._subscribe(sub, request, first=first)
        if request.nonce:
            self._answered(sub, request.nonce, request.error, now)
        if sub.type_url in self.leased:
            self._take_leased(sub, self.leased[sub.type_url], request)
        if sub.type_url == RUNTIME:
            return
        if first:
            self._reconnected(sub, request)
        if request.unsubscribe:
            self._unsubscribe(sub, request.unsubscribe)

    def _subscribe(self, sub: Subscription, request: DeltaRequest, *, first: bool) -> None:
        if not request.subscribe and not request.unsubscribe and first:
            sub.start_implicit_wildcard()
        sub.subscribe(request.subscribe)

    def _take_leased(self, sub: Subscription, leased: Holdings, request: DeltaRequest) -> None:
        """A live lease is sent anew after a reconnect, whatever the client says it has."""
        leased.subscribe(request.subscribe, known=request.initial_versions)
        leased.unsubscribe(request.unsubscribe)
        if sub.type_url == RUNTIME:
            sub.names = set(leased.by_name)

    def _reconnected(self, sub: Subscription, request: DeltaRequest) -> None:
        """The client says what it has from an earlier stream. Endpoints of clusters that changed meanwhile are owed
        even so: their clusters are warming again."""
        sub.adopt(request.initial_versions)
        if sub.type_url == ENDPOINT:
            sub.force(sub.names if self._is_warming() else sub.names & self._changed_assignments)

    def _is_warming(self) -> bool:
        """Whether the client waits for endpoints that its earlier stream owed it: Envoy says nothing about clusters,
        not even that it wants them, before the last changed one has its endpoints
        (ClusterManagerImpl::updateClusterCounts). Unanswered it would wait for 15 s.

        https://github.com/envoyproxy/envoy/blob/main/source/common/upstream/cluster_manager_impl.cc
        """
        warms = self.node is not None and self.node.warms_clusters
        return warms and not self._type_url and CLUSTER not in self.subscriptions

    def _unsubscribe(self, sub: Subscription, names: tuple[str, ...]) -> None:
        """Nothing needs to be said, except about a name that the wildcard still covers: the client cannot know.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#unsubscribing-from-resources
        """
        sub.unsubscribe(names)
        if sub.wildcard:
            sub.force(names)

    def _addition(self, sub: Subscription, current: ResourceSet, due: list[Resource], now: float) -> Response | None:
        """What changed, and by name what was asked for and does not exist.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#knowing-when-a-requested-resource-does-not-exist
        """
        missing = sub.missing(current)
        if not due and not missing and not sub.unanswered:
            return None
        if isinstance(sub, OnDemand):
            body = virtual_hosts.response(sub, current, due, missing)
        else:
            body = self.cache.delta(current, due, missing)
        return self._send(sub, current, body, sent=versions_of(due), removed=missing, now=now)

    def _usual(
        self, sub: Subscription, current: ResourceSet, step: Difference, nonce: bytes
    ) -> tuple[bytes, tuple[str, ...]]:
        return self.cache.delta(current, step.resources, ()) + nonce, step.resources.names

    def _removal(self, sub: Subscription, current: ResourceSet, gone: list[str], now: float) -> Response | None:
        return self._send(sub, current, self.cache.delta(current, (), gone), sent={}, removed=gone, now=now)

    def _encode_lease(self, version: str, item: Item) -> bytes:
        return codec.delta_response(item.type_url, version, [item])
