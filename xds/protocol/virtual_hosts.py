"""Virtual hosts on demand (VHDS): a client asks for a host when the first request for it comes.

Names are ``<route configuration>/<host>``. The host is looked up among the domains of the virtual hosts of that route
configuration, as Envoy would; the answer carries the virtual host under its own name and what it was asked by as an
alias. A host that does not exist is answered by its name and alias without a body: measured on Envoy 1.40, the request
that waits for it hangs if the name is told as removed instead. A client that asks for no host in particular
gets none; but to each route configuration that leaves its virtual hosts out something must be said once, because
its listener does not start before (15 s later, if nobody does). ``<route configuration>/*`` as removed is the least.

https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/vhds
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from xds import codec
from xds.protocol.events import Item
from xds.protocol.subscription import WILDCARD, Flight, Subscription
from xds.snapshot import Resource, ResourceSet
from xds.types import VIRTUAL_HOST

ALL_HOSTS = "/*"

#: Characters of a domain name (RFC 1035) and a port; whatever is longer matches no wildcard but ``*``.
_LONGEST_HOST = 253 + len(":65535")


def lookup(hosts: ResourceSet, asked: str) -> str | None:
    """The name of the virtual host that answers ``asked``: of that name, or with the host as its domain, or with the
    longest wildcard that fits.

    https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/route/v3/route_components.proto#envoy-v3-api-field-config-route-v3-virtualhost-domains
    """
    if asked in hosts.resources:
        return asked
    home, _, host = asked.rpartition("/")
    domains = hosts.domains.get(home, {})
    return next((domains[one] for one in _candidates(host.lower()) if one in domains), None)


def _candidates(host: str) -> Iterator[str]:
    """Exact, then ``*suffix`` and ``prefix*`` from the longest, then everything. A wildcard stands for something."""
    yield host
    if len(host) <= _LONGEST_HOST:
        yield from ("*" + host[start:] for start in range(1, len(host)))
        yield from (host[:end] + "*" for end in range(len(host) - 1, 0, -1))
    yield "*"


def response(sub: OnDemand, current: ResourceSet, due: Iterable[Resource], missing: Iterable[str]) -> bytes:
    """A delta response without its nonce: virtual hosts and what they were asked by, and what does not exist."""
    items = [Item(VIRTUAL_HOST, one.name, one.version, one.body, aliases=sub.aliases(one.name)) for one in due]
    unknown = [name for name in missing if not name.endswith(ALL_HOSTS)]
    items += [Item(VIRTUAL_HOST, name, "", None, aliases=(name,)) for name in unknown]
    removed = [name for name in missing if name.endswith(ALL_HOSTS)]
    return codec.delta_response(VIRTUAL_HOST, current.version, items, removed)


@dataclass(slots=True)
class OnDemand(Subscription):
    """``names`` are what the client asked by, ``held`` virtual hosts; ``_asked`` leads from the second to the first.

    Whoever returns with a virtual host in its present version (``_returning``) is not told again what it asked.
    ``greeted``: the first answer, which is about route configurations, is owed no more.
    """

    greeted: bool = False
    _asked: dict[str, set[str]] = field(default_factory=dict)
    _asked_of: ResourceSet | None = None
    _returning: set[str] = field(default_factory=set)

    def aliases(self, name: str) -> tuple[str, ...]:
        """What the client asked this virtual host by, other than its name."""
        return tuple(sorted(self._asked.get(name, set()) - {name}))

    # What the client wants

    def wants(self, name: str) -> bool:
        return name in self.names or name in self._asked

    def subscribe(self, names: Iterable[str]) -> None:
        Subscription.subscribe(self, [name for name in names if name != WILDCARD])
        self._asked_of = None

    def unsubscribe(self, names: Collection[str]) -> None:
        self.names.difference_update(names)
        self.forced.difference_update(names)
        for name, asked in list(self._asked.items()):
            asked.difference_update(names)
            if not asked:
                del self._asked[name]
                self.forget(name)

    def adopt(self, versions: Mapping[str, str]) -> None:
        """A client remembers unknown hosts, too, without a version."""
        for name, version in versions.items():
            if version:
                self.held[name] = version
        self._returning = set(self.forced)
        self._settled = self._nothing_gone = None

    # What is due

    def at_rest(self, current: ResourceSet) -> bool:
        """What was asked for is looked up each time."""
        return False

    def additions(self, current: ResourceSet) -> list[Resource]:
        self._pardon(current)
        self._look_up(current)
        due = [current.resources[name] for name in sorted(self._asked)]
        return [one for one in due if self._owes(one)]

    def missing(self, current: ResourceSet) -> list[str]:
        self._look_up(current)
        found = set().union(*self._asked.values()) if self._asked else set()
        return sorted(self.forced - found)

    def _owes(self, one: Resource) -> bool:
        if self.rejected.get(one.name) == one.version or self.rejection(one) is not None:
            return False
        return self.held.get(one.name) != one.version or not self.forced.isdisjoint(self._asked[one.name])

    def _look_up(self, current: ResourceSet) -> None:
        if self._asked_of is current:
            return
        self._asked, self._asked_of = {}, current
        for asked in self.names:
            name = lookup(current, asked)
            if name is not None:
                self._asked.setdefault(name, set()).add(asked)
        self._welcome_back(current)

    def _welcome_back(self, current: ResourceSet) -> None:
        for name, asked in self._asked.items():
            if self._returning and self.held.get(name) == current.resources[name].version:
                self.forced -= asked & self._returning
        self._returning = set()

    # What happened

    def sent(self, flight: Flight, current: ResourceSet, now: float) -> None:
        Subscription.sent(self, flight, current, now)
        for name in flight.sent:
            self.forced -= self._asked.get(name, set())
