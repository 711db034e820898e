"""Feeding another process: whatever is published, what it makes of the difference is what was published."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds.feed import NOTHING, Held, feed, take
from xds.snapshot import Snapshot, encoded, resource_set, snapshot
from xds.types import CLUSTER, ENDPOINT, LISTENER

pytestmark = pytest.mark.slow

NAMES = st.sampled_from(["a", "b", "c", "xdstp://a/b", "é\N{SNOWMAN}"])
BODIES = st.sampled_from([b"", b"1", b"2" * 70, b"\xff\x00"])
TYPES = (CLUSTER, ENDPOINT, LISTENER)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    sets = []
    for url in draw(st.sets(st.sampled_from(TYPES))):
        content = draw(st.dictionaries(NAMES, BODIES))
        sets.append(resource_set(url, [encoded(url, name, body) for name, body in content.items()]))
    return snapshot(*sets)


HELD = st.dictionaries(st.sampled_from(["n-0", "n-1", "n-2", "m-0"]), snapshots())


def through(before: Held, after: Held) -> dict[str, Snapshot]:
    """What the other side has after the difference went over the wire."""
    made = feed(before, after)
    return take(before, json.loads(json.dumps(made.head)), b"".join(made.bodies))


def content(held: Held) -> dict[str, dict[str, dict[str, tuple[str, bytes]]]]:
    return {
        node_id: {
            url: {name: (one.version, one.body) for name, one in each.resources.items()}
            for url, each in one.sets.items()
        }
        for node_id, one in held.items()
    }


@given(steps=st.lists(HELD, max_size=5))
def test_the_reader_ends_with_what_the_writer_has(steps: list[Held]) -> None:
    theirs: Held = NOTHING
    ours: Held = NOTHING
    for after in steps:
        made = feed(ours, after)
        theirs = take(theirs, json.loads(json.dumps(made.head)), b"".join(made.bodies))
        ours = after
        assert content(theirs) == content(after)
        for node_id, one in after.items():
            assert {url: each.version for url, each in theirs[node_id].sets.items()} == {
                url: each.version for url, each in one.sets.items()
            }


@given(before=HELD, after=HELD)
def test_any_state_leads_to_any_other(before: Held, after: Held) -> None:
    assert content(through(before, after)) == content(after)


@given(held=HELD)
def test_what_is_known_is_not_told_again(held: Held) -> None:
    made = feed(held, held)
    assert (made.head["nodes"], made.head["sets"], made.bodies) == ([], [], ())


def test_a_changed_resource_is_told_once_for_all_nodes() -> None:
    def nodes(changed: bytes) -> Held:
        """A hundred nodes, each with a set of its own: 99 shared resources, one that changes, and one of its own."""
        shared = [encoded(CLUSTER, f"svc-{number}", b"x" * 500) for number in range(99)]
        moving = encoded(CLUSTER, "moving", changed)
        return {
            f"n-{number}": snapshot(resource_set(CLUSTER, [*shared, moving, encoded(CLUSTER, "own", b"%d" % number)]))
            for number in range(100)
        }

    before, after = nodes(b"1"), nodes(b"2")
    full, change = feed(NOTHING, before), feed(before, after)
    assert len(full.bodies) == 99 + 1 + 100
    assert change.bodies == (b"2",)
    assert content(through(before, after)) == content(after)
