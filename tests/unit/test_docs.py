"""The documentation tells the truth: generated pages are current, links lead somewhere, commands exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from meshctl import config
from meshctl.cli import main
from meshctl.server import api, metrics
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
FIELDS = DOCS / "reference" / "mesh-file.md"
METRICS = DOCS / "reference" / "metrics.md"


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced code blocks of a page in one of ``languages``."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def field_rows(schema: Mapping[str, Any]) -> Iterator[str]:
    """One Markdown table per section of the mesh file."""
    sections = {"(top)": schema, **schema["$defs"]}
    for name, section in sections.items():
        properties = section.get("properties", {})
        if not properties:
            continue
        yield f"\n## {name}\n\n{section.get('description', '')}\n\n| field | default | meaning |\n|---|---|---|"
        for field, spec in properties.items():
            default = spec.get("default", "required" if field in section.get("required", ()) else "see below")
            default = "see below" if isinstance(default, dict) else default
            yield f"| `{field}` | `{default}` | {spec.get('description', '')} |"


def mesh_file_page() -> str:
    head = "# Mesh file\n\nGenerated. Durations are `500ms`, `5s`, `2m`, `1h`, `30d`, or seconds."
    return head + "\n" + "\n".join(field_rows(config.schema())) + "\n"


@pytest.mark.parametrize(("page", "make"), [(METRICS, metrics.reference), (FIELDS, mesh_file_page)])
def test_generated_pages_are_current(page: Path, make: Any, update_golden: bool) -> None:
    if update_golden:
        page.write_text(make())
    assert page.read_text() == make(), "if that is meant: pytest tests/unit/test_docs.py --update-golden"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text()
    missing = [page for page in PAGES[2:] if page.name != "index.md" and f"/{page.name})" not in index]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    for block in blocks(page, "console", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0].removeprefix(".venv/bin/") == "meshctl":
                assert_command(words[1:])


def assert_command(words: list[str]) -> None:
    command: click.Command = main
    with click.Context(main) as context:
        while isinstance(command, click.Group):
            found = command.get_command(context, words.pop(0))
            assert found is not None, words
            command = found
        known = {option for parameter in command.params for option in parameter.opts}
    for word in words:
        if word.startswith("-"):
            assert word in known, f"{command.name}: {word}"


def test_every_endpoint_is_described() -> None:
    page = (DOCS / "reference" / "http-api.md").read_text()
    described = set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", page, re.MULTILINE))
    app = api.application(api.Context(*[None] * 12), "token")  # type: ignore[arg-type]
    served = {
        f"{route.method} {route.resource.canonical}"
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert described == served


def test_mesh_files_in_the_docs_load(tmp_path: Path) -> None:
    found = [text for page in PAGES for text in blocks(page, "yaml") if text.startswith("# mesh file")]
    assert found
    for text in found:
        (tmp_path / "mesh.yaml").write_text(text)
        config.load(tmp_path / "mesh.yaml")


def test_performance_claims_name_scripts_that_exist() -> None:
    for page in PAGES:
        for script in re.findall(r"benchmarks/(\w+\.py)", page.read_text()):
            assert (ROOT / "benchmarks" / script).exists(), script
