"""Every type has its services, by their exact names, and the reference says so."""

from __future__ import annotations

import importlib
import inspect
import re

from tests.conftest import ROOT
from xds.server.services import METHODS
from xds.types import ORDER, PREFIX, SHORT_NAMES, VIRTUAL_HOST

PACKAGES = ("discovery", "cluster", "endpoint", "listener", "route", "secret", "extension", "runtime")
PAGE = ROOT / "docs" / "reference" / "xds.md"


def streaming_methods_of_envoy() -> set[str]:
    """Paths that envoy-data-plane's stubs call, of services that stream."""
    modules = [importlib.import_module(f"envoy_data_plane.envoy.service.{name}.v3") for name in PACKAGES]
    paths = set().union(*(re.findall(r'"(/envoy\.service[^"]+)"', inspect.getsource(one)) for one in modules))
    return {path for path in paths if path.rpartition("/")[2].startswith(("Stream", "Delta"))}


def test_the_methods_are_envoys() -> None:
    """https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#rpc-services-and-methods-for-each-variant"""
    ours = {method.path for method in METHODS}
    not_served = {path for path in streaming_methods_of_envoy() if "LocalityEndpoint" in path}
    assert ours == streaming_methods_of_envoy() - not_served
    assert len(ours) == len(METHODS)


def test_each_type_has_both_variants_but_virtual_hosts() -> None:
    for type_url in ORDER:
        variants = {method.delta for method in METHODS if method.type_url == type_url}
        assert variants == ({True} if type_url == VIRTUAL_HOST else {True, False})


def test_the_reference_has_a_row_for_each_type_in_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([\w.]+)` \| `([\w.]+)` \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    assert [(short, PREFIX + name) for short, name, _, _ in rows] == [(SHORT_NAMES[url], url) for url in ORDER]
    paths = {
        f"/envoy.service.{service}/{name}" for _, _, service, names in rows for name in re.findall(r"`(\w+)`", names)
    }
    assert paths == {method.path for method in METHODS if method.type_url}
