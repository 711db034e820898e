"""Calls of the services beside xDS: let in by the gate, refused with its words, ended when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from xds.errors import AccessDenied, CodecError, LimitExceeded, RemoteError
from xds.server.admission import inflated
from xds.server.gate import Gate, Visit, status_of
from xds.server.identity import peer_of
from xds.server.services import Context

_T = TypeVar("_T")


class Calls:
    """Runs each call as a task of its own, so that :meth:`stop` can end it."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self._open: set[asyncio.Task[Any]] = set()

    def stop(self) -> None:
        """End all calls."""
        for task in self._open:
            task.cancel()

    async def serve(self, context: Context, body: Callable[[Visit], Coroutine[Any, Any, _T]]) -> _T | None:
        """What ``body`` returns; None if the server stops meanwhile. An error of the client's aborts the call."""
        peer, claimed = peer_of(context), ""
        try:
            async with self.gate.visit(peer) as visit:
                try:
                    return await self._run(body(visit))
                finally:
                    claimed = visit.claimed
        except (RemoteError, CodecError) as failure:
            if isinstance(failure, AccessDenied | LimitExceeded):
                self.gate.refuse(failure, peer, claimed)
            await context.abort(*status_of(failure))

    async def _run(self, body: Coroutine[Any, Any, _T]) -> _T | None:
        task = asyncio.create_task(body)
        self._open.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._open.discard(task)
            task.cancel()
        return None if task.cancelled() else task.result()


async def read(context: Context, visit: Visit) -> bytes | None:
    """The next message of a stream, inflated, when its turn comes; None at the end."""
    data: object = await context.read()
    if not isinstance(data, bytes):
        return None
    if (delay := visit.ticket.pace(asyncio.get_running_loop().time())) > 0.0:
        await asyncio.sleep(delay)
    return inflated(data, visit.ticket.limits.message_bytes)
