"""How commands print: tables for people, documents for programs.

A table has NAME first and AGE last, three spaces between columns, no spaces in cells (but in a last column of
prose), and a header even when it is empty. A status carries its age: ``SYNCED(12s)``. Colour only on a terminal, and
never without a word.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import click

Row = Mapping[str, Any]

#: What "now" is. Ages are differences to it; tests replace it.
clock: Callable[[], float] = time.time

COLOURS = {
    "SYNCED": "green",
    "READY": "green",
    "PASSED": "green",
    "STALE": "yellow",
    "RUNNING": "yellow",
    "INCONCLUSIVE": "yellow",
    "PAUSED": "yellow",
    "NACKED": "red",
    "DISCONNECTED": "red",
    "DEVIATED": "red",
    "FAILED": "red",
}
_WORD = re.compile(r"[A-Z][A-Z-]*")


class Column(NamedTuple):
    """A column: its title, how a row becomes its cell, and whether only ``-o wide`` shows it."""

    title: str
    cell: Callable[[Row], object]
    wide: bool = False


def show(document: Mapping[str, Any], rows: Sequence[Row], columns: Sequence[Column], output: str) -> None:
    """Print ``rows`` as a table or their first column, or ``document`` as a whole."""
    if output in {"json", "yaml"}:
        show_document(document, output)
    elif output == "name":
        click.echo("".join(f"{cell_text(columns[0].cell(row))}\n" for row in rows), nl=False)
    else:
        shown = [column for column in columns if output == "wide" or not column.wide]
        click.echo(table(rows, shown), nl=False)


def show_document(document: Mapping[str, Any], output: str) -> None:
    """One valid JSON or YAML document and nothing else."""
    if output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def table(rows: Iterable[Row], columns: Sequence[Column]) -> str:
    """Lines of a table, header first, no trailing blanks."""
    lines = [[column.title for column in columns]]
    lines += [[cell_text(column.cell(row)) for column in columns] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "".join(_line(cells, widths) for cells in lines)


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """``Name:  value`` lines as ``kubectl describe`` prints them."""
    named = [(f"{name}:", cell_text(value)) for name, value in pairs]
    width = max((len(name) for name, _ in named), default=0)
    return "".join(_line(pair, [width, 0]) for pair in named)


def cell_text(value: object) -> str:
    """A cell: ``-`` where nothing is known, numbers to three significant figures, yes and no."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else str(value)


def number(value: float) -> str:
    """At least three significant figures, never an exponent below a billion: 0.0123, 1.5, 120, 12345."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e9 else f"{value:.3g}"


def seconds(value: float | None) -> str | None:
    """A latency: ``12ms`` below a second, ``1.5s`` above."""
    if value is None:
        return None
    return f"{value * 1000:.0f}ms" if value < 1 else f"{value:.3g}s"


def percent(ratio: float | None) -> str | None:
    """A ratio as a percentage with up to two decimals: ``99.95%``."""
    return None if ratio is None else f"{round(100 * ratio, 2):g}%"


def age(length: float | None) -> str | None:
    """A length of time as kubectl prints it: 45s, 5m30s, 3h12m, 2d4h."""
    if length is None:
        return None
    whole = max(0, int(length))
    for unit, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit:
            rest = whole % unit // part
            return f"{whole // unit}{name}" + (f"{rest}{part_name}" if rest else "")
    return f"{whole}s"


def since(moment: float | None) -> str | None:
    """The age of something that happened at ``moment`` (seconds since the epoch)."""
    return None if moment is None else age(clock() - moment)


def state(word: str, length: float | None) -> str:
    """A status and its age: ``STALE(12s)``; without an age where it never had one."""
    known = age(length)
    return word if known is None else f"{word}({known})"


def say(message: str) -> None:
    """A remark for the user. stdout belongs to data."""
    click.echo(message, err=True)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell + " " * (width - len(cell)) for cell, width in zip(cells, widths, strict=True)]
    line = "   ".join(padded).rstrip()
    return (_coloured(line) if _colourful() else line) + "\n"


def _colourful() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _coloured(line: str) -> str:
    def paint(match: re.Match[str]) -> str:
        colour = COLOURS.get(match[0])
        return click.style(match[0], fg=colour) if colour else match[0]

    return _WORD.sub(paint, line)
