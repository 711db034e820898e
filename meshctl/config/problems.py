"""From what pydantic found to lines that a user can act on."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from meshctl.config.model import MeshConfig
from meshctl.config.scalars import show
from xds.document import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong at ``path``; ``message`` says what was expected and what to do."""

    path: Path
    message: str


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be."""
    found = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return found[0] if found else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` or the list of what is known."""
    options = sorted(known)
    meant = nearest(word, options)
    return f"did you mean '{meant}'?" if meant else f"use one of {', '.join(options) or '(none)'}"


def from_pydantic(error: ValidationError) -> list[Problem]:
    """Every problem of a failed validation."""
    return [_problem(detail) for detail in error.errors(include_url=False)]


def _problem(detail: ErrorDetails) -> Problem:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    match detail["type"]:
        case "extra_forbidden":
            return Problem(path, f"unknown key; {suggestion(str(path[-1]), section_keys(path[:-1]))}")
        case "missing":
            return Problem(path, f"missing; add '{path[-1]}: ...' ({_describe(path)})")
        case "literal_error":
            got = detail["input"]
            options = detail["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            hint = suggestion(got, options) if isinstance(got, str) else "write one of them"
            return Problem(path, f"expected one of {', '.join(options)}, got {show(got)}; {hint}")
        case "expected":
            return Problem(path, f"{detail['msg']}{_hint(path)}")
        case "too_short":
            return Problem(path, "expected at least one entry, got none; add one")
        case kind:
            return Problem(path, f"expected {_SHAPES.get(kind, kind)}, got {show(detail['input'])}{_hint(path)}")


_SHAPES = {
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "dict_type": "a mapping (name: ...)",
    "mapping_type": "a mapping (name: ...)",
    "tuple_type": "a list such as [a, b]",
    "string_type": "text",
}


def _hint(path: Path) -> str:
    field = _field(path)
    if field is None:
        return ""
    default = field.get_default()
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    return f"; {_describe(path)}" + (f" (default: {default})" if plain else "")


def _describe(path: Path) -> str:
    field = _field(path)
    text = " ".join((field.description or "").split()).removesuffix(".") if field else ""
    return text[:1].lower() + text[1:]


def _field(path: Path) -> FieldInfo | None:
    section = section_at(path[:-1]) if path else None
    return section.model_fields.get(str(path[-1])) if section else None


def section_keys(path: Path) -> tuple[str, ...]:
    """The keys that the section at ``path`` may have; empty where any name is allowed."""
    section = section_at(path)
    return tuple(section.model_fields) if section else ()


def section_at(path: Path) -> type[BaseModel] | None:
    """The section class at ``path``, or None where ``path`` is no section."""
    current: Any = MeshConfig
    for part in path:
        current = _step(current, part)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _step(kind: Any, part: str | int) -> Any:
    """The type under key or index ``part`` of a value of type ``kind``, or None."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        return _bare(field.annotation) if field else None
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return _bare(arguments[0])
    return _bare(arguments[1]) if _is_mapping(kind) else None


def _is_mapping(kind: Any) -> bool:
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _bare(kind: Any) -> Any:
    """``kind`` without Annotated and without ``| None``."""
    if typing.get_origin(kind) is typing.Annotated:
        return _bare(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return _bare(next(option for option in typing.get_args(kind) if option is not types.NoneType))
    return kind


def takes_names(path: Path) -> bool:
    """Whether ``path`` is a mapping whose keys the user chooses (``services``)."""
    current: Any = MeshConfig
    for part in path:
        current = _step(current, part)
    return _is_mapping(current)
