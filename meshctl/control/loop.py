"""The tick: observe, forecast, plan, record, publish. :meth:`Loop.tick` reads top to bottom.

Two rhythms. Every tick the fast lane is recomputed and leased. Between ticks the replicas are watched, and the slow
lane is published when (and only when) they or the mesh file changed.
"""

from __future__ import annotations

import asyncio
import time as time_module
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from meshctl.actuators.xds import XdsPublisher
from meshctl.config import MeshConfig, resources
from meshctl.control import mesh, resume
from meshctl.control.arms import Arms
from meshctl.control.faults import FaultBoard
from meshctl.control.forecasts import Forecasts
from meshctl.control.journal import Journal
from meshctl.control.observe import heard, observe
from meshctl.control.timeline import Timeline
from meshctl.errors import MeshctlError, PlatformError
from meshctl.model import Demand, Observation, Plan, Replica, ServiceMemory
from meshctl.planning.plan import Current, decide
from meshctl.planning.settings import PlanSettings
from meshctl.scaling import policy
from meshctl.sources.traffic import Traffic
from meshctl.sources.windows import Window
from xds.model import LIMITS_LAYER, RuntimeLayer
from xds.translate import runtime

_WATCH_INTERVAL = 0.5
_TIMES_KEPT = 2000


class Platform(Protocol):
    """Whoever runs the replicas; ``scales`` says whether it takes orders."""

    scales: bool

    async def replicas(self) -> tuple[Replica, ...]: ...

    async def scale(self, desired: Mapping[str, int]) -> None: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class Pulse:
    """How the loop itself is doing. ``durations`` of the last ticks, and how long after it was due the newest one began
    (``delay``; None before the first), in seconds."""

    ticks: int = 0
    silent: int = 0
    failed: int = 0
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES_KEPT))
    delay: float | None = None
    paused: str | None = None

    def percentile_ms(self, q: float) -> float | None:
        """A percentile of the last ticks' durations, milliseconds."""
        ordered = sorted(self.durations)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1e3 if ordered else None


class Loop:
    """One mesh under control. Everything it needs is handed in; it starts nothing by itself."""

    def __init__(
        self,
        config: MeshConfig,
        *,
        platform: Platform,
        traffic: Traffic,
        forecasts: Forecasts,
        publisher: XdsPublisher,
        journal: Journal,
        arms: Arms,
        resume_file: Path,
        dry_run: bool = False,
        clock: Callable[[], float] = time_module.time,
    ) -> None:
        self.config = config
        self.dry_run = dry_run
        self.pulse = Pulse()
        self.faults = FaultBoard()
        self.timeline = Timeline()
        self.replicas: tuple[Replica, ...] = ()
        self.published = asyncio.Event()
        self.observation: Observation | None = None
        self.plan: Plan | None = None
        self.forecasts = forecasts
        self._platform = platform
        self._platform_error: str | None = None
        self._traffic = traffic
        self._publisher = publisher
        self._journal = journal
        self._arms = arms
        self._resume_file = resume_file
        self._resume = resume.load(resume_file)
        self._memory: Mapping[str, ServiceMemory] = {}
        self.on_tick: Callable[[Observation, Plan], None] = lambda observation, plan: None
        self._clock = clock

    # -- the rhythm ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tick and watch replicas until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(), name="watch-replicas")
            tasks.create_task(self._beat(), name="tick")

    async def _beat(self) -> None:
        await self.published.wait()
        while True:
            interval = self.config.controller.tick
            at = (self._clock() // interval + 1) * interval
            await asyncio.sleep(at - self._clock())
            self.pulse.delay = max(0.0, self._clock() - at)
            try:
                await self.tick(at)
            except MeshctlError as error:
                self.pulse.failed += 1
                self._journal.event("control", "tick", f"tick failed, the mesh keeps what it has: {error}")

    async def _watch(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(_WATCH_INTERVAL)

    # -- the tick ------------------------------------------------------------------------------------------------

    async def tick(self, at: float) -> None:
        """One turn of the loop for the window that ends at ``at`` (seconds since the epoch)."""
        started = time_module.perf_counter()
        self.pulse.ticks += 1
        window = self._traffic.take()
        if not heard(window):
            self.pulse.silent += 1
            return
        observation = self._observe(window, at)
        demand = await self.forecasts.update(observation, masked=self._masked(observation, at))
        plan = self._decide(observation, demand)
        self._journal.plan(plan)
        await self._apply(plan)
        self._finish(observation, plan, time_module.perf_counter() - started)

    def _observe(self, window: Window, at: float) -> Observation:
        self._arms.add(at, window.nodes)
        self.faults.count(window.nodes, {replica.node_id: replica.service for replica in self.replicas})
        return observe(window, self.replicas, self.config.services, self.desired(), time=at, tick=self.pulse.ticks)

    def _decide(self, observation: Observation, demand: Mapping[str, Demand]) -> Plan:
        settings = PlanSettings.from_config(self.config)
        current = Current(
            replicas=self.desired(),
            limits={edge: float(limits.max_requests) for edge, limits in self._resume.limits.items()},
            rate_limits=self._resume.rate_limits,
            enforced=self._resume.enforce,
            paused=self.pulse.paused is not None,
            frozen=self._frozen(observation.time),
            memory=self._memory or self._first_memory(observation.time),
        )
        if self.dry_run:
            settings = settings.with_dry_run(True)
        plan = decide(observation, demand, current, settings, policy.get(self._policy))
        self._memory = plan.memory
        return plan

    def _first_memory(self, now: float) -> dict[str, ServiceMemory]:
        """What a new process remembers: the counts in force, as if just proposed. A first tick that hears only some of
        the sidecars must not scale down what a predecessor scaled up."""
        before = now - self.config.controller.tick
        return {name: ServiceMemory(((before, count),), None) for name, count in self.desired().items()}

    async def _apply(self, plan: Plan) -> None:
        self._resume = resume.Resume(plan.time, plan.replicas, plan.limits, plan.rate_limits, plan.enforce)
        resume.save(self._resume_file, self._resume)
        self.lease()
        self._publish()
        await self._scale(plan)

    def _finish(self, observation: Observation, plan: Plan, duration: float) -> None:
        self.observation, self.plan = observation, plan
        self.pulse.durations.append(duration)
        self.timeline.add(observation, plan, self.forecasts.demand, duration)
        self.on_tick(observation, plan)

    # -- the slow lane -------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Read the replicas and publish the slow lane if it changed; a silent platform changes nothing."""
        try:
            replicas = await self._platform.replicas()
        except PlatformError as error:
            self._platform_failed(str(error))
            return
        self._platform_error = None
        self.replicas = replicas
        self._introduce()
        if self._publish():
            self.lease()
        self.published.set()

    def reconfigure(self, config: MeshConfig) -> None:
        """Take a new mesh file into force; the caller has validated it."""
        self.config = config
        self._introduce()
        if self.published.is_set():
            self._publish()
            self.lease()

    def _introduce(self) -> None:
        """Telemetry counts from the platform's replicas and the mesh file's services only."""
        groups = {replica.node_id: replica.service for replica in self.replicas}
        self._traffic.know(groups, frozenset(self.config.services))

    def _publish(self) -> bool:
        wanted = mesh.build(self.config, self.replicas, self._resume.rate_limits)
        return self._publisher.publish(wanted, mesh.workloads(self.replicas), resources.extras(self.config))

    # -- the fast lane -------------------------------------------------------------------------------------------

    def lease(self) -> None:
        """Renew both layers of every sidecar. The limits layer ends with the plan, not with this process:
        a loop that hangs behind a live server must not keep an old plan in force."""
        now = self._clock()
        limits = {group: self._limits_layer(group, now) for group in {replica.service for replica in self.replicas}}
        ttl = self.config.controller.leases.chaos
        ingress = self.config.ingress.name
        self._publisher.lease(
            {
                replica.node_id: (
                    limits[replica.service],
                    self.faults.layer(replica.service, ingress=replica.service == ingress, ttl=ttl, now=now),
                )
                for replica in self.replicas
                if replica.phase != "failed"
            }
        )

    def _limits_layer(self, group: str, now: float) -> RuntimeLayer:
        ttl = self.config.controller.leases.limits
        expires = self._resume.time + max(ttl, 3 * self.config.controller.tick)
        limits = {callee: limit for (caller, callee), limit in self._resume.limits.items() if caller == group}
        enforced = {
            route.service
            for route in self.config.ingress.routes
            if group == self.config.ingress.name and (group, route.prefix) in self._resume.enforce
        }
        values = runtime.limits_values(limits, enforced) if expires > now else {}
        return RuntimeLayer(LIMITS_LAYER, values, ttl, expires if values else None)

    @property
    def _policy(self) -> str:
        return self.config.scaling.policy if self._platform.scales else "static"

    # -- replicas ------------------------------------------------------------------------------------------------

    def desired(self) -> dict[str, int]:
        """Replicas wanted now: the plan's, or what exists where no plan has spoken yet."""
        exist = {
            name: sum(r.service == name and r.phase != "terminating" for r in self.replicas)
            for name in self.config.services
        }
        if not self._platform.scales:
            return exist
        return {name: self._resume.replicas.get(name, count) for name, count in exist.items()}

    async def _scale(self, plan: Plan) -> None:
        changes = [decision for decision in plan.decisions if decision.kind == "replicas" and decision.changes]
        try:
            await self._platform.scale(plan.replicas)
        except PlatformError as error:
            self._platform_failed(str(error))
            return
        for decision in changes:
            self._journal.event(
                "scale",
                decision.subject,
                f"{decision.subject} {decision.previous:g} -> {decision.chosen:g} replicas ({decision.policy})",
                previous=decision.previous,
                chosen=decision.chosen,
                tick=plan.tick,
            )

    def _platform_failed(self, message: str) -> None:
        if message != self._platform_error:
            self._journal.event("platform", "platform", message)
        self._platform_error = message

    # -- what chaos distorts -------------------------------------------------------------------------------------

    def _frozen(self, now: float) -> frozenset[str]:
        """Services that planning must not shrink while a fault distorts what is seen of them."""
        return frozenset(self.config.services) if self.faults.active(now) else frozenset()

    def _masked(self, observation: Observation, now: float) -> frozenset[str]:
        """Services whose demand a fault distorts: all that its service's callers reach, but for it and the callers."""
        record = self.faults.active(now)
        if record is None:
            return frozenset()
        graph: dict[str, set[str]] = {}
        for edge in observation.edges:
            graph.setdefault(edge.caller, set()).add(edge.callee)
        callers = {caller for caller, callees in graph.items() if record.fault.service in callees}
        return _reachable(graph, callers) - callers - {record.fault.service}


def _reachable(graph: Mapping[str, set[str]], start: Sequence[str] | set[str]) -> frozenset[str]:
    seen: set[str] = set()
    stack = list(start)
    while stack:
        for callee in graph.get(stack.pop(), ()):
            if callee not in seen:
                seen.add(callee)
                stack.append(callee)
    return frozenset(seen)
