"""YAML with positions: plain data, plus the line of every key and item.

PyYAML's composer is used for its node tree only. Scalars are read by the YAML 1.2 core schema, because YAML 1.1 turns
the key ``on`` into true, ``12:30`` into 750 and ``1995-07-20`` into a date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

#: A place in a document: keys and indices from the root.
Path = tuple[str | int, ...]

_DEPTH = 64
_NODES = 100_000
_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class DocumentError(Exception):
    """Not YAML, or YAML that no configuration needs; ``line`` and ``column`` count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


@dataclass(frozen=True, slots=True)
class Document:
    """``data`` as dicts, lists and scalars; ``lines`` of every path; ``duplicates`` as (path, line) of repeats."""

    data: Any
    lines: Mapping[Path, int] = field(default_factory=dict)
    duplicates: tuple[tuple[Path, int], ...] = ()

    def line(self, path: Path) -> int:
        """The line of ``path``, or of the closest thing around it that is written down."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse(text: str) -> Document:
    """Read one YAML document (JSON is YAML too). Raises DocumentError for syntax errors, aliases that explode and
    unusable keys.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _syntax(error) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(f"a character that YAML does not allow (code {error.character})", line, 1) from None
    reader = _Reader()
    data = {} if root is None else reader.read(root, ())
    return Document(data, reader.lines, tuple(reader.duplicates))


def dotted(path: Path) -> str:
    """``services.frontend.replicas.min``; items as ``ingress.routes[0]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def scalar(text: str) -> Any:
    """A plain scalar by the YAML 1.2 core schema: null, true, false, an integer, a float, or text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text) and len(text) < 100:
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _syntax(error: yaml.MarkedYAMLError) -> DocumentError:
    mark = error.problem_mark or error.context_mark
    parts = [part for part in (error.context, error.problem) if part]
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return DocumentError(" ".join(parts) or "not YAML", line, column)


class _Reader:
    """Walks a node tree; aliases may repeat a node, but neither contain themselves nor explode."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.duplicates: list[tuple[Path, int]] = []
        self._nodes = 0

    def read(self, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if len(path) > _DEPTH or self._nodes > _NODES:
            raise _at(node, "nested too deeply or repeated too often; no configuration needs that")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return node.value if node.style is not None else scalar(node.value)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in self._pairs(node):
            here = (*path, key.value)
            if key.value in result:
                self.duplicates.append((here, key.start_mark.line + 1))
                continue
            self.lines[here] = key.start_mark.line + 1
            result[key.value] = self.read(value, here)
        return result

    @staticmethod
    def _pairs(node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _at(key, "a key must be plain text")
            if key.value == "<<":
                raise _at(key, "merge keys ('<<') are not supported; write the keys out")
            yield key, value


def _at(node: yaml.Node, message: str) -> DocumentError:
    return DocumentError(message, node.start_mark.line + 1, node.start_mark.column + 1)
