"""The API's client against a real HTTP server."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from chaos.client import Api, ApiConfig, segment
from chaos.errors import ApiError, UnreachableError
from tests.unit.chaos.fake_api import ControlPlane


def test_reads_need_no_token(plane: ControlPlane) -> None:
    plane.documents["/v1/status"] = {"name": "shop"}
    assert Api(ApiConfig(plane.url)).get("/v1/status") == {"name": "shop"}


def test_a_query_leaves_out_what_is_none(plane: ControlPlane) -> None:
    assert Api(ApiConfig(plane.url)).get("/v1/arms", service="a b", since=0, until=None)["service"] == "a b"


def test_changes_carry_the_token_of_the_file(plane: ControlPlane, config: ApiConfig) -> None:
    assert Api(config).post("/v1/experiments", {"title": "t"})["id"] == "1"


@pytest.mark.parametrize("content", [None, "wrong"])
def test_a_missing_or_wrong_token_is_the_servers_401(plane: ControlPlane, tmp_path: Path, content: str | None) -> None:
    token = tmp_path / "other"
    if content:
        token.write_text(content)
    with pytest.raises(ApiError, match="the token is wrong") as raised:
        Api(ApiConfig(plane.url, str(token))).post("/v1/experiments", {})
    assert (raised.value.status, raised.value.code) == (401, "unauthorized")


def test_the_token_is_read_anew_for_every_change(plane: ControlPlane, config: ApiConfig) -> None:
    api = Api(config)
    plane.token = "rotated"
    Path(str(config.token_file)).write_text("rotated")
    assert api.post("/v1/experiments", {"title": "t"})["id"]


def test_nobody_listening_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UnreachableError, match=url):
            Api(ApiConfig(url, timeout=2.0)).get("/v1/status")


def test_a_server_that_never_answers_is_unreachable() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(UnreachableError, match="timed out"):
            Api(ApiConfig(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)).get("/v1/status")


def test_other_schemes_are_refused() -> None:
    with pytest.raises(UnreachableError, match="http://"):
        Api(ApiConfig("file:///etc/passwd"))


def test_proxies_of_the_environment_are_ignored(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    plane.documents["/v1/status"] = {}
    assert Api(ApiConfig(plane.url)).get("/v1/status") == {}


def test_an_identifier_stays_one_segment() -> None:
    assert segment("../a b") == "..%2Fa%20b"
