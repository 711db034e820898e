"""The supervisor's HTTP API on loopback, to which the control plane's process actuator talks.

``GET /v1/replicas`` and ``PUT /v1/desired``. Both need the bearer token of a file that only its owner can read, and a
Host header that names an IP address or localhost, so that no web page reaches it by rebinding a name.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .commands import HOST
from .supervisor import Supervisor

_MAX_BODY = 64 * 1024


class PlatformApi:
    """Serves one supervisor."""

    def __init__(self, supervisor: Supervisor, secret: str) -> None:
        self._supervisor = supervisor
        app = web.Application(middlewares=[_guard(secret)], client_max_size=_MAX_BODY)
        app.router.add_get("/v1/replicas", self._replicas)
        app.router.add_put("/v1/desired", self._desired)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self, port: int) -> None:
        """Listen on loopback. Raises OSError if the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _replicas(self, _request: web.Request) -> web.Response:
        return web.json_response(self._supervisor.describe())

    async def _desired(self, request: web.Request) -> web.Response:
        try:
            wanted = _wanted(await request.json())
            return web.json_response({"desired": self._supervisor.set_desired(wanted)})
        except (ValueError, json.JSONDecodeError) as error:
            return _refuse(400, "bad_request", str(error))


def _wanted(body: Any) -> dict[str, int]:
    services = body.get("services") if isinstance(body, dict) else None
    if not isinstance(services, dict):
        raise ValueError('expected {"services": {"<service>": <replicas>, ...}}')
    return services


def _guard(secret: str) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not _is_here(request.host):
            return _refuse(403, "forbidden_host", f"host {request.host!r} is not this server; use its address")
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not hmac.compare_digest(given.strip().encode(), secret.encode()):
            return _refuse(401, "unauthorized", "send Authorization: Bearer <token of platform.token_file>")
        return await handler(request)

    return check


def _is_here(host: str) -> bool:
    name = host if host.endswith("]") else host.rsplit(":", 1)[0]
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _refuse(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)
