"""The mesh file's words about the xDS server, as the library takes them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from meshctl.config import MeshConfig
from meshctl.sources.otlp import Export
from xds.canary import Policy as Canary
from xds.errors import AccessDenied
from xds.preflight import Preflight
from xds.server import Settings
from xds.server.identity import Peer, Policy, Rule, peer_of
from xds.server.settings import Limits
from xds.server.tls import TlsFiles

#: Reports per tick, so that every tick has one.
_LOAD_REPORTS = 2
#: The cluster that every bootstrap of ours has.
_OURSELVES = "xds_cluster"


def xds_settings(config: MeshConfig) -> Settings:
    """What ``controller.xds`` says; load reports come often enough for every tick."""
    listen = config.controller.xds
    return Settings(
        limits=_limits(config),
        client_status=listen.client_status,
        load_reports=listen.load_reports,
        load_report_seconds=config.controller.tick / _LOAD_REPORTS,
        canary=_canary(config),
        debounce_seconds=listen.debounce.quiet,
        debounce_cap_seconds=listen.debounce.cap,
        concurrent_pushes=listen.pushes.concurrent,
        slow_write_seconds=listen.pushes.slow,
        write_deadline_seconds=listen.pushes.deadline,
        keepalive_seconds=listen.keepalive.interval,
        keepalive_timeout_seconds=listen.keepalive.timeout,
    )


def xds_preflight(config: MeshConfig) -> Preflight | None:
    """``controller.xds.preflight``; PreflightError if there is no Envoy to ask."""
    return Preflight(known=[_OURSELVES]) if config.controller.xds.preflight else None


def _canary(config: MeshConfig) -> Canary | None:
    wanted = config.controller.xds.canary
    return Canary(deadline=wanted.deadline, on_deadline=wanted.on_deadline) if wanted.enabled else None


def xds_tls(config: MeshConfig) -> TlsFiles | None:
    """``controller.xds.tls``."""
    tls = config.controller.xds.tls
    return None if tls is None else TlsFiles(tls.certificate, tls.key, tls.client_ca)


def xds_policy(config: MeshConfig) -> Policy:
    """Who may be which node: ``controller.xds.identities``, or the mesh's names. Without TLS nobody has secrets."""
    listen = config.controller.xds
    rules = [
        Rule(one.spiffe, one.nodes, one.group or "", secrets=one.secrets, observe=one.observe)
        for one in listen.identities
    ]
    groups = (*config.services, config.ingress.name)
    return Policy(rules, trust_domain=listen.trust_domain or "", groups=groups)


def speaks_for(policy: Policy, context: Any, export: Export) -> bool:
    """Whether the peer of an OTLP call may report for the node that it names, or as an application of its service."""
    peer = peer_of(context)
    return any(_admitted(policy, peer, node, export.service) for node in (export.instance, export.service) if node)


def _admitted(policy: Policy, peer: Peer, node_id: str, group: str) -> bool:
    try:
        policy.admit(peer, node_id, group)
    except AccessDenied:
        return False
    return True


def _limits(config: MeshConfig) -> Limits:
    """The names are the same, but for the unit of durations."""
    wanted = config.controller.xds.limits
    return Limits(**{field.name: getattr(wanted, field.name.removesuffix("_seconds")) for field in fields(Limits)})
