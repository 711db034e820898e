"""The control plane's HTTP API by the standard library, for activities, the runner and the command line.

Proxies from the environment are ignored: the API listens on loopback or inside the mesh's own network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from chaos.errors import ApiError, UnreachableError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """Where the API is. ``token_file`` is read for every mutation, so a rotated token needs no restart.

    ``timeout`` is in seconds and holds for one request.
    """

    url: str
    token_file: str | None = None
    timeout: float = 10.0


class Api:
    """Synchronous requests; each raises :class:`ApiError` or :class:`UnreachableError`."""

    def __init__(self, config: ApiConfig) -> None:
        if urlsplit(config.url).scheme not in {"http", "https"}:
            raise UnreachableError(f"{config.url!r} is no http:// or https:// URL")
        self.config = config
        self._opener = build_opener(ProxyHandler({}))

    def get(self, path: str, **query: object) -> Json:
        """GET ``path``; query values that are None are left out."""
        present = {name: value for name, value in query.items() if value is not None}
        return self._send("GET", f"{path}?{urlencode(present)}" if present else path)

    def post(self, path: str, body: Mapping[str, object]) -> Json:
        return self._send("POST", path, body)

    def patch(self, path: str, body: Mapping[str, object]) -> Json:
        return self._send("PATCH", path, body)

    def delete(self, path: str) -> Json:
        return self._send("DELETE", path)

    def _send(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Json:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.config.url.rstrip("/") + path, data, self._headers(method), method=method)  # noqa: S310
        try:
            with self._opener.open(request, timeout=self.config.timeout) as response:
                return _document(method, path, response.status, response.read())
        except HTTPError as error:
            raise _refused(method, path, error) from None
        except (OSError, HTTPException) as error:
            raise UnreachableError(f"no answer from {self.config.url}: {getattr(error, 'reason', error)}") from error

    def _headers(self, method: str) -> dict[str, str]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        token = None if method == "GET" else self._token()
        return headers if token is None else {**headers, "Authorization": f"Bearer {token}"}

    def _token(self) -> str | None:
        """The token, or None where there is no file: the server then says 401, which tells the user more."""
        try:
            return Path(self.config.token_file).read_text().strip() if self.config.token_file else None
        except OSError:
            return None


def segment(value: object) -> str:
    """``value`` as one segment of a path."""
    return quote(str(value), safe="")


def _document(method: str, path: str, status: int, body: bytes) -> Json:
    try:
        document = json.loads(body) if body else {}
    except ValueError:
        raise ApiError(method, path, status, "no_json", "the answer is no JSON; is this meshctl's HTTP port?") from None
    if not isinstance(document, dict):
        raise ApiError(method, path, status, "no_object", "the answer is no JSON object; is this meshctl's HTTP port?")
    return document


def _refused(method: str, path: str, error: HTTPError) -> ApiError:
    with error:
        body = error.read()
    try:
        reason = json.loads(body)["error"]
        return ApiError(method, path, error.code, str(reason["code"]), str(reason["message"]))
    except (ValueError, KeyError, TypeError):
        return ApiError(method, path, error.code, "unknown", str(error.reason))
