"""The exception tree is drawn as it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import forecasting
from forecasting import errors

ROOT = Path(forecasting.__file__).parent
ERROR = re.compile(r"\w+Error")


def defined() -> Iterator[tuple[str, str, str]]:
    """Every exception of the library: name, base and module, read off the source so that no model is imported."""
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and ERROR.fullmatch(node.name):
                (base,) = node.bases
                yield node.name, ast.unparse(base), ".".join(file.relative_to(ROOT).with_suffix("").parts)


def drawn() -> Iterator[tuple[str, str, str]]:
    """The same as the docstring draws it; a class of a package counts as the package's."""
    above = {0: "Exception"}
    lines = [line for line in (errors.__doc__ or "").splitlines() if re.match(r"[│├└─ ]*\w+Error\b", line)]
    for line in lines:
        match = re.match(r"([│├└─ ]*)(\w+Error)(?:.*\((\w+(?:\.\w+)*)\))?", line)
        assert match is not None
        depth = len(match[1]) // 4
        above[depth + 1] = match[2]
        yield match[2], above[depth], match[3] or "errors"


def test_the_tree_holds_every_exception_with_its_base_and_its_home() -> None:
    found = {(name, base, module.removesuffix(".__init__")) for name, base, module in defined()}
    shown = {
        (name, base, next((m for n, _, m in found if n == name and m.startswith(f"{home}.")), home))
        for name, base, home in drawn()
    }
    assert shown == found


def test_siblings_are_in_alphabetical_order() -> None:
    names = [name for name, base, _ in drawn() if base == "ForecastingError"]
    assert names == sorted(names)
