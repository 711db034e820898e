"""Every reading command: its golden outputs, its documents, its refusals."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from meshctl.cli.proxy import status as proxy_status
from tests.unit.chaos.fake_api import ControlPlane
from tests.unit.cli.conftest import Golden, Invoke
from tests.unit.cli.documents import DOCUMENTS, PROXIES

TABLES = {
    "chaos-list": "chaos list",
    "chaos-list-wide": "chaos list -o wide",
    "chaos-list-name": "chaos list -o name",
    "chaos-show": "chaos show 7",
    "decision-explain": "decision explain 301",
    "decision-list": "decision list",
    "decision-list-wide": "decision list -o wide",
    "forecast-history": "forecast history",
    "forecast-history-wide": "forecast history -o wide",
    "forecast-models": "forecast models",
    "forecast-models-wide": "forecast models -o wide",
    "forecast-show": "forecast show",
    "forecast-show-wide": "forecast show -o wide",
    "forecast-show-1d": "forecast show --span 1d",
    "forecast-show-1h-wide": "forecast show --span 1h -o wide",
    "proxy-config-cluster": "proxy config cluster catalog-1",
    "proxy-describe": "proxy describe catalog-2",
    "proxy-describe-wide": "proxy describe recommendation-1 -o wide",
    "proxy-config-runtime": "proxy config runtime catalog-1",
    "proxy-list": "proxy list",
    "proxy-list-name": "proxy list -o name",
    "proxy-list-wide": "proxy list -o wide",
    "service-list": "service list",
    "service-list-wide": "service list -o wide",
    "status": "status",
}

JSON = {
    "chaos list": "/v1/experiments",
    "chaos show 7": "/v1/experiments/7",
    "decision explain 301": "/v1/decisions/301",
    "decision list": "/v1/decisions",
    "forecast history": "/v1/models",
    "forecast models": "/v1/models",
    "forecast show": "/v1/forecasts",
    "proxy config runtime catalog-1": "/v1/proxies/catalog-1/config/runtime",
    "proxy describe catalog-2": "/v1/proxies/catalog-2",
    "proxy list": "/v1/proxies",
    "service list": "/v1/services",
    "status": "/v1/status",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_as_they_were(invoke: Invoke, golden: Golden, name: str) -> None:
    result = invoke(*TABLES[name].split())
    assert (result.exit_code, result.stderr) == (0, "")
    golden(f"{name}.txt", result.stdout)


@pytest.mark.parametrize("name", [name for name in TABLES if not name.endswith("wide")])
def test_tables_fit_80_columns(invoke: Invoke, name: str) -> None:
    prose = ("decision-explain", "chaos-show")  # reasons are as long as they are
    if name not in prose:
        assert max(map(len, invoke(*TABLES[name].split()).stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", JSON)
def test_json_is_the_document_of_the_api(invoke: Invoke, command: str) -> None:
    result = invoke(*command.split(), "-o", "json")
    assert json.loads(result.stdout) == DOCUMENTS[JSON[command]]
    assert result.stderr == ""


@pytest.mark.parametrize("command", JSON)
def test_yaml_is_the_same_document(invoke: Invoke, command: str) -> None:
    assert yaml.safe_load(invoke(*command.split(), "-o", "yaml").stdout) == DOCUMENTS[JSON[command]]


@pytest.mark.parametrize(
    ("command", "path", "key", "header"),
    [
        ("chaos list", "/v1/experiments", "experiments", "NAME   STATUS   SCORE   LOWER   SERVICE   ENTRY   AGE\n"),
        ("proxy list", "/v1/proxies", "proxies", "NAME   GROUP   STATUS   SYNCED   ENVOY   AGE\n"),
    ],
)
def test_an_empty_list_still_prints_its_header(
    plane: ControlPlane, invoke: Invoke, command: str, path: str, key: str, header: str
) -> None:
    plane.documents[path] = {key: []}
    result = invoke(*command.split())
    assert (result.exit_code, result.stdout) == (0, header)


def test_a_proxy_is_as_bad_as_its_worst_type() -> None:
    assert [proxy_status(row).split("(")[0] for row in PROXIES] == [
        "SYNCED",
        "STALE",
        "NACKED",
        "DISCONNECTED",
        "NOT-SENT",
    ]


ROLLED_BACK = {
    **{"group": "catalog", "state": "rolled-back", "canary": "catalog-0", "types": ["cds"], "waiting": 2},
    **{"age": 12.0, "error": "cds: no such thing"},
}


@pytest.mark.parametrize(
    "change",
    [
        {"proxies": {"connected": 8, "expected": 9}},
        {"config": {"file": "mesh.yaml", "loaded": None, "error": "line 3: no such service"}},
        {"rollouts": [ROLLED_BACK]},
    ],
)
@pytest.mark.parametrize("form", ["table", "json"])
def test_an_unhealthy_status_exits_1_whatever_the_format(
    plane: ControlPlane, invoke: Invoke, change: dict[str, Any], form: str
) -> None:
    plane.documents["/v1/status"] = DOCUMENTS["/v1/status"] | change
    assert invoke("status", "-o", form).exit_code == 1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "catalog cds: ROLLED-BACK(12s) by catalog-0: cds: no such thing"),
        (
            {"state": "refused", "canary": None},
            "catalog cds: REFUSED(12s) by envoy --mode validate: cds: no such thing",
        ),
        ({"state": "trying"}, "catalog cds: catalog-0 tries it (12s), 2 wait"),
        ({"state": "trying", "canary": None}, "catalog cds: no proxy tries it (12s), 2 wait"),
        ({"state": "validating"}, "catalog cds: validating (12s)"),
    ],
)
def test_a_rollout_is_told_in_one_line(plane: ControlPlane, invoke: Invoke, change: dict[str, Any], line: str) -> None:
    plane.documents["/v1/status"] = DOCUMENTS["/v1/status"] | {"rollouts": [ROLLED_BACK | change]}
    shown = invoke("status").output
    assert re.search(rf"^Rollout: +{re.escape(line)}$", shown, re.MULTILINE), shown


def test_what_is_not_there_is_named(invoke: Invoke) -> None:
    result = invoke("decision", "explain", "999")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "/v1/decisions/999" in result.stderr


def test_a_service_without_a_forecast_is_named(plane: ControlPlane, invoke: Invoke) -> None:
    plane.documents["/v1/forecasts"] = {"forecasts": []}
    result = invoke("forecast", "show", "ghost")
    assert result.exit_code == 2
    assert "'ghost'" in result.stderr
    assert "meshctl service list" in result.stderr


def test_a_span_is_a_document_of_its_own(invoke: Invoke) -> None:
    found = json.loads(invoke("forecast", "show", "--span", "1d", "-o", "json").stdout)
    assert found["span"] == "1d"
    assert [(row["service"], row["step"], len(row["values"])) for row in found["forecasts"]] == [("frontend", 900, 96)]


def test_a_span_that_is_not_forecast_is_refused_with_the_reason(plane: ControlPlane, invoke: Invoke) -> None:
    skipped = {"1d": "days of 1440 s are shorter than 1d: no earlier day tells about it"}
    plane.documents["/v1/forecasts"] = DOCUMENTS["/v1/forecasts"] | {"skipped": skipped}
    result = invoke("forecast", "show", "--span", "1d")
    assert (result.exit_code, result.stdout) == (2, "")
    assert skipped["1d"] in result.stderr
    assert invoke("forecast", "show", "--span", "1h").exit_code == 0


def test_a_span_that_nobody_has_yet_is_an_empty_list(plane: ControlPlane, invoke: Invoke) -> None:
    young = [row | {"outlook": []} for row in DOCUMENTS["/v1/forecasts"]["forecasts"]]
    plane.documents["/v1/forecasts"] = {"forecasts": young, "skipped": {}}
    result = invoke("forecast", "show", "--span", "1h")
    assert (result.exit_code, result.stdout.split()[:2]) == (0, ["NAME", "MODEL"])
    assert len(result.stdout.splitlines()) == 1


def test_undo_goes_back_through_the_server(plane: ControlPlane, invoke: Invoke) -> None:
    result = invoke("forecast", "undo", "--reason", "worse at night")
    assert (result.exit_code, result.stdout) == (0, "models/gen-2 replaced by gen-1\n")
    assert plane.undone == ["worse at night"]


def test_a_dry_undo_says_what_it_would_go_back_to(plane: ControlPlane, invoke: Invoke) -> None:
    assert invoke("forecast", "undo", "--dry-run").stdout == "models/gen-2 would be replaced by gen-1 (dry run)\n"
    plane.documents["/v1/models"] = DOCUMENTS["/v1/models"] | {"previous": None}
    result = invoke("forecast", "undo", "--dry-run")
    assert result.exit_code == 2
    assert "meshctl forecast history" in result.stderr
    assert {method for method, _ in plane.requests} == {"GET"}


@pytest.mark.parametrize(("verb", "done"), [("pause", "paused"), ("resume", "resumed")])
def test_pause_and_resume(plane: ControlPlane, invoke: Invoke, verb: str, done: str) -> None:
    result = invoke(verb)
    assert (result.exit_code, result.stdout) == (0, f"mesh/online-boutique {done}\n")
    assert plane.documents["/v1/status"]["paused"] is (verb == "pause")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_dry_run_changes_nothing(plane: ControlPlane, invoke: Invoke, verb: str) -> None:
    assert "(dry run)" in invoke(verb, "--dry-run").stdout
    assert {method for method, _ in plane.requests} == {"GET"}


def test_a_wrong_token_says_where_the_right_one_is(plane: ControlPlane, invoke: Invoke) -> None:
    plane.token = "other"
    result = invoke("pause")
    assert result.exit_code == 2
    assert "MESHCTL_TOKEN_FILE" in result.stderr
