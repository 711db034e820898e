"""Calls that reach a worker and belong to the server's owner: OTLP exports, health checks.

A worker knows no handlers but its own. Whatever else it is asked is sent to the parent, which has the handlers, and
the answer is sent back. Only calls with one request and one response travel so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio

#: Calls of one worker that wait for the parent.
MAX_OPEN = 1_000
_OK = grpc.StatusCode.OK.value[0]
_CODES = {code.value[0]: code for code in grpc.StatusCode}

#: grpc.GenericRpcHandler, which can be subscripted in its stubs only.
Handlers = Sequence[Any]


class Answer(NamedTuple):
    """``code`` is gRPC's number; ``body`` is the response if it is 0."""

    code: int
    details: str
    body: bytes


# In a worker

Ask = Callable[[Mapping[str, Any], bytes], Awaitable[Answer]]


class Forwarder(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Takes every method that no other handler has, and asks the parent."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._open = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        method = details.method

        async def forward(request: bytes, context: Any) -> bytes:
            return await self._forward(method, request, context)

        return grpc.unary_unary_rpc_method_handler(forward)

    async def _forward(self, method: str, request: bytes, context: Any) -> bytes:
        if self._open >= MAX_OPEN:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_OPEN} calls are waiting; try later")
        self._open += 1
        try:
            answer = await self._ask(_call(method, context), request)
        finally:
            self._open -= 1
        if answer.code != _OK:
            await context.abort(_CODES.get(answer.code, grpc.StatusCode.INTERNAL), answer.details)
        return answer.body


def _call(method: str, context: Any) -> dict[str, Any]:
    """What the parent's handler may want to know of the caller. Bytes become text that says the same."""
    proven = {key: [value.decode("latin-1") for value in values] for key, values in context.auth_context().items()}
    metadata = [[key, value] for key, value in context.invocation_metadata() or () if isinstance(value, str)]
    return {"method": method, "peer": context.peer(), "auth": proven, "metadata": metadata}


# In the parent


class Details(NamedTuple):
    """What handlers are asked by; the names are gRPC's."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...]


class _Aborted(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


class _Context:
    """The part of gRPC's context that a handler of one request and one response needs."""

    def __init__(self, head: Mapping[str, Any]) -> None:
        self._head = head
        self.code, self.details = grpc.StatusCode.OK, ""

    def peer(self) -> str:
        return str(self._head["peer"])

    def auth_context(self) -> dict[str, list[bytes]]:
        return {key: [value.encode("latin-1") for value in values] for key, values in self._head["auth"].items()}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple((key, value) for key, value in self._head["metadata"])

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    async def abort(self, code: grpc.StatusCode, details: str = "", _metadata: Any = ()) -> None:
        raise _Aborted(code, details)


async def answer(handlers: Handlers, head: Mapping[str, Any], request: bytes) -> Answer:
    """What the first handler that has the method says."""
    found = _handler(handlers, head)
    if found is None:
        return Answer(grpc.StatusCode.UNIMPLEMENTED.value[0], "Method not found!", b"")
    context = _Context(head)
    try:
        body = await _response(found, request, context)
    except _Aborted as aborted:
        return Answer(aborted.code.value[0], aborted.details, b"")
    except asyncio.CancelledError:
        raise
    except Exception as error:
        return Answer(grpc.StatusCode.UNKNOWN.value[0], f"{type(error).__name__}: {error}", b"")
    return Answer(context.code.value[0], context.details, body)


def _handler(handlers: Handlers, head: Mapping[str, Any]) -> Any:
    details: Any = Details(str(head["method"]), ())
    for one in handlers:
        found: Any = one.service(details)
        if found is not None:
            return found if found.unary_unary is not None else None
    return None


async def _response(found: Any, request: bytes, context: _Context) -> bytes:
    value = found.request_deserializer(request) if found.request_deserializer else request
    made = found.unary_unary(value, context)
    response = await made if asyncio.iscoroutine(made) else made
    body: bytes = found.response_serializer(response) if found.response_serializer else response
    return body
