"""The shop that the demo runs: services in the shape of Google's Online Boutique, and what a request does there.

Only data and pure functions: service processes import this module, so it must stay light. How many replicas a
service may have,
its limits and its objectives are in ``mesh.yaml`` beside this file.

A request occupies a worker from its start to its end, calls included (a thread per request). So a replica serves
``concurrency / mean time`` requests per second, where the mean time includes what it waits for: see :func:`mean_time`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ENTRY = "frontend"

#: Header names that an application copies from the request it serves to the requests it makes.
FORWARDED = ("traceparent", "tracestate", "x-request-id", "x-chaos-group")


@dataclass(frozen=True, slots=True)
class Call:
    """One call to ``callee`` at ``path``. The page is served without the answer of an ``optional`` one."""

    callee: str
    path: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one service does.

    ``work`` is the mean of its own (lognormal) working time in seconds, ``sigma`` the deviation of its logarithm,
    ``calls`` maps a
    request path to the calls made one after the other. ``counts`` maps a path to the business metric that a success
    there increments.
    """

    work: float
    sigma: float = 0.35
    calls: Mapping[str, tuple[Call, ...]] = field(default_factory=dict)
    counts: Mapping[str, str] = field(default_factory=dict)


_LIST = Call("catalog", "/list")
_ITEM = Call("catalog", "/item")
_BASKET = Call("cart", "/basket")
_ALSO = Call("recommendation", "/similar", optional=True)
_QUOTE = Call("shipping", "/quote")

BEHAVIOURS: Mapping[str, Behaviour] = {
    "frontend": Behaviour(
        work=0.060,
        calls={
            "/home": (_LIST, _BASKET),
            "/product": (_ITEM, _ALSO, _BASKET),
            "/cart": (_BASKET, _ALSO, _QUOTE),
            "/checkout": (Call("checkout", "/order"),),
        },
    ),
    "catalog": Behaviour(work=0.080),
    "cart": Behaviour(work=0.050),
    "recommendation": Behaviour(work=0.070, calls={"/similar": (_LIST,)}),
    "checkout": Behaviour(
        work=0.050,
        calls={"/order": (_BASKET, _ITEM, _QUOTE, Call("payment", "/charge"))},
        counts={"/order": "orders"},
    ),
    "payment": Behaviour(work=0.100),
    "shipping": Behaviour(work=0.030),
}

#: Request kinds (paths at the ingress) and their shares of the users' requests.
MIX: Mapping[str, float] = {"/home": 0.40, "/product": 0.35, "/cart": 0.15, "/checkout": 0.10}


def calls_of(service: str, path: str) -> tuple[Call, ...]:
    """The calls that ``service`` makes for ``path`` (a path that it does not know costs work and no calls)."""
    return BEHAVIOURS[service].calls.get(path, ())


def mean_time(service: str, path: str) -> float:
    """Mean seconds of a request at an idle mesh: own work plus the calls, one after the other."""
    behaviour = BEHAVIOURS[service]
    return behaviour.work + sum(mean_time(call.callee, call.path) for call in calls_of(service, path))


def entry_time() -> float:
    """Mean seconds of a user's request over the :data:`MIX`, at an idle mesh."""
    return sum(share * mean_time(ENTRY, path) for path, share in MIX.items())


def visits() -> dict[str, float]:
    """Mean number of requests that each service receives per user request."""
    total = dict.fromkeys(BEHAVIOURS, 0.0)
    for path, share in MIX.items():
        _visit(ENTRY, path, share, total)
    return total


def _visit(service: str, path: str, share: float, total: dict[str, float]) -> None:
    total[service] += share
    for call in calls_of(service, path):
        _visit(call.callee, call.path, share, total)
