"""The open-loop load generator: ``python -m meshctl.demo.load --target http://127.0.0.1:8000 --rates rates.json``.

Requests are sent when they are due, whether or not earlier ones were answered, and a latency counts from the moment
a request was *due*: a slow mesh cannot slow its own measurement down (no coordinated omission). What would exceed
the bound on
requests in flight is not sent and counted as the error ``dropped``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import aiohttp

from .statistics import Tally
from .topology import MIX

#: A request that leaves this much (seconds) after it was due counts as a late start: the generator itself is too slow.
LATE = 0.020


@dataclass(frozen=True, slots=True)
class Settings:
    """``rates[i]`` requests per second for ``step`` seconds each, offered to ``target`` (base URL).

    ``even`` spaces requests evenly instead of drawing Poisson arrivals; ``seed`` makes times and kinds repeatable;
    ``timeout`` is in seconds.
    """

    target: str
    rates: tuple[float, ...]
    step: float
    seed: int = 0
    even: bool = False
    max_in_flight: int = 400
    timeout: float = 10.0

    @property
    def duration(self) -> float:
        return self.step * len(self.rates)


def arrivals(rates: Sequence[float], step: float, chance: random.Random | None) -> Iterator[float]:
    """Times in seconds from the start: a Poisson process of the given piecewise constant rate, or evenly spaced
    without ``chance``.

    By the time-change theorem: the integrated rate at the arrivals is a unit-rate process (Çinlar, Introduction to
    Stochastic Processes, 1975).
    """
    due = chance.expovariate(1.0) if chance else 0.5
    passed = 0.0
    for index, rate in enumerate(rates):
        area = rate * step
        while due < passed + area:
            yield step * (index + (due - passed) / area)
            due += chance.expovariate(1.0) if chance else 1.0
        passed += area


class Load:
    """One run. ``lines`` takes a JSON line per second."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession, lines: IO[str]) -> None:
        self._settings = settings
        self._session = session
        self._lines = lines
        self._chance = random.Random(settings.seed)  # noqa: S311 - a simulation, not a secret
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = 0.0
        self._epoch = 0.0
        self._total, self._second = Tally(), Tally()

    async def run(self, stop: asyncio.Event) -> dict[str, object]:
        """Offer the load until it ends or ``stop`` is set, wait for answers, and return the summary."""
        self._started, self._epoch = time.monotonic(), time.time()
        writer = asyncio.create_task(self._write_every_second())
        try:
            finished = await self._send(stop)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._settings.timeout + 1.0)
        finally:
            writer.cancel()
            self._write()
        elapsed = time.monotonic() - self._started
        return {"started": self._epoch, "seconds": round(elapsed, 3), "finished": finished, **self._total.summary()}

    async def _send(self, stop: asyncio.Event) -> bool:
        paths, shares = list(MIX), list(MIX.values())
        times = arrivals(self._settings.rates, self._settings.step, None if self._settings.even else self._chance)
        for due in times:
            path = self._chance.choices(paths, shares)[0]
            if await self._stopped_before(self._started + due, stop):
                return False
            self._start(path, self._started + due)
        return not await self._stopped_before(self._started + self._settings.duration, stop)

    async def _stopped_before(self, moment: float, stop: asyncio.Event) -> bool:
        wait = moment - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait) if wait < 0.25 else await _wait(stop, wait)
        return stop.is_set()

    def _start(self, path: str, due: float) -> None:
        late = time.monotonic() - due > LATE
        for tally in (self._total, self._second):
            tally.scheduled += 1
            tally.late += late
        if len(self._tasks) >= self._settings.max_in_flight:
            self._record("dropped", None)
            return
        for tally in (self._total, self._second):
            tally.sent += 1
        task = asyncio.create_task(self._request(path, due))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _request(self, path: str, due: float) -> None:
        try:
            async with self._session.get(self._settings.target + path) as response:
                await response.read()
                status = str(response.status)
        except TimeoutError:
            status = "timeout"
        except aiohttp.ClientError:
            status = "connection"
        self._record(status, time.monotonic() - due)

    def _record(self, status: str, latency: float | None) -> None:
        self._total.add(status, latency)
        self._second.add(status, latency)

    async def _write_every_second(self) -> None:
        for second in range(1, 10**9):
            await asyncio.sleep(max(0.0, self._started + second - time.monotonic()))
            self._write()

    def _write(self) -> None:
        done, self._second = self._second, Tally()
        json.dump({"time": round(time.time(), 3), "in_flight": len(self._tasks), **done.summary()}, self._lines)
        self._lines.write("\n")
        self._lines.flush()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


async def run(settings: Settings, lines: IO[str], stop: asyncio.Event) -> dict[str, object]:
    """Offer the load over kept-alive connections and return the summary."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0)
    timeout = aiohttp.ClientTimeout(total=settings.timeout)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        return await Load(settings, session, lines).run(stop)


def parse(arguments: Sequence[str] | None = None) -> tuple[Settings, argparse.Namespace]:
    """Settings and where the results go; exits with 2 and a message when they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m meshctl.demo.load", description="Replay a rate series as requests."
    )
    parser.add_argument("--target", required=True, help="base URL of the ingress")
    parser.add_argument("--rates", type=Path, help='JSON file {"step": seconds, "rates": [per second, ...]}')
    parser.add_argument(
        "--rate",
        type=float,
        default=25.0,
        help="without --rates: mean rate of the shipped trace (default: %(default)s)",
    )
    parser.add_argument(
        "--speedup", type=float, default=60.0, help="without --rates: speed of the replay (default: %(default)s)"
    )
    parser.add_argument(
        "--duration", type=float, default=180.0, help="without --rates: seconds to replay (default: %(default)s)"
    )
    parser.add_argument("--arrivals", choices=("poisson", "even"), default="poisson", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="makes times and kinds repeatable (default: %(default)s)")
    parser.add_argument(
        "--max-in-flight", type=int, default=400, help="bound on requests in flight (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout", type=float, default=10.0, help="seconds until a request fails (default: %(default)s)"
    )
    parser.add_argument("--lines", type=Path, help="file that gets a JSON line per second")
    parser.add_argument("--summary", type=Path, help="file that gets the summary (default: standard output)")
    given = parser.parse_args(arguments)
    step, rates = _rates(given)
    even = given.arrivals == "even"
    return Settings(given.target.rstrip("/"), rates, step, given.seed, even, given.max_in_flight, given.timeout), given


def _rates(given: argparse.Namespace) -> tuple[float, tuple[float, ...]]:
    if given.rates is not None:
        data = json.loads(given.rates.read_text())
        return float(data["step"]), tuple(float(rate) for rate in data["rates"])
    from .traces import DEFAULT_START, default_path, read, replay  # noqa: PLC0415 - the demo hands rates over

    past = read(default_path())
    shown = replay(past, until=DEFAULT_START, rate=given.rate, speedup=given.speedup, duration=given.duration)
    return shown.step, shown.rates


async def _run_until_signalled(settings: Settings, lines: IO[str]) -> dict[str, object]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await run(settings, lines, stop)


def main(arguments: Sequence[str] | None = None) -> None:
    settings, given = parse(arguments)
    with Path(given.lines or os.devnull).open("w") as lines:
        summary = json.dumps(asyncio.run(_run_until_signalled(settings, lines)))
    if given.summary is None:
        sys.stdout.write(summary + "\n")
        return
    given.summary.with_suffix(".part").write_text(summary)
    given.summary.with_suffix(".part").replace(given.summary)


if __name__ == "__main__":
    main()
