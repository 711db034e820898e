"""Read a mesh file: YAML, then the environment, then flags, then every check; and say where each value came from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from meshctl.config import resources
from meshctl.config.checks import check
from meshctl.config.environment import Override, apply, from_environment, from_flags
from meshctl.config.model import MeshConfig
from meshctl.config.problems import Problem, from_pydantic
from meshctl.errors import MeshConfigError
from xds.document import Document, DocumentError, Path, dotted, parse


@dataclass(frozen=True, slots=True)
class _Source:
    """A parsed mesh file with its overrides applied to ``data``."""

    file: FilePath
    document: Document
    data: Any
    overrides: tuple[Override, ...]

    def origin(self, path: Path) -> str:
        """Who set ``path``: ``flag``, a variable, ``mesh.yaml:12``, or ``default``."""
        for override in reversed(self.overrides):
            if path[: len(override.path)] == override.path:
                return override.origin
        return f"{self.file.name}:{self.document.lines[path]}" if path in self.document.lines else "default"

    def line(self, problem: Problem) -> str:
        """The problem as ``mesh.yaml:12: field: message``, or with the variable's name in front."""
        origin = self.origin(problem.path)
        where = origin if origin != "default" else f"{self.file.name}:{self.document.line(problem.path)}"
        field = dotted(problem.path)
        return f"{where}: {field}: {problem.message}" if field else f"{where}: {problem.message}"

    def order(self, problem: Problem) -> int:
        return self.document.line(problem.path)


def load(
    path: str | os.PathLike[str],
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> MeshConfig:
    """The mesh file at ``path``; flags (``{"scaling.policy": "reactive"}``) win over ``MESHCTL_*`` over the file.

    ``environ`` defaults to the process's environment. Relative paths inside start at the file's folder.
    Raises MeshConfigError with every problem, each with its line.
    """
    return _load(FilePath(path), os.environ if environ is None else environ, flags or {})[0]


def resolved(
    path: str | os.PathLike[str],
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> list[tuple[str, Any, str]]:
    """Every setting as (name, value as a mesh file writes it, origin). Raises MeshConfigError like :func:`load`."""
    config, source = _load(FilePath(path), os.environ if environ is None else environ, flags or {})
    return [
        (dotted(at), value, source.origin(at))
        for at, value in _leaves(config.model_dump(mode="json", warnings=False), ())
    ]


def schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of a mesh file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **MeshConfig.model_json_schema(mode="validation"),
        "title": "meshctl mesh file",
    }


def _load(file: FilePath, environ: Mapping[str, str], flags: Mapping[str, Any]) -> tuple[MeshConfig, _Source]:
    document = _parse(file)
    from_env, wrong_env = from_environment(document.data, environ)
    from_flag, wrong_flag = from_flags(document.data, flags)
    overrides = (*from_env, *from_flag)
    data = document.data
    for override in overrides:
        data = apply(data, override)
    source = _Source(file, document, data, overrides)
    config, problems = _validate(data, file.resolve().parent)
    lines = [*_duplicates(source), *_lines(source, problems), *wrong_env, *wrong_flag]
    if lines or config is None:
        raise MeshConfigError(lines)
    return config, source


def _parse(file: FilePath) -> Document:
    try:
        return parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise MeshConfigError([f"{file}: cannot be read: {reason}; name a mesh file with -f"]) from None
    except UnicodeDecodeError as error:
        raise MeshConfigError([f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8"]) from None
    except DocumentError as error:
        where = f"{file.name}:{error.line}:{error.column}"
        raise MeshConfigError([f"{where}: {error.message}; correct the YAML here"]) from None


def _validate(data: Any, base: FilePath) -> tuple[MeshConfig | None, list[Problem]]:
    try:
        config = MeshConfig.model_validate(data, context={"base": base})
    except ValidationError as error:
        return None, [*from_pydantic(error), *_beyond(error, data, base)]
    return config, [*check(config), *resources.load(config)]


def _beyond(error: ValidationError, data: Any, base: FilePath) -> list[Problem]:
    """Problems between fields, where unknown keys are all that keeps the file from being read."""
    details = error.errors(include_url=False)
    if any(detail["type"] != "extra_forbidden" for detail in details):
        return []
    for detail in details:
        data = _without(data, detail["loc"])
    return _validate(data, base)[1]


def _without(data: Any, path: Path) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(data, list):
        return [_without(item, rest) if index == head else item for index, item in enumerate(data)]
    if rest:
        return {**data, head: _without(data[head], rest)}
    return {key: value for key, value in data.items() if key != head}


def _duplicates(source: _Source) -> list[str]:
    return [
        f"{source.file.name}:{line}: {dotted(path)}: already set on line {source.document.line(path)}; remove one"
        for path, line in source.document.duplicates
    ]


def _lines(source: _Source, problems: list[Problem]) -> list[str]:
    return [source.line(problem) for problem in sorted(problems, key=source.order)]


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every setting under ``value``; lists of scalars are one setting."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value
