"""HTTP/1.1 for tests: backends that say who they are, and a load that counts every request that fails.

Written on bare streams: HTTP libraries send an idempotent request again when a connection breaks, and that would hide
what is to be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.envoys import HOST

Message = tuple[str, dict[str, str], bytes]


async def read_message(reader: asyncio.StreamReader) -> Message:
    """Start line, headers (names in lower case) and body. IncompleteReadError at the end of the stream."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if headers.get("transfer-encoding") == "chunked":
        return head[0], headers, await _read_chunks(reader)
    return head[0], headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


@dataclass(eq=False)
class Backend:
    """Answers every request with its name, after ``delay()`` seconds, and never closes a connection."""

    name: str
    delay: Callable[[], float] = lambda: 0.0
    port: int = 0
    requests: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                await read_message(reader)
                self.requests += 1
                await asyncio.sleep(self.delay())
                body = self.name.encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        writer.close()


@asynccontextmanager
async def backends(*names: str, delay: Callable[[], float] = lambda: 0.0) -> AsyncIterator[dict[str, Backend]]:
    """One backend for each name, on free ports."""
    made = {name: Backend(name, delay) for name in names}
    async with contextlib.AsyncExitStack() as stack:
        for one in made.values():
            server = await stack.enter_async_context(await asyncio.start_server(one.answer, HOST, 0))
            one.port = server.sockets[0].getsockname()[1]
        yield made


async def get(port: int) -> tuple[int, str]:
    """Status and body of one request on a connection of its own."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: backend\r\nconnection: close\r\n\r\n")
        status, _, body = await asyncio.wait_for(read_message(reader), 10)
        return int(status.split()[1]), body.decode()
    finally:
        writer.close()


@dataclass(eq=False)
class Load:
    """Requests at an even ``rate`` (per second) over keep-alive connections, GET and POST in turn.

    A request fails if it is not answered with 200. A connection that the server has closed, or announced to close, is
    not used again, as in every HTTP client; beyond that there are no second tries.
    """

    port: int
    rate: float = 80.0
    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    _pending: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        started, sent = loop.time(), 0
        while True:
            await asyncio.sleep(started + sent / self.rate - loop.time())
            task = asyncio.create_task(self._request(sent))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)
            sent += 1

    async def _request(self, number: int) -> None:
        connection = await self._connection()
        if connection is None:
            return
        reader, writer = connection
        try:
            writer.write(_request_bytes(number))
            status, headers, body = await asyncio.wait_for(read_message(reader), 10)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.failures.append(f"request {number}: {error!r}")
            writer.close()
            return
        self._count(number, status, headers, body)
        if headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append(connection)

    def _count(self, number: int, status: str, headers: dict[str, str], body: bytes) -> None:
        if status.split()[1] == "200":
            self.answered[body.decode()] += 1
        else:
            self.failures.append(f"request {number}: {status} {body!r} {headers}")

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        try:
            return await asyncio.open_connection(HOST, self.port)
        except OSError as error:
            self.failures.append(f"connect: {error!r}")
            return None

    async def finish(self) -> None:
        """Wait for what is on its way, and close."""
        while self._pending:
            await asyncio.wait(self._pending)
        for _, writer in self._idle:
            writer.close()


@asynccontextmanager
async def load(port: int, rate: float = 80.0) -> AsyncIterator[Load]:
    """A load on ``port`` for as long as the block runs; what was sent is answered when it ends."""
    one = Load(port, rate)
    task = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await one.finish()


def _request_bytes(number: int) -> bytes:
    if number % 2:
        return b"POST / HTTP/1.1\r\nhost: backend\r\ncontent-length: 5\r\n\r\nhello"
    return b"GET / HTTP/1.1\r\nhost: backend\r\n\r\n"
