"""One demo service in this process: workers, queue, calls, headers, endings."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import aiohttp
import pytest
from aiohttp import web

from meshctl.demo import service
from meshctl.demo.orders import Nowhere, connect
from meshctl.demo.service import QueueFullError, Settings, Workers, WorkingTime
from meshctl.demo.topology import FORWARDED

Outbound = Callable[[], str]


def settings(name: str, outbound: str | None = None, concurrency: int = 4, queue: int = 8) -> Settings:
    return Settings(name, f"{name}-7", "127.0.0.1", 0, outbound, concurrency, queue, seed=1)


class Mesh:
    """Stands where the sidecar's outbound listener is: records calls and answers by the status of the Host called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        self.statuses: dict[str, int] = {}
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        kept = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        self.calls.append((request.headers["Host"], request.path, kept))
        return web.Response(status=self.statuses.get(request.headers["Host"], 200))


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    made, app = Mesh(), web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    async with listening(app) as made.url:
        yield made


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


class Counts(Nowhere):
    def __init__(self) -> None:
        self.names: list[str] = []

    def count(self, name: str) -> None:
        self.names.append(name)


async def test_a_page_calls_its_callees_in_order_by_host(mesh: Mesh, session: aiohttp.ClientSession) -> None:
    app = service.Application(settings("frontend", mesh.url), session, Nowhere()).routes()
    headers = {"x-chaos-group": "treatment", "traceparent": "00-1-2-01", "x-request-id": "r1", "cookie": "secret"}
    async with listening(app) as url, session.get(f"{url}/product", headers=headers) as response:
        assert response.status == 200
        assert await response.json() == {"service": "frontend", "instance": "frontend-7"}
    forwarded = {name: headers[name] for name in ("traceparent", "x-request-id", "x-chaos-group")}
    assert mesh.calls == [
        ("catalog", "/item", forwarded),
        ("recommendation", "/similar", forwarded),
        ("cart", "/basket", forwarded),
    ]


async def test_a_needed_callee_fails_the_page_and_an_optional_one_does_not(
    mesh: Mesh, session: aiohttp.ClientSession
) -> None:
    app = service.Application(settings("frontend", mesh.url), session, Nowhere()).routes()
    async with listening(app) as url:
        mesh.statuses = {"recommendation": 503}
        async with session.get(f"{url}/product") as response:
            assert response.status == 200
        mesh.statuses = {"catalog": 503}
        async with session.get(f"{url}/product") as response:
            assert (response.status, await response.text()) == (502, "catalog/item answered 503\n")


async def test_no_sidecar_is_a_failed_call_not_a_crash(session: aiohttp.ClientSession) -> None:
    app = service.Application(settings("frontend", "http://127.0.0.1:9"), session, Nowhere()).routes()
    async with listening(app) as url, session.get(f"{url}/home") as response:
        assert response.status == 502


async def test_orders_are_counted_only_when_they_succeed(mesh: Mesh, session: aiohttp.ClientSession) -> None:
    counts = Counts()
    app = service.Application(settings("checkout", mesh.url), session, counts).routes()
    async with listening(app) as url:
        await (await session.get(f"{url}/order")).read()
        mesh.statuses = {"payment": 500}
        await (await session.get(f"{url}/order")).read()
    assert counts.names == ["orders"]


async def test_a_full_queue_is_answered_at_once(session: aiohttp.ClientSession) -> None:
    app = service.Application(settings("catalog", concurrency=1, queue=1), session, Nowhere()).routes()
    async with listening(app) as url:

        async def ask() -> tuple[int, str | None]:
            async with session.get(f"{url}/list") as response:
                return response.status, response.headers.get("x-overload")

        answers = await asyncio.gather(*(ask() for _ in range(5)))
    assert sorted(answers, key=lambda answer: answer[0]) == [(200, None)] * 2 + [(503, "queue-full")] * 3


async def test_health_needs_no_worker(session: aiohttp.ClientSession) -> None:
    app = service.Application(settings("catalog", concurrency=1, queue=0), session, Nowhere()).routes()
    async with listening(app) as url:
        busy = asyncio.create_task(session.get(f"{url}/list"))
        async with session.get(f"{url}/healthz") as response:
            assert response.status == 200
        (await busy).close()


async def test_workers_bound_what_runs_and_what_waits() -> None:
    workers = Workers(concurrency=2, queue=1)
    release, running = asyncio.Event(), 0

    async def work() -> None:
        nonlocal running
        async with workers.worker():
            running += 1
            await release.wait()

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    await asyncio.sleep(0)
    assert (running, workers.waiting) == (2, 1)
    with pytest.raises(QueueFullError):
        await work()
    release.set()
    await asyncio.gather(*tasks)
    assert (running, workers.waiting) == (3, 0)


async def test_who_gives_up_leaves_the_queue() -> None:
    workers = Workers(concurrency=1, queue=1)
    async with workers.worker():
        waiting = asyncio.create_task(workers.worker().__aenter__())
        await asyncio.sleep(0)
        assert workers.waiting == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert workers.waiting == 0


def test_working_times_have_the_stated_mean() -> None:
    times = WorkingTime(0.08, 0.35, Random(5))
    drawn = [times.draw() for _ in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(0.08, rel=0.02)
    assert min(drawn) > 0.0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", "nobody"],
        ["--name", "frontend"],
        ["--name", "cart", "--concurrency", "0"],
        ["--name", "cart", "--queue", "-1"],
    ],
)
def test_senseless_settings_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        service.parse(arguments)
    assert "error:" in capsys.readouterr().err


def test_a_control_plane_that_is_away_disturbs_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    metrics = connect("checkout", "checkout-0", "127.0.0.1:9")
    metrics.count("orders")
    metrics.close()
    assert capfd.readouterr() == ("", "")


def test_without_an_address_nothing_is_exported() -> None:
    assert isinstance(connect("cart", "cart-0", None), Nowhere)


async def test_sigterm_lets_requests_finish(session: aiohttp.ClientSession, unused_port: int) -> None:
    argv = [sys.executable, "-m", "meshctl.demo.service", "--name", "payment", "--port", str(unused_port)]
    process = subprocess.Popen(argv)
    url = f"http://127.0.0.1:{unused_port}"
    try:
        await _until_healthy(session, url)
        asked = asyncio.create_task(session.get(f"{url}/charge"))
        await asyncio.sleep(0.03)  # the request takes some 100 ms
        os.kill(process.pid, signal.SIGTERM)
        assert (await asked).status == 200
        assert await asyncio.to_thread(process.wait, 10) == 0
    finally:
        process.kill()
        process.wait()


async def _until_healthy(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                async with session.get(f"{url}/healthz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
