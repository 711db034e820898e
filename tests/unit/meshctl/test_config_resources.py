"""The section ``resources`` of a mesh file: what it gives, and what it refuses with file, line, field and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from meshctl.cli import main
from meshctl.config import MeshConfigError, load, resources
from meshctl.control import mesh, platforms
from xds.translate import snapshots

MESH = """\
name: shop
services:
  frontend: {calls: [catalog]}
  catalog: {}
ingress: {routes: [{prefix: /, service: frontend}]}
"""
CLUSTER = (
    "{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: NAME, type: STATIC, connect_timeout: 1s}"
)
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def cluster(name: str) -> str:
    return CLUSTER.replace("NAME", name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mesh.yaml"


def problems(file: Path, section: str) -> list[str]:
    file.write_text(MESH + section)
    with pytest.raises(MeshConfigError) as caught:
        load(file, environ={})
    return list(caught.value.problems)


def names(file: Path, section: str) -> list[list[str]]:
    file.write_text(MESH + section)
    return [[one.name for one in extra.resources] for extra in resources.extras(load(file, environ={}))]


def test_without_the_section_there_is_nothing(file: Path) -> None:
    assert names(file, "") == []


def test_inline_and_files_are_read(file: Path) -> None:
    (file.parent / "more.yaml").write_text(f"- {cluster('b')}\n- {cluster('c')}\n")
    section = f"resources:\n  - inline: [{cluster('a')}]\n  - {{file: more.yaml, groups: [ingress]}}\n"
    assert names(file, section) == [["a"], ["b", "c"]]
    config = load(file, environ={})
    assert resources.files(config) == [file.parent / "more.yaml"]
    assert resources.extras(config)[1].groups == {"ingress"}


def test_a_changed_file_is_another_configuration(file: Path) -> None:
    more = file.parent / "more.yaml"
    file.write_text(MESH + "resources: [{file: more.yaml}]\n")
    more.write_text(cluster("a"))
    before = load(file, environ={})
    assert load(file, environ={}) == before
    more.write_text(cluster("b"))
    assert load(file, environ={}) != before


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            "resources:\n  - inline:\n    - '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\n"
            "      name: a\n      type: STATICC\n",
            "mesh.yaml:10: resources[0].inline[0].type: expected one of STATIC, STRICT_DNS, LOGICAL_DNS, EDS, "
            "ORIGINAL_DST, got \"STATICC\"; did you mean 'STATIC'?",
        ),
        (
            "resources:\n  - {file: gone.yaml}\n",
            "mesh.yaml:7: resources[0].file: gone.yaml: cannot be read: no such file or directory",
        ),
        ("resources:\n  - {groups: [ingress]}\n", "mesh.yaml:7: resources[0]: expected either file or inline"),
        (
            f"resources:\n  - {{file: a.yaml, inline: [{cluster('a')}]}}\n",
            "mesh.yaml:7: resources[0]: expected either file or inline; write one of the two",
        ),
        (
            f"resources:\n  - groups: [frontent]\n    inline: [{cluster('a')}]\n",
            "mesh.yaml:7: resources[0].groups[0]: unknown service or ingress 'frontent'; did you mean 'frontend'?",
        ),
        (
            f"resources:\n  - nodes: [catalog]\n    inline: [{cluster('a')}]\n",
            "mesh.yaml:7: resources[0].nodes[0]: no node can have the id 'catalog'; write <service>-<number>",
        ),
        (
            f"resources:\n  - inline: [{cluster('frontend')}]\n",
            "mesh.yaml:7: resources[0]: cds 'frontend' of 'ingress' is made by meshctl itself already; rename it",
        ),
        (
            f"resources:\n  - inline: [{cluster('a')}]\n  - nodes: [catalog-0]\n    inline: [{cluster('a')}]\n",
            "mesh.yaml:8: resources[1]: cds 'a' of 'catalog' is made by resources[0] already; rename it",
        ),
        (
            "resources:\n  - inline:\n    - '@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n"
            "      name: extra\n      virtual_hosts:\n      - name: a\n        domains: [a]\n"
            "        routes: [{match: {prefix: /}, route: {cluster: catalog}}]\n",
            "mesh.yaml:7: resources[0]: rds 'extra' needs cds 'catalog', which 'catalog' does not have; add it",
        ),
    ],
)
def test_what_is_wrong_is_named(file: Path, section: str, expected: str) -> None:
    assert problems(file, section)[0].startswith(expected)


def test_the_line_in_a_file_is_named_too(file: Path) -> None:
    (file.parent / "more.yaml").write_text(
        "- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\n  nmae: a\n"
    )
    (found, *_) = problems(file, "resources: [{file: more.yaml}]\n")
    expected = "mesh.yaml:6: resources[0].file: more.yaml:2: [0].nmae: unknown field of Cluster; did you mean 'name'?"
    assert found == expected


def test_a_taken_name_may_be_overridden_where_it_is_said(file: Path) -> None:
    section = f"resources:\n  - override: true\n    groups: [ingress]\n    inline: [{cluster('frontend')}]\n"
    assert names(file, section) == [["frontend"]]


def test_a_name_is_free_in_groups_that_do_not_make_it(file: Path) -> None:
    assert names(file, f"resources:\n  - groups: [catalog]\n    inline: [{cluster('frontend')}]\n") == [["frontend"]]


def test_what_a_group_makes_is_known_beforehand(file: Path) -> None:
    """The table that collisions are found by equals what the translation makes."""
    file.write_text(MESH)
    config = load(file, environ={})
    replicas = platforms.planned(config, "min")
    made = snapshots(mesh.build(config, replicas, {}), mesh.workloads(replicas))
    for node_id, snapshot in made.items():
        names = {url: frozenset(one.resources) for url, one in snapshot.sets.items()}
        assert names == resources.generated(config, node_id.rpartition("-")[0])


def test_no_setting_shows_a_secret(file: Path) -> None:
    secret = f"{{'@type': {SECRET}, name: s, generic_secret: {{secret: {{inline_string: hunter2}}}}}}"
    file.write_text(f"{MESH}resources:\n  - inline: [{secret}]\n")
    for arguments in (["config", "list", "-f"], ["translate", "--node", "catalog-0", "-f"], ["config", "check"]):
        result = CliRunner().invoke(main, [*arguments, str(file)])
        assert result.exit_code == 0, result.stderr
        assert "hunter2" not in result.output
    assert "hunter2" not in repr(load(file, environ={})) + repr(load(file, environ={}).resources[0].loaded)
