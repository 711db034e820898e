"""Resources that users write: read strictly, refused with their place, joined with what a mesh makes."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Listener

from xds import codec, export, types
from xds.errors import ResourceError, SnapshotError
from xds.resources import SUPPLIED, Extra, load_resources, merged, needs
from xds.snapshot import Snapshot, resource, resource_set, snapshot

CLUSTER: dict[str, object] = {"@type": types.CLUSTER, "name": "extra", "type": "STATIC", "connect_timeout": "0.5s"}

LISTENER = """\
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: side
  address: {socket_address: {address: 127.0.0.1, port_value: 8081}}
  filter_chains:
    - filters:
        - name: http
          typed_config:
            "@type": HTTP
            stat_prefix: side
            rds: {route_config_name: side, config_source: {ads: {}, resource_api_version: V3}}
            http_filters:
              - name: router
                typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
""".replace(
    "HTTP", "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ResourceError) as caught:
        load_resources(text)
    return caught.value.problems


# Reading


def test_one_resource_a_list_and_a_discovery_response_are_the_same() -> None:
    one, many = json.dumps(CLUSTER), json.dumps([CLUSTER])
    exported = json.dumps({"version_info": "1", "type_url": types.CLUSTER, "resources": [CLUSTER]})
    assert load_resources(one) == load_resources(many) == load_resources(exported)


def test_what_is_read_is_what_the_types_encode() -> None:
    (read,) = load_resources(json.dumps(CLUSTER))
    assert (read.type_url, read.name) == (types.CLUSTER, "extra")
    assert Cluster.parse(read.body).connect_timeout.total_seconds() == 0.5  # type: ignore[union-attr]


def test_a_file_is_read_like_text(tmp_path: Path) -> None:
    path = tmp_path / "extra.yaml"
    path.write_text(LISTENER)
    assert load_resources(path) == load_resources(LISTENER)
    assert Listener.parse(load_resources(path)[0].body).name == "side"


def test_what_export_shows_can_be_loaded() -> None:
    read = load_resources(LISTENER)
    shown = export.response(resource_set(types.LISTENER, read))
    assert load_resources(json.dumps(shown)) == read


def test_both_spellings_of_fields_are_one() -> None:
    camel = {"@type": types.CLUSTER, "name": "extra", "type": "STATIC", "connectTimeout": "0.500s"}
    assert load_resources(json.dumps(camel)) == load_resources(json.dumps(CLUSTER))


def test_xdstp_names_pass_through() -> None:
    name = "xdstp://authority/envoy.config.cluster.v3.Cluster/a/b?env=prod"
    assert load_resources(json.dumps({**CLUSTER, "name": name}))[0].name == name


@pytest.mark.parametrize("url", SUPPLIED)
def test_every_served_type_can_be_supplied(url: str) -> None:
    bodies: dict[str, dict[str, object]] = {
        types.CLUSTER: CLUSTER,
        types.ENDPOINT: {"cluster_name": "a"},
        types.SECRET: {"name": "a", "generic_secret": {"secret": {"inline_string": "s"}}},
        types.LISTENER: {"name": "a", "address": {"pipe": {"path": "/tmp/a"}}},
        types.EXTENSION_CONFIG: {
            "name": "a",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        },
        types.SCOPED_ROUTE: {
            "name": "a",
            "route_configuration_name": "r",
            "key": {"fragments": [{"string_key": "k"}]},
        },
        types.ROUTE: {"name": "a"},
        types.VIRTUAL_HOST: {"name": "a", "domains": ["a"]},
    }
    (read,) = load_resources(json.dumps({**bodies[url], "@type": url}))
    assert read.type_url == url


def test_a_wrapper_gives_another_name() -> None:
    inner = {"@type": types.VIRTUAL_HOST, "name": "a", "domains": ["a.example"]}
    wrapped = {"@type": types.RESOURCE, "name": "routes/a.example", "resource": inner}
    (read,) = load_resources(json.dumps(wrapped))
    assert (read.type_url, read.name) == (types.VIRTUAL_HOST, "routes/a.example")
    assert problems(json.dumps({**wrapped, "ttl": "5s"})) == (
        "<text>:1: ttl: cannot be set here; keep name and resource only",
    )


# Refusing


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"nmae": "x"}, "nmae: unknown field of Cluster; did you mean 'name'?"),
        ({"connect_timeout": 5}, "connect_timeout: expected seconds such as '5s' or '0.25s', got 5"),
        ({"connect_timeout": "0s"}, "connect_timeout: expected a value above 0s, got 0s"),
        ({"connect_timeout": "0.0000001s"}, "connect_timeout: expected whole microseconds"),
        ({"connect_timeout": "-1s"}, "connect_timeout: expected seconds"),
        ({"type": "STATICK"}, "expected one of STATIC, STRICT_DNS"),
        ({"lb_policy": 99}, "lb_policy: expected a value that the API defines, got 99"),
        ({"per_connection_buffer_limit_bytes": -1}, "expected a whole number from 0 to 4294967295, got -1"),
        ({"per_connection_buffer_limit_bytes": True}, "expected a whole number from 0 to 4294967295, got true"),
        ({"outlier_detection": []}, "outlier_detection: expected a mapping (field: value), got a list"),
        ({"outlier_detection": {"max_ejection_percent": 101}}, "expected a value of at most 100, got 101"),
        ({"load_assignment": {}}, "load_assignment: missing; add 'cluster_name: ...'"),
        ({"health_checks": {}}, "health_checks: expected a list, got a mapping"),
        ({"cluster_type": {"name": "x"}}, "cluster_type: 'type' is set already and excludes it"),
        ({"connectTimeout": "1s"}, "connectTimeout: 'connect_timeout' is set twice"),
        ({"name": ""}, "name: expected at least 1 characters, got 0"),
        ({"name": None}, "missing; add 'name: ...'"),
        ({"name": 7}, "name: expected text, got 7; put it in quotes"),
        ({"transport_socket": {"name": "tls", "typed_config": {}}}, None),
        ({"transport_socket": {"name": "tls", "typed_config": {"a": 1}}}, "typed_config: missing '@type'"),
        (
            {"transport_socket": {"name": "tls", "typed_config": {"@type": "type.googleapis.com/envoy.No"}}},
            'typed_config.@type: unknown type "type.googleapis.com/envoy.No"',
        ),
    ],
)
def test_wrong_fields_are_refused_with_their_place(field: dict[str, object], message: str | None) -> None:
    text = json.dumps({**CLUSTER, **field})
    if message is None:
        assert load_resources(text)
        return
    (found, *_) = problems(text)
    assert found.startswith("<text>:1: ")
    assert message in found


def test_every_problem_has_its_line() -> None:
    text = LISTENER.replace("stat_prefix: side", "stat_prefix: 5").replace("port_value: 8081", "port_value: 80810")
    assert [line.partition(": expected")[0] for line in problems(text)] == [
        "<text>:3: [0].address.socket_address.port_value",
        "<text>:9: [0].filter_chains[0].filters[0].typed_config.stat_prefix",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a resource with its '@type', or a list of them"),
        ("[]", "expected a resource with its '@type', or a list of them"),
        ("resources: 5", "resources: expected a resource"),
        ("name: a", "missing '@type'; add one of type.googleapis.com/envoy.config.cluster.v3.Cluster"),
        ("- 5", "[0]: missing '@type'"),
        ("'@type': nonsense", "@type: no resource that is served, got 'nonsense'"),
        (f"'@type': {types.RUNTIME}", "runtime layers are leases"),
        ("a: [", "<text>:1:5: "),
        ("a: &x [*x]", "<text>:1:"),
        ("a: 1\na: 2", "a: set again on line 2"),
    ],
)
def test_documents_that_hold_no_resource(text: str, message: str) -> None:
    assert message in problems(text)[0]


def test_a_name_may_be_used_once_per_type() -> None:
    (found,) = problems(json.dumps([CLUSTER, CLUSTER]))
    assert "[1]: cds 'extra' is there already ([0]); rename or remove one" in found


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"gone.yaml: cannot be read: no such file"):
        load_resources(tmp_path / "gone.yaml")


# Secrets


def test_no_secret_is_ever_shown() -> None:
    key = base64.b64encode(b"hunter2").decode()
    secret = {
        "@type": types.SECRET,
        "name": "certificate",
        "tls_certificate": {
            "certificate_chain": {"inline_string": "public"},
            "private_key": {"inline_bytes": key},
            "password": {"inline_string": "hunter2"},
        },
    }
    (read,) = load_resources(json.dumps(secret))
    shown = json.dumps(codec.to_json(read.type_url, read.body))
    assert "hunter2" not in shown + repr(read)
    assert key not in shown
    assert "public" in shown
    assert "hunter2" in json.dumps(export.files(snapshot(resource_set(types.SECRET, [read])), "/f"))


@pytest.mark.parametrize(
    "value", ["hunter2", ["hunter2"], {"inline_string": ["hunter2"]}, {"inline_bytes": "hunter2?"}]
)
def test_no_error_quotes_a_secret(value: object) -> None:
    secret = {"@type": types.SECRET, "name": "a", "tls_certificate": {"password": value, "private_key": value}}
    found = problems(json.dumps(secret))
    assert len(found) == 2
    assert "hunter2" not in "".join(found)


# What a resource needs


def test_a_resource_needs_what_it_names() -> None:
    (listener,) = load_resources(LISTENER)
    assert needs(listener) == {(types.ROUTE, "side")}
    ads = {"ads": {}, "resource_api_version": "V3"}
    eds = {"@type": types.CLUSTER, "name": "c", "type": "EDS", "eds_cluster_config": {"eds_config": ads}}
    assert needs(load_resources(json.dumps(eds))[0]) == {(types.ENDPOINT, "c")}
    elsewhere = {**eds, "eds_cluster_config": {"eds_config": {"path": "/eds.json"}}}
    assert needs(load_resources(json.dumps(elsewhere))[0]) == frozenset()
    extension = {"name": "f", "config_discovery": {"config_source": ads, "type_urls": ["a"]}}
    chained = json.loads(json.dumps(codec.to_json(types.LISTENER, listener.body)))
    chained["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"].insert(0, extension)
    assert export.asked(chained) == {("rds", "side"), ("ecds", "f")}


# Joining


def mesh_snapshot(name: str = "catalog") -> Snapshot:
    made = resource_set(types.CLUSTER, [resource(name, Cluster(name=name))])
    return snapshot(made, resource_set(types.LISTENER, []))


def extra(**options: object) -> Extra:
    return Extra(tuple(load_resources(json.dumps(CLUSTER))), **options)  # type: ignore[arg-type]


def names(one: Snapshot, url: str = types.CLUSTER) -> list[str]:
    return list(one.sets[url].resources)


def test_resources_join_the_nodes_that_they_are_for() -> None:
    made = mesh_snapshot()
    groups = {"a-0": "a", "a-1": "a", "b-0": "b"}
    joined = merged(dict.fromkeys(groups, made), groups, [extra(groups=frozenset("a"), nodes=frozenset({"b-0"}))])
    assert {node: names(one) for node, one in joined.items()} == {node: ["catalog", "extra"] for node in groups}
    joined = merged(dict.fromkeys(groups, made), groups, [extra(nodes=frozenset({"a-1"}))])
    assert names(joined["a-0"]) == names(joined["b-0"]) == ["catalog"]
    assert names(joined["a-1"]) == ["catalog", "extra"]


def test_nodes_that_shared_a_set_still_share_one() -> None:
    made = mesh_snapshot()
    joined = merged({"a-0": made, "a-1": made}, {"a-0": "a", "a-1": "a"}, [extra()])
    assert joined["a-0"].sets[types.CLUSTER] is joined["a-1"].sets[types.CLUSTER]
    assert joined["a-0"].sets[types.LISTENER] is made.sets[types.LISTENER]


def test_a_taken_name_is_refused_unless_it_may_override() -> None:
    snapshots, groups = {"a-0": mesh_snapshot("extra")}, {"a-0": "a"}
    with pytest.raises(SnapshotError, match="cds 'extra' is there already"):
        merged(snapshots, groups, [extra()])
    joined = merged(snapshots, groups, [extra(override=True)])
    assert joined["a-0"].sets[types.CLUSTER].resources["extra"] == extra().resources[0]


def test_a_type_without_resources_is_an_empty_set_and_not_silence() -> None:
    joined = merged({"a-0": mesh_snapshot()}, {"a-0": "a"}, [], [types.SECRET])
    assert names(joined["a-0"], types.SECRET) == []
