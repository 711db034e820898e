"""The mesh file's words about the xDS server, as the library takes them."""

from __future__ import annotations

from meshctl.config import MeshConfig
from xds.server import Settings

#: Reports per tick, so that every tick has one.
_LOAD_REPORTS = 2


def xds_settings(config: MeshConfig) -> Settings:
    """What ``controller.xds`` says; load reports come often enough for every tick."""
    listen = config.controller.xds
    return Settings(
        client_status=listen.client_status,
        load_reports=listen.load_reports,
        load_report_seconds=config.controller.tick / _LOAD_REPORTS,
    )
