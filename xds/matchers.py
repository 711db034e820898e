"""Which nodes somebody asks about: NodeMatcher of Envoy's API. Pure.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/type/matcher/v3/node.proto
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from xds.errors import RemoteError
from xds.patterns import compile_pattern

#: More matchers than anybody writes.
MAX_MATCHERS = 100

Match = Callable[[str], bool]


def string_match(kind: str, text: str, *, ignore_case: bool = False) -> Match:
    """A StringMatcher: ``kind`` is the name of its field. RemoteError if it is none that is known here."""
    if kind == "safe_regex":
        return compile_pattern(text).matches  # ignore_case has no effect on it, says the API
    compare = _COMPARISONS.get(kind)
    if compare is None:
        raise RemoteError(f"node_id: {kind or 'no pattern'!r}; expected one of {', '.join(_COMPARISONS)}, safe_regex")
    if kind != "exact" and not text:
        raise RemoteError(f"node_id.{kind} is empty; use safe_regex '.*' to match every node")
    wanted = text.lower() if ignore_case else text
    return lambda node_id: compare(node_id.lower() if ignore_case else node_id, wanted)


_COMPARISONS: dict[str, Callable[[str, str], bool]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
    "contains": str.__contains__,
}


def any_of(matches: Iterable[Match]) -> Match:
    """Matches by one of several; of none at all, everything matches."""
    every = tuple(matches)
    if len(every) > MAX_MATCHERS:
        raise RemoteError(f"{len(every)} node_matchers; expected at most {MAX_MATCHERS}")
    return lambda node_id: not every or any(match(node_id) for match in every)
