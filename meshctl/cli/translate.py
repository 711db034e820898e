"""``meshctl translate``: what every Envoy of a mesh would be told, as documents or as files that Envoy loads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from meshctl.cli.options import dry_run_option
from meshctl.cli.output import say, show_document

if TYPE_CHECKING:
    from meshctl.config import MeshConfig
    from meshctl.control.offline import Node
    from meshctl.model import Replica


@click.command(
    epilog="Example: meshctl translate --output-dir out && envoy -c out/ingress-0/bootstrap.json",
)
@click.option(
    "-f",
    "--file",
    type=click.Path(dir_okay=False),
    default="mesh.yaml",
    show_default=True,
    envvar="MESHCTL_FILE",
    show_envvar=True,
    help="The mesh file.",
)
@click.option("--node", "wanted", metavar="ID", multiple=True, help="Only this node; may be given more than once.")
@click.option(
    "--replicas",
    "which",
    type=click.Choice(["min", "max", "live"]),
    default="min",
    show_default=True,
    help="Which replicas exist: as few or as many as the mesh file allows, or those that its platform reports now.",
)
@click.option(
    "--first-address",
    metavar="IP",
    default="127.0.1.1",
    show_default=True,
    help="Address of the first node where none is live; each further node has the next one.",
)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json", show_default=True, help="Format.")
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write files that Envoy loads; print nothing.",
)
@click.option(
    "--mounted-at", metavar="PATH", help="Where the Envoys will find the output directory, if not where it is now."
)
@dry_run_option
def translate(
    *,
    file: str,
    wanted: tuple[str, ...],
    which: str,
    first_address: str,
    output: str,
    output_dir: Path | None,
    mounted_at: str | None,
    dry_run: bool,
) -> None:
    """Print what every Envoy of a mesh file would be told, without a control plane.

    Runtime layers are empty, because what they hold is decided every tick. Secrets are not printed; files hold them.
    """
    from meshctl.config import load
    from meshctl.control import offline

    config = load(file)
    nodes = _chosen(offline.nodes(config, _replicas(config, which, first_address)), wanted)
    if output_dir is None:
        document = {"mesh": config.name, "replicas": which, "nodes": [node.document() for node in nodes]}
        show_document(document, output)
        return
    base = PurePosixPath(mounted_at or output_dir.absolute())
    for node in nodes:
        _write(output_dir / node.node_id, node.files(base / node.node_id), dry_run)
    say(f"{'would write' if dry_run else 'wrote'} {len(nodes)} nodes to {output_dir}")


def _replicas(config: MeshConfig, which: str, first: str) -> tuple[Replica, ...]:
    import asyncio

    from meshctl.control import platforms

    if which != "live":
        return platforms.planned(config, "max" if which == "max" else "min", first)

    async def ask() -> tuple[Replica, ...]:
        platform = platforms.platform(config)
        try:
            return await platform.replicas()
        finally:
            await platform.close()

    return asyncio.run(ask())


def _chosen(nodes: list[Node], wanted: tuple[str, ...]) -> list[Node]:
    from meshctl.errors import UsageError

    by_id = {node.node_id: node for node in nodes}
    for node_id in wanted:
        if node_id not in by_id:
            raise UsageError(f"--node: no node {node_id!r}; there are {', '.join(by_id) or 'none'}")
    return [by_id[node_id] for node_id in dict.fromkeys(wanted)] if wanted else nodes


def _write(folder: Path, files: Mapping[str, Mapping[str, Any]], dry_run: bool) -> None:
    """Each file appears whole (Envoy watches for that) and readable by its owner only, because it may hold secrets."""
    from meshctl.errors import UsageError

    for name, document in files.items():
        path = folder / name
        if dry_run:
            say(str(path))
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}; choose another --output-dir") from error
    if not dry_run:
        _remove_stale(folder, files)


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)


def _remove_stale(folder: Path, files: Mapping[str, Any]) -> None:
    """What an earlier export left in the folders of resources that are files of their own."""
    for kind in {PurePosixPath(name).parent for name in files} - {PurePosixPath()}:
        for path in (folder / kind).glob("*.json"):
            if str(kind / path.name) not in files:
                path.unlink()
