"""What must hold of every response on a stream, whatever happened before: the rules, seen from outside.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol. Each check compares a response with what the client
has at that moment, and with what it said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from tests.support.xds_clients import STAR, Answer, Client, Received, SotwClient
from tests.support.xds_world import TYPES, Thing
from xds.types import CLUSTER, ENDPOINT, FULL_STATE, LISTENER, ROUTE, RUNTIME

Things = Mapping[str, Mapping[str, Thing]]

#: What may be sent although the client has it: it asked again, it refused it, it may have dropped it, or it is warming.
Excuses = dict[str, set[str]]


class Judge:
    """Follows one client over its streams. ``content`` is what is published, None while nothing is."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.content: Things | None = None
        self.excuses: Excuses = defaultdict(set)
        self.refused: dict[str, dict[str, str]] = defaultdict(dict)
        self.untold: set[str] = set()
        self.doubted: dict[str, frozenset[tuple[str, str]]] = {}
        self.crossed: dict[str, set[str]] = defaultdict(set)
        self.versions: dict[tuple[str, str], frozenset[tuple[str, str]]] = {}
        self.nonces: set[str] = set()
        self.told_of: set[str] = set()
        self.returning: set[str] = set()
        self.murky: dict[str, set[str]] = defaultdict(set)
        self.unheard: dict[str, set[str]] = defaultdict(set)
        self.offered: dict[str, Mapping[str, Thing]] = {}
        self.leases: dict[str, tuple[str, float]] = {}
        self.sent = 0

    @property
    def sotw(self) -> bool:
        return isinstance(self.client, SotwClient)

    # What happened

    def connected(self, *, forgetful: bool) -> None:
        """A new stream, perhaps of a server that remembers nothing."""
        self.excuses.clear()
        self.told_of.clear()
        self.returning.clear()
        self.murky.clear()
        self.unheard.clear()
        self.leases.clear()
        for type_url in list(self.refused):
            if forgetful or type_url in self.untold:
                del self.refused[type_url]
        self.untold.clear()
        self.doubted.clear()

    def opened(self, type_url: str) -> None:
        """The client's first request of a type. What it says that it has must not be sent again, where that is sure."""
        told = self.client.told[type_url]
        cache = self.client.cache.get(type_url, {})
        if self.sotw:
            claim = self.client.accepted.get(type_url, "")
            if claim:
                self.returning.add(type_url)
            else:  # who accepted nothing seems to have nothing, whatever it applied of what it rejected
                self.unheard[type_url] = set(cache)
            pure = told.star and not told.names
            if not (pure and self.versions.get((type_url, claim)) == _content(cache.values())):
                self.excuses[type_url] |= told.names | {STAR}
        else:
            self.excuses[type_url] |= told.names - cache.keys()
        silent = type_url == ENDPOINT and CLUSTER not in self.client.told
        if type_url == RUNTIME or silent:  # who says nothing about clusters may be warming some
            self.excuses[type_url] |= told.names
        for name in told.names:
            self.refused[type_url].pop(name, None)

    def asked(self, type_url: str, add: Collection[str], drop: Collection[str]) -> None:
        """Names were added or dropped: what is asked for is answered, and what is dropped under a wildcard."""
        told = self.client.told.get(type_url)
        if told is None:
            return
        self.excuses[type_url] |= set(add)
        if STAR in add:
            self.excuses[type_url] |= (self.content or {}).get(type_url, {}).keys()
        forgotten = [name for name in self.refused[type_url] if not told.wants(name)]
        for name in (*add, *forgotten):  # who drops it and wants it again has it sent again
            self.refused[type_url].pop(name, None)
        if told.star and not self.sotw:
            self.excuses[type_url] |= set(drop)

    def published(self, content: Things) -> None:
        """A resource that is gone for a moment may have been dropped. What changed may be tried again."""
        before = self.content or {}
        self.content = content
        for type_url in TYPES:
            new, old = content[type_url], before.get(type_url, {})
            told = self.client.told.get(type_url)
            if self.sotw and told is not None and type_url not in FULL_STATE:
                self.excuses[type_url] |= told.names - new.keys()
            for name, version in list(self.refused[type_url].items()):
                if (name not in new or new[name].version != version) or (type_url in self.untold and new != old):
                    del self.refused[type_url][name]
            if new != old:
                self.untold.discard(type_url)
                if self.doubted.get(type_url) == _content(new.values()):  # as it was: the server need not have looked
                    self.untold.add(type_url)

    def may_cross(self, type_url: str, names: Collection[str]) -> None:
        """The client named these in a request that may cross with a response: the server hears of them in the next."""
        self.crossed[type_url].update(names)

    def answered(self, answer: Answer) -> None:
        """The client has answered."""
        got, type_url = answer.got, answer.got.type_url
        crossed = self.crossed.pop(type_url, set())
        if answer.error is None:
            self.doubted.pop(type_url, None)
            if type_url in FULL_STATE:
                self.returning.discard(type_url)
                self.murky[type_url].clear()
                self.unheard[type_url].clear()
            if type_url == LISTENER and answer.removed:
                self.excuses[type_url] |= self.refused[type_url].keys()
                self.refused[type_url].clear()
            return
        self.excuses[type_url] |= {part.name for part in got.parts} | set(got.removed) | {STAR}
        if type_url == RUNTIME:
            return
        sure = answer.telling and not (self.sotw and self._in_doubt(got))
        self.murky[type_url] |= {part.name for part in got.parts}
        if not sure and (self.content or {}).get(type_url) != self.offered.get(type_url):
            return  # what was refused is not what is published any more
        if not sure:
            self.untold.add(type_url)
            self.doubted[type_url] = _content((self.content or {}).get(type_url, {}).values())
        for one in got.things:
            current = (self.content or {}).get(type_url, {}).get(one.name)
            # Asked for with the very rejection, or before with a nonce that the server had to ignore.
            again = self.sotw and (one.name in answer.add or one.name in crossed)
            again = again or not self.client.told[type_url].wants(one.name)  # dropped before: nobody is bound by it
            if one.bad and not again and current is not None and current.version == one.version:
                self.refused[type_url][one.name] = one.version

    def _in_doubt(self, got: Received) -> bool:
        """What is bad cannot be left out of a full state where nobody knows what the client has instead: something
        from an earlier stream, or from a response that it rejected and may have applied in part."""
        left = self.murky[got.type_url] if got.type_url in FULL_STATE else set()
        return got.type_url in self.returning or any(one.bad and one.name in left for one in got.things)

    # What is sent

    def check(self, got: Received) -> None:
        """Every rule about a single response."""
        self.sent += 1
        names = [part.name for part in got.parts]
        assert got.nonce, "a response has a nonce"
        assert got.nonce not in self.nonces, "no nonce twice"
        self.nonces.add(got.nonce)
        assert got.type_url in self.client.told, "nobody asked for this type"
        assert len(set(names)) == len(names), f"a name twice: {names}"
        assert not set(names) & set(got.removed), "sent and removed at once"
        self._one_at_a_time(got)
        if got.type_url == RUNTIME:
            self._layers(got)
        else:
            assert self.content is not None, "not loaded is silence"
            self._asked_for(got)
            self._not_refused(got)
            self._not_twice(got)
            self._in_order(got)
            self._make_before_break(got)
        self._used(got)

    def _one_at_a_time(self, got: Received) -> None:
        same = self._on_their_way(got.type_url)
        if got.type_url == RUNTIME and not self.sotw:
            same = [one for one in same if {p.name for p in one.parts} & {p.name for p in got.parts}]
        assert not same, "one response of a type is on its way at a time"

    def _asked_for(self, got: Received) -> None:
        told = self.client.told[got.type_url]
        strange = [part.name for part in got.parts if not told.wants(part.name)]
        assert not strange, f"nobody asked for {strange}"
        assert all(part.version == one.version for part, one in zip(got.parts, got.things, strict=True))
        assert all(part.name == one.name for part, one in zip(got.parts, got.things, strict=True))
        if self.sotw and got.type_url in FULL_STATE:
            content = self.versions.setdefault((got.type_url, got.version), _content(got.things))
            assert content == _content(got.things), "one version, two contents"

    def _not_refused(self, got: Received) -> None:
        again = [one.name for one in got.things if self.refused[got.type_url].get(one.name) == one.version]
        assert not again, f"sent again after a rejection: {again}"

    def _not_twice(self, got: Received) -> None:
        has, excuses = self.client.cache[got.type_url], self.excuses[got.type_url]
        if self.sotw and got.type_url in FULL_STATE:
            same = _content(has.values()) == _content(got.things)
            assert not same or excuses or got.type_url not in self.told_of, "nothing is new in the response"
            return
        twice = [one.name for one in got.things if has.get(one.name) == one and one.name not in excuses]
        assert not twice, f"sent again although the client has them: {twice}"
        strange = [name for name in got.removed if name not in has and name not in excuses]
        assert not strange, f"removed although the client does not have them: {strange}"
        first = got.type_url not in self.told_of and self.client.told[got.type_url].star
        assert got.parts or got.removed or first, "an empty response"

    def _in_order(self, got: Received) -> None:
        """Clusters go first, unless something about them is in doubt."""
        told, doubtful = self.client.told.get(CLUSTER), CLUSTER in (*self.untold, *self.returning)
        if got.type_url == CLUSTER or not got.parts or told is None or doubtful or self._on_their_way(CLUSTER):
            return
        wanted = [one for one in (self.content or {}).get(CLUSTER, {}).values() if told.wants(one.name)]
        missing = [one.name for one in wanted if self.client.cache[CLUSTER].get(one.name) != one]
        assert not missing or any(one.bad for one in wanted), f"{got.type_url} before clusters {missing}"

    def _on_their_way(self, type_url: str) -> list[Received]:
        """Responses that the client has not answered."""
        sent = (*self.client.inbox, *(one.got for one in self.client.answers))
        return [one for one in sent if one.type_url == type_url]

    def _make_before_break(self, got: Received) -> None:
        """https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations"""
        if got.type_url in (LISTENER, ROUTE):
            for one in got.things:
                self._leads_somewhere(got.type_url, one)
        gone, full = self.taken_away(got), self.sotw and got.type_url in FULL_STATE
        has = self.client.cache[got.type_url].keys()
        left_out = has - {part.name for part in got.parts} if full else has & set(got.removed)
        exists = (self.content or {}).get(got.type_url, {})
        asked = filter(self.client.told[got.type_url].wants, left_out - self.unheard[got.type_url])
        lost = [name for name in asked if name in exists]
        assert not lost, f"taken away although they exist: {lost}"
        if got.type_url == CLUSTER:
            users = (*self._in_use(LISTENER), *self._in_use(ROUTE))
            assert not gone & {name for one in users for name in one.clusters}, f"still in use: {gone}"
        elif got.type_url == ROUTE:
            assert not gone & {one.route for one in self._in_use(LISTENER)}, f"still in use: {gone}"
        elif got.type_url == ENDPOINT:
            assert not gone & {one.service for one in self._in_use(CLUSTER)}, f"still in use: {gone}"

    def _leads_somewhere(self, type_url: str, one: Thing) -> None:
        told, has = self.client.told.get(CLUSTER), self.client.cache[CLUSTER]
        if told is None or self.content is None or self.client.cache[type_url].get(one.name) == one:
            return
        missing = [name for name in one.clusters - self.client.lost if told.wants(name) and name not in has]
        known = [self.content[CLUSTER][name] for name in missing if name in self.content[CLUSTER]]
        hopeless = CLUSTER in self.untold or all(cluster.bad for cluster in known)
        fresh = one.name not in self.client.cache[type_url]
        assert not known or (fresh and hopeless), f"{one.name} leads to nowhere: {missing}"

    def taken_away(self, got: Received) -> set[str]:
        """What the client has and will lose by this response."""
        has = self.client.cache[got.type_url].keys()
        if not self.sotw:
            return has & set(got.removed)
        if got.type_url not in FULL_STATE or got.type_url in self.returning:
            return set()
        return has - {part.name for part in got.parts}

    def _in_use(self, type_url: str) -> list[Thing]:
        """What the client has and the server knows of. Who comes with something from an earlier stream has not
        been told yet what it is now; and in the state of the world nobody can be told that a route is gone."""
        told = self.client.told.get(type_url)
        if told is None or (self.sotw and type_url not in self.told_of):
            return []
        exists = (self.content or {}).get(type_url, {})
        used = [one for one in self.client.cache[type_url].values() if told.wants(one.name)]
        return used if not self.sotw or type_url in FULL_STATE else [one for one in used if one.name in exists]

    def _used(self, got: Received) -> None:
        """An excuse serves once."""
        self.told_of.add(got.type_url)
        self.offered[got.type_url] = (self.content or {}).get(got.type_url, {})
        excuses = self.excuses[got.type_url]
        if got.type_url == CLUSTER and self.client.node.user_agent_name == "envoy":
            has, unsure = self.client.cache[CLUSTER], STAR in excuses or CLUSTER in self.returning
            changed = {one for one in got.things if unsure or one != has.get(one.name) or one.name in excuses}
            self.excuses[ENDPOINT] |= {one.service for one in changed if one.service}
        if self.sotw and got.type_url in FULL_STATE:
            excuses.clear()
        excuses -= {part.name for part in got.parts} | set(got.removed)

    # Leases

    def _layers(self, got: Received) -> None:
        """https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#ttl"""
        for part in got.parts:
            assert part.ttl is None or part.ttl > 0
            version, ends = self.leases.get(part.name, ("", 0.0))
            surely = self.client.layer(part.name) is not None and version == part.version
            late = self.client.now >= ends - 2.0
            if part.body is None:
                assert version == part.version, "a heartbeat is of what was sent"
                assert not self.sotw, "a heartbeat in the state of the world has a body"
            elif not self.sotw and part.name not in self.excuses[RUNTIME]:
                assert not surely or late, "a body where a heartbeat is enough"
            self.leases[part.name] = part.version, self.client.now + (part.ttl if part.ttl is not None else 1e9)


def _content(things: Collection[Thing]) -> frozenset[tuple[str, str]]:
    return frozenset((one.name, one.version) for one in things)
