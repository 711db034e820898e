"""Models on disk: complete or absent, never executed, damage refused."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from forecasting.artifacts import CARD, FORMAT, WEIGHTS, load, save
from forecasting.errors import ArtifactError

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b.c": np.ones(1, dtype=np.float32)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "cache" / "model", ARRAYS, {"model": "test"})
    return tmp_path / "cache" / "model"


def test_round_trip(folder: Path) -> None:
    stored = load(folder)
    assert set(stored.arrays) == set(ARRAYS)
    for name, part in ARRAYS.items():
        np.testing.assert_array_equal(stored.arrays[name], part)
    assert stored.card["model"] == "test"
    assert stored.card["format"] == FORMAT


def test_saving_again_replaces_and_leaves_nothing_behind(folder: Path) -> None:
    save(folder, ARRAYS, {"model": "second"})
    assert load(folder).card["model"] == "second"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert sorted(path.name for path in folder.iterdir()) == [CARD, WEIGHTS]


def test_a_save_that_fails_keeps_what_was_there(folder: Path) -> None:
    with pytest.raises(TypeError):
        save(folder, ARRAYS, {"model": object()})
    assert load(folder).card["model"] == "test"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"card\.json: cannot be read .* train the model again"):
        load(tmp_path / "none")


@pytest.mark.parametrize("damage", [b"", b"junk", b"PK\x03\x04"])
def test_damaged_weights_are_refused(folder: Path, damage: bytes) -> None:
    (folder / WEIGHTS).write_bytes(damage)
    with pytest.raises(ArtifactError, match="differs from the digest"):
        load(folder)


def test_one_flipped_bit_is_refused(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(ArtifactError, match="differs from the digest"):
        load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 0}', '{"format": "1"}'])
def test_a_damaged_or_foreign_card_is_refused(folder: Path, text: str) -> None:
    (folder / CARD).write_text(text)
    with pytest.raises(ArtifactError, match=r"card\.json"):
        load(folder)


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match=r"weights\.npz: cannot be read"):
        load(folder)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("kind", ["pickle", "object array", "text"])
def test_weights_that_are_no_plain_arrays_are_never_executed(folder: Path, kind: str) -> None:
    path = folder / WEIGHTS
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "object array":
        np.savez(path, a=np.array([Bomb()], dtype=object))
    else:
        np.savez(path, a=np.array(["text"]))
    card = json.loads((folder / CARD).read_text())
    card["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match="no plain arrays"):
        load(folder)
