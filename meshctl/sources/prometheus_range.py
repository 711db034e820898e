"""Recorded rates out of Prometheus, or anything that speaks its HTTP API: Thanos, Mimir, VictoriaMetrics.

One range query is asked in chunks, because a server refuses more than 11,000 points per series
(https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries), and comes back as values on one regular
grid, NaN where the server had none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import numpy as np
import numpy.typing as npt

from meshctl.errors import ApiError, UnreachableError, UsageError

Json = dict[str, Any]

MOST_POINTS = 11_000
"""Points per series that a server answers at most."""

MOST_BYTES = 256 * 2**20
"""Of one answer: more would be thousands of series, which nobody means to forecast one by one."""

WRONG_QUERY = frozenset({"bad_data", "execution"})
"""Types of errors that are in the query, not in the server."""


@dataclass(frozen=True, slots=True)
class RangeQuery:
    """``query`` (PromQL) at ``start``, ``start + step``, ... up to and including ``end``; all in seconds."""

    query: str
    start: float
    end: float
    step: float

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise UsageError(f"step: expected more than 0 seconds, got {self.step:g}")
        if self.end < self.start:
            raise UsageError("end: it lies before start; exchange the two")

    @property
    def points(self) -> int:
        """Points on the grid."""
        return math.floor((self.end - self.start) / self.step + 1e-9) + 1

    def chunks(self) -> Iterator[RangeQuery]:
        """The same points in queries of at most ``MOST_POINTS``."""
        for first in range(0, self.points, MOST_POINTS):
            last = min(first + MOST_POINTS, self.points) - 1
            yield RangeQuery(self.query, self.start + first * self.step, self.start + last * self.step, self.step)


@dataclass(frozen=True, slots=True, eq=False)
class Range:
    """``values[i]`` is the value of the query at ``start + i * step``, NaN where there was none."""

    name: str
    start: float
    step: float
    values: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Server:
    """Base URL, an optional bearer token, and seconds to wait for one answer. The token goes to this URL only."""

    url: str
    token: str | None = None
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in {"http", "https"} or not urlsplit(self.url).hostname:
            raise UsageError(f"Prometheus: expected a URL such as http://127.0.0.1:9090, got {self.url!r}")


def query_range(server: Server, query: RangeQuery) -> list[Range]:
    """Every series that ``query`` has, by name, each over the whole grid.

    Raises UsageError for a query that the server refuses and for a range without data, ApiError for what else it
    refuses or says wrongly, UnreachableError where nobody answers.
    """
    grids: dict[str, npt.NDArray[np.float64]] = {}
    for chunk in query.chunks():
        for found in _ask(server, chunk):
            name = series_name(found["metric"], query.query)
            grid = grids.setdefault(name, np.full(query.points, np.nan))
            _place(grid, query, found["values"])
    if not grids:
        raise UsageError(f"{server.url}: no data for {query.query!r} in this range; check the query, start and end")
    return [Range(name, query.start, query.step, grids[name]) for name in sorted(grids)]


def series_name(labels: Mapping[str, str], query: str) -> str:
    """``requests_total{code="200"}`` as Prometheus writes it; the query itself for a series without labels."""
    pairs = ",".join(f"{key}={json.dumps(value)}" for key, value in sorted(labels.items()) if key != "__name__")
    return (labels.get("__name__", "") + (f"{{{pairs}}}" if pairs else "")) or query


def _place(grid: npt.NDArray[np.float64], query: RangeQuery, pairs: list[tuple[float, float]]) -> None:
    for moment, value in pairs:
        index = round((moment - query.start) / query.step)
        if 0 <= index < len(grid) and math.isfinite(value):
            grid[index] = value


def _ask(server: Server, query: RangeQuery) -> list[Json]:
    """``[{"metric": labels, "values": [(time, value), ...]}, ...]`` of one chunk."""
    parameters = {"query": query.query, "start": _time(query.start), "end": _time(query.end), "step": _time(query.step)}
    document = _get(server, f"{server.url.rstrip('/')}/api/v1/query_range?{urlencode(parameters)}")
    try:
        return [_matrix_row(row) for row in document["data"]["result"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _nonsense(server, f"the result is no matrix of numbers ({error!r})") from None


def _matrix_row(row: Json) -> Json:
    labels = {str(key): str(value) for key, value in row["metric"].items()}
    return {"metric": labels, "values": [(float(moment), float(value)) for moment, value in row["values"]]}


def _time(moment: float) -> str:
    return f"{moment:.3f}"  # the API's times have milliseconds


def _get(server: Server, address: str) -> Json:
    headers = {"Accept": "application/json"}
    if server.token is not None:
        headers["Authorization"] = f"Bearer {server.token}"
    request = Request(address, headers=headers)  # noqa: S310 - Server lets http and https pass only
    try:
        with build_opener(_NoRedirect).open(request, timeout=server.timeout) as response:
            content = response.read(MOST_BYTES + 1)
    except HTTPError as error:
        with error:
            raise _refused(server, error) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise UnreachableError(
            f"no answer from {server.url}: {reason}; check the URL, and that the server runs"
        ) from None
    if len(content) > MOST_BYTES:
        raise UsageError(f"{server.url}: the answer is too large; aggregate the query, as in sum by (service) (...)")
    return _document(server, content)


def _document(server: Server, content: bytes) -> Json:
    try:
        document = json.loads(content)
        if document["status"] == "success":
            return dict(document)
    except (ValueError, KeyError, TypeError):
        pass
    raise _nonsense(server, "the answer is no JSON document with status success")


def _refused(server: Server, error: HTTPError) -> ApiError | UsageError:
    """The error of the API's own document where there is one, else the HTTP status."""
    try:
        document = json.loads(error.read(MOST_BYTES))
        kind, text = str(document["errorType"]), str(document["error"])
    except (ValueError, KeyError, TypeError, OSError, HTTPException):
        kind, text = "http", f"HTTP {error.code} {error.reason}".strip()
    if kind in WRONG_QUERY:
        return UsageError(f"{server.url} refuses the query: {text}; correct the query, its range or its step")
    remedy = {401: "give a token", 403: "the token may not read", 404: "check the path of the URL"}.get(error.code)
    remedy = "name the address that it leads to" if 300 <= error.code < 400 else remedy or "try again, or ask for less"
    return ApiError(f"{server.url}: {text}; {remedy}", status=error.code, code=kind)


def _nonsense(server: Server, what: str) -> ApiError:
    return ApiError(f"{server.url}: {what}; is this a Prometheus?", status=200, code="unreadable")


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would carry the token elsewhere; it is reported instead."""

    def redirect_request(  # noqa: PLR0917 - the signature of urllib's own
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None
