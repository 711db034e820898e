"""Overrides from the environment: ``MESHCTL_CONTROLLER__TICK=2s`` sets ``controller.tick``.

A variable belongs to the mesh file if it starts with ``MESHCTL_`` and holds a double underscore; single names such as
``MESHCTL_SERVER`` are options of commands. Names are matched without regard to case, and ``_`` stands for ``-`` in
names of services. Items of lists are addressed by number: ``MESHCTL_INGRESS__ROUTES__0__PREFIX=/shop``. Values are
YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshctl.config.problems import section_keys, suggestion, takes_names
from meshctl.errors import UsageError
from xds.document import DocumentError, Path, parse

PREFIX = "MESHCTL_"
_SEPARATOR = "__"


@dataclass(frozen=True, slots=True)
class Override:
    """``value`` for ``path``, set by ``origin`` (a variable's name or ``flag``)."""

    path: Path
    value: Any
    origin: str


class OverrideError(Exception):
    """A variable or flag that names nothing in a mesh file."""


def parse_value(text: str) -> Any:
    """The value of a variable or flag, read as YAML. Raises UsageError if it is none."""
    try:
        return parse(text).data if text else None
    except DocumentError as error:
        raise UsageError(f"'{text}' is not YAML: {error.message}; quote the value") from None


def from_environment(data: Any, environ: Mapping[str, str]) -> tuple[list[Override], list[str]]:
    """The overrides that ``environ`` holds for ``data`` (the parsed file), and one message for each that is wrong."""
    found, wrong = [], []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or _SEPARATOR not in name:
            continue
        parts = name.removeprefix(PREFIX).lower().split(_SEPARATOR)
        try:
            found.append(Override(locate(data, parts), parse_value(environ[name]), name))
        except (OverrideError, UsageError) as error:
            wrong.append(f"{name}: {error}")
    return found, wrong


def from_flags(data: Any, flags: Mapping[str, Any]) -> tuple[list[Override], list[str]]:
    """The overrides of command-line flags, named as ``scaling.policy``; None means that the flag was not given."""
    found, wrong = [], []
    for name, value in flags.items():
        if value is None:
            continue
        try:
            found.append(Override(locate(data, name.split(".")), value, "flag"))
        except OverrideError as error:
            wrong.append(f"flag: {error}")
    return found, wrong


def locate(data: Any, parts: list[str]) -> Path:
    """The path that ``parts`` name. Raises OverrideError where there is no such field."""
    path: Path = ()
    for part in parts:
        path = (*path, _part(data, path, part))
        data = _child(data, path[-1])
    return path


def _part(data: Any, path: Path, part: str) -> str | int:
    if isinstance(data, list) and part.isdecimal() and int(part) < len(data):
        return int(part)
    chosen = tuple(data) if takes_names(path) and isinstance(data, dict) else ()
    known: dict[str, str] = {_fold(key): key for key in (*section_keys(path), *chosen)}
    if _fold(part) in known:
        return known[_fold(part)]
    where = ".".join(map(str, path)) or "a mesh file"
    raise OverrideError(f"there is no '{part}' in {where}; {suggestion(part, known.values())}")


def _fold(name: str) -> str:
    return str(name).lower().replace("-", "_")


def _child(data: Any, part: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(part)
    return data[part] if isinstance(data, list) and isinstance(part, int) else None


def apply(data: Any, override: Override) -> Any:
    """``data`` with the override in place; sections that were not there are made. The argument is left alone."""
    return _set(data, override.path, override.value)


def _set(data: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(data, list) and isinstance(head, int):
        return [_set(item, rest, value) if index == head else item for index, item in enumerate(data)]
    old = data if isinstance(data, dict) else {}
    return {**old, head: _set(old.get(head), rest, value)}
