"""A server for as long as a block of code runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar


class Startable(Protocol):
    """Either server."""

    async def start(self, host: str, port: int) -> int: ...

    async def stop(self, grace: float) -> None: ...


S = TypeVar("S", bound=Startable)


@asynccontextmanager
async def listening(server: S, host: str, port: int, grace: float = 1.0) -> AsyncIterator[S]:
    """``server`` on ``port``, stopped at the end of the block; calls that others handle get ``grace`` seconds to end.

    PortInUse if the address is taken.
    """
    await server.start(host, port)
    try:
        yield server
    finally:
        await server.stop(grace)
