"""Range queries against a small server that speaks Prometheus' HTTP API and keeps its limits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from meshctl.errors import ApiError, MeshctlError, UnreachableError, UsageError
from meshctl.sources import prometheus_range
from meshctl.sources.prometheus_range import MOST_POINTS, Range, RangeQuery, Server, query_range, series_name

START = 1_700_000_000.0


def at(moment: float) -> float | None:
    """The value of the served series: a gap in the second hour."""
    return None if 3600 <= moment - START < 7200 else round(moment - START)


@dataclass
class Prometheus:
    """Answers as the documentation of query_range says; ``answer`` replaces that."""

    asked: list[dict[str, str]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    answer: Any = None
    url: str = ""

    async def query_range(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        self.tokens.append(request.headers.get("Authorization"))
        if self.answer is not None:
            return self.answer() if callable(self.answer) else web.json_response(self.answer)
        start, end, step = (float(request.query[key]) for key in ("start", "end", "step"))
        if (end - start) / step > MOST_POINTS:
            return refusal(400, "bad_data", "exceeded maximum resolution of 11,000 points per timeseries")
        moments = [start + number * step for number in range(int((end - start) / step) + 1)]
        values = [[moment, str(value)] for moment in moments if (value := at(moment)) is not None]
        return web.json_response(matrix([{"metric": {"__name__": "rps", "job": "shop"}, "values": values}]))


def matrix(result: list[dict[str, Any]]) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "matrix", "result": result}}


def refusal(status: int, kind: str, text: str) -> web.Response:
    return web.json_response({"status": "error", "errorType": kind, "error": text}, status=status)


@pytest.fixture
async def prometheus() -> AsyncIterator[Prometheus]:
    served, app = Prometheus(), web.Application()
    app.router.add_get("/base/api/v1/query_range", served.query_range)
    async with TestServer(app) as server:
        served.url = str(server.make_url("/base/"))
        yield served


async def ask(served: Prometheus, points: int = 10, step: float = 60.0, token: str | None = None) -> list[Range]:
    query = RangeQuery("sum(rps)", START, START + (points - 1) * step, step)
    return await asyncio.to_thread(query_range, Server(served.url, token), query)


async def test_values_come_on_a_regular_grid_with_gaps(prometheus: Prometheus) -> None:
    (found,) = await ask(prometheus, points=180)
    assert (found.name, found.start, found.step, len(found.values)) == ('rps{job="shop"}', START, 60.0, 180)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found.values)), np.arange(60, 120))
    assert found.values[130] == 130 * 60


async def test_a_long_range_is_asked_in_chunks_that_the_server_accepts(prometheus: Prometheus) -> None:
    (found,) = await ask(prometheus, points=2 * MOST_POINTS + 1)
    assert len(prometheus.asked) == 3
    assert np.isnan(found.values).sum() == 60
    known = np.flatnonzero(np.isfinite(found.values))
    np.testing.assert_array_equal(found.values[known], known * 60.0)
    spans = [(float(one["end"]) - float(one["start"])) / 60 + 1 for one in prometheus.asked]
    assert spans == [MOST_POINTS, MOST_POINTS, 1]


@pytest.mark.parametrize("points", [1, 2, MOST_POINTS - 1, MOST_POINTS, MOST_POINTS + 1])
def test_chunks_share_no_point_and_leave_none_out(points: int) -> None:
    query = RangeQuery("q", 0.0, (points - 1) * 0.1, 0.1)
    chunks = list(query.chunks())
    assert query.points == points == sum(chunk.points for chunk in chunks)
    assert all(chunk.points <= MOST_POINTS for chunk in chunks)
    starts = [round(chunk.start / 0.1) for chunk in chunks]
    assert starts == list(range(0, points, MOST_POINTS))


async def test_an_end_between_two_points_is_rounded_down(prometheus: Prometheus) -> None:
    query = RangeQuery("q", START, START + 150, 60)
    (found,) = await asyncio.to_thread(query_range, Server(prometheus.url), query)
    assert found.values.tolist() == [0, 60, 120]


async def test_series_are_told_apart_by_labels_and_sorted(prometheus: Prometheus) -> None:
    rows = [{"metric": {"job": job}, "values": [[START, value]]} for job, value in (("b", "2"), ("a", "1"))]
    prometheus.answer = matrix(rows)
    found = await ask(prometheus, points=2)
    assert [(one.name, one.values[0]) for one in found] == [('{job="a"}', 1.0), ('{job="b"}', 2.0)]
    assert all(math.isnan(one.values[1]) for one in found)


async def test_what_is_no_number_is_a_gap(prometheus: Prometheus) -> None:
    values = [[START, "NaN"], [START + 60, "+Inf"], [START + 120, "-Inf"], [START + 180, "5e-1"]]
    prometheus.answer = matrix([{"metric": {}, "values": values}])
    (found,) = await ask(prometheus, points=4)
    assert found.name == "sum(rps)"
    assert np.isnan(found.values).tolist() == [True, True, True, False]
    assert found.values[3] == 0.5


@pytest.mark.parametrize(
    ("labels", "expected"),
    [({}, "q"), ({"__name__": "up"}, "up"), ({"a": "1", "b": 'x"y'}, r'{a="1",b="x\"y"}')],
)
def test_names(labels: dict[str, str], expected: str) -> None:
    assert series_name(labels, "q") == expected


async def test_the_token_is_sent_as_bearer(prometheus: Prometheus) -> None:
    await ask(prometheus, token="abc")
    await ask(prometheus)
    assert prometheus.tokens == ["Bearer abc", None]


def redirected() -> web.Response:
    return web.Response(status=302, headers={"Location": "http://127.0.0.1:9/elsewhere"})


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (
            lambda: refusal(400, "bad_data", "parse error: unexpected )"),
            UsageError,
            r"unexpected \); correct the query",
        ),
        (lambda: refusal(422, "execution", "many-to-many matching"), UsageError, "many-to-many"),
        (lambda: refusal(503, "timeout", "query timed out"), ApiError, "query timed out; try again, or ask for less"),
        (lambda: web.Response(status=401), ApiError, "HTTP 401 Unauthorized; give a token"),
        (lambda: web.Response(status=404, text="no"), ApiError, "HTTP 404 Not Found; check the path"),
        (redirected, ApiError, "HTTP 302 Found; name the address"),
        (lambda: web.Response(text="<html>hello"), ApiError, "no JSON document.*is this a Prometheus"),
        ({"status": "success"}, ApiError, "no matrix of numbers"),
        (matrix([{"metric": [], "values": []}]), ApiError, "no matrix of numbers"),
        (matrix([{"metric": {}, "values": [[0, "five"]]}]), ApiError, "no matrix of numbers"),
        (matrix([{"metric": {}, "histograms": []}]), ApiError, "no matrix of numbers.*values"),
        ([1], ApiError, "no JSON document"),
        (matrix([]), UsageError, "no data for 'sum.rps.' in this range; check the query"),
    ],
)
async def test_errors_say_what_to_do(prometheus: Prometheus, answer: Any, kind: type[MeshctlError], text: str) -> None:
    prometheus.answer = answer
    with pytest.raises(kind, match=text) as caught:
        await ask(prometheus, token="secret-token")
    assert type(caught.value) is kind
    assert "secret-token" not in str(caught.value)


async def test_an_answer_without_end_is_refused(prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_range, "MOST_BYTES", 1000)
    with pytest.raises(UsageError, match="too large; aggregate the query"):
        await ask(prometheus, points=500)


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(UnreachableError, match=r"no answer from http://127\.0\.0\.1:9: .*check the URL"):
        query_range(Server("http://127.0.0.1:9"), RangeQuery("q", 0, 60, 60))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:9090", "http://", ""])
def test_only_http_is_asked(url: str) -> None:
    with pytest.raises(UsageError, match="expected a URL such as"):
        Server(url)


@pytest.mark.parametrize(("start", "end", "step"), [(0, 10, 0), (0, 10, -1), (10, 0, 1), (0, 10, math.nan)])
def test_a_range_that_cannot_be_meant_is_refused(start: float, end: float, step: float) -> None:
    with pytest.raises(UsageError, match=r"^(step|end): "):
        RangeQuery("q", start, end, step)
