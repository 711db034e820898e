"""Who may change a running control plane: whoever can read its token file.

The token is made at first start, kept in a file that only its owner can read, and never logged. Requests whose Host
header is not this server are refused, so that a web page cannot reach a loopback API by rebinding a name.
"""

from __future__ import annotations

import hmac
import os
import secrets
from ipaddress import ip_address
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from meshctl.errors import UsageError

_READS = frozenset({"GET", "HEAD"})


def token(path: Path) -> str:
    """The API token in ``path`` (mode 0600), made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _existing(path)
    made = secrets.token_urlsafe(32)
    with os.fdopen(handle, "w") as file:
        file.write(made + "\n")
    return made


def _existing(path: Path) -> str:
    if path.stat().st_mode & 0o077:
        raise UsageError(f"{path}: the token file can be read by others; run: chmod 600 {path}")
    found = path.read_text().strip()
    if not found:
        raise UsageError(f"{path}: the token file is empty; remove it and start again")
    return found


def guard(secret: str, *, names: frozenset[str]) -> Middleware:
    """A middleware that lets reads pass and asks mutations for ``Authorization: Bearer <token>``.

    ``names`` are host names, besides IP addresses and localhost, under which this API may be reached.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not _known_host(request.host, names):
            return refuse(403, "forbidden_host", f"host {request.host!r} is not this server; use its address")
        if request.method not in _READS and not _authorised(request, secret):
            return refuse(
                401, "unauthorized", "this changes the mesh; send Authorization: Bearer <token of the state directory>"
            )
        return await handler(request)

    return check


def refuse(status: int, code: str, message: str) -> web.Response:
    """An error of the API: one shape for all."""
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


def _known_host(host: str, names: frozenset[str]) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if name == "localhost" or name in names:
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _authorised(request: web.Request, secret: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return scheme == "Bearer" and hmac.compare_digest(given.strip().encode(), secret.encode())
