"""The server over real gRPC, with a client of raw bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from tests.unit.xds.link import make
from xds import _wire_pb2 as wire
from xds.errors import LeaseError, PortInUse
from xds.model import LeasedResource, RuntimeLayer
from xds.protocol.delta import DeltaStream
from xds.protocol.events import TTL_FEATURE
from xds.server import Settings, XdsServer
from xds.server.settings import Limits
from xds.status import XdsEvent
from xds.types import CLUSTER, ENDPOINT, EXTENSION_CONFIG, ROUTE, RUNTIME

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
RTDS = "/envoy.service.runtime.v3.RuntimeDiscoveryService/"


def stream(channel: Any, method: str) -> Any:
    """An open stream of raw bytes (the stubs of grpc insist on serializers)."""
    return channel.stream_stream(method)()


class Call:
    """One stream of the delta variant."""

    def __init__(self, channel: grpc.aio.Channel, node_id: str, method: str = ADS + "DeltaAggregatedResources") -> None:
        self.call = stream(channel, method)
        self.node = wire.Node(id=node_id, cluster="group", client_features=[TTL_FEATURE])

    async def ask(self, type_url: str, *names: str, nonce: str = "", error: str = "") -> None:
        request = wire.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names, response_nonce=nonce)
        request.node.CopyFrom(self.node)
        if error:
            request.error_detail.message = error
        await self.call.write(request.SerializeToString())

    async def returns(self, type_url: str, known: dict[str, str], *names: str) -> None:
        """A stream's first request of this type, by a client that has something from an earlier stream."""
        request = wire.DeltaDiscoveryRequest(
            type_url=type_url, resource_names_subscribe=names, initial_resource_versions=known, node=self.node
        )
        await self.call.write(request.SerializeToString())

    async def get(self, timeout: float = 5.0) -> wire.DeltaDiscoveryResponse:
        data = await asyncio.wait_for(self.call.read(), timeout)
        assert isinstance(data, bytes), "the stream has ended"
        return wire.DeltaDiscoveryResponse.FromString(data)

    async def get_and_ack(self) -> wire.DeltaDiscoveryResponse:
        response = await self.get()
        await self.ask(response.type_url, nonce=response.nonce)
        return response


async def until(condition: Callable[[], Any], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def events() -> list[XdsEvent]:
    return []


@pytest_asyncio.fixture
async def server(events: list[XdsEvent]) -> AsyncIterator[XdsServer]:
    one = XdsServer(on_event=events.append, settings=Settings(limits=Limits(streams=20)))
    yield one
    await one.stop(0)


@pytest_asyncio.fixture
async def channel(server: XdsServer) -> AsyncIterator[grpc.aio.Channel]:
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as one:
        yield one


async def test_a_node_gets_its_snapshot_and_its_changes(
    server: XdsServer, channel: grpc.aio.Channel, events: list[XdsEvent]
) -> None:
    server.publish({"n-0": make.snapshot(make.cluster("a"))})
    call = Call(channel, "n-0")
    await call.ask(CLUSTER)
    assert [one.name for one in (await call.get_and_ack()).resources] == ["a"]
    await until(lambda: server.status.acks["cds"] == 1)
    server.publish({"n-0": make.snapshot(make.cluster("a"), make.cluster("b"))})
    assert [one.name for one in (await call.get_and_ack()).resources] == ["b"]
    await until(lambda: server.status.acks["cds"] == 2)
    assert [event.kind for event in events] == ["connect", "push", "ack", "push", "ack"]
    assert {event.node_id for event in events} == {"n-0"}


async def test_who_comes_back_is_heard_out_before_anything_is_removed(
    server: XdsServer, channel: grpc.aio.Channel
) -> None:
    """A cluster that is gone goes after the routes to it, and it must be known that the client has some."""
    new = make.cluster("new", eds=False)
    server.publish({"n-0": make.snapshot(new, make.route("r", "new"))})
    call = Call(channel, "n-0")
    await call.returns(CLUSTER, {"new": new.version, "old": "1"})
    await until(lambda: server.status.connected() == 1)
    await call.returns(ROUTE, {"r": make.route("r", "old").version}, "r")
    assert [one.name for one in (await call.get_and_ack()).resources] == ["r"]
    assert list((await call.get()).removed_resources) == ["old"]


async def test_an_unknown_node_is_served_as_soon_as_it_is_known(server: XdsServer, channel: grpc.aio.Channel) -> None:
    call = Call(channel, "n-0")
    await call.ask(CLUSTER)
    await until(lambda: server.status.connected() == 1)
    server.publish({"other": make.snapshot(make.cluster("a"))})
    (node, _) = server.status.nodes()
    assert (node.node_id, node.types["cds"].state) == ("n-0", "NOT-SENT")
    server.publish({"n-0": make.snapshot(make.cluster("a"))})
    assert [one.name for one in (await call.get()).resources] == ["a"]


async def test_one_body_serves_all_nodes_of_a_group(server: XdsServer, channel: grpc.aio.Channel) -> None:
    names = [f"n-{number}" for number in range(10)]
    server.publish({name: make.snapshot(make.cluster("a")) for name in names})
    calls = [Call(channel, name) for name in names]
    for call in calls:
        await call.ask(CLUSTER)
    responses = [await call.get() for call in calls]
    assert len({response.nonce for response in responses}) == 10
    assert server._cache.encoded == 1


async def test_leases_are_kept_alive_by_heartbeats(server: XdsServer, channel: grpc.aio.Channel) -> None:
    server.publish({"n-0": make.snapshot()})
    server.lease({"n-0": [RuntimeLayer("limits", {"a": 1}, 0.6)]})
    call = Call(channel, "n-0")
    await call.ask(RUNTIME, "limits")
    assert (await call.get_and_ack()).resources[0].HasField("resource")
    for _ in range(3):
        beat = (await call.get_and_ack()).resources[0]
        assert not beat.HasField("resource")
        assert (beat.ttl.seconds, beat.ttl.nanos) == (0, 600_000_000)
    assert server.status.heartbeats >= 3
    server.lease({"n-0": [RuntimeLayer("limits", {"a": 2}, 60)]})
    while not (changed := (await call.get_and_ack()).resources[0]).HasField("resource"):
        pass
    assert changed.ttl.seconds == 60


async def test_a_lease_for_one_node_leaves_the_others_alone(server: XdsServer, channel: grpc.aio.Channel) -> None:
    server.publish({name: make.snapshot() for name in ("n-0", "n-1")})
    server.lease({name: [RuntimeLayer("limits", {"a": 1}, 60)] for name in ("n-0", "n-1")})
    server.lease({"n-0": []})
    call = Call(channel, "n-1")
    await call.ask(RUNTIME, "limits")
    assert (await call.get()).resources[0].ttl.seconds == 60


async def test_a_bad_lease_changes_nothing(server: XdsServer, channel: grpc.aio.Channel) -> None:
    server.publish({"n-0": make.snapshot()})
    server.lease({"n-0": [RuntimeLayer("limits", {"a": 1}, 60)]})
    with pytest.raises(LeaseError):
        server.lease({"n-0": [RuntimeLayer("limits", {}, 60)], "n-1": [RuntimeLayer("limits", {"a": -1}, 60)]})
    with pytest.raises(LeaseError, match="two layers named 'a'"):
        server.lease({"n-0": [RuntimeLayer("a", {}, 1), RuntimeLayer("a", {}, 1)]})
    call = Call(channel, "n-0")
    await call.ask(RUNTIME, "limits")
    assert (await call.get()).resources[0].ttl.seconds == 60


async def test_extension_configs_are_leased_beside_layers(server: XdsServer, channel: grpc.aio.Channel) -> None:
    server.publish({"n-0": make.snapshot(make.discovering("in", fault=True, auth=False))})
    server.lease({"n-0": [RuntimeLayer("limits", {"a": 1}, 60), LeasedResource(make.extension("fault"), 30)]})
    with pytest.raises(LeaseError, match=r"'auth'.*'in'.*default_config"):
        server.lease({"n-0": [LeasedResource(make.extension("auth"), 30)]})
    with pytest.raises(LeaseError, match=r"cds 'a' cannot be leased.*503"):
        server.lease({"n-0": [LeasedResource(make.cluster("a"), 30)]})
    call = Call(channel, "n-0")
    await call.ask(EXTENSION_CONFIG, "fault")
    assert (await call.get_and_ack()).resources[0].ttl.seconds == 30
    await call.ask(RUNTIME, "limits")
    assert (await call.get_and_ack()).resources[0].ttl.seconds == 60


@pytest.mark.parametrize("method", ["StreamRuntime", "DeltaRuntime"])
async def test_a_runtime_stream_of_its_own(server: XdsServer, channel: grpc.aio.Channel, method: str) -> None:
    server.publish({"n-0": make.snapshot()})
    server.lease({"n-0": [RuntimeLayer("chaos", {"a": 1}, 60)]})
    call = stream(channel, RTDS + method)
    node = wire.Node(id="n-0", client_features=[TTL_FEATURE])
    request: Any = wire.DiscoveryRequest(node=node, resource_names=["chaos"])
    if method == "DeltaRuntime":
        request = wire.DeltaDiscoveryRequest(node=node, resource_names_subscribe=["chaos"])
    await call.write(request.SerializeToString())
    response = wire.DiscoveryResponse.FromString(await asyncio.wait_for(call.read(), 5))
    assert response.type_url == RUNTIME
    assert len(response.resources) == 1


async def test_a_rejection_reaches_the_status(
    server: XdsServer, channel: grpc.aio.Channel, events: list[XdsEvent]
) -> None:
    server.publish({"n-0": make.snapshot(make.cluster("a"))})
    call = Call(channel, "n-0")
    await call.ask(CLUSTER)
    response = await call.get()
    await call.ask(CLUSTER, nonce=response.nonce, error="no good")
    await until(lambda: server.status.nacks["cds"] == 1)
    node = server.status.node("n-0")
    assert node is not None
    assert (node.types["cds"].state, node.types["cds"].error) == ("NACKED", "no good")
    assert [(event.type, event.message) for event in events if event.kind == "nack"] == [("cds", "no good")]


async def test_a_changed_node_ends_the_stream(server: XdsServer, channel: grpc.aio.Channel) -> None:
    call = Call(channel, "n-0")
    await call.ask(CLUSTER)
    call.node.id = "n-1"
    await call.ask(ENDPOINT, "a")
    assert await asyncio.wait_for(call.call.code(), 5) == grpc.StatusCode.INVALID_ARGUMENT
    assert "node.id changed" in await call.call.details()
    await until(lambda: server.status.connected() == 0)


async def test_a_fault_of_ours_costs_one_stream_and_says_so(
    server: XdsServer, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.publish({name: make.snapshot(make.cluster("a")) for name in ("n-0", "n-1")})
    witness, victim = Call(channel, "n-1"), Call(channel, "n-0")
    await witness.ask(CLUSTER)
    await witness.get_and_ack()
    await until(lambda: server.status.acks["cds"] == 1)
    with monkeypatch.context() as patch:
        patch.setattr(DeltaStream, "receive", lambda *_: 1 // 0)
        await victim.ask(CLUSTER)
        assert await asyncio.wait_for(victim.call.code(), 5) == grpc.StatusCode.INTERNAL
    assert "division" not in (await victim.call.details())
    assert "ZeroDivisionError" in caplog.text
    await witness.ask(ENDPOINT, "a")
    assert (await witness.get()).removed_resources == ["a"]


async def test_garbage_ends_the_stream(server: XdsServer, channel: grpc.aio.Channel) -> None:
    call = stream(channel, ADS + "StreamAggregatedResources")
    await call.write(b"\xff\xff\xff")
    assert await asyncio.wait_for(call.code(), 5) == grpc.StatusCode.INVALID_ARGUMENT


async def test_one_stream_too_many_is_refused(server: XdsServer, channel: grpc.aio.Channel) -> None:
    calls = [Call(channel, f"n-{number}") for number in range(20)]
    for call in calls:
        await call.ask(CLUSTER)
    await until(lambda: server.status.connected() == 20)
    one_more = Call(channel, "n-20")
    assert await asyncio.wait_for(one_more.call.code(), 5) == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_client_that_leaves_is_noticed(
    server: XdsServer, channel: grpc.aio.Channel, events: list[XdsEvent]
) -> None:
    leaving, breaking = Call(channel, "n-0"), Call(channel, "n-1")
    for call in (leaving, breaking):
        await call.ask(CLUSTER)
    await until(lambda: server.status.connected() == 2)
    await leaving.call.done_writing()
    breaking.call.cancel()
    await until(lambda: server.status.connected() == 0)
    assert [event.kind for event in events].count("disconnect") == 2
    assert not server._connections


async def test_stopping_ends_streams_first(server: XdsServer, channel: grpc.aio.Channel) -> None:
    """A server that waits for its streams to end by themselves waits for ever."""
    call = Call(channel, "n-0")
    await call.ask(CLUSTER)
    await until(lambda: server.status.connected() == 1)
    async with asyncio.timeout(2):
        await server.stop(30)
    assert await call.call.code() in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


async def test_a_stopped_server_starts_again_on_its_port() -> None:
    server = XdsServer()
    port = await server.start("127.0.0.1", 0)
    await server.stop(0)
    assert await server.start("127.0.0.1", port) == port
    await server.stop(0)
    await server.stop(0)


async def test_a_taken_port_is_named(server: XdsServer) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port}.*choose another port"):
            await server.start("127.0.0.1", port)


async def test_a_listener_that_fails_costs_no_stream(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: XdsEvent) -> None:
        raise ValueError("broken listener")

    server = XdsServer(on_event=fail)
    server.publish({"n-0": make.snapshot(make.cluster("a"))})
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = Call(channel, "n-0")
        await call.ask(CLUSTER)
        assert len((await call.get()).resources) == 1
    await server.stop(0)
    assert "broken listener" in caplog.text


async def test_handlers_of_others_share_the_port(server: XdsServer) -> None:
    async def echo(request: bytes, _: object) -> bytes:
        return request

    handler = grpc.method_handlers_generic_handler("acme.Echo", {"Say": grpc.unary_unary_rpc_method_handler(echo)})
    port = await server.start("127.0.0.1", 0, [handler])
    channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    async with channel:
        assert await channel.unary_unary("/acme.Echo/Say")(b"hello") == b"hello"
        unknown = channel.unary_unary("/acme.Echo/Shout")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await unknown(b"hello")
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_first_request_that_is_refused_ends_its_stream_and_is_told(
    server: XdsServer, channel: grpc.aio.Channel, events: list[XdsEvent]
) -> None:
    """The node is known by then: it connects, and is gone again with the reason."""
    call = Call(channel, "a-0")
    await call.ask("")
    with pytest.raises(grpc.aio.AioRpcError, match="type_url is ''"):
        await call.get()
    await until(lambda: [event.kind for event in events] == ["connect", "disconnect"])
    assert "type_url is ''" in events[-1].message
    assert server.status.connected() == 0
