"""Faults in force: at most one at a time, each with an absolute end, proven by Envoy's own counters.

The fault itself is a leased runtime layer, so its end needs nobody: a controller that dies takes the fault with it
after the lease's TTL, and a restarted one begins with an empty chaos layer.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from meshctl.errors import MeshctlError
from meshctl.sources.windows import NodeWindow
from xds.model import CHAOS_LAYER, Fault, RuntimeLayer, RuntimeValue
from xds.translate import runtime

MAX_DURATION = 600.0
_REMEMBERED = 100


class FaultConflictError(MeshctlError):
    """Another fault is active; two at once could not be told apart."""


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """A fault, from ``started`` to ``ends`` (seconds since the epoch); the counters are Envoy's, since its start."""

    id: str
    fault: Fault
    started: float
    ends: float
    nodes: tuple[str, ...]
    experiment: int | None = None
    aborts: int = 0
    delays: int = 0

    def active(self, now: float) -> bool:
        return now < self.ends


class FaultBoard:
    """The faults of this process's life, newest last."""

    def __init__(self) -> None:
        self._records: dict[str, FaultRecord] = {}

    def inject(
        self, fault: Fault, nodes: Iterable[str], *, duration: float, now: float, experiment: int | None = None
    ) -> FaultRecord:
        """Put ``fault`` in force for ``duration`` seconds; raises :class:`FaultConflictError` while another is
        active.
        """
        active = self.active(now)
        if active is not None:
            raise FaultConflictError(
                f"fault {active.id} on {active.fault.service} is active for {active.ends - now:.0f} s more; "
                "end it first"
            )
        record = FaultRecord(
            secrets.token_hex(4), fault, now, now + min(duration, MAX_DURATION), tuple(nodes), experiment
        )
        self._records[record.id] = record
        while len(self._records) > _REMEMBERED:
            del self._records[next(iter(self._records))]
        return record

    def end(self, fault_id: str, now: float) -> FaultRecord | None:
        """End a fault now (again is harmless); None if there never was one."""
        record = self._records.get(fault_id)
        if record is not None and record.active(now):
            record = self._records[fault_id] = replace(record, ends=now)
        return record

    def active(self, now: float) -> FaultRecord | None:
        return next((record for record in self._records.values() if record.active(now)), None)

    def get(self, fault_id: str) -> FaultRecord | None:
        return self._records.get(fault_id)

    def records(self) -> tuple[FaultRecord, ...]:
        return tuple(self._records.values())

    def count(self, nodes: Mapping[str, NodeWindow], groups: Mapping[str, str]) -> None:
        """Credit the newest fault with what its service's sidecars counted since the last call."""
        if not self._records:
            return
        record = next(reversed(self._records.values()))
        own = [node for node_id, node in nodes.items() if groups.get(node_id) == record.fault.service]
        aborts = record.aborts + int(sum(node.aborts for node in own))
        delays = record.delays + int(sum(node.delays for node in own))
        self._records[record.id] = replace(record, aborts=aborts, delays=delays)

    def layer(self, group: str, *, ingress: bool, ttl: float, now: float) -> RuntimeLayer:
        """The chaos layer of one sidecar of ``group``: empty unless the active fault concerns it."""
        record = self.active(now)
        values: Mapping[str, RuntimeValue] = {}
        if record is not None and ingress:
            values = runtime.treatment_values(record.fault)
        elif record is not None and group == record.fault.service:
            values = runtime.fault_values(record.fault)
        return RuntimeLayer(CHAOS_LAYER, values, ttl, record.ends if record is not None and values else None)
