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

#: The envelope that carries a resource with its TTL.
RESOURCE = PREFIX + "envoy.service.discovery.v3.Resource"

#: What additions are sent in: a cluster before its endpoints, a listener before its routes.
#: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
ORDER = (CLUSTER, ENDPOINT, LISTENER, ROUTE, RUNTIME)

SHORT_NAMES: Mapping[str, str] = MappingProxyType(
    {CLUSTER: "cds", ENDPOINT: "eds", LISTENER: "lds", ROUTE: "rds", RUNTIME: "rtds", EXTENSION_CONFIG: "ecds"}
)

#: Types whose state-of-the-world response is the whole truth: absence deletes.
#: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#deleting-resources
FULL_STATE = frozenset({CLUSTER, LISTENER})


def short_name(type_url: str) -> str:
    """``cds`` for the type URL of a cluster; the message's own name where xDS has no short one."""
    return SHORT_NAMES.get(type_url) or type_url.rpartition(".")[2]
