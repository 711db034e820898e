"""Why some leases are refused: what their end does to a real Envoy. Where Envoy learns better, a rule may go.

Our server gives no such lease, so a bare one does: it answers the first request for a resource, and never again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from envoy_data_plane.envoy.config.core.v3 import DataSource, TypedExtensionConfig
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.extensions.filters.http.credential_injector.v3 import CredentialInjector
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.http.injected_credentials.generic.v3 import Generic
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import GenericSecret, SdsSecretConfig, Secret
from envoy_data_plane.google.protobuf import Any as AnyMessage

from tests.support.envoys import HOST, NEWEST_AND_OLDEST, Envoy, binary, bootstrap, running, until
from tests.support.extensions import BASE, DEFAULT, LEASED, discovering, extension
from tests.support.resources import ADS, OUTBOUND, address, assignment, cluster, manager, routes
from tests.support.traffic import backends, get
from xds import codec
from xds.protocol.events import Item
from xds.protocol.leases import REFUSED, empty_lease
from xds.server.services import METHODS, Context, StreamHandler
from xds.snapshot import Resource, resource
from xds.types import CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE, RUNTIME, SECRET

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]  # the oldest Envoy may have to be downloaded

TTL = 0.6
SETTLED = 1.5  # seconds after which the end of a lease has had its effect


@dataclass
class Bare:
    """Aggregated streams whose resources are ``given`` once each; those in ``leased`` get a TTL."""

    given: list[Resource]
    leased: frozenset[tuple[str, str]]
    sent: set[tuple[str, str]] = field(default_factory=set)
    nonces: int = 0

    async def serve(self, context: Context, *, delta: bool) -> None:
        decode: Callable[[bytes], Any] = codec.decode_delta_request if delta else codec.decode_sotw_request
        while isinstance(data := await context.read(), bytes):
            request = decode(data)
            names = request.subscribe if delta else request.names
            due = [one for one in self.given if self._is_due(one, request.type_url, names)]
            if due or self._is_first(request.type_url):
                await context.write(self._response(request.type_url, due, delta=delta))

    def _is_due(self, one: Resource, type_url: str, names: tuple[str, ...]) -> bool:
        wanted = not names or "*" in names or one.name in names
        return wanted and one.type_url == type_url and (type_url, one.name) not in self.sent

    def _is_first(self, type_url: str) -> bool:
        """Clusters and listeners are answered even if there are none."""
        return type_url in {CLUSTER, LISTENER} and (type_url, "") not in self.sent

    def _response(self, type_url: str, due: list[Resource], *, delta: bool) -> bytes:
        self.sent |= {(type_url, ""), *((type_url, one.name) for one in due)}
        self.nonces += 1
        items = [Item(type_url, one.name, "1", one.body, self._ttl(one)) for one in due]
        encode = codec.delta_response if delta else codec.sotw_response
        return encode(type_url, "1", items) + codec.nonce_field(str(self.nonces))

    def _ttl(self, one: Resource) -> float | None:
        return TTL if (one.type_url, one.name) in self.leased else None


@asynccontextmanager
async def listening(bare: Bare) -> AsyncIterator[int]:
    def behavior(delta: bool) -> Callable[[Any, Context], Awaitable[None]]:
        async def serve(_: object, context: Context) -> None:
            await bare.serve(context, delta=delta)

        return serve

    server = grpc.aio.server()
    paths = {method.path: behavior(method.delta) for method in METHODS if not method.type_url}
    server.add_generic_rpc_handlers((StreamHandler(paths),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def chain(port: int) -> list[Resource]:
    """A resource of each type, all needed for one request to the backend."""
    secret = Secret(name="token", generic_secret=GenericSecret(secret=DataSource(inline_string="secret")))
    generic = Generic(credential=SdsSecretConfig(name="token", sds_config=ADS))
    injector = CredentialInjector(
        credential=TypedExtensionConfig(name="generic", typed_config=AnyMessage.pack(generic))
    )
    http = manager()
    http.http_filters.insert(0, HttpFilter(name="injector", typed_config=AnyMessage.pack(injector)))
    one = Filter(name="http", typed_config=AnyMessage.pack(http))
    listener = Listener(name=OUTBOUND, address=address(0), filter_chains=[FilterChain(filters=[one])])
    return [
        resource("backend", cluster("backend")),
        resource("backend", assignment("backend", port)),
        resource(OUTBOUND, listener),
        resource(OUTBOUND, routes("backend")),
        resource("token", secret),
    ]


NAMES = {CLUSTER: "backend", ENDPOINT: "backend", LISTENER: OUTBOUND, ROUTE: OUTBOUND, SECRET: "token"}


@dataclass
class Setting:
    path: Path
    folder: Path
    api_type: str
    stack: contextlib.AsyncExitStack

    @property
    def delta(self) -> bool:
        return self.api_type == "DELTA_GRPC"

    async def boot(
        self, given: list[Resource], *leased: tuple[str, str], layers: tuple[str, ...] = ()
    ) -> tuple[Envoy, int]:
        """An Envoy that was given all this, and the port of its listener."""
        bare = Bare(given, frozenset(leased))
        port = await self.stack.enter_async_context(listening(bare))
        config = bootstrap(port, self.api_type, layers)
        envoy = await self.stack.enter_async_context(running(self.folder, config, self.path))
        await until(envoy.listeners)
        return envoy, next(iter((await envoy.listeners()).values()))


@pytest_asyncio.fixture(params=["GRPC", "DELTA_GRPC"], ids=["sotw", "delta"])
async def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(params=NEWEST_AND_OLDEST)
async def setting(request: pytest.FixtureRequest, tmp_path: Path, variant: str) -> AsyncIterator[Setting]:
    async with contextlib.AsyncExitStack() as stack:
        yield Setting(binary(request.param), tmp_path, variant, stack)


async def answer(port: int) -> int | str:
    try:
        return (await get(port))[0]
    except (ConnectionError, EOFError):
        return "no connection"


def answers(port: int, expected: int | str) -> Callable[[], Awaitable[bool]]:
    """A condition to wait for."""

    async def so() -> bool:
        return await answer(port) == expected

    return so


async def ended(envoy: Envoy) -> int | None:
    """The return code of an Envoy that ends; None if it lives on for longer than any lease here."""
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(envoy.process.wait(), TTL + SETTLED)
    return None


@pytest.mark.parametrize(("type_url", "then"), [(CLUSTER, 503), (LISTENER, "no connection")], ids=["cds", "lds"])
async def test_clusters_and_listeners_go(setting: Setting, type_url: str, then: int | str) -> None:
    async with backends("backend") as made:
        envoy, port = await setting.boot(chain(made["backend"].port), (type_url, NAMES[type_url]))
        await until(answers(port, 200))
        await until(answers(port, then), 3)
        assert envoy.alive


@pytest.mark.parametrize("type_url", [ENDPOINT, ROUTE, SECRET], ids=["eds", "rds", "sds"])
async def test_endpoints_routes_and_secrets_stay_or_crash(setting: Setting, type_url: str) -> None:
    """Incremental streams ignore the end, state-of-the-world ones run into a null pointer."""
    async with backends("backend") as made:
        envoy, port = await setting.boot(chain(made["backend"].port), (type_url, NAMES[type_url]))
        await until(answers(port, 200))
        code = await ended(envoy)
        if setting.delta:
            assert code is None
            assert await answer(port) == 200
        else:
            assert code is not None
            assert code < 0, "killed by a signal"


async def test_every_refusal_is_proven() -> None:
    assert set(NAMES) == set(REFUSED)


@pytest.mark.parametrize("default", [True, False], ids=["default", "no-default"])
async def test_the_end_of_one_extension_config_drops_all_of_a_state_of_the_world_stream(
    setting: Setting, default: bool
) -> None:
    """The one without a lease too; incremental streams do not touch it."""
    without = [] if default else ["base"]
    given = [discovering(["fault", "base"], without), extension("fault", LEASED), extension("base", BASE)]
    envoy, port = await setting.boot(given, (EXTENSION_CONFIG, "fault"))
    await until(answers(port, LEASED))
    dropped = DEFAULT if default else 500
    await until(answers(port, BASE if setting.delta else dropped), 3)
    assert await ended(envoy) is None


async def test_without_a_default_the_end_is_an_error(setting: Setting) -> None:
    envoy, port = await setting.boot(
        [discovering(["fault"], ["fault"]), extension("fault", LEASED)], (EXTENSION_CONFIG, "fault")
    )
    await until(answers(port, LEASED))
    await until(answers(port, 500), 3)
    assert envoy.alive


async def test_the_end_of_one_layer_aborts_a_state_of_the_world_stream_with_two(setting: Setting) -> None:
    given = [discovering(["fault"]), extension("fault", BASE), empty_lease("a").resource, empty_lease("b").resource]
    envoy, _ = await setting.boot(given, (RUNTIME, "a"), layers=("a", "b"))
    code = await ended(envoy)
    assert code is None if setting.delta else code is not None and code < 0
