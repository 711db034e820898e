"""A set that was made from another is the set that would have been made from scratch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.xds.link import make
from xds.snapshot import ResourceSet, resource_set
from xds.types import CLUSTER

NAMES = st.sampled_from("abcdef")
CONTENT = st.dictionaries(NAMES, st.integers(0, 3), max_size=6)


def clusters(content: dict[str, int]) -> ResourceSet:
    return resource_set(CLUSTER, [make.cluster(name, number) for name, number in content.items()])


@given(CONTENT, st.lists(st.tuples(CONTENT, st.sets(NAMES)), max_size=4))
def test_replacing_equals_starting_anew(first: dict[str, int], steps: list[tuple[dict[str, int], set[str]]]) -> None:
    current, expected = clusters(first), first
    for changed, removed in steps:
        before = current
        current = current.replacing([make.cluster(*item) for item in changed.items()], removed)
        expected = {name: number for name, number in (expected | changed).items() if name not in removed}
        scratch = clusters(expected)
        assert current == scratch
        assert current.version == scratch.version
        assert current.versions == scratch.versions
        assert current.changed_since(before) == scratch.changed_since(clusters_of(before))


def clusters_of(other: ResourceSet) -> ResourceSet:
    """The same content, with nothing remembered."""
    return resource_set(CLUSTER, other.resources.values())
