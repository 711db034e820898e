"""Random changes, one after the other, on a real Envoy under load: no request fails, and the trace proves the order."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from meshctl.demo.ports import Ports
from tests.support import plans
from tests.support.envoys import HOST, Envoy, bootstrap, running, until
from tests.support.order import messages, violations
from tests.support.servers import NODE, Mesh
from tests.support.tap import Tap, tapped
from tests.support.traffic import Load, backends, load

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(300)]

TYPES = ("cds", "eds", "lds", "rds")
LISTENERS = ("inbound", "outbound")
BACKENDS = ("a", "b", "c", "d", "e")

#: Requests per second and listener.
RATE = 50.0

#: How many requests are answered before the next change: all of a change's steps meet traffic.
BETWEEN = 5

#: How many changes follow at once, without waiting for the sidecar; mostly one.
BURSTS = (1, 1, 1, 1, 2, 3, 5)

#: Seconds until a backend answers: most answers are quick, and some are under way for longer than a change takes.
DELAYS = (0.0, 0.0, 0.01, 0.05, 0.3)


@dataclass
class Scene:
    """A tapped server, an Envoy that has the first plan, and a load on each of its listeners."""

    mesh: Mesh
    tap: Tap
    envoy: Envoy
    plan: plans.Plan
    names: dict[int, str]
    loads: list[Load] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    async def change(self, chance: random.Random) -> None:
        """Publish one change or a burst of them; wait until the Envoy has what came last, and has served with it."""
        self.publish(chance)
        await self.settles()

    def publish(self, chance: random.Random) -> None:
        for _ in range(chance.choice(BURSTS)):
            kind, self.plan = plans.changed(self.plan, tuple(self.names), chance)
            self.kinds[kind] += 1
            self.mesh.server.publish({NODE: plans.content(self.plan)})

    async def change_and_cut(self, chance: random.Random) -> None:
        """The same, and the stream breaks somewhere on the way."""
        opened = self.tap.streams
        self.publish(chance)
        await asyncio.sleep(chance.uniform(0, 0.015))
        self.tap.cut()
        await until(lambda: self.tap.streams > opened)
        await self.settles()

    async def settles(self) -> None:
        await until(self.mesh.is_synced(*TYPES))
        enough = self.answered.total() + BETWEEN
        await until(lambda: self.failures or self.answered.total() >= enough)

    @property
    def failures(self) -> list[str]:
        return [failure for one in self.loads for failure in one.failures]

    @property
    def answered(self) -> Counter[str]:
        return sum((one.answered for one in self.loads), Counter[str]())


@asynccontextmanager
async def scene(folder: Path, variant: str, chance: random.Random) -> AsyncIterator[Scene]:
    free, mesh = Ports(HOST, random.Random()), Mesh()
    await mesh.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(mesh.stop)
        made = await stack.enter_async_context(backends(*BACKENDS, delay=lambda: chance.choice(DELAYS)))
        names = {one.port: one.name for one in made.values()}
        plan = plans.first({name: free.take() for name in LISTENERS}, tuple(names))
        mesh.server.publish({NODE: plans.content(plan)})
        tap, port = await stack.enter_async_context(tapped(mesh.port))
        options = ("--drain-time-s", "3", "--drain-strategy", "immediate")
        envoy = await stack.enter_async_context(running(folder, bootstrap(port, variant, node=NODE), None, options))
        await until(mesh.is_synced(*TYPES))
        yield Scene(mesh, tap, envoy, plan, names)


@pytest.mark.parametrize("variant", ["GRPC", "DELTA_GRPC"], ids=["sotw", "delta"])
async def test_random_changes_under_load_fail_no_request(
    tmp_path: Path, variant: str, request: pytest.FixtureRequest
) -> None:
    count, seed = request.config.getoption("--plans"), request.config.getoption("--plan-seed")
    chance = random.Random(seed)
    async with scene(tmp_path, variant, random.Random(0)) as one:
        async with contextlib.AsyncExitStack() as stack:
            one.loads = [await stack.enter_async_context(load(port, RATE)) for port in one.plan.listeners.values()]
            while one.kinds.total() < count:
                await one.change(chance)
        print(f"seed {seed}: {dict(one.kinds)}, {one.answered.total()} answered, {len(one.failures)} failed")
        print(f"{len(one.tap.records)} messages")
        wrong = violations(messages(one.tap.records))
        assert (one.failures[:20], wrong[:20]) == ([], [])
        assert one.tap.streams == 1
        assert one.answered.total() > 2 * RATE


async def test_a_stream_that_breaks_within_a_change_costs_neither_a_request_nor_time(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """By delta the Envoy says what it has, so the change goes on in order; with clusters that warm and miss their
    endpoints it would stand still for 15 s."""
    chance = random.Random(request.config.getoption("--plan-seed"))
    async with scene(tmp_path, "DELTA_GRPC", random.Random(0)) as one:
        async with contextlib.AsyncExitStack() as stack:
            one.loads = [await stack.enter_async_context(load(port, RATE)) for port in one.plan.listeners.values()]
            for _ in range(40):
                await one.change_and_cut(chance)
        assert one.failures == []
        assert one.tap.streams > 40
