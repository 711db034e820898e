"""controller.xds in a mesh file: TLS, identities and limits reach the server as they were written."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from meshctl import config
from meshctl.config import MeshConfigError
from meshctl.server.watching import Throttle
from meshctl.server.xds_settings import xds_policy, xds_settings, xds_tls
from xds.errors import AccessDenied
from xds.server.identity import Peer, Policy
from xds.server.settings import Limits

TLS = "tls: {certificate: pki/server.pem, key: pki/server.key, client_ca: /etc/ca.pem}"


def load(folder: Path, controller: str) -> config.MeshConfig:
    (folder / "mesh.yaml").write_text(
        f"name: shop\nservices: {{frontend: {{}}, shop-1: {{}}}}\ncontroller: {controller}\n"
    )
    return config.load(folder / "mesh.yaml", environ={})


def refused(folder: Path, controller: str) -> str:
    with pytest.raises(MeshConfigError) as error:
        load(folder, controller)
    return str(error.value)


def test_every_limit_can_be_written_and_has_the_librarys_default(tmp_path: Path) -> None:
    assert xds_settings(load(tmp_path, "{}")).limits == Limits()
    names = {field.name.removesuffix("_seconds") for field in fields(Limits)}
    assert names == set(load(tmp_path, "{}").controller.xds.limits.model_fields_set | names)
    assert names == set(type(load(tmp_path, "{}").controller.xds.limits).model_fields)
    limits = xds_settings(load(tmp_path, "{xds: {limits: {first_request: 2s, streams: 7}}}")).limits
    assert (limits.first_request_seconds, limits.streams) == (2.0, 7)


def test_tls_files_start_at_the_mesh_file(tmp_path: Path) -> None:
    files = xds_tls(load(tmp_path, f"{{xds: {{{TLS}}}}}"))
    assert files is not None
    assert files.certificate == tmp_path / "pki" / "server.pem"
    assert files.client_ca == Path("/etc/ca.pem")
    assert xds_tls(load(tmp_path, "{}")) is None


def test_an_address_that_others_reach_needs_tls_or_plaintext_by_name(tmp_path: Path) -> None:
    said = refused(tmp_path, "{allow_remote: true, xds: {address: 0.0.0.0}}")
    assert "mesh.yaml:3: controller.xds.tls: missing: 0.0.0.0 is reachable from outside" in said
    assert "or set controller.xds.plaintext: true" in said
    load(tmp_path, "{allow_remote: true, xds: {address: 0.0.0.0, plaintext: true}}")
    load(tmp_path, f"{{allow_remote: true, xds: {{address: 0.0.0.0, {TLS}}}}}")
    load(tmp_path, "{allow_remote: true, http: {address: 0.0.0.0}}")
    assert "allow_remote" in refused(tmp_path, f"{{xds: {{address: 0.0.0.0, {TLS}}}}}"), "TLS alone opens nothing"


@pytest.mark.parametrize(
    ("xds", "said"),
    [
        (f"{{{TLS}, plaintext: true}}", "controller.xds.plaintext: the port has TLS"),
        ("{identities: [{spiffe: 'spiffe://m/a'}]}", "nobody proves an identity without TLS"),
        ("{trust_domain: m}", "nobody proves an identity without TLS"),
        ("{identities: [{spiffe: 'https://m/a'}]}", "expected a SPIFFE id such as"),
        ("{identities: [{spiffe: 'spiffe://*/a'}]}", "expected a SPIFFE id such as"),
        ("{identities: [{spiffe: 'spiffe://m/a', nodes: ['a*b*c*d*e*']}]}", "with at most 4 '*'"),
        ("{trust_domain: 'spiffe://m'}", "expected a trust domain such as"),
        ("{tls: {certificate: a}}", "controller.xds.tls.key: missing"),
        ("{limits: {streams: 0}}", "of at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, xds: str, said: str) -> None:
    assert said in refused(tmp_path, f"{{xds: {xds}}}")


def allowed(policy: Policy, peer: Peer, node: str, group: str) -> bool:
    try:
        policy.admit(peer, node, group)
    except AccessDenied:
        return False
    return True


def test_the_policy_is_what_was_written(tmp_path: Path) -> None:
    peer = Peer("10.0.0.1", "spiffe://mesh/sa/frontend", secure=True)
    assert allowed(xds_policy(load(tmp_path, "{}")), peer, "frontend-0", "frontend")
    rules = "identities: [{spiffe: 'spiffe://mesh/sa/frontend', nodes: ['web-*'], group: web, observe: true}]"
    policy = xds_policy(load(tmp_path, f"{{xds: {{{TLS}, {rules}, trust_domain: mesh}}}}"))
    assert allowed(policy, peer, "web-0", "web")
    assert not allowed(policy, peer, "frontend-0", "frontend")
    assert policy.may_observe(peer)
    assert not allowed(policy, Peer("", "spiffe://other/sa/frontend", secure=True), "web-0", "web")
    impostor = Peer("", "spiffe://mesh/sa/shop-1", secure=True)
    assert not allowed(xds_policy(load(tmp_path, "{}")), impostor, "shop-1", "shop"), "services' names are known"


def test_refusals_do_not_flood_the_journal() -> None:
    throttle = Throttle(window=60, most=2)
    assert [throttle.take(("denied", "a"), now) for now in (0, 1, 2, 61)] == [0, None, None, 2]
    assert throttle.take(("denied", "b"), 61) == 0
    assert throttle.take(("denied", "c"), 62) is None, "names are made up easily"
    assert throttle.take(("denied", "c"), 122) == 0
