"""What docs/how-to/secure-the-xds-port.md says works as it stands there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from meshctl import config
from meshctl.server.xds_settings import xds_policy, xds_tls
from tests.conftest import ROOT
from tests.unit.test_docs import blocks
from xds.server.identity import Peer
from xds.server.tls import Rotation

PAGE = ROOT / "docs" / "how-to" / "secure-the-xds-port.md"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the commands are openssl's")
def test_the_certificates_are_what_the_mesh_file_names(tmp_path: Path) -> None:
    script, mesh = blocks(PAGE, "bash")[0], blocks(PAGE, "yaml")[0]
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "mesh.yaml").write_text(mesh)
    loaded = config.load(tmp_path / "mesh.yaml", environ={})
    files = xds_tls(loaded)
    assert files is not None
    rotation = Rotation(files, lambda: 0.0)
    assert rotation.material.certificate.startswith(b"-----BEGIN CERTIFICATE-----")
    shown = ["openssl", "x509", "-in", str(tmp_path / "pki" / "catalog.crt"), "-noout", "-ext", "subjectAltName"]
    names = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    spiffe = names.partition("URI:")[2].strip()
    xds_policy(loaded).admit(Peer("", spiffe, secure=True), "catalog-0", "catalog")


def test_the_rules_are_those_of_a_mesh_file(tmp_path: Path) -> None:
    secure, rules = blocks(PAGE, "yaml")
    identities = rules.partition("identities:\n")[2]
    (tmp_path / "mesh.yaml").write_text(f"{secure}    identities:\n{identities}")
    policy = xds_policy(config.load(tmp_path / "mesh.yaml", environ={}))
    grant = policy.admit(Peer("", "spiffe://mesh/ns/shop/sa/catalog", secure=True), "catalog-3", "catalog")
    assert grant.secrets == frozenset({"catalog-tls", "shared-*"})
    assert policy.may_observe(Peer("", "spiffe://mesh/ns/ops/sa/admin", secure=True))
