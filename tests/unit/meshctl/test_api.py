"""The HTTP API over a real control plane without sidecars: shapes, errors, and who may change what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from meshctl import config as config_module
from meshctl.control.faults import FaultBoard
from meshctl.errors import UsageError
from meshctl.model import Replica
from meshctl.server import auth
from meshctl.server.app import ControlPlane, control_plane
from tests.unit.meshctl.forecasting_support import BARE_MESH, bundle, damage, keep, series
from xds.model import Address

MESH = BARE_MESH + "forecast: {train_seconds: 0}\n"


class Api:
    """A client of one control plane."""

    def __init__(self, session: ClientSession, plane: ControlPlane, token: str) -> None:
        self.session = session
        self.plane = plane
        self.token = token

    async def call(self, method: str, path: str, body: Any = None, *, token: bool = True) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}"} if token else {}
        async with self.session.request(method, path, json=body, headers=headers) as response:
            if response.content_type != "application/json":
                return response.status, await response.text()
            return response.status, await response.json()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH)
    async with control_plane(file, config_module.load(file)) as plane:
        here = Address("127.0.0.1", 1)
        plane.loop.replicas = tuple(
            Replica(f"{name}-0", name, "ready", here, here, here, None) for name in ("frontend", "catalog")
        )
        async with ClientSession(f"http://127.0.0.1:{plane.http_port}") as session:
            yield Api(session, plane, (tmp_path / "state" / "api-token").read_text().strip())


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/v1/status",
        "/v1/services",
        "/v1/graph",
        "/v1/proxies",
        "/v1/forecasts",
        "/v1/models",
        "/v1/decisions",
        "/v1/events",
        "/v1/timeline",
        "/v1/faults",
        "/v1/experiments",
        "/v1/arms?service=frontend",
        "/v1/slo/frontend",
    ],
)
async def test_reads_need_no_token(api: Api, path: str) -> None:
    status, body = await api.call("GET", path, token=False)
    assert status == 200
    assert body


async def test_ready_only_after_the_first_snapshot(api: Api) -> None:
    status, text = await api.call("GET", "/readyz")
    assert status == 503
    assert "[-]snapshot" in text
    api.plane.loop.published.set()
    assert (await api.call("GET", "/readyz"))[0] == 503  # what is stored is still on its way
    await api.plane.retrainer.prepare(0.0)
    assert (await api.call("GET", "/readyz"))[0] == 200
    api.plane.stopping.set()
    assert (await api.call("GET", "/readyz?verbose"))[0] == 503
    assert (await api.call("GET", "/livez"))[0] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/undo"),
        ("POST", "/v1/pause"),
        ("POST", "/v1/faults"),
        ("DELETE", "/v1/faults/x"),
        ("POST", "/v1/experiments"),
    ],
)
async def test_changes_need_the_token(api: Api, method: str, path: str) -> None:
    status, body = await api.call(method, path, {}, token=False)
    assert (status, body["error"]["code"]) == (401, "unauthorized")
    api.token = "guessed"
    assert (await api.call(method, path, {}))[0] == 401


async def test_a_foreign_host_name_is_refused(api: Api) -> None:
    async with api.session.get("/v1/status", headers={"Host": "evil.example"}) as response:
        assert response.status == 403


async def test_pause_and_resume(api: Api) -> None:
    assert (await api.call("POST", "/v1/pause", {"reason": "deploy"}))[0] == 200
    assert (await api.call("GET", "/v1/status"))[1]["paused"] is True
    assert (await api.call("POST", "/v1/resume"))[0] == 200
    assert (await api.call("GET", "/v1/status"))[1]["paused"] is False
    events = (await api.call("GET", "/v1/events"))[1]["events"]
    assert [event["message"] for event in events] == ["paused: deploy", "resumed"]


async def test_models_and_their_undo(api: Api) -> None:
    registry, known = api.plane.retrainer.registry, series()
    empty: dict[str, Any] = {"champion": None, "previous": None, "generations": [], "swaps": [], "training": None}
    assert (await api.call("GET", "/v1/models"))[1] == empty
    status, body = await api.call("POST", "/v1/models/undo", {})
    assert (status, body["error"]["code"]) == (409, "conflict")
    for _ in range(3):
        keep(registry, bundle(known), reason="test")
    registry.promote(1, "first", {}, 1.0)
    registry.promote(2, "second", {"ratio": 0.9}, 2.0)
    damage(registry, 3)
    found = (await api.call("GET", "/v1/models"))[1]
    assert (found["champion"], found["previous"]) == (2, 1)
    assert [(one["generation"], one["state"]) for one in found["generations"]] == [
        (3, "damaged"),
        (2, "champion"),
        (1, "kept"),
    ]
    assert "weights.safetensors" in found["generations"][0]["error"]
    assert found["generations"][1]["series"] == ["frontend"]
    assert [(one["before"], one["after"], one["kind"]) for one in found["swaps"]] == [
        (1, 2, "promote"),
        (None, 1, "promote"),
    ]
    status, body = await api.call("POST", "/v1/models/undo", {"reason": "worse"})
    assert (status, body["kind"], body["before"], body["after"], body["reason"]) == (200, "undo", 2, 1, "worse")
    assert (await api.call("GET", "/v1/models"))[1]["previous"] is None
    events = (await api.call("GET", "/v1/events"))[1]["events"]
    assert any("undone: generation 2 -> 1: worse" in event["message"] for event in events)


async def test_a_fault_from_injection_to_its_end(api: Api) -> None:
    body = {"service": "catalog", "kind": "abort", "percent": 30, "duration": 60}
    status, made = await api.call("POST", "/v1/faults", body)
    assert status == 201
    assert made["nodes"] == ["catalog-0"]
    assert made["injected"] == {"aborts": 0, "delays": 0}
    assert (await api.call("POST", "/v1/faults", body))[0] == 409
    assert len((await api.call("GET", "/v1/faults"))[1]["faults"]) == 1
    assert (await api.call("DELETE", f"/v1/faults/{made['id']}"))[1]["active"] is False
    assert (await api.call("GET", "/v1/faults"))[1]["faults"] == []
    assert (await api.call("GET", f"/v1/faults/{made['id']}"))[0] == 200


async def test_a_fault_of_an_earlier_process_is_known_and_over(api: Api) -> None:
    body = {"service": "catalog", "kind": "abort", "percent": 30, "duration": 600}
    made = (await api.call("POST", "/v1/faults", body))[1]
    api.plane.loop.faults = FaultBoard()  # what a restart begins with
    status, found = await api.call("GET", f"/v1/faults/{made['id']}")
    assert status == 200
    assert (found["expires"], found["active"]) == (made["expires"], False)
    assert (await api.call("GET", "/v1/faults/unknown"))[0] == 404


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"service": "catalogue"}, 404, "catalog"),
        ({"kind": "explode"}, 400, "abort or delay"),
        ({"percent": 101}, 400, "percent"),
        ({"percent": True}, 400, "percent"),
        ({"kind": "delay"}, 400, "delay"),
        ({"duration": 1e9}, 400, "duration"),
        ({"colour": "red"}, 400, "colour"),
    ],
)
async def test_a_fault_that_cannot_be_meant(api: Api, change: dict[str, Any], status: int, word: str) -> None:
    body = {"service": "catalog", "kind": "abort", "percent": 30, "duration": 60} | change
    got, answer = await api.call("POST", "/v1/faults", body)
    assert got == status
    assert word in answer["error"]["message"]
    assert (await api.call("GET", "/v1/faults"))[1]["faults"] == []


async def test_an_experiment_is_kept_with_its_result(api: Api) -> None:
    status, made = await api.call("POST", "/v1/experiments", {"title": "catalog aborts", "spec": {"percent": 30}})
    assert status == 201
    path = f"/v1/experiments/{made['id']}"
    assert (await api.call("GET", path))[1]["status"] == "running"
    assert (await api.call("PATCH", path, {"status": "maybe"}))[0] == 400
    assert (await api.call("PATCH", path, {"status": "passed", "result": {"score": 71.5}}))[0] == 200
    found = (await api.call("GET", path))[1]
    assert (found["status"], found["score"], found["title"]) == ("passed", 71.5, "catalog aborts")
    assert len((await api.call("GET", "/v1/experiments"))[1]["experiments"]) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/decisions/99", 404),
        ("/v1/decisions/abc", 404),
        ("/v1/experiments/99", 404),
        ("/v1/proxies/ghost-0/config/cluster", 404),
        ("/v1/proxies/frontend-0/config/colour", 404),
        ("/v1/slo/ghost", 404),
        ("/v1/arms", 400),
        ("/v1/events?after=x", 400),
        ("/v1/arms?service=frontend&since=nan", 400),
        ("/v2/status", 404),
    ],
)
async def test_errors_have_one_shape(api: Api, path: str, status: int) -> None:
    got, body = await api.call("GET", path)
    assert got == status
    assert set(body["error"]) == {"code", "message"}


async def test_a_body_that_is_no_object_is_refused(api: Api) -> None:
    assert (await api.call("POST", "/v1/experiments", [1]))[0] == 400


def test_the_token_file_is_private_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "state" / "api-token"
    made = auth.token(path)
    assert len(made) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert auth.token(path) == made
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        auth.token(path)


def test_refusals_are_json() -> None:
    response = auth.refuse(418, "teapot", "short and stout")
    assert isinstance(response, web.Response)
    assert response.status == 418
