"""CSDS: what every connected client should have, was sent and said about it, asked for over gRPC.

The control plane's view of its clients, as ``grpcdebug`` and the like read it. Read-only, but it shows
configuration: the gate's policy decides who may ask, and nothing secret is in the answer.
https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/status/v3/csds.proto
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio

from xds import status_codec
from xds.errors import LimitExceeded
from xds.protocol.events import Node
from xds.protocol.inventory import ResourceState, inventory
from xds.protocol.states import State
from xds.protocol.stream import Stream
from xds.redaction import Redactor
from xds.server.admission import inflated
from xds.server.calls import Calls, read
from xds.server.gate import Gate, Visit
from xds.server.services import Context
from xds.server.settings import Settings
from xds.snapshot import Resource
from xds.status import StatusBoard
from xds.status_codec import StatusQuery

SERVICE = "envoy.service.status.v3.ClientStatusDiscoveryService"

#: Within a type the worst comes last: a reader that keeps one status per type keeps that one.
_SEVERITY: tuple[State, ...] = ("SYNCED", "NOT-SENT", "STALE", "NACKED")


class ClientStatus:
    """Answers about the clients of one board."""

    def __init__(
        self,
        board: StatusBoard,
        *,
        gate: Gate,
        now: Callable[[], float],
        settings: Settings,
    ) -> None:
        self._board = board
        self._calls = Calls(gate)
        self._now = now
        self._contents = Redactor()
        self._max_bytes = settings.client_status_max_bytes
        self._turn = asyncio.Lock()
        self.elsewhere: Callable[[bytes], Awaitable[bytes]] | None = None
        """What other processes on the same port say about their clients, if there are any."""

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """Both methods; requests and responses stay bytes."""
        methods = {
            "StreamClientStatus": grpc.stream_stream_rpc_method_handler(self._stream),
            "FetchClientStatus": grpc.unary_unary_rpc_method_handler(self._fetch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def stop(self) -> None:
        """End all streams."""
        self._calls.stop()

    async def _fetch(self, request: bytes, context: Context) -> bytes:
        def answer(visit: Visit) -> Coroutine[Any, Any, bytes]:
            return self._answer(inflated(request, visit.ticket.limits.message_bytes))

        await self._admit(context)
        return await self._calls.serve(context, answer) or b""

    async def _stream(self, _requests: object, context: Context) -> None:
        await self._admit(context)
        await self._calls.serve(context, lambda visit: self._answers(context, visit))

    async def _answers(self, context: Context, visit: Visit) -> None:
        while (request := await read(context, visit)) is not None:
            await context.write(await self._answer(request))

    async def _admit(self, context: Context) -> None:
        refusal = self._calls.gate.may_observe(context)
        if refusal is not None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)

    async def _answer(self, request: bytes) -> bytes:
        """What this process knows, and what others that share its port do."""
        own = await self.local(request)
        if self.elsewhere is None:
            return own
        answer = own + await self.elsewhere(request)  # a repeated field: messages concatenate
        if len(answer) > self._max_bytes:
            raise LimitExceeded("status_size", self._too_large(len(self._board.streams())))
        return answer

    async def local(self, request: bytes) -> bytes:
        """About the clients of this process. One at a time: answers are large, and pushes are more important."""
        query = status_codec.decode_status_query(request)
        async with self._turn:
            return await self._described(query)

    async def _described(self, query: StatusQuery) -> bytes:
        parts: list[bytes] = []
        left = self._max_bytes
        for node, streams in self._board.streams():
            await asyncio.sleep(0)  # streams are served between any two nodes
            if not query.matches(node.id):
                continue
            parts.append(await self._config(node, streams, query))
            left -= len(parts[-1])
            if left < 0:
                raise LimitExceeded("status_size", self._too_large(len(parts)))
        return b"".join(parts)

    async def _config(self, node: Node, streams: Sequence[Stream], query: StatusQuery) -> bytes:
        states = merged(state for stream in streams for state in complete(stream, self._now()))
        if not query.contents:
            return status_codec.client_config(node, states, _nothing, self._updated)
        for state in states:
            if state.resource is not None and not self._contents.knows(state.resource):
                self._contents(state.resource)
                await asyncio.sleep(0)  # a snapshot that was never looked at takes a second
        return status_codec.client_config(node, states, self._contents, self._updated)

    def _updated(self, state: ResourceState) -> float | None:
        """When the resource last changed; of one that is not there, when that was last said."""
        if state.current is None or state.resource is None:
            return state.at
        return self._board.times.of(state.current, state.name)

    def _too_large(self, nodes: int) -> str:
        return (
            f"the status of {nodes} nodes and more is larger than {self._max_bytes} bytes; "
            "ask for fewer with node_matchers, or set exclude_resource_contents"
        )


def complete(stream: Stream, now: float) -> Iterator[ResourceState]:
    """The stream's resources, and one without a name for each type of which the client has and gets none."""
    states = list(inventory(stream, now))
    seen = {state.type_url for state in states}
    types = stream.states(now)
    bare = sorted(types.keys() - seen)
    return iter([*states, *(ResourceState(url, "", types[url].state, "", None, False, types[url].at) for url in bare)])


def merged(states: Iterable[ResourceState]) -> list[ResourceState]:
    """By type, the worst last; of two streams' words about one resource the worse."""
    worst: dict[tuple[str, str], ResourceState] = {}
    for state in states:
        known = worst.setdefault((state.type_url, state.name), state)
        if _severity(known) < _severity(state):
            worst[state.type_url, state.name] = state
    return sorted(worst.values(), key=lambda state: (state.type_url, _severity(state), state.name))


def _severity(state: ResourceState) -> int:
    return _SEVERITY.index(state.state)


def _nothing(_resource: Resource) -> None:
    return None
