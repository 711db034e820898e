"""Supplied resources in a running control plane: what the API shows of them, and that a changed file is noticed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from meshctl import config as config_module
from meshctl.model import Replica
from meshctl.server import app
from meshctl.server.app import ControlPlane, control_plane
from tests.support.envoys import until
from tests.unit.meshctl.test_api import MESH
from xds.model import Address

SECRET = {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
    "name": "certificate",
    "tls_certificate": {"private_key": {"inline_string": "hunter2"}},
}


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """Its resources are in a folder beside the mesh file's."""
    (tmp_path / "mesh").mkdir()
    (tmp_path / "extra").mkdir()
    file = tmp_path / "mesh" / "mesh.yaml"
    file.write_text(MESH + "resources: [{file: ../extra/secrets.json, groups: [frontend]}]\n")
    (tmp_path / "extra" / "secrets.json").write_text(json.dumps(SECRET))
    async with control_plane(file, config_module.load(file)) as made:
        here = Address("127.0.0.1", 1)
        made.loop.replicas = tuple(
            Replica(f"{name}-0", name, "ready", here, here, here, None) for name in ("frontend", "catalog")
        )
        made.loop.published.set()
        made.loop.reconfigure(made.loop.config)
        yield made


def held(plane: ControlPlane, node_id: str) -> list[str]:
    found = plane.publisher.describe(node_id, "sds")
    assert found is not None
    return [one["name"] for one in found["resources"]]


async def test_a_secret_is_listed_and_not_shown(plane: ControlPlane) -> None:
    async with ClientSession(f"http://127.0.0.1:{plane.http_port}") as session:
        async with session.get("/v1/proxies/frontend-0/config/secret") as response:
            text = await response.text()
        (shown,) = json.loads(text)["resources"]
        assert shown["resource"]["tls_certificate"] == {"private_key": "[redacted]"}
        assert "hunter2" not in text
        async with session.get("/v1/proxies/catalog-0/config/secret") as response:
            assert (await response.json())["resources"] == []


async def test_a_changed_file_is_taken_and_the_end_of_all_is_told(plane: ControlPlane) -> None:
    file = plane.file.parent.parent / "extra" / "secrets.json"
    watching = asyncio.create_task(app._watch_file(plane))
    try:
        second = {**SECRET, "name": "second"}

        def changed() -> bool:
            file.write_text(json.dumps([SECRET, second]))  # again, until the watch has begun
            return held(plane, "frontend-0") == ["certificate", "second"]

        await until(changed)
        file.write_text(json.dumps([{**SECRET, "nmae": "x"}]))
        await until(lambda: plane.config_error is not None)
        assert held(plane, "frontend-0") == ["certificate", "second"]
        plane.file.write_text(MESH)
        await until(lambda: plane.config_error is None and held(plane, "frontend-0") == [])
        snapshot = plane.publisher.snapshot("frontend-0")
        assert snapshot is not None
        assert SECRET["@type"] in snapshot.sets, "a set without secrets, so that sidecars hear of their end"
    finally:
        plane.stopping.set()
        await watching
