"""``meshctl bootstrap NODE``: the Envoy bootstrap of one node, on stdout or in a file."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="Example: meshctl bootstrap catalog-0 --group catalog > catalog-0.yaml && envoy -c catalog-0.yaml"
)
@click.argument("node", metavar="NODE")
@click.option(
    "--role", type=click.Choice(["sidecar", "ingress"]), default="sidecar", show_default=True, help="What the Envoy is."
)
@click.option(
    "--group", metavar="GROUP", help="Service or ingress that NODE is a replica of. [default: NODE without -N]"
)
@click.option(
    "--xds", metavar="HOST:PORT", default="127.0.0.1:18000", show_default=True, help="Where the control plane listens."
)
@click.option(
    "--admin", metavar="HOST:PORT", default="127.0.0.1:15000", show_default=True, help="Where the admin page listens."
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead of stdout."
)
def bootstrap(*, node: str, role: str, group: str | None, xds: str, admin: str, output: Path | None) -> None:
    """Print the Envoy bootstrap of NODE, such as catalog-0."""
    from meshctl.bootstrap import HostPort, Node, render

    filled = Node(
        node_id=node,
        group=group or _group(node),
        xds=HostPort.parse(xds),
        admin=HostPort.parse(admin),
    )
    text = render("ingress" if role == "ingress" else "sidecar", filled)
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text)


def _group(node: str) -> str:
    """``catalog`` for ``catalog-2``; the node's own name where it has no number."""
    name, dash, number = node.rpartition("-")
    return name if dash and name and number.isdigit() else node


def _write(output: Path, text: str) -> None:
    from meshctl.errors import UsageError

    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}; choose another file for -o") from error
