"""The constraints of Envoy's API (protoc-gen-validate), checked before a resource is ever sent.

``envoy_rules.json`` holds them by message and field as they stand in the .proto files that Envoy was built from
(``python protos/envoy_api.py`` makes it); the types of envoy-data-plane carry no constraints. Envoy refuses a
resource that breaks one of them, so these checks say the same earlier, with the place where it is wrong.
https://github.com/bufbuild/protoc-gen-validate#constraint-rules
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Any

from xds.types import PREFIX

Rules = Mapping[str, Any]

#: Header names and values, strict and not (https://github.com/bufbuild/protoc-gen-validate/blob/main/rule_comparison.md).
_HEADER_NAME = re.compile(r"^:?[0-9a-zA-Z!#$%&'*+-.^_|~`]+$")
_HEADER_VALUE = re.compile(r"^[^\x00-\x08\x0a-\x1f\x7f]*$")
_LOOSE_HEADER = re.compile(r"^[^\x00\x0a\x0d]*$")

_BOUNDS = {
    "gt": ("above", lambda value, bound: value > bound),
    "gte": ("of at least", lambda value, bound: value >= bound),
    "lt": ("below", lambda value, bound: value < bound),
    "lte": ("of at most", lambda value, bound: value <= bound),
}


@cache
def _all() -> Mapping[str, Mapping[str, Rules]]:
    loaded: Mapping[str, Mapping[str, Rules]] = json.loads((files("xds") / "envoy_rules.json").read_text("utf-8"))
    return loaded


@cache
def of(type_url: str) -> Mapping[str, Rules]:
    """The rules of a message by field; ``oneof NAME`` for a oneof."""
    return _all().get(type_url.removeprefix(PREFIX), {})


@cache
def sensitive(type_url: str) -> frozenset[str]:
    """Fields whose contents nobody should read in a log or a status page."""
    return frozenset(name for name, rule in of(type_url).items() if rule.get("sensitive"))


def missing(rule: Rules) -> bool:
    """Whether the rule asks for a value."""
    return any(isinstance(part, Mapping) and part.get("required") is True for part in rule.values())


def problems(rule: Rules, value: Any) -> Iterator[str]:
    """What is wrong with a value that is there, as ``expected X, got Y``. Items of lists and maps are not looked at."""
    for kind, checks in rule.items():
        if not isinstance(checks, Mapping):
            continue
        if kind == "string":
            yield from _string(checks, value)
        elif kind == "repeated":
            yield from _count(checks, value, ("min_items", "max_items"), "items")
            if checks.get("unique") and len(set(map(repr, value))) < len(value):
                yield "expected no item twice"
        elif kind == "map":
            yield from _count(checks, value, ("min_pairs", "max_pairs"), "entries")
        elif kind == "bytes":
            yield from _count(checks, value, ("min_len", "max_len"), "bytes")
        elif kind == "enum":
            yield from _enum(checks, value)
        else:
            yield from _number(checks, value)


def _number(checks: Rules, value: Any) -> Iterator[str]:
    if "const" in checks and value != checks["const"]:
        yield f"expected {json.dumps(checks['const'])}, got {json.dumps(value)}"
    for name, (words, holds) in _BOUNDS.items():
        if name in checks and not _holds(holds, value, checks[name]):
            yield f"expected a value {words} {checks[name]}, got {_shown(value)}"


def _holds(holds: Any, value: Any, bound: Any) -> bool:
    if isinstance(value, timedelta):
        return bool(holds(value.total_seconds(), float(str(bound).removesuffix("s"))))
    return bool(holds(value, float(bound)))


def _enum(checks: Rules, value: Any) -> Iterator[str]:
    if checks.get("defined_only") and not value.name:
        yield f"expected a value that the API defines, got {int(value)}"
    if int(value) in checks.get("not_in", ()):
        yield f"expected another value than {value.proto_name or value.name}"


def _string(checks: Rules, value: str) -> Iterator[str]:
    if not value and checks.get("ignore_empty"):
        return
    yield from _count(checks, value, ("min_len", "max_len"), "characters")
    yield from _count(checks, value.encode(), ("min_bytes", "max_bytes"), "bytes")
    if "in" in checks and value not in checks["in"]:
        yield f"expected one of {', '.join(checks['in'])}, got {_shown(value)}"
    if "pattern" in checks and not _matches(checks["pattern"], value):
        yield f"expected text that matches {checks['pattern']}, got {_shown(value)}"
    if not value.startswith(checks.get("prefix", "")):
        yield f"expected text that starts with {checks['prefix']!r}, got {_shown(value)}"
    if not value.endswith(checks.get("suffix", "")):
        yield f"expected text that ends with {checks['suffix']!r}, got {_shown(value)}"
    yield from _header(checks, value)


def _header(checks: Rules, value: str) -> Iterator[str]:
    kind = checks.get("well_known_regex")
    if kind is None:
        return
    strict = checks.get("strict", True)
    if kind == "HTTP_HEADER_NAME":
        pattern, what = (_HEADER_NAME if strict else _LOOSE_HEADER), "a header name"
    else:
        pattern, what = (_HEADER_VALUE if strict else _LOOSE_HEADER), "a header value"
    if value and not pattern.fullmatch(value):
        yield f"expected {what}, got {_shown(value)}"


def _count(checks: Rules, value: Any, names: tuple[str, str], noun: str) -> Iterator[str]:
    least, most = (checks.get(name) for name in names)
    if least is not None and len(value) < int(least):
        yield f"expected at least {least} {noun}, got {len(value)}"
    if most is not None and len(value) > int(most):
        yield f"expected at most {most} {noun}, got {len(value)}"


def _matches(pattern: str, value: str) -> bool:
    """RE2's partial match; a pattern that Python reads otherwise is left to Envoy."""
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return True


def _shown(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
