"""``meshctl serve``: run the control plane. Its room, :mod:`meshctl.server`, is imported inside the command."""

from __future__ import annotations

import os
from pathlib import Path

import click

from meshctl.cli.options import dry_run_option, mesh_file_option

LEVELS = ("debug", "info", "warning", "error")


@click.command()
@mesh_file_option
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="Least level to log.")
@dry_run_option
def serve(config_path: Path, log_level: str, dry_run: bool) -> None:
    """Run the control plane of a mesh file until SIGTERM.

    Sidecars keep their last configuration when it ends; what it predicted ends with its leases.
    """
    # gRPC's core writes a line for every handshake that fails, and strangers' bytes into some: not unless asked to.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from meshctl.server.app import run

    run(config_path, dry_run=dry_run, log_level=log_level)
