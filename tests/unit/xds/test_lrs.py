"""LRS over real gRPC: what clients report becomes values, and nothing absurd does."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterStats, ClusterStatsDroppedRequests, UpstreamLocalityStats
from envoy_data_plane.envoy.service.load_stats.v3 import LoadStatsRequest, LoadStatsResponse

from xds.loads import ClusterLoad, LoadReport
from xds.server import Settings, XdsServer

METHOD = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
NODE = Node(id="cart-0", cluster="cart", user_agent_name="envoy")
TEN = datetime.timedelta(seconds=10)


async def until(condition: Callable[[], Any], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def reports() -> list[LoadReport]:
    return []


@pytest_asyncio.fixture
async def server(reports: list[LoadReport]) -> AsyncIterator[XdsServer]:
    one = XdsServer(on_load=reports.append, clock=lambda: 99.0, settings=Settings(load_report_seconds=2.5))
    yield one
    await one.stop(0)


@pytest_asyncio.fixture
async def channel(server: XdsServer) -> AsyncIterator[Any]:
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as one:
        yield one


async def opened(channel: Any, node: Node | None = NODE) -> Any:
    call = channel.stream_stream(METHOD)()
    await call.write(bytes(LoadStatsRequest(node=node)))
    return call


async def answered(channel: Any) -> Any:
    call = await opened(channel)
    await asyncio.wait_for(call.read(), 5.0)
    return call


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    code = await asyncio.wait_for(call.code(), 5.0)
    return code, await call.details()


async def test_the_first_message_is_answered_with_what_is_wanted(channel: Any, reports: list[LoadReport]) -> None:
    call = await opened(channel)
    response = LoadStatsResponse.parse(await asyncio.wait_for(call.read(), 5.0))
    assert response == LoadStatsResponse(
        send_all_clusters=True, load_reporting_interval=datetime.timedelta(seconds=2.5)
    )
    assert reports == [], "it says hello and nothing else"


async def test_a_report_becomes_values(channel: Any, reports: list[LoadReport]) -> None:
    """Localities are summed: a cluster's load is one number."""
    call = await answered(channel)
    localities = [
        UpstreamLocalityStats(
            total_issued_requests=issued,
            total_successful_requests=5,
            total_error_requests=1,
            total_requests_in_progress=2,
        )
        for issued in (7, 8)
    ]
    dropped = [ClusterStatsDroppedRequests(category="lb", dropped_count=3)]
    stats = [
        ClusterStats(
            cluster_name="catalog",
            cluster_service_name="shop/catalog",
            upstream_locality_stats=localities,
            total_dropped_requests=4,
            dropped_requests=dropped,
            load_report_interval=datetime.timedelta(seconds=2, milliseconds=500),
        ),
        ClusterStats(cluster_name="idle", load_report_interval=TEN),
    ]
    await call.write(bytes(LoadStatsRequest(cluster_stats=stats)))
    await until(lambda: reports)
    load = ClusterLoad("catalog", 2.5, 15, 10, 2, 4, 4, {"lb": 3}, "shop/catalog")
    assert reports == [LoadReport("cart-0", "cart", 99.0, (load, ClusterLoad("idle", 10.0)))]


async def test_a_client_that_does_not_say_who_it_is_is_refused(channel: Any) -> None:
    for node in (None, Node()):
        code, words = await refusal(await opened(channel, node))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "set node.id in the bootstrap" in words


async def test_a_client_is_pinned(channel: Any, reports: list[LoadReport]) -> None:
    call = await answered(channel)
    stats = [ClusterStats(cluster_name="c", load_report_interval=TEN)]
    await call.write(bytes(LoadStatsRequest(node=NODE, cluster_stats=stats)))
    await until(lambda: reports)
    await call.write(bytes(LoadStatsRequest(node=Node(id="other"), cluster_stats=stats)))
    code, words = await refusal(call)
    assert (code, "changed from 'cart-0' to 'other'" in words) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert len(reports) == 1


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xff\xff", "are not a LoadStatsRequest"),
        (bytes(LoadStatsRequest(cluster_stats=[ClusterStats(cluster_name="c")])), "load_report_interval is 0 s"),
        (
            bytes(
                LoadStatsRequest(
                    cluster_stats=[
                        ClusterStats(
                            cluster_name="c",
                            load_report_interval=TEN,
                            upstream_locality_stats=[UpstreamLocalityStats(total_issued_requests=2**64 - 1)],
                        )
                    ]
                )
            ),
            "expected at most 1000000000000",
        ),
    ],
)
async def test_what_cannot_be_ends_the_stream_and_is_not_counted(
    channel: Any, reports: list[LoadReport], data: bytes, problem: str
) -> None:
    call = await answered(channel)
    await call.write(data)
    code, words = await refusal(call)
    assert (code, problem in words) == (grpc.StatusCode.INVALID_ARGUMENT, True), words
    assert reports == []


async def test_a_listener_that_fails_costs_no_stream(
    reports: list[LoadReport], caplog: pytest.LogCaptureFixture
) -> None:
    def listen(report: LoadReport) -> None:
        reports.append(report)
        raise ZeroDivisionError

    server = XdsServer(on_load=listen)
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = await answered(channel)
        for count in (1, 2):
            await call.write(
                bytes(LoadStatsRequest(cluster_stats=[ClusterStats(cluster_name="c", load_report_interval=TEN)]))
            )
            await until(lambda: len(reports) >= count)  # noqa: B023  # awaited at once
    await server.stop(0)
    assert [record.levelno for record in caplog.records if "load report of cart-0" in record.message] == [
        logging.ERROR,
        logging.ERROR,
    ]


async def test_streams_end_with_the_server(server: XdsServer, channel: Any) -> None:
    call = await answered(channel)
    await asyncio.wait_for(server.stop(10.0), 3.0)
    assert await asyncio.wait_for(call.code(), 5.0) is grpc.StatusCode.OK


async def test_it_can_be_switched_off() -> None:
    server = XdsServer(settings=Settings(load_reports=False))
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        code, _ = await refusal(channel.stream_stream(METHOD)())  # type: ignore[call-arg]  # stubs insist on serializers
        assert code is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0)
