"""The checker of recorded streams finds each way to break the order, and nothing in a stream that keeps it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.support.order import Said, Sent, violations
from tests.support.resources import OUTBOUND, assignment, cluster, routes
from xds.codec import encode
from xds.types import CLUSTER, ENDPOINT, ROUTE


def sends_clusters(nonce: str, *names: str, timeout: float = 1.0) -> Sent:
    """The whole state."""
    return Sent(CLUSTER, nonce, {name: encode(cluster(name, timeout)) for name in names}, full=True)


def removes(nonce: str, *names: str) -> Sent:
    return Sent(CLUSTER, nonce, {}, frozenset(names))


def sends_endpoints(nonce: str, *names: str) -> Sent:
    return Sent(ENDPOINT, nonce, {name: encode(assignment(name, 9)) for name in names})


def sends_route(nonce: str, target: str) -> Sent:
    return Sent(ROUTE, nonce, {OUTBOUND: encode(routes(target))})


def answered(*responses: Sent) -> Iterable[Sent | Said]:
    for one in responses:
        yield one
        yield Said(one.type_url, one.nonce)


BOOT = tuple(answered(sends_clusters("1", "a"), sends_endpoints("2", "a"), sends_route("3", "a")))


def test_make_before_break_is_in_order() -> None:
    both, switch = (sends_clusters("4", "a", "b"), sends_endpoints("5", "b")), sends_route("6", "b")
    for last in (removes("7", "a"), sends_clusters("7", "b")):
        assert violations([*BOOT, *answered(*both, switch, last)]) == []


@pytest.mark.parametrize(
    ("stream", "wrong"),
    [
        ([*BOOT, *answered(sends_route("4", "b"))], ["4: outbound names b, not accepted yet"]),
        (
            [
                *BOOT,
                sends_clusters("4", "a", "b"),
                *answered(sends_endpoints("5", "b"), sends_route("6", "b")),
                Said(CLUSTER, "4"),
            ],
            ["6: outbound names b, not accepted yet"],
        ),
        (
            [*BOOT, *answered(sends_clusters("4", "a", "b"), sends_route("5", "b"), sends_endpoints("6", "b"))],
            ["5: outbound names b, whose endpoints were not sent yet"],
        ),
        ([*BOOT, *answered(removes("4", "a"))], ["4: cluster a is removed while outbound may use it"]),
        (
            [
                *BOOT,
                *answered(sends_clusters("4", "a", "b"), sends_endpoints("5", "b")),
                sends_route("6", "b"),
                *answered(removes("7", "a")),
                Said(ROUTE, "6"),
            ],
            ["7: cluster a is removed while outbound may use it"],
        ),
        (
            [*BOOT, *answered(sends_clusters("4", "a", timeout=2.0))],
            ["a: its cluster changed, and no endpoints followed"],
        ),
        ([*BOOT, sends_route("4", "a"), *answered(sends_route("5", "a"))], ["5: a second rds response is on its way"]),
        ([*BOOT, sends_route("4", "a")], ["4: rds was never answered"]),
        ([*BOOT, sends_route("4", "a"), Said(ROUTE, "4", "no")], ["4: rds rejected: no"]),
    ],
)
def test_each_break_of_the_order_is_found(stream: list[Sent | Said], wrong: list[str]) -> None:
    assert violations(stream) == wrong
