"""Debounce and canary in the server, over real gRPC with clients of raw bytes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.support.envoys import HOST, until
from tests.support.releases import cluster, content, group, listener
from tests.support.resources import OUTBOUND, routes
from tests.support.resources import listener as outbound
from xds import _wire_pb2 as wire
from xds.canary import Policy
from xds.model import RuntimeLayer
from xds.preflight import Preflight
from xds.protocol.events import TTL_FEATURE
from xds.server import Settings, XdsServer
from xds.snapshot import Snapshot, resource, resource_set
from xds.status import XdsEvent
from xds.types import CLUSTER, ENDPOINT, LISTENER, ROUTE, RUNTIME

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

Response = wire.DeltaDiscoveryResponse


class Client:
    """One stream of delta ADS, in group ``g``."""

    def __init__(self, channel: Any, node_id: str) -> None:
        self.node = wire.Node(id=node_id, cluster="g", client_features=[TTL_FEATURE])
        self.call = channel.stream_stream(ADS)()

    async def ask(self, type_url: str, *names: str, nonce: str = "", error: str = "") -> None:
        request = wire.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names, response_nonce=nonce)
        request.node.CopyFrom(self.node)
        if error:
            request.error_detail.message = error
        await self.call.write(request.SerializeToString())

    async def get(self, type_url: str) -> Response:
        got = Response.FromString(await asyncio.wait_for(self.call.read(), 5))
        assert got.type_url == type_url
        return got

    async def take(self, type_url: str) -> Response:
        got = await self.get(type_url)
        await self.ask(type_url, nonce=got.nonce)
        return got

    async def start(self, *type_urls: str) -> None:
        """Ask for these types (clusters and listeners) and accept them."""
        for url in type_urls:
            await self.ask(url)
            await self.take(url)


class World:
    """A server and what it said."""

    def __init__(self, server: XdsServer, events: list[XdsEvent], channel: Any) -> None:
        self.server, self.events, self.channel = server, events, channel

    def client(self, node_id: str) -> Client:
        return Client(self.channel, node_id)

    def told(self) -> list[str]:
        return [event.kind for event in self.events if event.kind.startswith(("canary", "preflight"))]

    def pushed(self, node_id: str) -> list[str]:
        return [event.version for event in self.events if (event.kind, event.node_id) == ("push", node_id)]


@asynccontextmanager
async def world(settings: Settings) -> AsyncIterator[World]:
    events: list[XdsEvent] = []
    server = XdsServer(on_event=events.append, settings=settings)
    port = await server.start(HOST, 0)
    try:
        async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
            yield World(server, events, channel)
    finally:
        await server.stop(0.1)


def version(one: Snapshot, type_url: str = CLUSTER) -> str:
    return one.sets[type_url].version


async def test_of_changes_that_follow_each_other_the_first_and_the_last_go_out() -> None:
    async with world(Settings(debounce_seconds=0.15)) as one:
        client = one.client("n0")
        one.server.publish(group(1))
        await client.start(CLUSTER)
        await asyncio.sleep(0.2)  # quiet, which cannot be waited for otherwise
        for number in range(2, 7):
            one.server.publish(group(1, number))
        assert (await client.take(CLUSTER)).system_version_info == version(content(2))
        assert (await client.take(CLUSTER)).system_version_info == version(content(6))
        assert one.pushed("n0") == [version(content(number)) for number in (1, 2, 6)]


async def test_leases_do_not_wait_for_quiet() -> None:
    async with world(Settings(debounce_seconds=30.0, debounce_cap_seconds=60.0)) as one:
        client = one.client("n0")
        one.server.publish(group(1))
        await client.start(CLUSTER)
        one.server.publish(group(1, 2))
        one.server.lease({"n0": [RuntimeLayer("limits", {"a": 7}, 15)]})
        await client.ask(RUNTIME, "limits")
        assert [each.name for each in (await client.take(RUNTIME)).resources] == ["limits"]
        one.server.lease({"n0": [RuntimeLayer("limits", {"a": 8}, 15)]})
        await client.take(RUNTIME)
        assert one.pushed("n0").count(version(content(2))) == 0


def renamed(one: Snapshot, port: int) -> Snapshot:
    """With another listener, which asks for routes of its own."""
    made = resource(OUTBOUND, outbound(port))
    return Snapshot(
        {
            **one.sets,
            LISTENER: resource_set(LISTENER, [listener(1), made]),
            ROUTE: resource_set(ROUTE, [resource(OUTBOUND, routes("backend"))]),
        }
    )


@pytest.mark.parametrize("good", [True, False])
async def test_routes_that_are_asked_for_late_belong_to_the_change(good: bool) -> None:
    """A client asks for the routes of a new listener after it accepted the listener."""
    before = Snapshot({**content().sets, ROUTE: resource_set(ROUTE, [])})
    async with world(Settings(canary=Policy(settle=2.0), debounce_seconds=0.0)) as one:
        one.server.publish(dict.fromkeys(("n0", "n1"), before))
        canary, other = one.client("n0"), one.client("n1")
        for client in (canary, other):
            await client.start(CLUSTER, LISTENER)
        one.server.publish(dict.fromkeys(("n0", "n1"), renamed(before, 7)))
        await canary.take(LISTENER)
        await until(lambda: one.server.status.acks["lds"] == 3)
        assert one.told() == ["canary-started"]
        await canary.ask(ROUTE, OUTBOUND)
        got = await canary.get(ROUTE)
        await canary.ask(ROUTE, nonce=got.nonce, error="" if good else "no such thing")
        await until(lambda: len(one.told()) == 2)
        assert one.told()[1] == ("canary-passed" if good else "canary-rolled-back")
        await canary.ask(ENDPOINT, "backend")
        if good:
            await other.take(LISTENER)
        else:
            assert (await canary.take(LISTENER)).removed_resources == [OUTBOUND]
            assert len(one.pushed("n1")) == 2, "the first clusters and listeners"


async def test_a_canary_that_does_not_ask_for_what_changed_passes_it_on() -> None:
    async with world(Settings(canary=Policy(settle=0.1), debounce_seconds=0.0)) as one:
        one.server.publish(group(2))
        canary, other = one.client("n0"), one.client("n1")
        await canary.ask(RUNTIME, "limits")
        await canary.take(RUNTIME)
        await other.start(CLUSTER)
        one.server.publish(group(2, 2))
        assert (await other.take(CLUSTER)).system_version_info == version(content(2))
        assert one.told() == ["canary-started", "canary-passed"]


async def test_a_silent_canary_is_seen_and_its_age_is_on_the_server_s_clock() -> None:
    async with world(Settings(canary=Policy(deadline=0.3), debounce_seconds=0.0)) as one:
        one.server.publish(group(2))
        canary, other = one.client("n0"), one.client("n1")
        await canary.start(CLUSTER)
        await other.start(CLUSTER)
        one.server.publish(group(2, 2))
        await canary.get(CLUSTER)
        [trying] = one.server.rollouts()
        assert dataclasses.replace(trying, since=0.0) == dataclasses.replace(trying, since=0.0, state="trying")
        assert 0.0 <= one.server.now() - trying.since < 5.0
        await until(lambda: one.told() == ["canary-started", "canary-rolled-back"])
        assert [status.state for status in one.server.rollouts()] == ["rolled-back"]
        assert other.call.done() is False
        assert one.pushed("n1") == [version(content(1))]


async def test_one_node_without_others_waits_for_nobody() -> None:
    async with world(Settings(canary=Policy(), debounce_seconds=0.0)) as one:
        one.server.publish(group(2))
        alone = one.client("n0")
        await alone.start(CLUSTER)
        one.server.publish(group(2, 2))
        await alone.take(CLUSTER)
        assert one.told() == []


async def test_a_server_that_stops_takes_no_canary_for_lost() -> None:
    async with world(Settings(canary=Policy(), debounce_seconds=0.0)) as one:
        one.server.publish(group(3))
        clients = [one.client(f"n{i}") for i in range(3)]
        for client in clients:
            await client.start(CLUSTER)
        one.server.publish(group(3, 2))
        assert one.told() == ["canary-started"]
        await one.server.stop(0.1)
        assert one.told() == ["canary-started"]


def test_preflight_needs_to_know_groups() -> None:
    server = XdsServer(preflight=Preflight())
    with pytest.raises(ValueError, match="'n1' has none"):
        server.publish(group(2), groups={"n0": "g"})


def test_content_can_be_published_before_there_is_an_event_loop() -> None:
    server = XdsServer(settings=Settings(canary=Policy()))
    for number in (1, 2, 3):
        server.publish(group(2, number), dict.fromkeys(group(2), "g"))
    assert cluster("backend", 3) in group(2, 3)["n0"].sets[CLUSTER].resources.values()
    assert server.rollouts() == []
