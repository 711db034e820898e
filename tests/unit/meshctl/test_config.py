"""The mesh file: what it gives when it is right, and what it says when it is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshctl.cli.config import config as config_command
from meshctl.config import MeshConfig, MeshConfigError, load, resolved, schema
from meshctl.config.scalars import format_duration, parse_duration
from meshctl.errors import UsageError
from xds.document import DocumentError, parse, scalar

ROOT = Path(__file__).resolve().parents[3]
GOOD = """\
name: shop
services:
  frontend:
    port: 8080
    protocol: http
    replicas: {min: 1, max: 4}
    concurrency: 6
    queue: 24
    timeout: 5s
    retries: {attempts: 1, on: [connect-failure, refused-stream], per_try_timeout: 2s}
    slo: {latency: 800ms, percentile: 95, availability: 99}
    calls: [catalog]
  catalog: {}
ingress:
  routes:
    - {prefix: /, service: frontend, timeout: 5s, rate_limit: {base: 500}}
controller:
  tick: 5s
  leases: {limits: 15s, chaos: 5s}
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(text: str) -> Path:
        path = tmp_path / "mesh.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return put


def problems(path: Path, **environ: str) -> list[str]:
    with pytest.raises(MeshConfigError) as caught:
        load(path, environ=environ)
    return list(caught.value.problems)


def test_values_are_parsed(write: Write) -> None:
    mesh = load(write(GOOD), environ={})
    frontend = mesh.services["frontend"]
    assert (frontend.timeout, frontend.slo.latency, frontend.retries.per_try_timeout) == (5.0, 0.8, 2.0)
    assert frontend.retries.on == ("connect-failure", "refused-stream")
    assert frontend.calls == ("catalog",)
    assert mesh.ingress.routes[0].rate_limit is not None
    assert mesh.ingress.routes[0].rate_limit.base == 500.0
    assert mesh.services["catalog"].replicas.max == 4


def test_paths_start_at_the_mesh_file(write: Write, tmp_path: Path) -> None:
    mesh = load(write(GOOD + "  state_dir: state\n"), environ={})
    assert mesh.controller.state_dir == tmp_path / "state"
    assert mesh.platform.token_file == tmp_path / "platform.token"


def test_an_absolute_path_stays(write: Write) -> None:
    assert load(write(GOOD + "  state_dir: /var/lib/mesh\n"), environ={}).controller.state_dir == Path("/var/lib/mesh")


def test_the_config_is_frozen(write: Write) -> None:
    mesh = load(write(GOOD), environ={})
    with pytest.raises(ValueError, match="frozen"):
        mesh.name = "other"


def test_the_demo_mesh_is_valid() -> None:
    assert load(ROOT / "meshctl/demo/mesh.yaml", environ={}).services


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "expected"),
    [
        ("min: 1", "min: 0", 6, "services.frontend.replicas.min", "expected an integer of at least 1, got 0"),
        ("min: 1", "min: 1.5", 6, "services.frontend.replicas.min", "expected an integer of at least 1, got 1.5"),
        ("min: 1", "min: true", 6, "services.frontend.replicas.min", "got true"),
        ("min: 1", "min: '1'", 6, "services.frontend.replicas.min", "got '1'"),
        ("min: 1", "min: 5", 6, "services.frontend.replicas.min", "expected at most max (4), got 5; lower min"),
        ("port: 8080", "port: 80800", 4, "services.frontend.port", "expected an integer of at most 65535, got 80800"),
        ("timeout: 5s", "timeout: 5 s", 9, "services.frontend.timeout", "expected a duration from 1ms to 1h"),
        ("timeout: 5s", "timeout: 2d", 9, "services.frontend.timeout", "got '2d'"),
        ("timeout: 5s", "timeout: 1s", 10, "services.frontend.retries.per_try_timeout", "at most the timeout (1s)"),
        ("on: [connect", "on: [conect", 10, "services.frontend.retries.on[0]", "did you mean 'connect-failure'?"),
        ("queue: 24", "queu: 24", 8, "services.frontend.queu", "unknown key; did you mean 'queue'?"),
        ("queue: 24", "zzz: 24", 8, "services.frontend.zzz", "unknown key; use one of calls, concurrency"),
        ("protocol: http", "protocol: udp", 5, "services.frontend.protocol", "expected one of http, http2, grpc"),
        ("percentile: 95", "percentile: 0.95", 11, "services.frontend.slo.percentile", "at least 50, got 0.95"),
        ("calls: [catalog]", "calls: [catalgo]", 12, "services.frontend.calls[0]", "did you mean 'catalog'?"),
        ("calls: [catalog]", "calls: [frontend]", 12, "services.frontend.calls[0]", "calls itself"),
        ("calls: [catalog]", "calls: [catalog, catalog]", 12, "services.frontend.calls[1]", "named twice"),
        ("calls: [catalog]", "calls: catalog", 12, "services.frontend.calls", "expected a list such as [a, b]"),
        ("catalog: {}", "catalog:", 13, "services.catalog", "expected a mapping (key: value), got nothing"),
        ("catalog: {}", "cata_log: {}", 13, "services.cata_log", "expected a DNS label"),
        ("catalog: {}", "catalog: {}\n  ingress: {}", 14, "services.ingress", "the ingress has this name"),
        ("prefix: /,", "prefix: shop,", 16, "ingress.routes[0].prefix", "a path that starts with '/'"),
        ("prefix: /,", "", 16, "ingress.routes[0].prefix", "missing; add 'prefix: ...'"),
        ("service: frontend", "service: front", 16, "ingress.routes[0].service", "did you mean 'frontend'?"),
        ("base: 500", "base: 0", 16, "ingress.routes[0].rate_limit.base", "expected a number above 0, got 0"),
        ("base: 500", "base: .nan", 16, "ingress.routes[0].rate_limit.base", "expected a number above 0"),
        ("limits: 15s", "limits: 9s", 19, "controller.leases.limits", "expected at least two ticks (10s), got 9s"),
        ("name: shop", "name: Shop", 1, "name", "expected a DNS label"),
    ],
)
def test_a_problem_names_its_line_and_field(
    write: Write, old: str, new: str, line: int, field: str, expected: str
) -> None:
    found = problems(write(GOOD.replace(old, new)))
    matching = [one for one in found if one.startswith(f"mesh.yaml:{line}: {field}: ")]
    assert matching, found
    assert any(expected in one for one in matching), matching


@pytest.mark.parametrize(
    ("more", "field", "expected"),
    [
        ("  xds: {address: 0.0.0.0}\n", "controller.xds.address", "set controller.allow_remote: true"),
        ("  http: {address: localhost}\n", "controller.http.address", "expected an IP address"),
        ("  http: {port: 18000}\n", "controller.http.port", "18000 is taken by controller.xds"),
        ("  allow_remote: yes\n", "controller.allow_remote", "expected true or false, got 'yes'"),
        ("forecast: {day: 1s}\n", "forecast.day", "expected at least two ticks"),
        ("forecast: {retrain: {cpu_share: 0}}\n", "forecast.retrain.cpu_share", "expected a number above 0, got 0"),
        ("forecast: {retrain: {cpu_share: 2}}\n", "forecast.retrain.cpu_share", "a number of at most 1, got 2"),
        ("forecast: {retrain: {minutes_per_hour: 61}}\n", "forecast.retrain.minutes_per_hour", "at most 60, got 61"),
        ("forecast: {retrain: {every: 1m, pause: 1m}}\n", "forecast.retrain.every", "expected at least 2m, got 1m"),
        ("forecast: {retrain: {pause: 7h}}\n", "forecast.retrain.pause", "expected at most every (6h), got 7h"),
        ("forecast: {retrain: {keep: 1}}\n", "forecast.retrain.keep", "expected an integer of at least 2, got 1"),
        ("forecast: {history: {trace: no.csv, service: frontend}}\n", "forecast.history.trace", "no such file"),
        ("forecast: {history: {trace: no.csv, service: frontent}}\n", "forecast.history.service", "'frontend'?"),
        (
            "forecast: {history: {trace: mesh.yaml, service: frontend, until: never}}\n",
            "forecast.history.until",
            "expected a time such as 1995-07-20T00:00Z, got 'never'",
        ),
        ("forecast: {holidays: {country: Germany}}\n", "forecast.holidays.country", "for 'Germany'; did you mean DE"),
        ("forecast: {holidays: {country: DE, subdivision: by}}\n", "forecast.holidays.subdivision", "did you mean BY?"),
        ("forecast: {holidays: {country: DE, zone: Berlin}}\n", "forecast.holidays.zone", "no time zone 'Berlin'"),
        ("forecast: {holidays: {zone: UTC}}\n", "forecast.holidays.country", "missing; add 'country: ...'"),
        ("forecast: {holidays: {countr: DE}}\n", "forecast.holidays.countr", "did you mean 'country'?"),
        ("platform: {kind: processes, url: 127.0.0.1:1}\n", "platform.url", "expected a URL"),
        ("guardrails: {limit_step: 0.05}\n", "guardrails.limit_step", "more than dead_band (0.05), got 0.05"),
        ("scaling: {target_utilization: 65}\n", "scaling.target_utilization", "at most 1, got 65"),
    ],
)
def test_sections(write: Write, more: str, field: str, expected: str) -> None:
    found = problems(write(GOOD + more))
    assert any(f": {field}: " in one and expected in one for one in found), found


def test_remote_addresses_with_permission(write: Write) -> None:
    mesh = load(write(GOOD + "  allow_remote: true\n  xds: {address: 0.0.0.0, plaintext: true}\n"), environ={})
    assert mesh.controller.xds.address == "0.0.0.0"


def test_port_zero_never_clashes(write: Write) -> None:
    assert load(write(GOOD + "  xds: {port: 0}\n  http: {port: 0}\n"), environ={}).controller.http.port == 0


def test_call_cycles_are_fine(write: Write) -> None:
    mesh = load(write(GOOD.replace("catalog: {}", "catalog: {calls: [frontend]}")), environ={})
    assert mesh.services["catalog"].calls == ("frontend",)


def test_holidays_are_those_of_a_place(write: Write) -> None:
    holidays = load(write(GOOD + "forecast: {holidays: {country: NO}}\n"), environ={}).forecast.holidays
    assert holidays is not None
    assert (holidays.country, holidays.subdivision, holidays.zone) == ("NO", None, "UTC")
    assert load(write(GOOD), environ={}).forecast.holidays is None


def test_history_times_without_a_zone_are_utc(write: Write) -> None:
    more = "forecast: {history: {trace: mesh.yaml, service: frontend, until: 1995-07-20T00:00}}\n"
    history = load(write(GOOD + more), environ={}).forecast.history
    assert history is not None
    assert history.until == datetime(1995, 7, 20, tzinfo=UTC)


def test_all_problems_at_once_in_the_order_of_lines(write: Write) -> None:
    text = GOOD.replace("port: 8080", "port: 0").replace("queue: 24", "queue: -1").replace("limits: 15s", "limits: x")
    found = problems(write(text))
    assert [one.split(":")[1] for one in found] == ["4", "8", "19"]


def test_an_unknown_key_does_not_hide_problems_between_fields(write: Write) -> None:
    text = GOOD.replace("queue: 24", "queu: 24").replace("calls: [catalog]", "calls: [catalgo]")
    assert len(problems(write(text))) == 2


def test_duplicate_keys_and_prefixes(write: Write) -> None:
    text = GOOD.replace("    queue: 24", "    queue: 24\n    queue: 25")
    text = text.replace("routes:\n", "routes:\n    - {prefix: /, service: catalog}\n")
    found = problems(write(text))
    assert "mesh.yaml:9: services.frontend.queue: already set on line 8; remove one" in found
    assert any("ingress.routes[1].prefix: '/' is taken by routes[0]" in one for one in found)


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("name: [", "mesh.yaml:1:8", "correct the YAML"),
        ("name: shop\n\tservices: {}", "mesh.yaml:2:1", "cannot start any token"),
        ("a: &x [*x]", "mesh.yaml:1:", "nested too deeply"),
        ("? [a, b]\n: 1", "mesh.yaml:1:3", "a key must be plain text"),
        ("a: {<<: {b: 1}}", "mesh.yaml:1:5", "merge keys"),
        ("name: \x01", "mesh.yaml:1:1", "does not allow"),
    ],
)
def test_syntax_errors_have_line_and_column(write: Write, text: str, where: str, what: str) -> None:
    (found,) = problems(write(text))
    assert found.startswith(where)
    assert what in found


def test_aliases_that_explode_are_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(DocumentError, match="repeated too often"):
        parse("\n".join(lines))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in problems(tmp_path / "none.yaml")[0]
    (tmp_path / "mesh.yaml").write_bytes(b"name: \xff")
    assert "not UTF-8" in problems(tmp_path / "mesh.yaml")[0]


@pytest.mark.parametrize("text", ["", "[1, 2]", "text", "services: {}\nname: x"])
def test_files_that_hold_something_else(write: Write, text: str) -> None:
    assert problems(write(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("12:30", "12:30"),
        ("1995-07-20", "1995-07-20"),
        ("true", True),
        ("~", None),
        ("null", None),
        ("010", 10),
        ("-3", -3),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert scalar(text) == value


# Environment and flags


def test_environment_wins_over_the_file_and_flags_over_both(write: Write) -> None:
    path = write(GOOD)
    environ = {"MESHCTL_CONTROLLER__TICK": "2s", "MESHCTL_SCALING__POLICY": "static"}
    mesh = load(path, environ=environ, flags={"scaling.policy": "reactive", "guardrails.dry_run": None})
    assert (mesh.controller.tick, mesh.scaling.policy, mesh.guardrails.dry_run) == (2.0, "reactive", False)


def test_environment_reaches_items_and_names_with_dashes(write: Write) -> None:
    environ = {
        "MESHCTL_INGRESS__ROUTES__0__PREFIX": "/shop",
        "MESHCTL_SERVICES__MY_SHOP__CALLS": "[frontend]",
        "MESHCTL_SERVER": "not ours",
        "PATH": "/bin",
    }
    mesh = load(write(GOOD.replace("  catalog: {}", "  catalog: {}\n  my-shop: {}")), environ=environ)
    assert mesh.ingress.routes[0].prefix == "/shop"
    assert mesh.services["my-shop"].calls == ("frontend",)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MESHCTL_CONTROLER__TICK", "2s", "there is no 'controler' in a mesh file; did you mean 'controller'?"),
        ("MESHCTL_CONTROLLER__TIK", "2s", "there is no 'tik' in controller; did you mean 'tick'?"),
        ("MESHCTL_INGRESS__ROUTES__7__PREFIX", "/", "there is no '7' in ingress.routes"),
        ("MESHCTL_CONTROLLER__TICK", "[", "is not YAML"),
        ("MESHCTL_CONTROLLER__TICK", "soon", "controller.tick: expected a duration"),
        ("MESHCTL_CONTROLLER__TICK__X", "1", "there is no 'x' in controller.tick"),
    ],
)
def test_a_wrong_variable_is_named(write: Write, name: str, value: str, expected: str) -> None:
    (found,) = problems(write(GOOD), **{name: value})
    assert found.startswith(f"{name}: ")
    assert expected in found


def test_a_wrong_flag_is_named(write: Write) -> None:
    with pytest.raises(MeshConfigError, match="flag: there is no 'polcy' in scaling; did you mean 'policy'"):
        load(write(GOOD), environ={}, flags={"scaling.polcy": "static"})


def test_resolved_says_where_values_come_from(write: Write) -> None:
    found = resolved(write(GOOD), {"MESHCTL_CONTROLLER__TICK": "2s"}, {"scaling.policy": "static"})
    rows = {name: (value, origin) for name, value, origin in found}
    assert rows["controller.tick"] == ("2s", "MESHCTL_CONTROLLER__TICK")
    assert rows["scaling.policy"] == ("static", "flag")
    assert rows["services.frontend.slo.latency"] == ("800ms", "mesh.yaml:11")
    assert rows["ingress.routes[0].rate_limit.base"] == (500.0, "mesh.yaml:16")
    assert rows["scaling.startup"] == ("10s", "default")
    assert len(rows) == len(found)


# Durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("5s", 5), ("2m", 120), ("1h", 3600), ("30d", 2592000), ("1h30m", 5400), ("1.5s", 1.5), (7, 7)],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5w", -1, True, None, float("inf"), float("nan"), [5]])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        parse_duration(text)


# Schema and commands


def test_every_field_is_described() -> None:
    described = schema()
    for section in [described, *described["$defs"].values()]:
        for name, field in section["properties"].items():
            assert field.get("description") or "$ref" in field, f"{section['title']}.{name} has no description"
        assert section["additionalProperties"] is False


def test_the_schema_in_the_docs_is_current() -> None:
    written = json.loads((ROOT / "docs/reference/mesh.schema.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(schema())), "run: meshctl config schema > docs/reference/mesh.schema.json"


def test_check_says_ok(write: Write) -> None:
    result = CliRunner().invoke(config_command, ["check", str(write(GOOD))], env={})
    assert result.exit_code == 0
    assert "ok: shop, 2 services, 1 route" in result.output


def test_check_raises_what_main_turns_into_exit_code_2(write: Write) -> None:
    result = CliRunner().invoke(config_command, ["check", str(write("name: x"))])
    assert isinstance(result.exception, MeshConfigError)
    assert result.exception.exit_code == 2


def test_list_prints_a_table_and_json(write: Write) -> None:
    arguments = ["list", "controller", "-f", str(write(GOOD)), "--set", "controller.tick=2s"]
    table = CliRunner().invoke(config_command, arguments)
    lines = [line.split() for line in table.output.splitlines()]
    assert lines[0] == ["NAME", "VALUE", "FROM"]
    assert ["controller.tick", "2s", "flag"] in lines
    assert {len(line) for line in lines} == {3}
    document = json.loads(CliRunner().invoke(config_command, [*arguments, "-o", "json"]).output)
    assert document["settings"][0] == {"name": "controller.tick", "value": "2s", "from": "flag"}


@pytest.mark.parametrize("flag", ["controller.tick", "=5"])
def test_list_refuses_flags_that_are_none(write: Write, flag: str) -> None:
    result = CliRunner().invoke(config_command, ["list", "-f", str(write(GOOD)), "--set", flag])
    assert result.exit_code == 2
    assert "expected NAME=VALUE" in result.output


def test_list_refuses_values_that_are_not_yaml(write: Write) -> None:
    result = CliRunner().invoke(config_command, ["list", "-f", str(write(GOOD)), "--set", "name=["])
    assert isinstance(result.exception, UsageError)


def test_schema_prints_the_schema() -> None:
    assert json.loads(CliRunner().invoke(config_command, ["schema"]).output)["title"] == "meshctl mesh file"


def test_validation_of_a_model_again_changes_nothing(write: Write) -> None:
    mesh = load(write(GOOD), environ={})
    assert MeshConfig.model_validate(mesh) == mesh
