"""A small control plane for tests: the HTTP API's chaos part over simulated traffic, and canned answers for the rest.

Traffic is a function of the clock: in every window of :data:`STEP` seconds each arm makes :data:`REQUESTS` requests,
and while a fault is active, ``percent`` of the treatment arm's meet it; ``leak`` of those are bad for the user.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]

STEP = 0.5
REQUESTS = 100
TOKEN = "s3cret"


@dataclass
class FaultState:
    """One fault: its request's body, and from when to when it is in force."""

    body: Json
    start: float
    end: float

    def overlap(self, start: float, end: float) -> float:
        """Seconds of ``start`` to ``end`` in which the fault was in force."""
        return max(0.0, min(self.end, end) - max(self.start, start))


@dataclass
class ControlPlane:
    """State of the server; tests set the first fields and read the rest.

    ``leak`` is the share of injected faults that reach users, ``counting`` whether Envoy's counters move, ``traffic``
    whether there is any.
    """

    leak: float = 0.0
    counting: bool = True
    traffic: bool = True
    token: str = TOKEN
    documents: dict[str, Json] = field(default_factory=dict)
    faults: dict[str, FaultState] = field(default_factory=dict)
    experiments: dict[str, Json] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    injecting: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    started: float = field(default_factory=time.time)

    def answer(self, method: str, path: str, query: dict[str, str], body: Json, authorized: bool) -> tuple[int, Json]:
        """Status and document of one request."""
        self.requests.append((method, path))
        if method == "GET" and path in self.documents:
            return 200, self.documents[path]
        if method != "GET" and not authorized:
            return refusal(401, "unauthorized", "the token is wrong")
        for pattern, handler in ROUTES:
            match = re.fullmatch(pattern, f"{method} {path}")
            if match:
                return handler(self, *match.groups(), query=query, body=body)
        return refusal(404, "not_found", f"there is no {path}")

    def active(self) -> dict[str, FaultState]:
        now = time.time()
        return {name: fault for name, fault in self.faults.items() if fault.end > now}

    # -- endpoints ---------------------------------------------------------------------------------------------------

    def inject(self, *, query: Json, body: Json) -> tuple[int, Json]:
        if self.active():
            return refusal(409, "conflict", "another fault is active")
        name, now = f"f{len(self.faults) + 1}", time.time()
        self.faults[name] = FaultState(body, now, now + body["duration"])
        self.injecting.set()
        return 201, {"id": name, "expires": now + body["duration"], "nodes": ["catalog-1"]}

    def list_faults(self, *, query: Json, body: Json) -> tuple[int, Json]:
        return 200, {"faults": [self._fault(name) for name in self.active()]}

    def get_fault(self, name: str, *, query: Json, body: Json) -> tuple[int, Json]:
        return (200, self._fault(name)) if name in self.faults else refusal(404, "not_found", f"no fault {name}")

    def delete_fault(self, name: str, *, query: Json, body: Json) -> tuple[int, Json]:
        self.faults[name].end = min(self.faults[name].end, time.time())
        return 200, self._fault(name)

    def slo(self, service: str, *, query: Json, body: Json) -> tuple[int, Json]:
        now, window = time.time(), float(query.get("window", 30))
        kept = [w for w in self._windows() if w["time"] > now - window]
        requests = sum(w[arm]["requests"] for w in kept for arm in ("treatment", "control"))
        bad = sum(w[arm]["errors"] for w in kept for arm in ("treatment", "control"))
        ratio = (requests - bad) / requests if requests else None
        ok = None if ratio is None else ratio >= 0.99
        return 200, {"service": service, "good_ratio": ratio, "objective": 0.99, "ok": ok, "requests": requests}

    def arms(self, *, query: Json, body: Json) -> tuple[int, Json]:
        windows = [w for w in self._windows() if w["time"] > float(query["since"])]
        return 200, {"service": query["service"], "windows": windows}

    def begin(self, *, query: Json, body: Json) -> tuple[int, Json]:
        name = str(len(self.experiments) + 1)
        self.experiments[name] = {**body, "id": name, "status": "running", "started": time.time(), "ended": None}
        return 201, {"id": name}

    def update(self, name: str, *, query: Json, body: Json) -> tuple[int, Json]:
        self.experiments[name] |= {**body, "ended": time.time(), "score": body["result"].get("score")}
        return 200, self.experiments[name]

    def undo(self, *, query: Json, body: Json) -> tuple[int, Json]:
        self.undone.append(body["reason"])
        return 200, {"before": 2, "after": 1}

    def switch(self, verb: str, *, query: Json, body: Json) -> tuple[int, Json]:
        self.documents["/v1/status"] = {**self.documents["/v1/status"], "paused": verb == "pause"}
        return 200, {}

    # -- simulation --------------------------------------------------------------------------------------------------

    def _fault(self, name: str) -> Json:
        fault, now = self.faults[name], time.time()
        met = int(fault.overlap(fault.start, now) / STEP * REQUESTS * fault.body["percent"] / 100)
        counter = "aborts" if fault.body["kind"] == "abort" else "delays"
        injected = {"aborts": 0, "delays": 0} | {counter: met if self.counting else 0}
        return {"id": name, **fault.body, "expires": fault.end, "active": fault.end > now, "injected": injected}

    def _windows(self) -> list[Json]:
        """Whole windows since 30 s before the server's start."""
        first, last = math.ceil((self.started - 30) / STEP), math.floor(time.time() / STEP)
        return [self._window(number * STEP) for number in range(first, last + 1)]

    def _window(self, end: float) -> Json:
        hit = sum(f.overlap(end - STEP, end) / STEP * f.body["percent"] / 100 for f in self.faults.values())
        requests = REQUESTS if self.traffic else 0
        control = {"requests": requests, "errors": 0, "slow": 0}
        return {"time": end, "treatment": {**control, "errors": round(requests * hit * self.leak)}, "control": control}


ROUTES = (
    ("POST /v1/faults", ControlPlane.inject),
    ("GET /v1/faults", ControlPlane.list_faults),
    ("GET /v1/faults/([^/]+)", ControlPlane.get_fault),
    ("DELETE /v1/faults/([^/]+)", ControlPlane.delete_fault),
    ("GET /v1/slo/([^/]+)", ControlPlane.slo),
    ("GET /v1/arms", ControlPlane.arms),
    ("POST /v1/experiments", ControlPlane.begin),
    ("PATCH /v1/experiments/([^/]+)", ControlPlane.update),
    ("POST /v1/(pause|resume)", ControlPlane.switch),
    ("POST /v1/models/undo", ControlPlane.undo),
)


def refusal(status: int, code: str, message: str) -> tuple[int, Json]:
    return status, {"error": {"code": code, "message": message}}


@contextmanager
def serving(plane: ControlPlane) -> Iterator[ControlPlane]:
    """Serve ``plane`` on a free port of loopback, and set its ``url``."""

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            parts = urlsplit(self.path)
            authorized = self.headers.get("Authorization") == f"Bearer {plane.token}"
            status, document = plane.answer(self.command, parts.path, dict(parse_qsl(parts.query)), body, authorized)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = respond  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Tests need no access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    plane.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield plane
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
