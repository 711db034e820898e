"""The state-of-the-world variant: every request repeats all names, and clusters and listeners come all together.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#four-variants
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from xds import codec
from xds.errors import RemoteError
from xds.protocol import ordering
from xds.protocol.events import DeltaRequest, Item, Response, SotwRequest, names_of
from xds.protocol.quarantine import culprits
from xds.protocol.responses import ResponseCache
from xds.protocol.stream import Stream
from xds.protocol.subscription import WILDCARD, Subscription
from xds.snapshot import Difference, Resource, ResourceSet, combined_version, versions_of
from xds.types import FULL_STATE, RUNTIME, VIRTUAL_HOST


class SotwStream(Stream):
    """One stream of AggregatedDiscoveryService.StreamAggregatedResources, or of a single type."""

    sotw = True

    def __init__(self, nonce_prefix: str, cache: ResponseCache, type_url: str = "") -> None:
        super().__init__(nonce_prefix, cache, type_url)
        self._claims: dict[str, str] = {}
        self._returning: set[str] = set()
        self._last_names: dict[str, tuple[str, ...]] = {}
        self._offered: dict[str, Mapping[str, Resource]] = {}
        self._accepted: dict[str, Mapping[str, Resource]] = {}
        self._unblamed: dict[str, Mapping[str, Resource]] = {}

    def _merely_accepts(self, sub: Subscription, request: SotwRequest | DeltaRequest) -> bool:
        known = isinstance(request, SotwRequest) and request.names == self._last_names.get(sub.type_url)
        return known and request.error is None

    def _take(self, sub: Subscription, request: SotwRequest | DeltaRequest, now: float) -> None:
        """Requests with a stale nonce are ignored; an older stream's nonce on a new stream says nothing.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-updates
        """
        if not isinstance(request, SotwRequest):
            raise TypeError("a state-of-the-world stream takes SotwRequest")
        if sub.type_url == VIRTUAL_HOST:
            raise RemoteError("virtual hosts exist in the incremental variant only; ask by DELTA_GRPC")
        if sub.nonce and request.nonce != sub.nonce:
            return
        if sub.nonce:
            if sub.flight is not None and request.error is None and sub.type_url in FULL_STATE:
                self._took(sub, self._offered[sub.type_url])
            self._answered(sub, request.nonce, request.error, now)
        elif request.version:
            self._claims[sub.type_url] = request.version
            self._returning.add(sub.type_url)
            sub.brought = frozenset(request.names or (WILDCARD,))
        self._rename(sub, request.names)

    def _took(self, sub: Subscription, content: Mapping[str, Resource]) -> None:
        """The client accepted a full state, and with it what was in there instead of what it had rejected."""
        self._accepted[sub.type_url] = content
        self._unblamed.pop(sub.type_url, None)
        sub.brought = frozenset()
        if rejections := sub.quarantine.of(sub.type_url):
            for name in rejections.keys() & content.keys():
                sub.held[name] = content[name].version

    def _rename(self, sub: Subscription, names: tuple[str, ...]) -> None:
        """The request's names replace the earlier ones; only what is new is owed an answer."""
        if names == self._last_names.get(sub.type_url):
            return
        self._last_names[sub.type_url] = names
        if not names and not sub.named:
            sub.start_implicit_wildcard()
            return
        asked, before = names_of(names).distinct, sub.names | ({WILDCARD} if sub.wildcard else frozenset())
        added, dropped = (asked - before, before - asked) if before else (asked, frozenset[str]())
        if sub.type_url in self.leased:
            self.leased[sub.type_url].subscribe(name for name in names if name in added)
            self.leased[sub.type_url].unsubscribe(dropped)
        sub.subscribe(added)
        sub.named = True
        sub.unsubscribe(dropped)
        if sub.type_url == RUNTIME:
            sub.forced.clear()

    def _addition(self, sub: Subscription, current: ResourceSet, due: list[Resource], now: float) -> Response | None:
        if self._believes_claim(sub, current, now):
            return None
        if sub.forced and not sub.forced <= current.resources.keys():
            sub.forced.intersection_update(current.resources)
        if not due and not sub.unanswered and not self._may_have_more(sub):
            return None
        if sub.type_url in FULL_STATE:
            return self._full_state(sub, current, due, now, kept=self._kept(sub, current, ()))
        body = self.cache.sotw(current, current.version, due)
        return self._send(sub, current, body, sent=versions_of(due), now=now)

    def _usual(
        self, sub: Subscription, current: ResourceSet, step: Difference, nonce: bytes
    ) -> tuple[bytes, tuple[str, ...]]:
        if sub.type_url in FULL_STATE:
            self._offered[sub.type_url] = current.resources
            return self.cache.whole(current, nonce), current.names
        return self.cache.sotw(current, current.version, step.resources) + nonce, step.resources.names

    def _removal(self, sub: Subscription, current: ResourceSet, gone: list[str], now: float) -> Response | None:
        """Absence deletes clusters and listeners; of other types it means nothing.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#deleting-resources
        """
        if sub.type_url not in FULL_STATE:
            sub.lost(gone)
            return None
        return self._full_state(sub, current, [], now, kept=self._kept(sub, current, gone))

    def _full_state(
        self, sub: Subscription, current: ResourceSet, due: list[Resource], now: float, kept: Mapping[str, Resource]
    ) -> Response | None:
        """Everything that the client wants (of which it has all but ``due``), and what it keeps until it may be removed
        or replaced. None where leaving something out might take it from a client that has it."""
        content: Mapping[str, Resource] = current.resources
        withheld = self._withheld(sub, current)
        if self._may_take(sub, current, withheld):
            return None
        if not sub.wildcard or kept or withheld:
            wanted = {name: withheld.get(name, one) for name, one in content.items() if sub.wants(name)}
            content = {name: one for name, one in wanted.items() if one is not None} | dict(kept)
        whole = content is current.resources
        # Who reconnects with the version of a part, or of an unfinished change, must not seem to have everything.
        version = current.version if whole else combined_version(versions_of(content.values()).items())
        body = None if whole else self.cache.sotw(current, version, list(content.values()))
        self._offered[sub.type_url] = content
        gone = sorted(sub.held.gone(current) - kept.keys())
        names = current.names if whole else tuple(content)
        return self._send(sub, current, body, sent=versions_of(due), removed=gone, names=names, now=now)

    def _kept(self, sub: Subscription, current: ResourceSet, gone: Collection[str]) -> dict[str, Resource]:
        """What is gone but may be in use, as the client has accepted it: absence deletes, so it comes last. Of what
        came in a response that was rejected for something else in it, the client may have what it was offered."""
        removals = sub.removals(current)
        if not removals:
            return {}
        accepted, unblamed = self._accepted.get(sub.type_url, {}), self._unblamed.get(sub.type_url, {})
        known = {name: accepted.get(name) or unblamed.get(name) for name in removals if name not in gone}
        return {name: one for name, one in known.items() if one is not None}

    def _withheld(self, sub: Subscription, current: ResourceSet) -> dict[str, Resource | None]:
        """What the client must not have yet, or not at all, and what it keeps instead: the last version that it
        accepted, or nothing."""
        names_clusters, rejections = sub.type_url in ordering.NAMES_CLUSTERS, sub.quarantine.in_force(current)
        if not (sub.rejected or rejections or names_clusters):
            return {}
        accepted = self._accepted.get(sub.type_url, {})
        instead = {name: accepted.get(name) for name in sub.rejected if not sub.may_try(name, current)}
        instead |= {name: one.good or accepted.get(name) for name, one in rejections.items()}
        if names_clusters:
            due = sub.additions(current)
            waiting = {one.name for one in due}.difference(one.name for one in self._unhindered(sub, due))
            instead.update((name, accepted.get(name)) for name in waiting)
        return instead

    def _may_take(self, sub: Subscription, current: ResourceSet, withheld: Mapping[str, Resource | None]) -> bool:
        """Whether leaving out what is withheld may take it from the client: from an earlier stream it may have
        anything, from this one what a rejected response may have left there. What it rejected when it had nothing of
        that name, it has not got from anywhere."""
        if not withheld:
            return False
        knows, rejections = self._knows(sub), sub.quarantine.in_force(current)
        nothing = {name for name, one in rejections.items() if not one.kept}
        left_out = (name for name, one in withheld.items() if one is None and name not in nothing)
        return any(not knows or name in sub.held for name in left_out)

    def _may_have_more(self, sub: Subscription) -> bool:
        """Whether the client returned with an older full state and was told nothing yet: what it asks for by name may
        be gone.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#deleting-resources
        """
        return sub.type_url in FULL_STATE and sub.type_url in self._returning and not sub.nonce

    def _knows(self, sub: Subscription) -> bool:
        """Whether it is known what the client has: it came with nothing, or has accepted something here."""
        return sub.type_url in self._accepted or sub.type_url not in self._returning

    def _nacked(
        self,
        sub: Subscription,
        error: str,
        now: float,
        *,
        tell_apart: bool = True,
        accepted: Mapping[str, Resource] | None = None,
    ) -> None:
        """What cannot be replaced must not be left out of a full state, if the client may have it."""
        if sub.type_url in FULL_STATE:
            tell_apart, accepted = tell_apart and self._knows(sub), self._accepted.get(sub.type_url, {})
            self._acquit_others(sub, error)
        super()._nacked(sub, error, now, tell_apart=tell_apart, accepted=accepted)

    def _acquit_others(self, sub: Subscription, error: str) -> None:
        """Remember what came in a rejected response without being blamed: the client may have it, and use it. Words
        that blame nothing in particular acquit nothing."""
        sent, offered = sub.flight.sent if sub.flight is not None else {}, self._offered[sub.type_url]
        blamed = culprits(sub.type_url, error, sent.keys())
        before = self._unblamed.get(sub.type_url, {})
        found = offered if blamed else {n: one for n, one in before.items() if sent.get(n, one.version) == one.version}
        self._unblamed[sub.type_url] = {name: one for name, one in found.items() if name not in blamed}

    def _believes_claim(self, sub: Subscription, current: ResourceSet, now: float) -> bool:
        """A reconnecting client names the version that it has. Only for a pure wildcard does an equal version prove
        that it has the same resources.

        https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ack-nack-and-resource-type-instance-version
        """
        claim = self._claims.pop(sub.type_url, "")
        if claim != current.version or not sub.wildcard or sub.names or sub.nonce:
            return False
        sub.adopt_all(current)
        self._accepted[sub.type_url] = current.resources
        sub.acked_version, sub.changed_at = current.version, now
        return True

    def _encode_lease(self, version: str, item: Item) -> bytes:
        return codec.sotw_response(item.type_url, version, [item])
