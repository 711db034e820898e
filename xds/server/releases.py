"""From what the owner publishes to what each node should have now: debounce, pre-flight, canary.

Everything is decided elsewhere (:mod:`xds.server.debounce`, :mod:`xds.preflight`, :mod:`xds.rollout`); this module
gives those machines time and streams. Without pre-flight and canary it costs one call per publication.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from xds.canary import GroupStatus, Policy, RolloutNotice
from xds.holdback import changed_resources
from xds.interning import Interner
from xds.preflight import Preflight
from xds.protocol.events import Node, Notice
from xds.protocol.stream import Stream
from xds.rollout import Rollout
from xds.server.debounce import Debounced
from xds.server.settings import Settings
from xds.snapshot import Snapshot


class Host(Protocol):
    """What releases need of their server."""

    def now(self) -> float:
        """Seconds on the clock of leases."""

    def supply(self, snapshots: Mapping[str, Snapshot], expected: Collection[str]) -> None:
        """From now on these are what nodes should have; ``expected`` nodes may have nothing yet."""

    def resupply(self, changes: Mapping[str, Snapshot | None]) -> None:
        """These nodes should have something else from now on; None is silence."""

    def streams_of(self, node_id: str) -> list[Stream]:
        """The machines of a node's streams."""

    def announce(self, notice: RolloutNotice) -> None:
        """Tell people."""


@dataclass(frozen=True, slots=True)
class _Publication:
    snapshots: Mapping[str, Snapshot]
    groups: Mapping[str, str]


class Releases:
    """``canaries`` are the nodes whose answers matter now. ``since`` is when what is released now was published, on the
    host's clock; of several that were merged, the first."""

    def __init__(self, host: Host, settings: Settings, preflight: Preflight | None) -> None:
        self.canaries: frozenset[str] = frozenset()
        self.since = 0.0
        self._waiting_since: float | None = None
        self._host = host
        self._preflight = preflight
        wanted = settings.canary is not None or preflight is not None
        self._rollout = Rollout(settings.canary or Policy(canary=False)) if wanted else None
        self._debounced = Debounced(self._take, settings.debounce_seconds, settings.debounce_cap_seconds)
        self._newest = _Publication({}, {})
        self._interner = Interner()
        self._nodes: dict[object, str] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._validation: asyncio.Task[None] | None = None

    def publish(self, snapshots: Mapping[str, Snapshot], groups: Mapping[str, str]) -> None:
        """Release this now or soon, unless something newer comes; ValueError if pre-flight lacks a node's group."""
        if self._preflight is not None and not snapshots.keys() <= groups.keys():
            lost = min(snapshots.keys() - groups.keys())
            raise ValueError(f"pre-flight validates groups, and node {lost!r} has none: publish(snapshots, groups)")
        if self._waiting_since is None:
            self._waiting_since = self._host.now()
        self._debounced.submit(_Publication(snapshots, groups))

    async def stop(self) -> None:
        """Decide nothing any more."""
        self._debounced.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._rollout, self.canaries = None, frozenset()
        if self._preflight is not None:
            await self._preflight.close()
        if self._validation is not None:
            self._validation.cancel()
            await asyncio.gather(self._validation, return_exceptions=True)

    def status(self, now: float) -> list[GroupStatus]:
        """Groups in which not everybody has what was published last; ``since`` is on the clock of ``now``."""
        found = self._rollout.status() if self._rollout is not None else []
        return [replace(one, since=now - (time.monotonic() - one.since)) for one in found]

    # What happens on streams

    def joined(self, stream: object, node: Node) -> None:
        """A stream said who it is; what its node should have is decided when this returns."""
        if self._rollout is not None and node.id:
            self._nodes[stream] = node.id
            self._rollout.joined(node.id, node.cluster, time.monotonic())
            self._apply(self._rollout)

    def left(self, stream: object) -> None:
        """A stream ended."""
        node_id = self._nodes.pop(stream, None)
        if self._rollout is not None and node_id is not None:
            self._rollout.left(node_id, time.monotonic())
            self._apply(self._rollout)

    def noted(self, node_id: str, notices: Iterable[Notice]) -> None:
        """A canary answered."""
        if self._rollout is None:
            return
        for notice in notices:
            if notice.kind == "nack":
                message = notice.message
                self._rollout.rejected(node_id, notice.type_url, notice.version, message, time.monotonic())
        self._look_at(self._rollout, node_id)
        self._apply(self._rollout)

    # Steps

    def _take(self, publication: _Publication) -> None:
        self.since, self._waiting_since = self._waiting_since or self._host.now(), None
        snapshots = self._interner.all(publication.snapshots)
        self._newest = replace(publication, snapshots=snapshots)
        if self._rollout is None:
            self._host.supply(snapshots, snapshots.keys())
            return
        self._submit(self._rollout)
        if self._preflight is not None and self._unknown(self._preflight) and self._validation is None:
            self._validation = asyncio.create_task(self._validate(self._preflight), name="xds-preflight")

    def _submit(self, rollout: Rollout) -> None:
        """Tell the machine what is published, and what is known about it."""
        preflight = self._preflight
        verdicts = {name: preflight.verdict(one) for name, one in self._samples().items()} if preflight else {}
        rollout.publish(
            self._newest.snapshots,
            time.monotonic(),
            groups=self._newest.groups,
            refused={name: words for name, words in verdicts.items() if words},
            pending={name for name, words in verdicts.items() if words is None},
        )
        self._apply(rollout, published=True)

    def _samples(self) -> dict[str, Snapshot]:
        """One snapshot per group, that of its lowest node id."""
        groups = self._newest.groups
        return {groups[i]: self._newest.snapshots[i] for i in sorted(self._newest.snapshots, reverse=True)}

    def _unknown(self, preflight: Preflight) -> list[Snapshot]:
        return [one for one in self._samples().values() if preflight.verdict(one) is None]

    async def _validate(self, preflight: Preflight) -> None:
        """Until everything that is newest has a verdict."""
        try:
            while unknown := self._unknown(preflight):
                await asyncio.gather(*(preflight.validate(one) for one in unknown))
                if self._rollout is not None:
                    self._submit(self._rollout)
        finally:
            self._validation = None

    def _look_at(self, rollout: Rollout, node_id: str) -> None:
        """How far a canary is."""
        trial, before, after = rollout.trial(node_id), rollout.accepted(node_id), rollout.effective.get(node_id)
        if trial is None or before is None or after is None:
            return
        streams, now = self._host.streams_of(node_id), self._host.now()
        owed = any(url in one.subscriptions and not one.in_sync(url, now) for one in streams for url in trial.types)
        unasked = any(_unasked(streams, url, names) for url, names in changed_resources(before, after).items())
        rollout.progressed(node_id, owed=owed, unasked=unasked, now=time.monotonic())

    def _apply(self, rollout: Rollout, *, published: bool = False) -> None:
        """Let the decisions take effect."""
        for notice in rollout.take_notices():
            self._host.announce(notice)
        changes = rollout.take_changes()
        if published:
            self._host.supply(dict(rollout.effective), self._newest.snapshots.keys())
        elif changes:
            self._host.resupply(changes)
        before, self.canaries = self.canaries, frozenset(rollout.canaries())
        begun = self.canaries if published else self.canaries - before
        for node_id in begun:  # one that wants nothing of what changed has nothing to answer
            self._look_at(rollout, node_id)
        if begun:
            self._apply(rollout)
        else:
            self._schedule(rollout)

    def _schedule(self, rollout: Rollout) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        delay = rollout.wakes_at() - time.monotonic()
        if delay < float("inf"):
            self._timer = asyncio.get_running_loop().call_later(max(0.0, delay), self._ring)

    def _ring(self) -> None:
        if self._rollout is not None:
            for node_id in self.canaries:
                self._look_at(self._rollout, node_id)
            self._rollout.expire(time.monotonic())
            self._apply(self._rollout)


def _unasked(streams: Iterable[Stream], url: str, names: Iterable[str]) -> bool:
    """Nobody has asked for one of these."""
    subscriptions = [one.subscriptions[url] for one in streams if url in one.subscriptions]
    return any(not any(sub.wants(name) for sub in subscriptions) for name in names)
