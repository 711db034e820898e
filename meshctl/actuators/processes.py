"""Replicas as processes: a client of the small kubelet that the demo's supervisor runs.

The supervisor owns every process; this actuator only says how many replicas it wants and reads what there is.
Its API is loopback HTTP with a bearer token; see :mod:`meshctl.demo` for the other side.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from meshctl.errors import PlatformError
from meshctl.model import Replica
from xds.model import Address

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


class ProcessPlatform:
    """Reads replicas from, and writes the desired counts to, the supervisor at ``url``.

    The token is read from ``token_file`` at each request, so a new one needs no restart.
    Every failure is a :class:`PlatformError`; the caller keeps what it knew.
    """

    scales = True

    def __init__(self, url: str, token_file: Path) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._session: aiohttp.ClientSession | None = None

    async def replicas(self) -> tuple[Replica, ...]:
        """Every replica that exists or is on its way, in the platform's order."""
        body = await self._request("GET", "/v1/replicas")
        return tuple(_replica(item) for item in body["replicas"])

    async def scale(self, desired: Mapping[str, int]) -> None:
        """Ask for ``desired[service]`` replicas of each service named; the others stay as they are."""
        await self._request("PUT", "/v1/desired", {"services": dict(desired)})

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        session = self._session = self._session or aiohttp.ClientSession(timeout=_TIMEOUT)
        try:
            headers = {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
            async with session.request(method, self._url + path, json=body, headers=headers) as response:
                if response.status >= 400:
                    raise PlatformError(
                        f"the platform refused {method} {path}: {response.status} {await response.text()}"
                    )
                return await response.json()
        except OSError as error:
            raise PlatformError(
                f"the platform at {self._url} does not answer ({error}); "
                "is the supervisor running, and platform.token_file right?"
            ) from error
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise PlatformError(f"the platform at {self._url} does not answer {method} {path}: {error!r}") from error


def _replica(item: Mapping[str, Any]) -> Replica:
    try:
        return Replica(
            node_id=item["node_id"],
            service=item["service"],
            phase=item["phase"],
            inbound=_address(item["inbound"]) or Address("", 0),
            outbound=_address(item["outbound"]),
            app=_address(item["app"]),
            admin=_address(item["admin"]),
            cpu=float(item["cpu"]),
            memory=int(item["memory"]),
            started_at=float(item["started_at"] or 0.0),
            ready_at=item["ready_at"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PlatformError(f"the platform sent a replica that cannot be read: {error!r} in {item!r}") from error


def _address(text: str | None) -> Address | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    return Address(host, int(port))
