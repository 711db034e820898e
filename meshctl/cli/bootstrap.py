"""``meshctl bootstrap NODE``: the Envoy bootstrap of one node, on stdout or in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from meshctl.bootstrap import ClientTls

_FILE = click.Path(dir_okay=False, path_type=Path)


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
@click.option("--tls-certificate", type=_FILE, metavar="FILE", help="Envoy's own certificate; with it, TLS.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="The certificate's private key.")
@click.option("--tls-ca", type=_FILE, metavar="FILE", help="CA of the control plane's certificate.")
@click.option(
    "--tls-name", metavar="NAME", help="Name in the control plane's certificate. [default: the host of --xds]"
)
@click.option("--load-reports", is_flag=True, help="Report load to the control plane over LRS, too.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead of stdout."
)
def bootstrap(
    *,
    node: str,
    role: str,
    group: str | None,
    xds: str,
    admin: str,
    load_reports: bool,
    output: Path | None,
    tls_name: str | None,
    **tls_files: Path | None,
) -> None:
    """Print the Envoy bootstrap of NODE, such as catalog-0.

    With --tls-certificate, --tls-key and --tls-ca it connects with mutual TLS; two more files beside OUTPUT name
    them, and Envoy watches those, so that it takes renewed certificates without a restart.
    """
    from meshctl.bootstrap import HostPort, Node, render, secrets

    filled = Node(
        node_id=node,
        group=group or _group(node),
        xds=HostPort.parse(xds),
        admin=HostPort.parse(admin),
        load_reports=load_reports,
        tls=_tls(tls_files, tls_name or HostPort.parse(xds).host, output),
    )
    for path, content in secrets(filled.tls).items() if filled.tls else ():
        _write(path, content)
    text = render("ingress" if role == "ingress" else "sidecar", filled)
    if output is None:
        click.echo(text, nl=False)
    else:
        _write(output, text)


def _tls(files: dict[str, Path | None], name: str, output: Path | None) -> ClientTls | None:
    """All three files or none, and a place for the two that name them."""
    from meshctl.bootstrap import ClientTls
    from meshctl.errors import UsageError

    given = {key: path.absolute() for key, path in files.items() if path is not None}
    if not given:
        return None
    missing = [f"--{key.replace('_', '-')}" for key in files if key not in given]
    if missing:
        raise UsageError(f"TLS needs {' and '.join(missing)}, too; name the certificate, its key and the CA")
    if output is None:
        raise UsageError("TLS needs -o: two more files stand beside the bootstrap, which Envoy watches")
    place = output.absolute().with_suffix("")
    return ClientTls(given["tls_certificate"], given["tls_key"], given["tls_ca"], name, place)


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
