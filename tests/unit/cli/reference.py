"""The reference of the command line, made from the tree of commands itself."""

from __future__ import annotations

from collections.abc import Iterator

import click

from meshctl.cli import main

PREFACE = """# Command line

Made from the commands by `pytest tests/unit/cli/test_reference.py --update-golden`; a test fails when the two differ.

| exit code | meaning |
|---|---|
| 0 | yes |
| 1 | it worked, and the answer is no: unhealthy, differs, deviated, inconclusive |
| 2 | usage: an argument, a file or a name is wrong |
| 69 | the control plane is unreachable |
| 70 | internal error; `--debug` shows the traceback |
| 124 | a deadline passed |
| 130 | interrupted |

Data goes to stdout, everything else to stderr. `-o json` is one valid document and nothing else; the exit code never
depends on `-o`. Colour only on a terminal; `NO_COLOR` is obeyed. A flag beats its `MESHCTL_*` variable.
"""


def reference() -> str:
    """The whole reference as Markdown."""
    return PREFACE + "".join(map(_section, tree()))


def tree() -> Iterator[click.Context]:
    """A context for every command, the group before its commands."""
    return _tree(click.Context(main, info_name="meshctl", terminal_width=100, **main.context_settings))


def _tree(ctx: click.Context) -> Iterator[click.Context]:
    yield ctx
    command = ctx.command
    if isinstance(command, click.Group):
        for name in sorted(command.list_commands(ctx)):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from _tree(click.Context(child, ctx, name))


def _section(ctx: click.Context) -> str:
    # click keeps a command's help option from whoever asked first; a test that ran it alone knows no -h.
    ctx.command._help_option = None
    return f"\n## {ctx.command_path}\n\n```text\n{ctx.command.get_help(ctx)}\n```\n"
