"""What a client has, as few differences from a set that many clients share.

A thousand streams that hold the same thousand resources each need a pointer and an empty dictionary, not a
dictionary of a thousand versions; and a change of one resource costs each of them one entry for a moment, not a
comparison of all. ``Held`` behaves like a mapping of names to versions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set

from xds.snapshot import Resource, ResourceSet

#: Entries apart from the base that are never worth a new base, and the share of all that always is.
_FEW, _TOO_MANY = 32, 4
_NONE: frozenset[str] = frozenset()


class Held:
    """Versions by name. Everything in ``_base`` that is in ``_scope`` (None: everything) is held in the base's version,
    except what is ``_apart``: held in another version, or (None) not held, or held though it is out of scope.
    """

    __slots__ = ("_apart", "_base", "_scope")

    def __init__(self) -> None:
        self._base: ResourceSet | None = None
        self._scope: frozenset[str] | None = None
        self._apart: dict[str, str | None] = {}

    # As a mapping

    def get(self, name: str) -> str | None:
        """The version that is held; None if none is."""
        if name in self._apart:
            return self._apart[name]
        return self._in_base(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        yield from (name for name, version in self._apart.items() if version is not None)
        yield from (name for name in self._base_names() if name not in self._apart)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def __setitem__(self, name: str, version: str) -> None:
        if self._in_base(name) == version:
            self._apart.pop(name, None)
        else:
            self._apart[name] = version

    def resource(self, name: str) -> Resource | None:
        """The resource that is held under this name; None if it is none of the set that is measured from."""
        one = self._base.resources.get(name) if self._base is not None else None
        return one if one is not None and one.version == self.get(name) else None

    @property
    def known(self) -> bool:
        """False while nothing was ever held."""
        return self._base is not None or bool(self._apart)

    @property
    def differences(self) -> int:
        """How many entries are kept beside the shared set."""
        return len(self._apart)

    def keys(self) -> set[str]:
        """All names."""
        return set(self)

    def pop(self, name: str) -> None:
        """Hold this name no longer."""
        if self._in_base(name) is None:
            self._apart.pop(name, None)
        else:
            self._apart[name] = None

    def widen(self) -> None:
        """What is out of scope counts as not held from now on, so that :meth:`behind` names it."""
        if self._base is not None and self._scope is not None:
            outside = self._base.resources.keys() - self._scope
            self._apart = dict.fromkeys(outside) | self._apart
            self._scope = None

    # Beside a set

    def replace(self, whole: ResourceSet, scope: frozenset[str] | None = None) -> None:
        """Hold exactly this set, or what of it is in ``scope``."""
        self._base, self._scope, self._apart = whole, scope, {}

    def take(self, current: ResourceSet, sent: Mapping[str, str], removed: Collection[str]) -> None:
        """These resources of ``current`` were sent and those taken away; the rest is held as it was."""
        if self._base is None and not self._apart and not removed:
            scope = None if len(sent) == len(current.resources) else frozenset(sent)
            self.replace(current, scope)
            return
        if self._catches_up(current, sent, removed):
            self.advance(current)
            return
        self._rebase(current)
        for name, version in sent.items():
            self[name] = version
        for name in removed:
            self.pop(name)
        self.tidy()

    def advance(self, current: ResourceSet) -> None:
        """What of an earlier set was held is held as ``current`` has it."""
        self._base = current

    def behind(self, current: ResourceSet) -> Set[str]:
        """Names that may be held in another version than ``current`` has, or not at all; all others are up to date.
        Names that are out of scope are among them only if something is known about them."""
        if self._base is None:
            return current.resources.keys()
        apart: Set[str] = self._apart.keys() & current.resources.keys() if self._apart else _NONE
        if self._base is current:
            return apart
        return current.changed_since(self._base) | apart if apart else current.changed_since(self._base)

    @property
    def whole(self) -> ResourceSet | None:
        """The set that is held exactly as it is; cheap, so None may be wrong."""
        return self._base if self._scope is None and not self._apart else None

    def beyond(self, current: ResourceSet) -> Set[str]:
        """Names of ``current`` that are out of scope. Whoever wants everything asks for these, too."""
        if self._base is None or self._scope is None:
            return _NONE
        return (self._base.resources.keys() - self._scope) & current.resources.keys()

    def gone(self, current: ResourceSet) -> set[str]:
        """Names that are held and that ``current`` lacks."""
        missing: set[str] = set()
        if self._apart:
            apart = ((name, version) for name, version in self._apart.items() if name not in current.resources)
            missing = {name for name, version in apart if version is not None}
        if self._base is not None and self._base is not current and (removed := current.removed_since(self._base)):
            missing.update(name for name in removed if name in self)
        return missing

    # Inside

    def _catches_up(self, current: ResourceSet, sent: Mapping[str, str], removed: Collection[str]) -> bool:
        """Whether the client had all of an earlier set and was sent just what differs: the usual change."""
        if self._base is None or self._apart or removed:
            return False
        difference = current.since(self._base)
        covered = self._scope is None or sent.keys() <= self._scope
        return not difference.removed and sent.keys() == difference.changed and covered

    def _rebase(self, current: ResourceSet) -> None:
        """Measure from ``current`` from now on; what is held stays the same."""
        base = self._base
        if base is current:
            return
        if base is not None:
            difference = current.since(base)
            for name in (*difference.changed, *difference.removed):
                if name not in self._apart:
                    self._apart[name] = self._in_base(name)
        elif self._scope is None:
            self._scope = frozenset()
        self._base = current
        # What is out of scope and not held needs no entry, nor does what is held as the new base has it.
        self._apart = {name: version for name, version in self._apart.items() if self._in_base(name) != version}

    def tidy(self) -> None:
        """Draw a new scope where the differences are many."""
        many = len(self._apart) > _FEW and len(self._apart) * _TOO_MANY >= len(self._base_names())
        if self._base is None or not many:
            return
        held = {name: version for name in self if (version := self.get(name)) is not None}
        self._scope = frozenset(name for name, version in held.items() if self._version_in_base(name) == version)
        self._apart = {name: version for name, version in held.items() if name not in self._scope}

    def _version_in_base(self, name: str) -> str | None:
        one = self._base.resources.get(name) if self._base is not None else None
        return one.version if one else None

    def _in_base(self, name: str) -> str | None:
        """The version that is held unless the name is apart."""
        return self._version_in_base(name) if self._scope is None or name in self._scope else None

    def _base_names(self) -> Collection[str]:
        if self._base is None:
            return ()
        names = self._base.resources.keys()
        return names if self._scope is None else names & self._scope
