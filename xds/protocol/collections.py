"""Collections of xdstp names: a client may ask for ``xdstp://authority/type/path/*`` and gets whatever exists there.

The context parameters of a name (``?key=value``) belong to its collection's name, too, as Envoy matches them.

https://github.com/cncf/xds/blob/main/proposals/TP1-xds-transport-next.md
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

SCHEME = "xdstp://"


def is_collection(name: str) -> bool:
    """Whether this is the name of a glob collection, not of a resource."""
    return name.startswith(SCHEME) and name.partition("?")[0].endswith("/*")


def collections_among(names: Collection[str]) -> set[str]:
    """Those of ``names`` that are names of collections. Most clients have none, and thousands of others."""
    return set(filter(is_collection, names)) if SCHEME in "\n".join(names) else set()


def collection_of(name: str) -> str:
    """The name of the collection that a resource is in; empty for one whose name is no xdstp name."""
    if not name.startswith(SCHEME):
        return ""
    path, mark, context = name.partition("?")
    return path.rpartition("/")[0] + "/*" + mark + context


def by_collection(names: Iterable[str]) -> dict[str, set[str]]:
    """The members of every collection that has any."""
    found: dict[str, set[str]] = {}
    for name in names:
        collection = collection_of(name)
        if collection:
            found.setdefault(collection, set()).add(name)
    return found
