"""Slots for writers: how many, whose turn it is, and who loses one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from xds.server.slots import Slots

pytestmark = pytest.mark.slow

PATIENCE, DEADLINE = 1.0, 60.0


@dataclass(eq=False)
class Client:
    holds: bool = False
    slow: bool = False


def write(slots: Slots, client: Client, now: float) -> None:
    """Take a free slot and begin to write."""
    if not client.slow:
        assert slots.free > 0
        slots.free -= 1
        client.holds = True
    slots.writing[client] = now


async def waiting(slots: Slots, count: int) -> list[asyncio.Task[None]]:
    before = slots.waiting
    tasks = [asyncio.create_task(slots.wait()) for _ in range(count)]
    while slots.waiting < before + count:
        await asyncio.sleep(0)
    return tasks


async def test_who_waits_longest_is_next() -> None:
    slots = Slots(1, PATIENCE, DEADLINE)
    holder = Client()
    write(slots, holder, 0.0)
    first, second = await waiting(slots, 2)
    slots.written(holder, 0.1)
    await asyncio.wait_for(first, 5)
    assert not second.done()
    assert slots.free == 0, "handed over, not put back where a third one could take it"
    slots.give()
    await asyncio.wait_for(second, 5)
    slots.give()
    assert slots.free == 1


async def test_a_client_that_does_not_read_loses_its_slot() -> None:
    slots = Slots(1, PATIENCE, DEADLINE)
    stalled = Client()
    write(slots, stalled, 0.0)
    [other] = await waiting(slots, 1)
    assert slots.look(0.9) == []
    assert not other.done()
    assert slots.look(1.0) == []
    await asyncio.wait_for(other, 5)
    assert stalled.slow
    slots.give()
    slots.written(stalled, 3.0)
    assert slots.free == 1, "it has none to give back"


def test_who_was_slow_goes_without_a_slot_until_it_is_fast() -> None:
    slots = Slots(1, PATIENCE, DEADLINE)
    client = Client()
    write(slots, client, 0.0)
    slots.look(2.0)
    slots.written(client, 3.0)
    write(slots, client, 4.0)
    assert slots.free == 1
    slots.written(client, 6.0)
    write(slots, client, 7.0)
    assert slots.free == 1, "it was slow again"
    slots.written(client, 7.1)
    write(slots, client, 8.0)
    assert slots.free == 0


def test_who_never_reads_is_found_at_the_deadline() -> None:
    slots = Slots(2, PATIENCE, DEADLINE)
    dead, alive = Client(), Client()
    write(slots, dead, 0.0)
    write(slots, alive, 30.0)
    assert slots.look(DEADLINE) == [dead]


@pytest.mark.parametrize("handed", [False, True])
async def test_a_cancelled_wait_loses_no_slot(handed: bool) -> None:
    slots = Slots(1, PATIENCE, DEADLINE)
    slots.free -= 1
    first, second = await waiting(slots, 2)
    if handed:
        slots.give()  # to the first one, which has not run since
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    if not handed:
        slots.give()
    await asyncio.wait_for(second, 5)
    slots.give()
    assert slots.free == 1


class Streams(RuleBasedStateMachine):
    """Streams that take, write, stall, recover and end: no slot is lost and none is made up."""

    COUNT = 3

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(self.COUNT, PATIENCE, DEADLINE)
        self.now = 0.0
        self.owners: set[Client] = set()
        self.idle = [Client() for _ in range(6)]

    def able(self) -> list[Client]:
        return [one for one in self.idle if one.slow or self.slots.free]

    @precondition(lambda self: self.able())
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.able()))
        self.idle.remove(client)
        if not client.slow:
            self.owners.add(client)
        write(self.slots, client, self.now)

    @precondition(lambda self: self.slots.writing)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(list(self.slots.writing)))
        assert isinstance(client, Client)
        self.slots.written(client, self.now)
        self.owners.discard(client)
        self.idle.append(client)

    @rule(seconds=st.sampled_from([0.3, 1.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        late = self.slots.look(self.now)
        assert all(self.now - self.slots.writing[one] >= DEADLINE for one in late)
        self.owners = {one for one in self.owners if one.holds}

    @invariant()
    def every_slot_has_one_owner(self) -> None:
        assert self.slots.free + len(self.owners) == self.COUNT
        assert self.slots.free >= 0


Streams.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestStreams = Streams.TestCase
