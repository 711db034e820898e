"""One replica's application: ``python -m meshctl.demo.service --name catalog --port 8080 --outbound
http://127.0.0.1:15001``.

It behaves like a service with a fixed number of worker threads: a request waits in a bounded queue for a worker (503
with
``x-overload: queue-full`` when the queue is full), holds it while it works (lognormal time, slept and not burnt) and
while
it calls other services, and releases it. Calls go through the sidecar's outbound listener with ``Host: <callee>``.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from .orders import BusinessMetrics, connect
from .topology import BEHAVIOURS, FORWARDED, Call, calls_of

#: Seconds that a call may take before the application gives up; the mesh's own timeouts are shorter.
CALL_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """One replica. ``outbound`` is the base URL of the sidecar's outbound listener, ``otlp`` the control plane's
    gRPC address.
    """

    name: str
    instance: str
    host: str
    port: int
    outbound: str | None
    concurrency: int
    queue: int
    seed: int | None = None
    otlp: str | None = None


class QueueFullError(Exception):
    """Every worker is busy and every place in the queue is taken."""


class Workers:
    """``concurrency`` workers and a queue of ``queue`` places in front of them."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self._semaphore = asyncio.Semaphore(concurrency)
        self._places = queue
        self.waiting = 0

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """Wait for a worker and hold it. Raises :class:`QueueFullError` when there is no place to wait."""
        if self._semaphore.locked() and self.waiting >= self._places:
            raise QueueFullError
        self.waiting += 1
        try:
            await self._semaphore.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._semaphore.release()


class WorkingTime:
    """Draws lognormal times with the given mean (seconds) and deviation of the logarithm."""

    def __init__(self, mean: float, sigma: float, chance: random.Random) -> None:
        self._mu = math.log(mean) - sigma * sigma / 2.0
        self._sigma = sigma
        self._chance = chance

    def draw(self) -> float:
        return self._chance.lognormvariate(self._mu, self._sigma)


class CallFailedError(Exception):
    """A call that the page cannot do without was not answered by 200."""

    def __init__(self, call: Call, status: int) -> None:
        super().__init__(f"{call.callee}{call.path} answered {status}")


class Application:
    """The handlers of one replica."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession, metrics: BusinessMetrics) -> None:
        behaviour = BEHAVIOURS[settings.name]
        chance = random.Random(settings.seed)  # noqa: S311 - a simulation, not a secret
        self._settings = settings
        self._session = session
        self._metrics = metrics
        self._counts = behaviour.counts
        self._workers = Workers(settings.concurrency, settings.queue)
        self._time = WorkingTime(behaviour.work, behaviour.sigma, chance)

    def routes(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/healthz", self.healthz)
        app.router.add_route("*", "/{path:.*}", self.serve)
        return app

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def serve(self, request: web.Request) -> web.Response:
        try:
            async with self._workers.worker():
                await asyncio.sleep(self._time.draw())
                await self._call_all(request)
        except QueueFullError:
            return web.Response(status=503, headers={"x-overload": "queue-full"}, text="queue full\n")
        except CallFailedError as error:
            return web.Response(status=502, text=f"{error}\n")
        if name := self._counts.get(request.path):
            self._metrics.count(name)
        return web.json_response({"service": self._settings.name, "instance": self._settings.instance})

    async def _call_all(self, request: web.Request) -> None:
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        for call in calls_of(self._settings.name, request.path):
            status = await self._call(call, headers)
            if status != 200 and not call.optional:
                raise CallFailedError(call, status)

    async def _call(self, call: Call, headers: dict[str, str]) -> int:
        """The answer's status; 0 if there was none."""
        url = f"{self._settings.outbound}{call.path}"
        try:
            async with self._session.get(url, headers={**headers, "Host": call.callee}) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return 0


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set, then answer what is in flight and return."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0)
    timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT)
    metrics = connect(settings.name, settings.instance, settings.otlp if BEHAVIOURS[settings.name].counts else None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        app = Application(settings, session, metrics).routes()
        # A caller that gave up must not keep its place in the queue.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=CALL_TIMEOUT)
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port, backlog=512).start()
            await stop.wait()
        finally:
            await runner.cleanup()
            await asyncio.to_thread(metrics.close)


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from the command line; exits with 2 and a message when they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m meshctl.demo.service", description="One replica of a demo service."
    )
    parser.add_argument("--name", required=True, choices=sorted(BEHAVIOURS), help="which service to be")
    parser.add_argument("--instance", help="the replica's name (default: NAME-0)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default: %(default)s)")
    parser.add_argument("--outbound", help="base URL of the sidecar's outbound listener")
    parser.add_argument("--concurrency", type=int, default=6, help="requests served at once (default: %(default)s)")
    parser.add_argument("--queue", type=int, default=24, help="requests that may wait (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="makes the working times repeatable")
    parser.add_argument("--otlp", help="HOST:PORT that takes business metrics (OTLP over gRPC)")
    given = parser.parse_args(arguments)
    if given.concurrency < 1 or given.queue < 0:
        parser.error("--concurrency must be at least 1 and --queue at least 0")
    if given.outbound is None and BEHAVIOURS[given.name].calls:
        parser.error(f"{given.name} calls other services: --outbound URL is needed")
    return Settings(**{**vars(given), "instance": given.instance or f"{given.name}-0"})


async def _serve_until_signalled(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(settings, stop)


def main(arguments: Sequence[str] | None = None) -> None:
    asyncio.run(_serve_until_signalled(parse(arguments)))


if __name__ == "__main__":
    main()
