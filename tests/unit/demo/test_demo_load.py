"""The load generator: arrivals as pure numbers, and a run against a small server."""

from __future__ import annotations

import asyncio
import io
import json
import random
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web

from meshctl.demo import load
from meshctl.demo.statistics import Tally, quantile
from meshctl.demo.topology import MIX


def test_even_arrivals_are_even() -> None:
    times = list(load.arrivals([10.0, 20.0], 1.0, None))
    assert len(times) == 30
    assert times[0] == pytest.approx(0.05)
    assert all(b - a == pytest.approx(0.1) for a, b in pairwise(times[:10]))
    assert all(b - a == pytest.approx(0.05) for a, b in pairwise(times[11:]))


def test_silence_has_no_arrivals() -> None:
    assert next(load.arrivals([0.0, 0.0, 5.0], 1.0, None)) == pytest.approx(2.1)
    assert list(load.arrivals([0.0], 1.0, random.Random(1))) == []


def test_poisson_arrivals_have_the_rate_and_the_variance_of_poisson() -> None:
    times = list(load.arrivals([20.0] * 2000, 1.0, random.Random(3)))
    counts = [0] * 2000
    for moment in times:
        counts[int(moment)] += 1
    mean = sum(counts) / 2000
    variance = sum((count - mean) ** 2 for count in counts) / 2000
    assert mean == pytest.approx(20.0, rel=0.03)
    assert variance / mean == pytest.approx(1.0, abs=0.12)
    assert times == sorted(times)


def test_poisson_arrivals_are_repeatable() -> None:
    once, again, other = (list(load.arrivals([9.0] * 9, 1.0, random.Random(seed))) for seed in (1, 1, 2))
    assert once == again != other


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2.0), (0.75, 3.0), (0.76, 4.0), (1.0, 4.0), (0.0, 1.0)])
def test_quantile_is_the_nearest_rank(share: float, expected: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], share) == expected


def test_quantile_of_nothing_is_unknown() -> None:
    assert quantile([], 0.5) is None


def test_a_tally_keeps_dropped_requests_out_of_the_latencies() -> None:
    tally = Tally(scheduled=3, sent=2)
    for status, latency in (("200", 0.1), ("503", 0.2), ("dropped", None)):
        tally.add(status, latency)
    found = tally.summary()
    assert found["errors"] == {"503": 1, "dropped": 1}
    assert (found["ok"], found["p50"], found["p99"]) == (1, 0.1, 0.2)


class Server:
    """Answers after ``delay`` seconds with ``status``; counts paths."""

    def __init__(self) -> None:
        self.delay, self.status = 0.0, 200
        self.paths: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        await asyncio.sleep(self.delay)
        return web.Response(status=self.status)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made, app = Server(), web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def run(settings: load.Settings) -> tuple[dict[str, object], list[dict[str, object]]]:
    lines = io.StringIO()
    summary = await load.run(settings, lines, asyncio.Event())
    return summary, [json.loads(line) for line in lines.getvalue().splitlines()]


async def test_a_run_sends_everything_and_says_so(server: Server) -> None:
    summary, lines = await run(load.Settings(server.url, (50.0, 50.0), 0.5, even=True))
    assert (summary["scheduled"], summary["ok"], summary["finished"]) == (50, 50, True)
    assert summary["errors"] == {}
    assert set(server.paths) <= set(MIX)
    assert sum(int(str(line["ok"])) for line in lines) == 50


async def test_a_slow_server_cannot_slow_the_measurement(server: Server) -> None:
    """Every request is sent when due, though none was answered yet."""
    server.delay = 0.6
    summary, _ = await run(load.Settings(server.url, (40.0,), 0.5, even=True))
    assert summary["sent"] == 20
    assert 0.6 <= float(str(summary["p50"])) < 1.1


async def test_latency_counts_from_when_it_was_due(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that is itself late must not hide it: latencies grow, and late starts are counted."""
    original = load.Load._start

    def stalled(self: load.Load, path: str, due: float) -> None:
        time.sleep(0.06)
        original(self, path, due)

    monkeypatch.setattr(load.Load, "_start", stalled)
    summary, _ = await run(load.Settings(server.url, (40.0,), 0.5, even=True))
    assert int(str(summary["late"])) > 15
    assert float(str(summary["p99"])) > 0.5


async def test_what_exceeds_the_bound_is_dropped_and_counted(server: Server) -> None:
    server.delay = 0.5
    summary, _ = await run(load.Settings(server.url, (100.0,), 0.2, even=True, max_in_flight=5))
    assert summary["errors"] == {"dropped": 15}
    assert (summary["scheduled"], summary["sent"], summary["ok"]) == (20, 5, 5)


async def test_errors_are_counted_by_kind(server: Server) -> None:
    server.status = 503
    summary, _ = await run(load.Settings(server.url, (20.0,), 0.5, even=True))
    assert summary["errors"] == {"503": 10}
    gone, _ = await run(load.Settings("http://127.0.0.1:9", (20.0,), 0.5, even=True))
    assert gone["errors"] == {"connection": 10}


async def test_a_request_without_an_answer_times_out(server: Server) -> None:
    server.delay = 5.0
    summary, _ = await run(load.Settings(server.url, (4.0,), 0.5, even=True, timeout=0.3))
    assert summary["errors"] == {"timeout": 2}


async def test_stopping_ends_early_and_unfinished(server: Server) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(load.run(load.Settings(server.url, (20.0,), 60.0, even=True), io.StringIO(), stop))
    async with asyncio.timeout(10):
        while not server.paths:
            await asyncio.sleep(0.01)
        stop.set()
        summary = await running
    assert summary["finished"] is False
    assert summary["ok"] == summary["sent"]


def test_rates_come_from_a_file_or_the_shipped_trace(tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    file.write_text('{"step": 0.5, "rates": [1, 2]}')
    settings, _ = load.parse(["--target", "http://h:1/", "--rates", str(file), "--arrivals", "even"])
    assert (settings.target, settings.rates, settings.duration, settings.even) == ("http://h:1", (1.0, 2.0), 1.0, True)
    shipped, _ = load.parse(["--target", "http://h:1", "--duration", "30", "--rate", "5"])
    assert sum(shipped.rates) / len(shipped.rates) == pytest.approx(5.0)
