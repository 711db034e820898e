"""Who gets a changed configuration when: first one node of a group, the canary, then the rest.

A machine without clock or streams: publications, arrivals, departures, answers and the time go in; what each node
should have now (:attr:`Rollout.effective`) and notices come out.

A *group* is the nodes that do the same job. Per-node snapshots may differ inside it (each has its own ports), so a
change is not a hash that all share: it is whatever one publication changed in the held types of the group's members
(:mod:`xds.holdback`). The canary answers for all of them. In a calm group every member has what was published last.

Content that was refused is known again by the versions of the members that were there: as long as all of these are
published unchanged it is not tried again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping

from xds.canary import Group, GroupStatus, NoticeKind, Policy, Refusal, RefusalKind, RolloutNotice, Trial, names
from xds.holdback import Blender, changed_types, stand_in
from xds.snapshot import Snapshot
from xds.types import short_name

#: So many canaries may disconnect while they try a change before it is taken for the cause.
LOSSES = 2

_NOTHING: Mapping[str, str] = {}


class Rollout:
    """``effective`` maps node ids to what each should have now; a node that is not in it is left in silence.

    A node's group is what the publication says or else what :meth:`joined` says. Times are seconds on one clock.
    """

    def __init__(self, policy: Policy) -> None:
        self.effective: dict[str, Snapshot] = {}
        self._policy = policy
        self._published: Mapping[str, Snapshot] = {}
        self._accepted: dict[str, Snapshot] = {}
        self._group_of: dict[str, str] = {}
        self._groups: dict[str, Group] = {}
        self._streams: Counter[str] = Counter()
        self._said: dict[str, str] = {}
        self._blender = Blender()
        self._notices: list[RolloutNotice] = []
        self._changed: set[str] = set()

    # In

    def publish(
        self,
        snapshots: Mapping[str, Snapshot],
        now: float,
        *,
        groups: Mapping[str, str] = _NOTHING,
        refused: Mapping[str, str] = _NOTHING,
        pending: Collection[str] = (),
    ) -> None:
        """Take what every node should have in the end. ``refused`` maps groups whose change must not go out to the
        reason; that of ``pending`` groups waits for the next publication."""
        self._published = snapshots
        self._blender.forget()
        for node_id in self._group_of.keys() - snapshots.keys():
            self._forget(node_id)
        for node_id, name in {**self._said, **groups}.items():
            if node_id in snapshots:
                self._enlist(node_id, name)
        for group in list(self._groups.values()):
            self._judge(group, now, refused.get(group.name, ""), waits=group.name in pending)

    def joined(self, node_id: str, group: str, now: float) -> None:
        """A stream of this node began; ``group`` counts unless a publication named another one."""
        self._streams[node_id] += 1
        self._said[node_id] = group
        if node_id not in self._published:
            return
        if node_id not in self._group_of:
            self._enlist(node_id, group)
        mine = self._groups[self._group_of[node_id]]
        if mine.trial is not None and not mine.trial.node_id:
            self._fill(mine, mine.trial, now)
        self._supply(mine, {node_id})

    def left(self, node_id: str, now: float) -> None:
        """A stream of this node ended."""
        self._streams[node_id] -= 1
        if self._streams[node_id] > 0:
            return
        del self._streams[node_id], self._said[node_id]
        group = self._group(node_id)
        if group is None:
            return
        if group.trial is not None and group.trial.node_id == node_id:
            self._lost(group, group.trial, now)
        elif group.refusal is not None and group.refusal.silent and group.refusal.node_id == node_id:
            group.refusal = None
            self._judge(group, now)

    def rejected(self, node_id: str, type_url: str, version: str, message: str, now: float) -> None:
        """A node refused a set of this version; only a canary's word about its change counts."""
        group, trial = self._group(node_id), self.trial(node_id)
        if group is None or trial is None or type_url not in trial.types:
            return
        before = self._accepted[node_id].get(type_url)
        if before is None or before.version != version:
            self._refuse(group, trial, f"{short_name(type_url)}: {message}", now)

    def progressed(self, node_id: str, *, owed: bool, unasked: bool, now: float) -> None:
        """How far a canary is: ``owed`` while something that it wants is not accepted yet, ``unasked`` while there
        are changed resources that it has not asked for."""
        group, trial = self._group(node_id), self.trial(node_id)
        if group is None or trial is None:
            return
        if owed:
            trial.accepted_at = None
        elif not unasked:
            self._pass(group, trial, now)
        elif trial.accepted_at is None:
            trial.accepted_at = now

    def expire(self, now: float) -> None:
        """The time has come to ``now``."""
        for group in self._groups.values():
            if group.trial is not None:
                self._check_time(group, group.trial, now)

    # Out

    def wakes_at(self) -> float:
        """When :meth:`expire` has something to do; infinity while nothing is tried."""
        trials = (group.trial for group in self._groups.values() if group.trial is not None)
        return min((trial.due(self._policy.settle) for trial in trials), default=math.inf)

    def take_notices(self) -> list[RolloutNotice]:
        """What happened since the last call."""
        notices, self._notices = self._notices, []
        return notices

    def take_changes(self) -> dict[str, Snapshot | None]:
        """What nodes should have that did not have it at the last call; None for silence."""
        changed, self._changed = self._changed, set()
        return {node_id: self.effective.get(node_id) for node_id in changed}

    def canaries(self) -> list[str]:
        """Nodes that are trying a change now."""
        return [group.trial.node_id for group in self._groups.values() if group.trial and group.trial.node_id]

    def trial(self, node_id: str) -> Trial | None:
        """The change that this node tries; None for all others."""
        group = self._group(node_id)
        return group.trial if group and group.trial and group.trial.node_id == node_id else None

    def accepted(self, node_id: str) -> Snapshot | None:
        """What a node would be taken back to."""
        return self._accepted.get(node_id)

    def status(self) -> list[GroupStatus]:
        """The groups that are not calm, by name."""
        found = (group.status() for _, group in sorted(self._groups.items()))
        return [status for status in found if status is not None]

    # Members

    def _group(self, node_id: str) -> Group | None:
        return self._groups.get(self._group_of.get(node_id, ""))

    def _enlist(self, node_id: str, name: str) -> None:
        if self._group_of.get(node_id) == name:
            return
        if node_id in self._group_of:
            self._forget(node_id)
        self._group_of[node_id] = name
        self._groups.setdefault(name, Group(name)).members.add(node_id)

    def _forget(self, node_id: str) -> None:
        """The node is not published any longer; if it was a canary, :meth:`_judge` finds another one."""
        group = self._groups[self._group_of.pop(node_id)]
        group.members.discard(node_id)
        self._accepted.pop(node_id, None)
        self._set(node_id, None)
        if group.trial is not None and group.trial.node_id == node_id:
            group.trial.node_id, group.trial.vacant_until = "", -math.inf
        if not group.members:
            del self._groups[group.name]

    # Decisions

    def _judge(self, group: Group, now: float, objection: str = "", *, waits: bool = False) -> None:
        """What to do about what is published for the group."""
        if group.refusal is not None and group.refusal.outdated(objects=bool(objection), waits=waits):
            group.refusal = None
        known = group.members & self._accepted.keys()
        types = {url for i in known for url in changed_types(self._accepted[i], self._published[i])}
        if known and not types:
            self._withdraw(group)
        elif not group.stands(self._published):
            self._decide(group, tuple(sorted(types)), now, objection, waits=waits)
        elif group.trial is not None and not group.trial.node_id:
            self._fill(group, group.trial, now)
        self._supply(group, group.members)

    def _decide(self, group: Group, types: tuple[str, ...], now: float, objection: str, *, waits: bool) -> None:
        trial = Trial(group.content(self._published), types, now)
        group.trial = group.refusal = None
        if waits:
            group.refusal = Refusal(trial.content, types, now, "", "", kind="pending")
        elif objection:
            self._refuse(group, trial, objection, now, kind="preflight")
        elif self._policy.canary and self._has_others(group) and self._choose(group, trial):
            group.trial = trial
            self._fill(group, trial, now)

    def _has_others(self, group: Group) -> bool:
        """A canary protects somebody: it is not the only member that is connected."""
        return sum(1 for node_id in group.members if node_id in self._streams) > 1

    def _choose(self, group: Group, trial: Trial) -> str:
        """The lowest id of the connected members that can be taken back, rather not one that just vanished."""
        able = group.members & self._streams.keys() & self._accepted.keys()
        return min(able, key=lambda node_id: (node_id in trial.lost, node_id), default="")

    def _fill(self, group: Group, trial: Trial, now: float) -> None:
        """Find a canary, unless a lost one is still mourned."""
        if trial.vacant_until is not None and now < trial.vacant_until:
            return
        trial.node_id, trial.vacant_until = self._choose(group, trial), None
        if trial.node_id:
            trial.deadline, trial.accepted_at = now + self._policy.deadline, None
            others = f"{len(group.members) - 1} others wait"
            self._note("canary-started", group, trial.node_id, f"{names(trial.types)} changed; {others}")

    def _lost(self, group: Group, trial: Trial, now: float) -> None:
        """One canary may vanish for reasons of its own; a second one did not by accident."""
        trial.lost.append(trial.node_id)
        if len(trial.lost) >= LOSSES:
            self._refuse(group, trial, f"{' and '.join(trial.lost)} disconnected while they tried it", now)
            return
        trial.node_id, trial.vacant_until = "", now + self._policy.settle
        self._supply(group, {trial.lost[-1]})

    def _check_time(self, group: Group, trial: Trial, now: float) -> None:
        if now < trial.due(self._policy.settle):
            return
        silence = f"no answer within {self._policy.deadline:g} s"
        if not trial.node_id:
            self._fill(group, trial, now)
            self._supply(group, {trial.node_id} if trial.node_id else set())
        elif trial.settled(self._policy.settle) <= now:
            self._pass(group, trial, now)
        elif self._policy.on_deadline == "publish":
            self._pass(group, trial, now, f"{silence}; published even so")
        else:
            self._refuse(group, trial, silence, now, silent=True)

    def _pass(self, group: Group, trial: Trial, now: float, message: str = "") -> None:
        words = message or f"{names(trial.types)} accepted after {now - trial.since:.3g} s"
        self._note("canary-passed", group, trial.node_id, words)
        group.trial = None
        self._supply(group, group.members)

    def _refuse(
        self,
        group: Group,
        trial: Trial,
        words: str,
        now: float,
        *,
        kind: RefusalKind = "canary",
        silent: bool = False,
    ) -> None:
        content = group.content(self._published)
        group.trial = None
        group.refusal = Refusal(content, trial.types, now, trial.node_id, words, kind, silent)
        self._note("canary-rolled-back" if kind == "canary" else "preflight-failed", group, trial.node_id, words)
        self._supply(group, group.members)

    def _withdraw(self, group: Group) -> None:
        """What is published is what everybody has."""
        if group.trial is not None:
            self._note("canary-withdrawn", group, group.trial.node_id, f"{names(group.trial.types)} are as before")
        group.trial = group.refusal = None

    def _note(self, kind: NoticeKind, group: Group, node_id: str, message: str) -> None:
        self._notices.append(RolloutNotice(kind, group.name, node_id, message))

    # What each member has

    def _supply(self, group: Group, members: set[str]) -> None:
        """Compute what these members should have now."""
        trying = group.trial.node_id if group.trial is not None else ""
        for node_id in members:
            new = self._published[node_id]
            old = new if group.calm else self._held_back(group, node_id, new)
            if old is not None:
                self._accepted[node_id] = old
            self._set(node_id, new if node_id == trying else old)

    def _held_back(self, group: Group, node_id: str, new: Snapshot) -> Snapshot | None:
        old = self._accepted.get(node_id)
        peer = min(group.members & self._accepted.keys(), default="") if old is None else ""
        if peer:
            old = stand_in(new, self._published[peer], self._accepted[peer])
        return None if old is None else self._blender.held(old, new)

    def _set(self, node_id: str, snapshot: Snapshot | None) -> None:
        if self.effective.get(node_id) is snapshot:
            return
        self._changed.add(node_id)
        if snapshot is None:
            del self.effective[node_id]
        else:
            self.effective[node_id] = snapshot
