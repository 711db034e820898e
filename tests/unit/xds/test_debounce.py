"""Merging changes, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds.server.debounce import Debounce, Debounced

QUIET, CAP = 0.1, 10.0


def released(arrivals: list[float], quiet: float = QUIET, cap: float = CAP) -> list[tuple[float, float]]:
    """(when it went out, when it had arrived), for arrivals in ascending order."""
    core, out, newest = Debounce(quiet, cap), [], math.nan
    for now in [*arrivals, math.inf]:
        while core.due_at() <= now and core.due_at() < math.inf:
            out.append((core.due_at(), newest))
            core.release(core.due_at())
        if now < math.inf:
            newest = now
            if core.passes(now):
                out.append((now, now))
    return out


def test_a_change_after_quiet_goes_out_at_once() -> None:
    assert released([0.0, 1.0, 2.0]) == [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)]


def test_further_changes_are_merged_until_it_is_quiet() -> None:
    assert released([0.0, 0.05, 0.1, 0.125]) == [(0.0, 0.0), (pytest.approx(0.225), 0.125)]


def test_after_a_burst_the_window_is_still_open() -> None:
    """Nothing passes at once just because what was held has gone out."""
    core = Debounce(QUIET, CAP)
    assert core.passes(0.0)
    assert not core.passes(0.0625)
    core.release(0.1625)
    assert not core.passes(0.25)


def test_constant_change_goes_out_at_the_cap() -> None:
    arrivals = [i / 16 for i in range(1, 16 * 21)]
    out = [when for when, _ in released(arrivals)]
    assert out[0] == arrivals[0]
    assert out[1] == arrivals[1] + CAP
    assert len(out) == 4, "two caps and the end"


def test_zero_is_off() -> None:
    assert [when for when, _ in released([0.0, 0.0, 0.01], quiet=0.0)] == [0.0, 0.0, 0.01]


@given(st.lists(st.floats(0, 0.5, width=32), min_size=1, max_size=60))
def test_the_newest_always_goes_out_and_soon(gaps: list[float]) -> None:
    arrivals = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    out = released(arrivals, cap=1.0)
    assert out[-1][1] == arrivals[-1], "what came last is what remains"
    sent_at = [when for when, _ in out]
    for one in arrivals:
        assert any(one <= when <= one + 1.0 + 1e-9 for when in sent_at), "nothing waits longer than the cap"
    assert all(b - a >= QUIET - 1e-9 for a, b in itertools.pairwise(sent_at))


async def test_on_an_event_loop_the_newest_wins() -> None:
    got: list[int] = []
    done = asyncio.Event()

    def deliver(value: int) -> None:
        got.append(value)
        if value == 3:
            done.set()

    debounced = Debounced(deliver, 0.02, 1.0)
    for value in range(4):
        debounced.submit(value)
    assert got == [0]
    await asyncio.wait_for(done.wait(), 5)
    assert got == [0, 3]


async def test_a_failure_of_what_was_held_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    calls = asyncio.Event()

    def deliver(value: int) -> None:
        if value:
            calls.set()
            raise ValueError("broken")

    debounced = Debounced(deliver, 0.01, 1.0)
    debounced.submit(0)
    with caplog.at_level(logging.ERROR):
        debounced.submit(1)
        await asyncio.wait_for(calls.wait(), 5)
        await asyncio.sleep(0)
    assert "broken" in caplog.text


async def test_cancel_forgets_what_is_held() -> None:
    got: list[int] = []
    debounced = Debounced(got.append, 0.01, 1.0)
    debounced.submit(0)
    debounced.submit(1)
    debounced.cancel()
    later = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.05, later.set_result, None)
    await later
    assert got == [0]


def test_without_a_loop_everything_passes() -> None:
    got: list[int] = []
    debounced = Debounced(got.append, 10.0, 10.0)
    debounced.submit(1)
    debounced.submit(2)
    assert got == [1, 2]
