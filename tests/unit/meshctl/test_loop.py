"""The tick, without sidecars: telemetry goes in by hand, a platform in memory takes the orders."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from meshctl import config as config_module
from meshctl.control import resume
from meshctl.errors import PlatformError
from meshctl.model import Replica
from meshctl.server.app import ControlPlane, control_plane
from meshctl.sources.otlp import Export, Point
from tests.unit.meshctl.test_api import MESH
from xds.model import Address, Fault

NOW = 1_000_000.0


@dataclass
class MemoryPlatform:
    """Replicas that are what they are; orders are only noted."""

    scales: bool = True
    there: tuple[Replica, ...] = ()
    orders: list[dict[str, int]] = field(default_factory=list)
    broken: bool = False

    async def replicas(self) -> tuple[Replica, ...]:
        if self.broken:
            raise PlatformError("the platform is away")
        return self.there

    async def scale(self, desired: Mapping[str, int]) -> None:
        self.orders.append(dict(desired))

    async def close(self) -> None:
        pass


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH)
    async with control_plane(file, config_module.load(file)) as made:
        made.loop._platform = platform = MemoryPlatform()
        made.loop._clock = lambda: NOW
        platform.there = (ready("frontend", 1), ready("catalog", 4), ready("ingress", 7))
        await made.retrainer.prepare(NOW)
        await made.loop.refresh()
        yield made


def ready(name: str, port: int) -> Replica:
    inbound, outbound, app = (Address("127.0.0.1", port + offset) for offset in range(3))
    if name == "ingress":
        return Replica("ingress-0", name, "ready", inbound, None, None, None)
    return Replica(f"{name}-0", name, "ready", inbound, outbound, app, None)


def platform_of(plane: ControlPlane) -> MemoryPlatform:
    platform = plane.loop._platform
    assert isinstance(platform, MemoryPlatform)
    return platform


def traffic(plane: ControlPlane, rate: float, latency: float = 0.4) -> None:
    """One second of ``rate`` requests through the ingress to the frontend, and on to its application."""
    for node_id, group, cluster in (("ingress-0", "ingress", "frontend"), ("frontend-0", "frontend", "inbound_app")):
        labels = {"envoy.cluster_name": cluster}
        counter = Point("cluster.upstream_rq_total", labels, "delta", NOW - 1, NOW, rate)
        answers = {**labels, "envoy.response_code_class": "2"}
        classes = Point("cluster.upstream_rq_xx", answers, "delta", NOW - 1, NOW, rate)
        count = int(rate)
        total = latency * 1000 * count
        times = Point("cluster.upstream_rq_time", labels, "delta", NOW - 1, NOW, total, count, (500.0,), (count, 0))
        assert plane.traffic.accept(Export(group, node_id, [counter, classes, times]))


def values(plane: ControlPlane, node_id: str) -> dict[str, object]:
    """The runtime values that a node is leased, both layers."""
    layers = plane.publisher._layers[node_id]
    return {key: value for layer in layers for key, value in layer.values.items()}


async def test_a_tick_decides_records_leases_and_scales(plane: ControlPlane) -> None:
    traffic(plane, rate=60.0)
    await plane.loop.tick(NOW)
    plan = plane.loop.plan
    assert plan is not None
    # 60/s x 0.4 s = 24 in flight of 8 places at 65 %: 5 are wanted, 3 allowed, 2 more in one step
    assert plan.replicas["frontend"] == 3
    assert platform_of(plane).orders == [plan.replicas]
    assert values(plane, "ingress-0")["circuit_breakers.frontend.default.max_requests"] == 60  # half of the base, 120
    (scaled,) = plane.database.decisions(service="frontend", kind="replicas")
    assert scaled["inputs"]["hpa"] >= 3
    assert resume.load(plane.loop._resume_file).replicas == plan.replicas
    (tick,) = plane.loop.timeline.after(0)
    assert tick["services"]["frontend"]["demand"] == 60.0


async def test_a_silent_tick_changes_nothing(plane: ControlPlane) -> None:
    await plane.loop.tick(NOW)
    assert plane.loop.plan is None
    assert platform_of(plane).orders == []
    assert plane.loop.pulse.silent == 1


async def test_dry_run_decides_and_changes_nothing(plane: ControlPlane) -> None:
    plane.loop.dry_run = True
    traffic(plane, rate=60.0)
    await plane.loop.tick(NOW)
    assert plane.loop.plan is not None
    assert plane.loop.plan.replicas["frontend"] == 1
    found = plane.database.decisions(service="frontend", kind="replicas")
    assert [(one["chosen"], one["outcome"]) for one in found] == [(3, "dry-run")]


async def test_pause_keeps_what_is_in_force(plane: ControlPlane) -> None:
    plane.loop.pulse.paused = "test"
    traffic(plane, rate=60.0)
    await plane.loop.tick(NOW)
    assert plane.loop.plan is not None
    assert plane.loop.plan.replicas["frontend"] == 1


async def test_a_platform_that_does_not_scale_is_left_alone(plane: ControlPlane) -> None:
    platform_of(plane).scales = False
    traffic(plane, rate=60.0)
    await plane.loop.tick(NOW)
    assert plane.loop.plan is not None
    assert plane.loop.plan.replicas["frontend"] == 1


async def test_a_silent_platform_costs_no_endpoint_and_is_told_once(plane: ControlPlane) -> None:
    before = plane.publisher.snapshot("frontend-0")
    platform_of(plane).broken = True
    for _ in range(3):
        await plane.loop.refresh()
    assert plane.publisher.snapshot("frontend-0") is before
    events = [event["message"] for event in plane.database.events() if event["kind"] == "platform"]
    assert events == ["the platform is away"]


async def test_a_plan_that_is_not_renewed_ends(plane: ControlPlane) -> None:
    traffic(plane, rate=60.0)
    await plane.loop.tick(NOW)
    layer = plane.loop._limits_layer("ingress", NOW)
    assert layer.expires_at is not None
    assert layer.values
    assert plane.loop._limits_layer("ingress", layer.expires_at).values == {}


async def test_a_fault_masks_only_what_it_distorts(plane: ControlPlane) -> None:
    traffic(plane, rate=60.0)
    await plane.loop.tick(NOW)
    observation = plane.loop.observation
    assert observation is not None
    assert plane.loop._masked(observation, NOW) == frozenset()
    plane.loop.faults.inject(Fault("frontend", "abort", 50), ["frontend-0"], duration=10.0, now=NOW)
    assert plane.loop._masked(observation, NOW) == frozenset()  # nobody is behind the frontend here
    plane.loop.lease()
    assert values(plane, "frontend-0")["fault.http.abort.abort_percent"] == 50
    assert values(plane, "ingress-0")["chaos.treatment"] == 50


async def test_a_broken_mesh_file_is_refused_and_a_good_one_is_taken(plane: ControlPlane) -> None:
    plane.file.write_text(MESH.replace("max: 3", "max: 0"))
    plane.reload()
    assert plane.config_error is not None
    assert "replicas" in plane.config_error
    assert plane.loop.config.services["frontend"].replicas.max == 3
    plane.file.write_text(MESH.replace("max: 3", "max: 5"))
    plane.reload()
    assert plane.status()["config"]["error"] is None
    assert plane.loop.config.services["frontend"].replicas.max == 5
    messages = [event["message"] for event in plane.database.events() if event["kind"] == "config"]
    assert [message.split(",")[0] for message in messages] == ["refused", "taken into force"]


async def test_settings_that_need_a_restart_are_named(plane: ControlPlane) -> None:
    plane.file.write_text(MESH.replace("tick: 1s", "tick: 2s"))
    plane.reload()
    (event,) = [event for event in plane.database.events() if event["kind"] == "config"]
    assert "controller.tick" in event["message"]
    assert "next start" in event["message"]


async def test_a_restart_does_not_scale_down_what_came_before(plane: ControlPlane) -> None:
    plane.loop._resume = resume.Resume(time=NOW - 5, replicas={"frontend": 3, "catalog": 1})
    traffic(plane, rate=1.0)  # few sidecars are back, so little is heard
    await plane.loop.tick(NOW)
    assert plane.loop.plan is not None
    assert plane.loop.plan.replicas["frontend"] == 3
