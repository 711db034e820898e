"""What is secret is not shown, whatever it stands in: a needle is hidden everywhere, and found nowhere."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from betterproto2 import Message
from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterEdsClusterConfig
from envoy_data_plane.envoy.config.core.v3 import (
    ApiConfigSource,
    ConfigSource,
    DataSource,
    GrpcService,
    GrpcServiceGoogleGrpc,
    GrpcServiceGoogleGrpcCallCredentials,
    HeaderValue,
    HeaderValueOption,
    Metadata,
    TransportSocket,
)
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration, Vhds
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import CheckSettings
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    GenericSecret,
    Secret,
    TlsCertificate,
    TlsSessionTicketKeys,
    UpstreamTlsContext,
)
from envoy_data_plane.google.protobuf import Any as AnyMessage
from envoy_data_plane.google.protobuf import Struct, Value

from xds.codec import encode, to_json, type_url
from xds.model import Address, Call, Limits, Mesh, Service, Workload
from xds.redaction import Redactor, redacted
from xds.sensitive import scrubbed, telling
from xds.sensitive_signs import may_hold
from xds.snapshot import encoded, resource
from xds.translate import snapshots
from xds.types import LISTENER

NEEDLE = "n33dle-in-the-haystack"
INLINE = DataSource(inline_string=NEEDLE)
BYTES = DataSource(inline_bytes=NEEDLE.encode())


def socket(*certificates: TlsCertificate) -> TransportSocket:
    context = UpstreamTlsContext(common_tls_context=CommonTlsContext(tls_certificates=list(certificates)))
    return TransportSocket(name="tls", typed_config=AnyMessage.pack(context))


def header(key: str) -> RouteConfiguration:
    option = HeaderValueOption(header=HeaderValue(key=key, value=NEEDLE))
    return RouteConfiguration(name="r", request_headers_to_add=[option])


def struct(**values: Value) -> Cluster:
    return Cluster(name="c", metadata=Metadata(filter_metadata={"a": Struct(fields=values)}))


def google(credentials: GrpcServiceGoogleGrpcCallCredentials) -> GrpcService:
    return GrpcService(google_grpc=GrpcServiceGoogleGrpc(target_uri="x", call_credentials=[credentials]))


SOURCE = ConfigSource(
    api_config_source=ApiConfigSource(grpc_services=[google(GrpcServiceGoogleGrpcCallCredentials(access_token=NEEDLE))])
)

HAYSTACKS: dict[str, Message] = {
    "private key": Secret(name="s", tls_certificate=TlsCertificate(private_key=INLINE)),
    "private key as bytes": Secret(name="s", tls_certificate=TlsCertificate(private_key=BYTES)),
    "password of a key": Secret(name="s", tls_certificate=TlsCertificate(password=INLINE)),
    "generic secret": Secret(name="s", generic_secret=GenericSecret(secret=INLINE)),
    "named secrets": Secret(name="s", generic_secret=GenericSecret(secrets={"a": INLINE})),
    "ticket keys": Secret(name="s", session_ticket_keys=TlsSessionTicketKeys(keys=[BYTES, INLINE])),
    "transport socket": Cluster(name="c", transport_socket=socket(TlsCertificate(private_key=INLINE))),
    "token of a gRPC service": google(GrpcServiceGoogleGrpcCallCredentials(access_token=NEEDLE)),
    "token of a cluster's source": Cluster(name="c", eds_cluster_config=ClusterEdsClusterConfig(eds_config=SOURCE)),
    "token of a cluster's reports": Cluster(name="c", lrs_server=SOURCE),
    "token of a route's source": RouteConfiguration(name="r", vhds=Vhds(config_source=SOURCE)),
    "token of a listener": Listener(name="l", access_log=[AccessLog(name="a", typed_config=AnyMessage.pack(SOURCE))]),
    "authorization header": header("Authorization"),
    "cookie": header("cookie"),
    "api key": header("x-api-key"),
    "token header": header("X-Vault-Token"),
    "struct": struct(password=Value(string_value=NEEDLE)),
    "nested struct": struct(x=Value(struct_value=Struct(fields={"client_secret": Value(string_value=NEEDLE)}))),
    "struct under a name": struct(credentials=Value(struct_value=Struct(fields={"a": Value(string_value=NEEDLE)}))),
    "map": CheckSettings(context_extensions={"a": NEEDLE}),
    "unknown type": Cluster(
        name="c",
        transport_socket=TransportSocket(
            name="x", typed_config=AnyMessage(type_url="type.googleapis.com/our.Own", value=NEEDLE.encode())
        ),
    ),
}


def shown(text: str) -> bool:
    return NEEDLE in text or base64.b64encode(NEEDLE.encode()).decode()[:20] in text


@pytest.mark.parametrize("name", HAYSTACKS)
def test_the_needle_is_found_nowhere(name: str) -> None:
    message = HAYSTACKS[name]
    url, body = type_url(message), encode(message)
    assert shown(json.dumps(to_json(url, body, secrets=True))), "the needle is there"
    assert not shown(json.dumps(to_json(url, body)))
    assert "[redacted]" in json.dumps(to_json(url, body))
    for clean in (redacted(url, body), Redactor()(encoded(url, "x", body))):
        assert clean is None or NEEDLE.encode() not in clean
        assert clean is None or to_json(url, clean) != to_json(url, body, secrets=True)


def test_what_is_not_secret_is_shown() -> None:
    harmless: list[Message] = [
        Secret(name="s", tls_certificate=TlsCertificate(certificate_chain=INLINE)),
        header("x-request-id"),
        struct(region=Value(string_value=NEEDLE), token=Value(number_value=7)),
    ]
    for message in harmless:
        url, body = type_url(message), encode(message)
        assert shown(json.dumps(to_json(url, body)))
        assert redacted(url, body) == body
    numbers = to_json(type_url(harmless[2]), encode(harmless[2]))
    assert numbers["metadata"]["filter_metadata"]["a"]["token"] == 7, "a limit of a cluster named token"


@pytest.mark.parametrize(
    "words",
    [
        f'Proto constraint validation failed: private_key {{ inline_string: "{NEEDLE}" }}',
        f'inline_bytes: "\\"{NEEDLE}" and more',
        f'inline_string: "{NEEDLE}',
        f'call_credentials {{ access_token: "{NEEDLE}" }}',
        f"key:\n-----BEGIN EC PRIVATE KEY-----\n{NEEDLE}\n-----END EC PRIVATE KEY-----\n",
        f"key:\n-----BEGIN PRIVATE KEY-----\n{NEEDLE}",
        "x" * 10_000 + NEEDLE,
    ],
)
def test_a_clients_words_are_scrubbed(words: str) -> None:
    assert NEEDLE not in scrubbed(words)


def test_other_words_stay() -> None:
    words = 'Error adding/updating cluster(s) token: no such cluster; see name: "private"'
    assert scrubbed(words) == words


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *((name, True) for name in ("authorization", "Proxy-Authorization", "Set-Cookie", "x-api-key", "apikey")),
        *((name, True) for name in ("db_password", "PASSWD", "client_secret", "accessToken", "x-auth-token", "token")),
        *((name, False) for name in ("x-request-id", "content-type", "keyboard", "tokenizer", "compass", "key")),
    ],
)
def test_names_that_tell(name: str, secret: bool) -> None:
    assert telling(name) == secret


def test_a_resource_is_redacted_once() -> None:
    redactor, one = Redactor(), resource("s", HAYSTACKS["private key"])
    first: Any = redactor(one)
    assert redactor(one) is first


def test_what_we_translate_is_not_even_decoded() -> None:
    """Clusters, endpoints and routes of ours are many, and hold nothing."""
    at = Address("127.0.0.1", 1)
    limits = Limits(max_connections=1, max_pending_requests=2, max_requests=3, max_retries=4)
    services = {name: Service(name, limits, (at,)) for name in ("a", "b")}
    made = snapshots(Mesh(services, (Call("a", "b", limits),)), [Workload("a-0", "a", at, at, at)])
    ones = [one for held in made["a-0"].sets.values() for one in held.resources.values()]
    assert ones
    assert [one.name for one in ones if one.type_url != LISTENER and may_hold(one.type_url, one.body)] == []
