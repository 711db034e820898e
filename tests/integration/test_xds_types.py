"""Every type of xDS on real Envoys, newest and oldest: filters, certificates, scopes and virtual hosts by xDS, each
type on a stream of its own, and what becomes of the rest when one resource is bad.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import pytest
import pytest_asyncio
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterEdsClusterConfig
from envoy_data_plane.envoy.config.core.v3 import (
    ApiConfigSource,
    ApiConfigSourceApiType,
    ApiVersion,
    ConfigSource,
    DataSource,
    ExtensionConfigSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    TransportSocket,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    ScopedRouteConfiguration,
    ScopedRouteConfigurationKey,
    ScopedRouteConfigurationKeyFragment,
    Vhds,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.fault.v3 import FaultAbort, HttpFault
from envoy_data_plane.envoy.extensions.filters.http.on_demand.v3 import OnDemand
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
    ScopedRds,
    ScopedRoutes,
    ScopedRoutesScopeKeyBuilder,
    ScopedRoutesScopeKeyBuilderFragmentBuilder,
    ScopedRoutesScopeKeyBuilderFragmentBuilderHeaderValueExtractor,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    TlsCertificate,
)
from envoy_data_plane.envoy.type.v3 import FractionalPercent
from envoy_data_plane.google.protobuf import Any as AnyMessage

from tests.support.certificates import Authority, Issued
from tests.support.envoys import HOST, NEWEST_AND_OLDEST, Envoy, binary, bootstrap, running, until
from tests.support.resources import ADS, address, assignment, cluster
from tests.support.servers import NODE, Mesh
from tests.support.traffic import backends, read_message
from xds.snapshot import Resource, Snapshot, check, resource, resource_set, snapshot
from xds.types import (
    ORDER,
    RUNTIME,
)

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]  # the oldest Envoy may have to be downloaded

BOTH = pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
IN = "in"

Start = Callable[[str], Awaitable[Envoy]]


@pytest_asyncio.fixture
async def mesh() -> AsyncIterator[Mesh]:
    one = Mesh()
    await one.start()
    yield one
    await one.stop()


@pytest.fixture(params=NEWEST_AND_OLDEST)
def age(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def start_envoy(tmp_path: Path, mesh: Mesh, age: str) -> AsyncIterator[Start]:
    path = binary(age)
    async with contextlib.AsyncExitStack() as stack:

        async def start(api_type: str) -> Envoy:
            return await stack.enter_async_context(running(tmp_path, bootstrap(mesh.port, api_type), path))

        yield start


# Content


def everything(*resources: Resource) -> Snapshot:
    """A snapshot in which all types are loaded, and which is consistent."""
    types = (url for url in ORDER if url != RUNTIME)
    made = snapshot(*(resource_set(url, (one for one in resources if one.type_url == url)) for url in types))
    check(made)
    return made


def named(message: Cluster | Listener | RouteConfiguration | VirtualHost | Secret | TypedExtensionConfig) -> Resource:
    return resource(message.name, message)


def answering(word: str) -> Route:
    response = DirectResponseAction(status=200, body=DataSource(inline_string=word))
    return Route(match=RouteMatch(prefix="/"), direct_response=response)


def routes(name: str, word: str) -> RouteConfiguration:
    host = VirtualHost(name="all", domains=["*"], routes=[answering(word)])
    return RouteConfiguration(name=name, virtual_hosts=[host])


def manager(rds: str = "", source: ConfigSource = ADS, filters: Iterable[HttpFilter] = ()) -> HttpConnectionManager:
    router = HttpFilter(name="envoy.filters.http.router", typed_config=AnyMessage.pack(Router()))
    by_rds = Rds(config_source=source, route_config_name=rds) if rds else None
    return HttpConnectionManager(stat_prefix=IN, rds=by_rds, http_filters=[*filters, router])


def listener(http: HttpConnectionManager, name: str = IN, socket: TransportSocket | None = None) -> Listener:
    one = Filter(name="envoy.filters.network.http_connection_manager", typed_config=AnyMessage.pack(http))
    chain = FilterChain(filters=[one], transport_socket=socket)
    return Listener(name=name, address=address(0), filter_chains=[chain])


def quarantined(mesh: Mesh, name: str) -> tuple[str, ...]:
    node = mesh.server.status.node(NODE)
    return node.types[name].quarantined if node is not None and name in node.types else ()


def error(mesh: Mesh, name: str) -> str:
    node = mesh.server.status.node(NODE)
    return node.types[name].error if node is not None and name in node.types else ""


# A client


async def ask(port: int, host: str = "a", **headers: str) -> tuple[int, str]:
    """Status and body of one request."""
    reader, writer = await asyncio.open_connection(HOST, port)
    lines = [f"host: {host}", "connection: close", *(f"x-{name}: {value}" for name, value in headers.items())]
    try:
        writer.write("\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode())
        status, _, body = await asyncio.wait_for(read_message(reader), 10)
        return int(status.split()[1]), body.decode()
    finally:
        writer.close()
        await writer.wait_closed()


async def port_of(envoy: Envoy, name: str = IN) -> int:
    """The port of a listener that takes connections."""

    async def ready() -> bool:
        return name in await envoy.listeners()

    await until(ready)
    return (await envoy.listeners())[name]


def answers(port: int, expected: tuple[int, str], host: str = "a", **headers: str) -> Callable[[], Awaitable[bool]]:
    async def does() -> bool:
        return await ask(port, host, **headers) == expected

    return does


# Filters by ECDS


def fault(status: int) -> TypedExtensionConfig:
    abort = FaultAbort(http_status=status, percentage=FractionalPercent(numerator=100))
    return TypedExtensionConfig(name="faults", typed_config=AnyMessage.pack(HttpFault(abort=abort)))


def discovered(source: ConfigSource = ADS) -> HttpFilter:
    urls = ["type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"]
    return HttpFilter(name="faults", config_discovery=ExtensionConfigSource(config_source=source, type_urls=urls))


@BOTH
async def test_a_filter_is_configured_and_changed_by_ecds(mesh: Mesh, start_envoy: Start, api_type: str) -> None:
    rest = [named(listener(manager("r", filters=[discovered()]))), named(routes("r", "hello"))]
    mesh.server.publish({NODE: everything(named(fault(418)), *rest)})
    envoy = await start_envoy(api_type)
    port = await port_of(envoy)
    assert await ask(port) == (418, "fault filter abort")
    before = await envoy.counter("listener_manager.lds.update_success")
    mesh.server.publish({NODE: everything(named(fault(419)), *rest)})
    await until(answers(port, (419, "fault filter abort")))
    assert await envoy.counter("listener_manager.lds.update_success") == before
    await until(mesh.is_synced("cds", "lds", "rds", "ecds"))


# Certificates by SDS


def secret(issued: Issued, name: str = "server") -> Resource:
    chain, key = (DataSource(inline_bytes=pem) for pem in (issued.certificate, issued.key))
    return named(Secret(name=name, tls_certificate=TlsCertificate(certificate_chain=chain, private_key=key)))


def tls(name: str, source: ConfigSource = ADS) -> TransportSocket:
    config = SdsSecretConfig(name=name, sds_config=source)
    context = DownstreamTlsContext(common_tls_context=CommonTlsContext(tls_certificate_sds_secret_configs=[config]))
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=AnyMessage.pack(context))


def shows(port: int, issued: Issued) -> Callable[[], Awaitable[bool]]:
    async def does() -> bool:
        shown = await asyncio.to_thread(ssl.get_server_certificate, (HOST, port))
        return shown.encode() == issued.certificate

    return does


@BOTH
async def test_a_listeners_certificate_comes_and_changes_by_sds(mesh: Mesh, start_envoy: Start, api_type: str) -> None:
    first, second = Authority().issue("localhost"), Authority().issue("localhost")
    rest = [named(listener(manager("r"), socket=tls("server"))), named(routes("r", "hello"))]
    mesh.server.publish({NODE: everything(secret(first), *rest)})
    envoy = await start_envoy(api_type)
    port = await port_of(envoy)
    await until(shows(port, first))
    before = await envoy.counter("listener_manager.lds.update_success")
    mesh.server.publish({NODE: everything(secret(second), *rest)})
    await until(shows(port, second))
    assert await envoy.counter("listener_manager.lds.update_success") == before
    await until(mesh.is_synced("lds", "rds", "sds"))


@BOTH
async def test_a_bad_certificate_changes_nothing_and_shows_no_key(
    mesh: Mesh, start_envoy: Start, api_type: str
) -> None:
    first, other = Authority().issue("localhost"), Authority().issue("localhost")
    rest = [named(listener(manager("r"), socket=tls("server"))), named(routes("r", "hello"))]
    mesh.server.publish({NODE: everything(secret(first), *rest)})
    envoy = await start_envoy(api_type)
    port = await port_of(envoy)
    await until(shows(port, first))
    key = b"-----BEGIN EC PRIVATE KEY-----\nhidden"
    mesh.server.publish({NODE: everything(secret(Issued(other.certificate, key, 0)), *rest)})
    await until(lambda: mesh.states().get("sds") == "NACKED")
    assert quarantined(mesh, "sds") == ("server",)
    assert "hidden" not in error(mesh, "sds")
    assert await shows(port, first)()
    mesh.server.publish({NODE: everything(secret(other), *rest)})
    await until(shows(port, other))


async def test_a_secret_outlives_the_listener_that_needs_it(mesh: Mesh, start_envoy: Start) -> None:
    old, new = Authority().issue("localhost"), Authority().issue("localhost")

    def content(name: str, issued: Issued) -> Snapshot:
        one = named(listener(manager("r"), socket=tls(name)))
        return everything(secret(issued, name), one, named(routes("r", "hello")))

    mesh.server.publish({NODE: content("old", old)})
    envoy = await start_envoy("DELTA_GRPC")
    await until(shows(await port_of(envoy), old))
    mesh.events.clear()
    mesh.server.publish({NODE: content("new", new)})

    async def changed() -> bool:
        return await shows(await port_of(envoy), new)()

    await until(changed)
    await until(mesh.is_synced("lds", "rds", "sds"))
    pushed = [(one.type, one.message) for one in mesh.events if one.kind == "push"]
    assert pushed[:2] == [("lds", "1 sent"), ("sds", "1 sent")]
    assert "removed" not in "".join(words for _, words in pushed[:2])


# Scopes


def scope(name: str, key: str, route: str) -> Resource:
    fragments = [ScopedRouteConfigurationKeyFragment(string_key=key)]
    of = ScopedRouteConfigurationKey(fragments=fragments)
    return resource(name, ScopedRouteConfiguration(name=name, route_configuration_name=route, key=of))


def scoped(source: ConfigSource = ADS) -> HttpConnectionManager:
    """The header x-scope chooses the routes."""
    extractor = ScopedRoutesScopeKeyBuilderFragmentBuilderHeaderValueExtractor(name="x-scope", index=0)
    builder = ScopedRoutesScopeKeyBuilderFragmentBuilder(header_value_extractor=extractor)
    http = manager()
    http.scoped_routes = ScopedRoutes(
        name="scopes",
        scope_key_builder=ScopedRoutesScopeKeyBuilder(fragments=[builder]),
        rds_config_source=source,
        scoped_rds=ScopedRds(scoped_rds_config_source=source),
    )
    return http


@BOTH
async def test_scopes_choose_routes_come_and_go(mesh: Mesh, start_envoy: Start, api_type: str) -> None:
    rest = [named(listener(scoped())), named(routes("ra", "A")), named(routes("rb", "B"))]
    mesh.server.publish({NODE: everything(scope("a", "a", "ra"), scope("b", "b", "rb"), *rest)})
    envoy = await start_envoy(api_type)
    port = await port_of(envoy)
    await until(answers(port, (200, "A"), scope="a"))
    await until(answers(port, (200, "B"), scope="b"))
    assert (await ask(port, scope="c"))[0] == 404
    mesh.server.publish({NODE: everything(scope("b", "b", "rb"), scope("c", "c", "ra"), *rest)})
    await until(answers(port, (200, "A"), scope="c"))
    await until(answers(port, (404, ""), scope="a"))
    assert await ask(port, scope="b") == (200, "B")
    await until(mesh.is_synced("lds", "srds", "rds"))


@BOTH
async def test_a_scope_takes_over_the_key_of_another(mesh: Mesh, start_envoy: Start, api_type: str) -> None:
    """Both at once are a conflict; the new one is tried again when the old one is gone."""
    rest = [named(listener(scoped())), named(routes("ra", "A")), named(routes("rb", "B"))]
    mesh.server.publish({NODE: everything(scope("old", "a", "ra"), *rest)})
    envoy = await start_envoy(api_type)
    port = await port_of(envoy)
    await until(answers(port, (200, "A"), scope="a"))
    mesh.server.publish({NODE: everything(scope("new", "a", "rb"), *rest)})
    await until(answers(port, (200, "B"), scope="a"))
    await until(mesh.is_synced("lds", "srds", "rds"))


# Virtual hosts on demand


def host(name: str, word: str, *domains: str) -> Resource:
    return named(VirtualHost(name=name, domains=list(domains), routes=[answering(word)]))


def on_demand(rds: str = "r", source: ConfigSource = ADS) -> HttpConnectionManager:
    return manager(rds, source, [HttpFilter(name="on_demand", typed_config=AnyMessage.pack(OnDemand()))])


def without_hosts(age: str, name: str = "r") -> Resource:
    """Envoy 1.36 asks for virtual hosts on a stream of their own only."""
    source = ADS if age == "newest" else own_stream("DELTA_GRPC")
    return named(RouteConfiguration(name=name, vhds=Vhds(config_source=source)))


async def test_virtual_hosts_come_when_they_are_asked_for(mesh: Mesh, start_envoy: Start, age: str) -> None:
    hosts = [host("r/shop", "shop", "shop.example.com", "shop.example.com:8080"), host("r/any", "any", "*.example.com")]
    mesh.server.publish({NODE: everything(named(listener(on_demand())), without_hosts(age), *hosts)})
    envoy = await start_envoy("DELTA_GRPC")
    assert await until(mesh.is_synced("lds", "rds", "vhds")) < 5
    port = await port_of(envoy)
    for name, expected in (
        ("shop.example.com", (200, "shop")),
        ("shop.example.com:8080", (200, "shop")),
        ("blog.example.com", (200, "any")),
        ("example.org", (404, "")),
    ):
        assert await asyncio.wait_for(ask(port, name), 3) == expected
    assert await envoy.counter("http.in.rds.vhds.r.update_rejected") == 0
    await until(mesh.is_synced("lds", "rds", "vhds"))


async def test_virtual_hosts_change_vanish_and_come_to_exist(mesh: Mesh, start_envoy: Start, age: str) -> None:
    rest = [named(listener(on_demand())), without_hosts(age)]
    mesh.server.publish({NODE: everything(*rest, host("r/shop", "shop", "shop.example.com"))})
    envoy = await start_envoy("DELTA_GRPC")
    port = await port_of(envoy)
    assert await ask(port, "shop.example.com") == (200, "shop")
    assert await ask(port, "blog.example.com") == (404, "")
    mesh.server.publish({NODE: everything(*rest, host("r/shop", "sold", "shop.example.com"))})
    await until(answers(port, (200, "sold"), "shop.example.com"))
    mesh.server.publish({NODE: everything(*rest, host("r/blog", "blog", "blog.example.com"))})
    await until(answers(port, (404, ""), "shop.example.com"))
    await until(answers(port, (200, "blog"), "blog.example.com"))


async def test_a_second_listener_does_not_wait_for_its_virtual_hosts(mesh: Mesh, start_envoy: Start, age: str) -> None:
    """Envoy asks for virtual hosts once per stream, not once per route configuration."""
    first = [named(listener(on_demand())), without_hosts(age), host("r/a", "first", "a")]
    mesh.server.publish({NODE: everything(*first)})
    envoy = await start_envoy("DELTA_GRPC")
    assert await ask(await port_of(envoy), "a") == (200, "first")
    second = [named(listener(on_demand("s"), "second")), without_hosts(age, "s"), host("s/a", "second", "a")]
    mesh.server.publish({NODE: everything(*first, *second)})
    assert await ask(await port_of(envoy, "second"), "a") == (200, "second")


async def test_after_a_restart_of_the_server_virtual_hosts_are_still_there(
    mesh: Mesh, start_envoy: Start, age: str
) -> None:
    rest = [named(listener(on_demand())), without_hosts(age)]
    mesh.server.publish({NODE: everything(*rest, host("r/shop", "shop", "shop.example.com"))})
    envoy = await start_envoy("DELTA_GRPC")
    port = await port_of(envoy)
    assert await ask(port, "shop.example.com") == (200, "shop")
    assert await ask(port, "blog.example.com") == (404, "")
    await mesh.stop()
    mesh.events.clear()
    await mesh.start()
    changed = [host("r/shop", "shop", "shop.example.com"), host("r/blog", "blog", "blog.example.com")]
    mesh.server.publish({NODE: everything(*rest, *changed)})
    await until(answers(port, (200, "blog"), "blog.example.com"))
    assert await ask(port, "shop.example.com") == (200, "shop")
    assert {"lds", "rds"}.isdisjoint(mesh.pushed())


# Collections of xdstp names

FOO = "xdstp://test/envoy.config.cluster.v3.Cluster/foo"


@BOTH
async def test_a_collection_of_xdstp_names_follows_its_members(
    mesh: Mesh, tmp_path: Path, age: str, api_type: str
) -> None:
    config = bootstrap(mesh.port, api_type)
    config["dynamic_resources"]["cds_resources_locator"] = f"{FOO}/*"

    def content(*names: str) -> Snapshot:
        clusters, assignments = [], []
        for name in names:
            one, service = cluster(name), name.replace("cluster.v3.Cluster", "endpoint.v3.ClusterLoadAssignment")
            one.eds_cluster_config = ClusterEdsClusterConfig(eds_config=ADS, service_name=service)
            clusters.append(named(one))
            assignments.append(resource(service, assignment(service, 9)))
        return everything(*clusters, *assignments)

    async with running(tmp_path, config, binary(age)) as envoy:

        async def has(*names: str) -> bool:
            return await envoy.clusters() == {"xds_cluster", *names}

        mesh.server.publish({NODE: content(f"{FOO}/a", f"{FOO}/b", f"{FOO}/inside/c")})
        await until(lambda: has(f"{FOO}/a", f"{FOO}/b"))
        mesh.server.publish({NODE: content(f"{FOO}/b", f"{FOO}/d")})
        await until(lambda: has(f"{FOO}/b", f"{FOO}/d"))
        await until(mesh.is_synced("cds", "eds", "lds"))


# Each type on a stream of its own


def own_stream(api_type: str) -> ConfigSource:
    kind = ApiConfigSourceApiType.DELTA_GRPC if api_type == "DELTA_GRPC" else ApiConfigSourceApiType.GRPC
    grpc = GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name="xds_cluster"))
    api = ApiConfigSource(api_type=kind, transport_api_version=ApiVersion.V3, grpc_services=[grpc])
    return ConfigSource(api_config_source=api, resource_api_version=ApiVersion.V3)


@BOTH
async def test_every_type_has_a_service_of_its_own(mesh: Mesh, tmp_path: Path, age: str, api_type: str) -> None:
    source = own_stream(api_type)
    config = bootstrap(mesh.port, api_type)
    api = config["dynamic_resources"].pop("ads_config")
    for kind in ("cds_config", "lds_config"):
        config["dynamic_resources"][kind] = {"api_config_source": api, "resource_api_version": "V3"}
    certificate = Authority().issue("localhost")
    async with backends("backend") as running_backends:
        to_backend = Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster="backend"))
        by_eds = cluster("backend")
        by_eds.eds_cluster_config = ClusterEdsClusterConfig(eds_config=source)
        delta = api_type == "DELTA_GRPC"
        mesh.server.publish(
            {
                NODE: everything(
                    named(by_eds),
                    resource("backend", assignment("backend", running_backends["backend"].port)),
                    *(secret(certificate), named(fault(418))),
                    named(listener(manager("r", source), "plain")),
                    named(listener(manager("r", source, [discovered(source)]), "filtered")),
                    named(listener(manager("r", source), "secure", tls("server", source))),
                    named(listener(scoped(source), "scoped")),
                    *((named(listener(on_demand("v", source), "on demand")),) if delta else ()),
                    named(
                        RouteConfiguration(
                            name="r", virtual_hosts=[VirtualHost(name="h", domains=["*"], routes=[to_backend])]
                        )
                    ),
                    scope("a", "a", "r"),
                    *(
                        (
                            named(RouteConfiguration(name="v", vhds=Vhds(config_source=source))),
                            host("v/a", "by vhds", "a"),
                        )
                        if delta
                        else ()
                    ),
                )
            }
        )
        async with running(tmp_path, config, binary(age)) as envoy:
            assert await ask(await port_of(envoy, "plain")) == (200, "backend")
            assert await ask(await port_of(envoy, "filtered")) == (418, "fault filter abort")
            await until(shows(await port_of(envoy, "secure"), certificate))
            await until(answers(await port_of(envoy, "scoped"), (200, "backend"), scope="a"))
            if delta:
                assert await ask(await port_of(envoy, "on demand")) == (200, "by vhds")
            types = ["cds", "eds", "lds", "rds", "ecds", "sds", "srds", *(["vhds"] if delta else [])]
            await until(mesh.is_synced(*types))


# Quarantine


def broken(name: str) -> Cluster:
    """Breaks a constraint of Envoy's API: nothing of its response is applied."""
    return cluster(name, timeout=0.0)


def unknown(name: str) -> Cluster:
    """Names an extension that does not exist: the rest of its response is applied."""
    one = cluster(name)
    one.transport_socket = TransportSocket(name="nobody", typed_config=AnyMessage(type_url="type.googleapis.com/a.B"))
    return one


def mesh_of(*clusters: Cluster, extra: Iterable[Resource] = ()) -> Snapshot:
    good = [resource(one.name, assignment(one.name, 9)) for one in clusters]
    return everything(*map(named, clusters), *good, *extra)


@BOTH
@pytest.mark.parametrize("bad", [broken, unknown])
async def test_one_bad_cluster_costs_the_others_nothing(
    mesh: Mesh, start_envoy: Start, api_type: str, bad: Callable[[str], Cluster]
) -> None:
    mesh.server.publish({NODE: mesh_of(cluster("a"))})
    envoy = await start_envoy(api_type)
    await until(mesh.is_synced("cds", "eds", "lds"))
    mesh.server.publish({NODE: mesh_of(cluster("a"), bad("b.bad"), cluster("c"), cluster("d"))})

    async def has(*names: str) -> bool:
        return await envoy.clusters() == {"xds_cluster", *names}

    await until(lambda: has("a", "c", "d"))
    await until(lambda: mesh.states().get("cds") == "NACKED")
    assert quarantined(mesh, "cds") == ("b.bad",)
    assert "b.bad" in error(mesh, "cds")
    nacks = mesh.server.status.nacks["cds"]
    mesh.server.publish({NODE: mesh_of(cluster("a"), bad("b.bad"), cluster("c"), cluster("e"))})
    await until(lambda: has("a", "c", "e"))
    assert mesh.server.status.nacks["cds"] == nacks == 1
    mesh.server.publish({NODE: mesh_of(cluster("a"), cluster("b.bad"), cluster("c"), cluster("e"))})
    await until(lambda: has("a", "b.bad", "c", "e"))
    await until(mesh.is_synced("cds", "eds", "lds"))


@BOTH
async def test_a_bad_change_leaves_the_last_good_cluster(mesh: Mesh, start_envoy: Start, api_type: str) -> None:
    mesh.server.publish({NODE: mesh_of(cluster("a"), cluster("b"))})
    envoy = await start_envoy(api_type)
    await until(mesh.is_synced("cds", "eds", "lds"))
    mesh.server.publish({NODE: mesh_of(broken("a"), cluster("b", timeout=2.5), cluster("c"))})

    async def timeouts() -> dict[str, str]:
        dump = await envoy.get("/config_dump?resource=dynamic_active_clusters")
        clusters = [one["cluster"] for one in dump.get("configs", [])]
        return {one["name"]: one["connect_timeout"] for one in clusters}

    async def changed() -> bool:
        return await timeouts() == {"a": "1s", "b": "2.500s", "c": "1s"}

    await until(changed)
    await mesh.stop()
    await mesh.start()
    mesh.server.publish({NODE: mesh_of(broken("a"), cluster("b", timeout=2.5), cluster("c"))})
    await until(lambda: mesh.states().get("cds") == "NACKED")
    assert await changed(), "a restarted server does not know what is good, and must not delete it"


@BOTH
async def test_a_restarted_envoy_gets_the_last_good_cluster(mesh: Mesh, start_envoy: Start, api_type: str) -> None:
    mesh.server.publish({NODE: mesh_of(cluster("a"), cluster("b"))})
    envoy = await start_envoy(api_type)
    await until(mesh.is_synced("cds", "eds", "lds"))
    mesh.server.publish({NODE: mesh_of(broken("a"), cluster("b"))})
    await until(lambda: quarantined(mesh, "cds") == ("a",))
    envoy.process.terminate()
    await until(lambda: not mesh.states())
    again = await start_envoy(api_type)

    async def has_both() -> bool:
        return await again.clusters() == {"xds_cluster", "a", "b"}

    await until(has_both)
    assert mesh.server.status.nacks["cds"] == 1
    assert quarantined(mesh, "cds") == ("a",)


@BOTH
async def test_one_bad_listener_costs_the_others_nothing(mesh: Mesh, start_envoy: Start, api_type: str) -> None:
    bad = listener(manager("r"), "bad")
    bad.filter_chains[0].filters[0].typed_config = AnyMessage.pack(HttpConnectionManager())
    good, other = (named(listener(manager("r"), name)) for name in ("good", "other"))
    mesh.server.publish({NODE: everything(good, named(bad), other, named(routes("r", "hello")))})
    envoy = await start_envoy(api_type)
    for name in ("good", "other"):
        assert await ask(await port_of(envoy, name)) == (200, "hello")
    await until(lambda: quarantined(mesh, "lds") == ("bad",))


@BOTH
async def test_a_listener_takes_over_the_address_of_another(mesh: Mesh, start_envoy: Start, api_type: str) -> None:
    def content(name: str, port: int) -> Snapshot:
        one = listener(manager("r"), name)
        one.address = address(port)
        return everything(named(one), named(routes("r", "hello")))

    mesh.server.publish({NODE: content("first", 0)})
    envoy = await start_envoy(api_type)
    port = await port_of(envoy, "first")
    for name in ("second", "third"):
        mesh.server.publish({NODE: content(name, port)})
        assert await port_of(envoy, name) == port
        await until(answers(port, (200, "hello")))
        await until(mesh.is_synced("lds", "rds"))
