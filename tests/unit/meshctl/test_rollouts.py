"""What the application makes of canaries and pre-flight: settings, events, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from meshctl import config
from meshctl.control.journal import Journal
from meshctl.errors import MeshctlError
from meshctl.history.database import Database
from meshctl.server.metrics import Metrics
from meshctl.server.watching import KINDS, XdsWatch
from meshctl.server.xds_settings import xds_preflight, xds_settings
from xds.canary import NoticeKind, Policy
from xds.server import Settings
from xds.status import XdsEvent

MESH = "name: shop\nservices: {web: {}}\ningress: {routes: [{prefix: /, service: web}]}\n"


HAPPENED: tuple[NoticeKind, ...] = ("canary-started", "canary-rolled-back", "preflight-failed")


def loaded(folder: Path, xds: str = "") -> Any:
    file = folder / "mesh.yaml"
    file.write_text(MESH + f"controller: {{xds: {{{xds}}}}}\n")
    return config.load(file)


def test_the_mesh_file_s_defaults_are_the_library_s_but_for_the_canary(tmp_path: Path) -> None:
    made, library = xds_settings(loaded(tmp_path)), Settings()
    assert (library.canary, made.canary) == (None, Policy(deadline=5.0))
    names = [
        *("debounce_seconds", "debounce_cap_seconds", "concurrent_pushes", "slow_write_seconds"),
        *("write_deadline_seconds", "keepalive_seconds", "keepalive_timeout_seconds"),
    ]
    assert [getattr(made, name) for name in names] == [getattr(library, name) for name in names]


def test_what_the_mesh_file_says_arrives(tmp_path: Path) -> None:
    text = "canary: {deadline: 2s, on_deadline: publish}, debounce: {quiet: 0, cap: 1s}, pushes: {concurrent: 3}"
    made = xds_settings(loaded(tmp_path, text))
    assert made.canary == Policy(deadline=2.0, on_deadline="publish")
    assert (made.debounce_seconds, made.debounce_cap_seconds, made.concurrent_pushes) == (0.0, 1.0, 3)
    assert xds_settings(loaded(tmp_path, "canary: {enabled: false}")).canary is None


def test_preflight_is_off_unless_asked_for(tmp_path: Path) -> None:
    assert xds_preflight(loaded(tmp_path)) is None
    assert xds_preflight(loaded(tmp_path, "preflight: true")) is not None


def test_a_deadline_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeshctlError, match=r"controller\.xds\.canary\.deadline"):
        loaded(tmp_path, "canary: {deadline: 0}")


def test_rollouts_are_events_and_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    told: list[Mapping[str, Any]] = []
    watch = XdsWatch(metrics)
    database = Database.open(tmp_path / "history.db")
    watch.journal = Journal(database, lambda: 1.0, told.append)
    for kind in HAPPENED:
        assert kind in KINDS
        watch.on_xds(XdsEvent(kind, "web-0", "", "", "group web: no", 1.0))
    assert [record["kind"] for record in told] == ["rollout"] * 3
    assert [record["data"]["outcome"] for record in told] == ["started", "rolled-back", "preflight-failed"]
    text = metrics.text().decode()
    for outcome in ("started", "rolled-back", "preflight-failed"):
        assert f'meshctl_xds_rollouts_total{{outcome="{outcome}"}} 1.0' in text
    database.close()
    metrics.close()
