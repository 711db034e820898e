"""Makes the reference pages that have a source of truth in the code: mesh-file.md and metrics.md.

Run: ``python -m docs.generate``. A test fails while a page differs from what this makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from meshctl.config import format_duration, schema
from meshctl.config.scalars import DURATION_PATTERN
from meshctl.server.metrics import reference

REFERENCE = Path(__file__).resolve().parent / "reference"

_HEAD = """# Mesh file

The file that `meshctl serve -f` reads. Made from the descriptions in `meshctl/config/model.py` by
`python -m docs.generate`; a test fails when the two differ. For editors: [the JSON schema](mesh.schema.json), or
`meshctl config schema`. An example with comments: [`meshctl/demo/mesh.yaml`](../../meshctl/demo/mesh.yaml).

- A duration is `500ms`, `5s`, `2m`, `1h30m`, `30d`, or a number of seconds. A percentage goes from 0 to 100. A rate is
  per second.
- A relative path starts at the folder of the mesh file.
- An unknown key is an error. `meshctl config check` prints every problem with its line.
- A flag beats `MESHCTL_<SECTION>__<FIELD>` (`MESHCTL_CONTROLLER__TICK=2s`), which beats the file, which beats the
  default. `meshctl config list` says where each value came from.
- A running control plane takes a changed file into force at once, and keeps the old one if the new one has a problem.
  Changes of `controller.xds`, `controller.http`, `controller.state_dir`, `controller.tick`, `platform` and `forecast`
  wait for the next start.
"""

_SECTIONS = {
    "services": "`services` maps the name of a service (a DNS label) to these fields.",
    "ingress": "The Envoy where users' requests enter, and its routes (`ingress.routes` is a list).",
}

Schema = Mapping[str, Any]


def mesh_file() -> str:
    """The page about the mesh file."""
    whole = schema()
    sections = [_section(whole, name, field) for name, field in whole["properties"].items()]
    return "\n".join([_HEAD, *sections])


def pages() -> dict[str, Callable[[], str]]:
    """Every generated page by its file name."""
    return {"mesh-file.md": mesh_file, "metrics.md": reference}


def _section(whole: Schema, name: str, field: Schema) -> str:
    rows = [
        _row(path, leaf, required)
        for path, leaf, required in _leaves(whole, name, field, _need("", {}) if name in _required(whole) else "")
    ]
    intro = str(_SECTIONS.get(name) or field.get("description") or _target(whole, field).get("description", ""))
    table = ["| field | type | default | meaning |", "|---|---|---|---|", *rows]
    return "\n".join([f"## {name}", "", intro, "", *table, ""])


def _leaves(whole: Schema, path: str, field: Schema, required: str) -> Iterator[tuple[str, Schema, str]]:
    target = _target(whole, field)
    if "patternProperties" in target:
        (inner,) = target["patternProperties"].values()
        yield from _leaves(whole, f"{path}.<name>", inner, required)
    elif target.get("type") == "array" and "$ref" in target["items"]:
        yield from _leaves(whole, f"{path}[]", target["items"], required)
    elif "properties" in target:
        for name, inner in target["properties"].items():
            yield from _leaves(whole, f"{path}.{name}", inner, _need(path, field) if name in _required(target) else "")
    else:
        yield path, field, required


def _need(path: str, section: Schema) -> str:
    """A field of an optional section is needed only where the section is given."""
    optional = any(choice.get("type") == "null" for choice in section.get("anyOf", ()))
    return f"required with `{path.rpartition('.')[2]}`" if optional else "required"


def _target(whole: Schema, field: Schema) -> Schema:
    """The field itself, or the section that it (or a null) refers to."""
    for choice in (field, *field.get("anyOf", ())):
        if "$ref" in choice:
            found: Schema = whole["$defs"][choice["$ref"].rpartition("/")[2]]
            return found
    return field


def _required(section: Schema) -> frozenset[str]:
    return frozenset(section.get("required", ()))


def _row(path: str, field: Schema, required: str) -> str:
    default = required or _default(field)
    meaning = " ".join(field.get("description", "").split())
    return f"| `{path}` | {_type(field)} | {default} | {meaning} |"


def _default(field: Schema) -> str:
    value = field.get("default")
    if value is None:
        return "-"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{format_duration(value)}`" if _is_duration(field) and not isinstance(value, str) else f"`{value}`"


def _choices(field: Schema) -> list[Schema]:
    return [choice for choice in field.get("anyOf", [field]) if choice.get("type") != "null"]


def _is_duration(field: Schema) -> bool:
    return any(choice.get("pattern") == DURATION_PATTERN for choice in _choices(field))


def _type(field: Schema) -> str:
    if _is_duration(field):
        seconds = next(choice for choice in _flat(field) if choice.get("type") == "number")
        return f"duration, {format_duration(seconds['minimum'])} to {format_duration(seconds['maximum'])}"
    (choice, *_) = _choices(field)
    if "enum" in choice:
        return ", ".join(f"`{value}`" for value in choice["enum"])
    if choice.get("type") == "array":
        items = choice["items"]
        return f"list of {_type(items)}"
    return f"{choice.get('type', 'text').replace('string', 'text')}{_bounds(choice)}"


def _flat(field: Schema) -> Iterator[Schema]:
    for choice in field.get("anyOf", [field]):
        yield from _flat(choice) if "anyOf" in choice else [choice]


def _bounds(choice: Schema) -> str:
    low, high = choice.get("minimum"), choice.get("maximum")
    above = choice.get("exclusiveMinimum")
    start = f", above {above}" if above is not None else "" if low is None else f", {low}"
    if not start:
        return ""
    return f"{start}{' to' if above is None else ', at most'} {high}" if high is not None else f"{start} or more"


def main() -> None:
    """Write every generated page."""
    for name, make in pages().items():
        (REFERENCE / name).write_text(make())


if __name__ == "__main__":
    main()
