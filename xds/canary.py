"""What a canary is told about and remembered by: the values of :mod:`xds.rollout`.

A *trial* is a change on its canary, a *refusal* a change that was not let through, a *group* the nodes that wait for
one and the same canary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from xds.holdback import Key, key
from xds.snapshot import Snapshot
from xds.types import short_name

NoticeKind = Literal["canary-started", "canary-passed", "canary-rolled-back", "canary-withdrawn", "preflight-failed"]
RefusalKind = Literal["canary", "preflight", "pending"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How changes are tried."""

    canary: bool = True
    """Whether a change goes to one node first. Without it only what pre-flight refuses is held back."""

    deadline: float = 5.0
    """Seconds that a canary has to accept everything."""

    on_deadline: Literal["roll-back", "publish"] = "roll-back"
    """What becomes of a change about which the canary said nothing in time."""

    settle: float = 1.0
    """Seconds that a canary which accepted everything has to ask for new resources that it was not told to have
    (the routes of a new listener); also the pause before another canary is chosen when one is lost."""


@dataclass(frozen=True, slots=True)
class RolloutNotice:
    """Something that people want to know. ``node_id`` is empty where no node tried anything."""

    kind: NoticeKind
    group: str
    node_id: str
    message: str


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group in which not everybody has what was published last: pre-flight is validating it, a canary is trying it,
    a canary was rolled back, or pre-flight refused it. ``types`` are short names of what changed,
    ``since`` is on the caller's clock, ``waiting`` counts the members that have the older configuration."""

    group: str
    state: Literal["validating", "trying", "rolled-back", "refused"]
    canary: str
    types: tuple[str, ...]
    since: float
    waiting: int
    error: str = ""


@dataclass(slots=True)
class Trial:
    """``node_id`` is empty while a canary is looked for: not before ``vacant_until``, None once nobody was found."""

    content: Mapping[str, Key]
    types: tuple[str, ...]
    since: float
    node_id: str = ""
    deadline: float = math.inf
    accepted_at: float | None = None
    vacant_until: float | None = -math.inf
    lost: list[str] = field(default_factory=list)

    def due(self, settle: float) -> float:
        """When time decides something; infinity if it does not."""
        if not self.node_id:
            return math.inf if self.vacant_until is None else self.vacant_until
        return min(self.deadline, self.settled(settle))

    def settled(self, settle: float) -> float:
        """When the canary, which has accepted everything, has had time to ask for more."""
        return math.inf if self.accepted_at is None else self.accepted_at + settle


@dataclass(frozen=True, slots=True)
class Refusal:
    """``silent``: the canary never answered, so that the canary may be to blame. ``pending``: nobody has refused
    anything yet, pre-flight is at work."""

    content: Mapping[str, Key]
    types: tuple[str, ...]
    since: float
    node_id: str
    words: str
    kind: RefusalKind = "canary"
    silent: bool = False

    def outdated(self, *, objects: bool, waits: bool) -> bool:
        """Pre-flight, which spoke last, has spoken again: it ``objects``, still ``waits``, or found nothing."""
        return self.kind == "pending" or (self.kind == "preflight" and not objects and not waits)


@dataclass(slots=True)
class Group:
    """At most one of ``trial`` and ``refusal`` is set; with none of them the group is calm."""

    name: str
    members: set[str] = field(default_factory=set)
    trial: Trial | None = None
    refusal: Refusal | None = None

    @property
    def calm(self) -> bool:
        return self.trial is None and self.refusal is None

    def content(self, published: Mapping[str, Snapshot]) -> dict[str, Key]:
        """What is published for the members, to be recognised later."""
        return {node_id: key(published[node_id]) for node_id in self.members}

    def stands(self, published: Mapping[str, Snapshot]) -> bool:
        """What is tried, or was refused, is what is published for every member that was there."""
        known = self.trial or self.refusal
        there = self.members & known.content.keys() if known else set()
        return known is not None and bool(there) and all(known.content[i] == key(published[i]) for i in there)

    def status(self) -> GroupStatus | None:
        """None for a calm group."""
        waiting = len(self.members)
        if self.trial is not None:
            node_id, since, types = self.trial.node_id, self.trial.since, self.trial.types
            return GroupStatus(self.name, "trying", node_id, _short(types), since, waiting - bool(node_id))
        if self.refusal is not None:
            one, state = self.refusal, _STATES[self.refusal.kind]
            return GroupStatus(self.name, state, one.node_id, _short(one.types), one.since, waiting, one.words)
        return None


_STATES: Mapping[RefusalKind, Literal["validating", "rolled-back", "refused"]] = {
    "pending": "validating",
    "preflight": "refused",
    "canary": "rolled-back",
}


def names(types: Iterable[str]) -> str:
    """Types for a sentence."""
    return ", ".join(_short(types)) or "nothing"


def _short(types: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(short_name, types))
