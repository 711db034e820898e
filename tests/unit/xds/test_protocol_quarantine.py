"""Telling the offending resource apart, and going on without it.

The messages are those of Envoy 1.40 and of gRPC. xds_protocol stands for
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol.
"""

from __future__ import annotations

import pytest

from xds.protocol.quarantine import culprits, without_secrets
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE, SECRET

CONSTRAINT = (
    'goo.gle/debugonly    \nname: "bad.one"\ntype: EDS\neds_cluster_config {\n  eds_config {\n    ads {\n    }\n  }\n'
    '  service_name: "good.one"\n}\nconnect_timeout {\n}\n: Proto constraint validation failed '
    "(ClusterValidationError.ConnectTimeout: value must be greater than 0s)"
)
CLUSTERS = (
    "Error adding/updating cluster(s) bad.two: Didn't find a registered implementation for 'good.one' with type URL: "
    "'envoy.foo.v3.Bar', bad.three: Failed to load certificate chain from <inline>"
)
LISTENERS = (
    "Error adding/updating listener(s) bad.listener: Didn't find a registered implementation for 'nope' with type URL: "
    "'envoy.foo.v3.Bar'\nbad.listener2: error adding listener named 'bad.listener2': address is necessary\n"
    'bad.listener3: goo.gle/debugstr   \nrds {\n  route_config_name: "outbound"\n}\n: Proto constraint validation '
    "failed (HttpConnectionManagerValidationError.StatPrefix: value length must be at least 1 characters)\n"
)
ASSIGNMENT = (
    'goo.gle/debugproto  \ncluster_name: "good.two"\nendpoints {\n  priority: 200\n}\n: Proto constraint validation '
    "failed (ClusterLoadAssignmentValidationError.Endpoints[0]: embedded message failed validation)"
)
GRPC = (
    "xDS response validation errors: [resource index 0: a.b: INVALID_ARGUMENT: errors validating Cluster resource: "
    "[field:type error:unknown discovery type]; resource index 2: c: INVALID_ARGUMENT: [no]]"
)
CONFLICT = (
    "Error adding/updating scoped route(s): scope key conflict found, first scope is 'a.one', second scope is 'b.two'"
)
WILDCARD = "Only a single wildcard domain is permitted in route outbound"


@pytest.mark.parametrize(
    ("type_url", "message", "candidates", "guilty"),
    [
        (CLUSTER, CONSTRAINT, {"good.one", "bad.one", "bad"}, {"bad.one"}),
        (CLUSTER, CLUSTERS, {"good.one", "bad.two", "bad.three", "two"}, {"bad.two", "bad.three"}),
        (
            LISTENER,
            LISTENERS,
            {"outbound", "bad.listener", "bad.listener3", "listener"},
            {"bad.listener", "bad.listener3"},
        ),
        (ENDPOINT, ASSIGNMENT, {"good.two", "good"}, {"good.two"}),
        (CLUSTER, GRPC, {"a.b", "c", "a", "b"}, {"a.b", "c"}),
        (SCOPED_ROUTE, CONFLICT, {"a.one", "b.two", "b"}, {"a.one", "b.two"}),
        (ROUTE, WILDCARD, {"outbound", "out", "domain"}, {"outbound"}),
        (ROUTE, "route: unknown cluster 'x'", {"x", "y"}, set()),
        (ROUTE, "Unexpected RDS configuration (expecting r1): other", {"r1", "r2"}, {"r1"}),
        (CLUSTER, "a listener is bad, and a cluster", {"a", "bad", "cluster"}, set()),
        (CLUSTER, "everything is wrong", {"x", "y"}, set()),
        (CLUSTER, "everything is wrong", {"x"}, {"x"}),
        (CLUSTER, CLUSTERS, set(), set()),
        (
            CLUSTER,
            "outbound|80|v1|web.svc: no",
            {"outbound|80|v1|web.svc", "web.svc", "other"},
            {"outbound|80|v1|web.svc"},
        ),
    ],
)
def test_whose_fault_it_was(type_url: str, message: str, candidates: set[str], guilty: set[str]) -> None:
    """xds_protocol#nack: the message says more about it."""
    assert culprits(type_url, message, candidates) == guilty


DUMP = (
    'goo.gle/debugonly  \nname: "server"\ntls_certificate {\n  private_key {\n    inline_string: "-- \\"\\nKEY"\n'
    "  }\n}\n: Proto constraint validation failed (SecretValidationError.TlsCertificate: value is required)"
)


def test_a_private_key_in_a_rejection_goes_no_further() -> None:
    """Envoy's words may be cut off in the middle of a key (it sends 4096 characters at most)."""
    told = without_secrets(SECRET, DUMP)
    assert told == "Proto constraint validation failed (SecretValidationError.TlsCertificate: value is required)"
    for end in range(DUMP.index("KEY"), DUMP.index("}")):
        for type_url in (SECRET, CLUSTER):
            assert "KEY" not in without_secrets(type_url, DUMP[:end])
    assert without_secrets(CLUSTER, DUMP).count("[redacted]") == 1
    assert without_secrets(SECRET, "Failed to load private key") == "Failed to load private key"
