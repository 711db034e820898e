"""Type URLs of the xDS resources that meshctl serves, and their short names.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#resource-types
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PREFIX = "type.googleapis.com/"

CLUSTER = PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINT = PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = PREFIX + "envoy.config.listener.v3.Listener"
ROUTE = PREFIX + "envoy.config.route.v3.RouteConfiguration"
RUNTIME = PREFIX + "envoy.service.runtime.v3.Runtime"
EXTENSION_CONFIG = PREFIX + "envoy.config.core.v3.TypedExtensionConfig"
SECRET = PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
SCOPED_ROUTE = PREFIX + "envoy.config.route.v3.ScopedRouteConfiguration"
VIRTUAL_HOST = PREFIX + "envoy.config.route.v3.VirtualHost"

#: The envelope that carries a resource with its TTL.
RESOURCE = PREFIX + "envoy.service.discovery.v3.Resource"

#: What additions are sent in: a cluster before its endpoints and secrets, a listener before its filters and routes,
#: a scope before the routes that it chooses, routes before the virtual hosts that they leave out.
#: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
ORDER = (CLUSTER, ENDPOINT, SECRET, LISTENER, EXTENSION_CONFIG, SCOPED_ROUTE, ROUTE, VIRTUAL_HOST, RUNTIME)

SHORT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        CLUSTER: "cds",
        ENDPOINT: "eds",
        LISTENER: "lds",
        ROUTE: "rds",
        RUNTIME: "rtds",
        EXTENSION_CONFIG: "ecds",
        SECRET: "sds",
        SCOPED_ROUTE: "srds",
        VIRTUAL_HOST: "vhds",
    }
)

#: Types whose state-of-the-world response is the whole truth: absence deletes. They are the ones with a wildcard, too.
#: The protocol's text names clusters and listeners; Envoy treats scoped routes like them (source/common/router/
#: scoped_rds.cc: it subscribes to no names, and removes the scopes that a response lacks).
#: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#deleting-resources
FULL_STATE = frozenset({CLUSTER, LISTENER, SCOPED_ROUTE})


def short_name(type_url: str) -> str:
    """``cds`` for the type URL of a cluster; the message's own name where xDS has no short one."""
    return SHORT_NAMES.get(type_url) or type_url.rpartition(".")[2]
