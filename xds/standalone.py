"""A snapshot as the bootstrap of an Envoy that needs no control plane: everything that it would ask for stands in it.

Made for ``envoy --mode validate``, which reads a bootstrap and nothing else. Whatever the snapshot does not hold (a
secret or a filter from elsewhere) is still asked for by ADS, from a cluster without endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from xds.codec import to_json
from xds.snapshot import Snapshot
from xds.types import CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, PREFIX, ROUTE, SECRET, VIRTUAL_HOST

Document = dict[str, Any]

#: Where what is missing would come from.
_ADS = "ads-of-nobody"
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_MANAGER = PREFIX + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = PREFIX + "envoy.extensions.filters.http.router.v3.Router"


def bootstrap(snapshot: Snapshot, known: Iterable[str] = ()) -> Document:
    """The bootstrap as plain JSON values, secrets in the clear.

    ``known`` names clusters that the real bootstrap has. The order of clusters, listeners and secrets is by name, with
    what is not the snapshot's last.
    """
    inline = _Inline(snapshot)
    listeners = [inline.local(one) for one in inline.of(LISTENER).values()]
    clusters = [inline.local(one) for one in inline.of(CLUSTER).values()]
    elsewhere = [name for name in known if name not in inline.of(CLUSTER)]
    return {
        "node": {"id": "preflight", "cluster": "preflight"},
        "dynamic_resources": {"ads_config": _ads()},
        "static_resources": {
            "clusters": [*clusters, *map(_empty, [*elsewhere, _ADS])],
            "listeners": [*listeners, *inline.unused_routes()],
            "secrets": list(inline.of(SECRET).values()),
        },
    }


class _Inline:
    """Puts resources in the places where their names are. Each is decoded once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._decoded: dict[str, dict[str, Document]] = {}
        self._used: set[str] = set()

    def of(self, type_url: str) -> Mapping[str, Document]:
        """All resources of a type as JSON, sorted by name."""
        if type_url not in self._decoded:
            found = self._snapshot.get(type_url)
            resources = sorted(found.resources.items()) if found else []
            self._decoded[type_url] = {name: to_json(type_url, one.body, secrets=True) for name, one in resources}
        return self._decoded[type_url]

    def local(self, value: Any) -> Any:
        """``value`` with the resources themselves instead of where they come from."""
        if isinstance(value, list):
            return [self.local(one) for one in value]
        if not isinstance(value, Mapping):
            return value
        changed = dict(value)
        for change in (self._endpoints, self._routes, self._extension, self._secret):
            change(changed)
        return {key: self.local(one) for key, one in changed.items()}

    def unused_routes(self) -> Iterator[Document]:
        """A listener for each route configuration that no listener names: scoped routes choose them by request."""
        for name in self.of(ROUTE):
            if name not in self._used:
                yield _listener(name, self._route(name))

    def _endpoints(self, cluster: Document) -> None:
        if cluster.get("type") != "EDS" or "name" not in cluster:
            return
        name = cluster.get("eds_cluster_config", {}).get("service_name") or cluster["name"]
        if name in self.of(ENDPOINT):
            cluster.pop("eds_cluster_config", None)
            cluster["type"] = "STATIC"
            cluster["load_assignment"] = {**self.of(ENDPOINT)[name], "cluster_name": cluster["name"]}

    def _routes(self, manager: Document) -> None:
        name = manager["rds"].get("route_config_name", "") if isinstance(manager.get("rds"), Mapping) else ""
        if name in self.of(ROUTE):
            del manager["rds"]
            manager["route_config"] = self._route(name)

    def _route(self, name: str) -> Document:
        """As RDS would have it: routes may name clusters that are not there. On-demand virtual hosts join."""
        self._used.add(name)
        route: Document = {"validate_clusters": False, **self.of(ROUTE)[name]}
        if route.pop("vhds", None) is not None:
            hosts = [one for key, one in self.of(VIRTUAL_HOST).items() if key.startswith(name + "/")]
            route["virtual_hosts"] = [*route.get("virtual_hosts", ()), *hosts]
        return route

    def _extension(self, one: Document) -> None:
        if "config_discovery" in one and one.get("name") in self.of(EXTENSION_CONFIG):
            del one["config_discovery"]
            one["typed_config"] = self.of(EXTENSION_CONFIG)[one["name"]].get("typed_config", {})

    def _secret(self, one: Document) -> None:
        """A name without a source means a secret of the bootstrap."""
        if "sds_config" in one and one.get("name") in self.of(SECRET):
            del one["sds_config"]


def _ads() -> Document:
    service = {"envoy_grpc": {"cluster_name": _ADS}}
    return {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [service]}


def _empty(name: str) -> Document:
    """A cluster without endpoints that gRPC services may name."""
    http2 = {"@type": PREFIX + _HTTP, "explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name},
        "typed_extension_protocol_options": {_HTTP: http2},
    }


def _listener(name: str, route: Document) -> Document:
    """Somewhere for a route configuration to stand."""
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}
    manager = {"@type": _MANAGER, "stat_prefix": "preflight", "route_config": route, "http_filters": [router]}
    http = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "name": f"preflight of routes {name}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [http]}],
    }
