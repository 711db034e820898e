"""What the xDS server counts is what /metrics shows, and a tick's pushes are one event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from meshctl.config import MeshConfig
from meshctl.control.journal import Journal
from meshctl.history.database import Database
from meshctl.server.metrics import METRICS, Metrics
from meshctl.server.watching import XdsWatch
from meshctl.server.xds_metrics import XdsCollector
from meshctl.server.xds_settings import xds_settings
from tests.unit.xds.link import NODE, DeltaClient, make
from xds.protocol.events import Notice, Response
from xds.status import StatusBoard, XdsEvent
from xds.types import CLUSTER, RUNTIME


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def samples(board: StatusBoard) -> dict[str, float]:
    """Every line of /metrics by name and labels."""
    metrics = Metrics()
    metrics.include(XdsCollector(board))
    try:
        lines = [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]
    finally:
        metrics.close()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_what_the_board_counted_is_shown() -> None:
    clock = Clock()
    board, client = StatusBoard(clock), DeltaClient()
    board.opened(client.machine, NODE)
    board.count(Response(CLUSTER, "v", "n", b""))
    board.count(Response(RUNTIME, "v", "n", b"", heartbeat=True))
    board.note(Notice("ack", CLUSTER, "v", seconds=0.7), client.machine)
    board.note(Notice("nack", CLUSTER, "v", "bad"), client.machine)
    found = samples(board)
    assert found["meshctl_xds_streams"] == 1
    assert found['meshctl_xds_pushes_total{outcome="sent",xds_type="cds"}'] == 1
    assert found['meshctl_xds_pushes_total{outcome="acked",xds_type="cds"}'] == 1
    assert found['meshctl_xds_nacks_total{xds_type="cds"}'] == 1
    assert found["meshctl_xds_heartbeats_total"] == 1
    assert found['meshctl_xds_push_duration_seconds_bucket{le="0.5",xds_type="cds"}'] == 0
    assert found['meshctl_xds_push_duration_seconds_bucket{le="1.0",xds_type="cds"}'] == 1
    assert found['meshctl_xds_push_duration_seconds_bucket{le="+Inf",xds_type="cds"}'] == 1
    assert found['meshctl_xds_push_duration_seconds_sum{xds_type="cds"}'] == pytest.approx(0.7)


def test_convergence_is_one_observation_per_change() -> None:
    clock = Clock()
    board, client = StatusBoard(clock), DeltaClient()
    before, after = make.snapshot(make.cluster("a")), make.snapshot(make.cluster("a", 1))
    client.machine.publish(before)
    client.ask(CLUSTER)
    board.opened(client.machine, NODE)
    client.settle()
    board.owes(board.published({NODE.id: before}, {NODE.id: after}), client.machine, after)
    client.machine.publish(after)
    assert samples(board)['meshctl_xds_streams_behind{xds_type="cds"}'] == 1
    got = client.get()
    assert got is not None
    assert client.get() is None
    clock.now = 104.0
    for notice in client.ack(got):
        board.note(notice, client.machine)
    found = samples(board)
    assert found['meshctl_proxy_convergence_duration_seconds_bucket{le="3.0",xds_type="cds"}'] == 0
    assert found['meshctl_proxy_convergence_duration_seconds_bucket{le="5.0",xds_type="cds"}'] == 1
    assert 'meshctl_xds_streams_behind{xds_type="cds"}' not in found


def test_every_metric_that_is_read_is_collected() -> None:
    names = {family.name for family in XdsCollector(StatusBoard(Clock())).collect()}
    assert names == {metric.name.removesuffix("_total") for metric in METRICS if metric.read}


@pytest.fixture
def told() -> list[Mapping[str, Any]]:
    return []


@pytest.fixture
def watch(tmp_path: Path, told: list[Mapping[str, Any]]) -> Iterator[XdsWatch]:
    """One that tells a real journal."""
    metrics, database = Metrics(), Database.open(tmp_path / "history.db")
    one = XdsWatch(metrics)
    one.journal = Journal(database, lambda: 100.0, told.append)
    yield one
    database.close()
    metrics.close()


def test_the_slow_lane_pushes_of_a_tick_are_one_event(watch: XdsWatch, told: list[Mapping[str, Any]]) -> None:
    watch.flush({"cds": 2, "rtds": 50})
    watch.flush({"cds": 2, "rtds": 90})
    watch.flush({"cds": 3, "eds": 4, "rtds": 95})
    assert [(one["kind"], one["message"], one["data"]) for one in told] == [
        ("push", "pushed cds to 2 sidecars", {"cds": 2}),
        ("push", "pushed cds to 1, eds to 4 sidecars", {"cds": 1, "eds": 4}),
    ]


def test_what_happens_on_a_stream_is_an_event_each(watch: XdsWatch, told: list[Mapping[str, Any]]) -> None:
    watch.on_xds(XdsEvent("connect", "a-0", "", "", "", 0.0))
    watch.on_xds(XdsEvent("nack", "a-0", "cds", "v", "no such thing", 0.0))
    watch.on_xds(XdsEvent("refused", "a-0", "rtds", "", "not leased", 0.0))
    assert [(one["kind"], one["subject"], one["message"]) for one in told] == [
        ("connect", "a-0", "a-0 connected"),
        ("nack", "a-0", "no such thing"),
        ("platform", "a-0", "not leased"),
    ]


def test_every_tick_has_load_reports() -> None:
    document = {
        "name": "shop",
        "controller": {"tick": "3s", "xds": {"client_status": False}},
        "services": {"web": {"replicas": {"min": 1, "max": 1}, "concurrency": 6, "queue": 24}},
        "ingress": {"routes": [{"prefix": "/", "service": "web", "rate_limit": {"base": 500}}]},
    }
    settings = xds_settings(MeshConfig.model_validate(document))
    assert (settings.load_report_seconds, settings.load_reports, settings.client_status) == (1.5, True, False)
