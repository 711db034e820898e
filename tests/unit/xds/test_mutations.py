"""The mutation check breaks the code that there is, not one that there was."""

from __future__ import annotations

import pytest

from tests.support.mutations import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name)
def test_a_mutation_finds_its_place_once(mutation: Mutation) -> None:
    assert (ROOT / "xds" / mutation.file).read_text().count(mutation.old) == 1
