"""docs/reference/cli.md says what the commands say."""

from __future__ import annotations

from pathlib import Path

import click

from tests.unit.cli.reference import reference, tree

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "cli.md"


def test_the_reference_is_what_the_commands_say(update_golden: bool) -> None:
    text = reference()
    if update_golden:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text)
    assert PAGE.exists(), "write it with: pytest tests/unit/cli/test_reference.py --update-golden"
    assert PAGE.read_text() == text, "if that is meant: pytest tests/unit/cli/test_reference.py --update-golden"


def test_every_option_says_what_it_is_for() -> None:
    for ctx in tree():
        options = [option for option in ctx.command.params if isinstance(option, click.Option)]
        assert all(option.help or option.show_default for option in options), ctx.command_path
