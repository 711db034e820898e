"""Models on disk: complete or absent, never executed, damage refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecasting import artifacts
from forecasting.artifacts import CARD, DTYPES, FORMAT, WEIGHTS, intact, load, parsed, save, seal
from forecasting.errors import ArtifactError

ARRAYS: dict[str, npt.NDArray[Any]] = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.c": np.array([[1.5, np.nan], [-np.inf, 0.0]]),
    "knots": np.array([-3, 32767], dtype=np.int16),
    "counts": np.array([2**62], dtype=np.int64),
    "known": np.array([True, False]),
}
CARD_IN = {"model": "test", "data": {"from": 0.0, "to": 9.5}, "scores": {"wape": 0.125}, "versions": {"numpy": "2"}}

Damage = Callable[[bytes], bytes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "cache" / "model", ARRAYS, CARD_IN)
    return tmp_path / "cache" / "model"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def assert_equal(found: artifacts.Arrays, expected: artifacts.Arrays) -> None:
    assert set(found) == set(expected)
    for name, part in expected.items():
        assert found[name].dtype == part.dtype
        np.testing.assert_array_equal(found[name], part, strict=True)


def forge(folder: Path, weights: bytes, **fields: Any) -> None:
    """Weights that the card vouches for."""
    (folder / WEIGHTS).write_bytes(weights)
    card = parsed((folder / CARD).read_bytes())
    digest = hashlib.sha256(weights).hexdigest()
    card = seal({**card, "weights_sha256": digest, "weights_bytes": len(weights), **fields})
    (folder / CARD).write_text(json.dumps(card))


def test_round_trip(folder: Path) -> None:
    stored = load(folder)
    assert_equal(stored.arrays, ARRAYS)
    assert {name: stored.card[name] for name in CARD_IN} == CARD_IN
    assert stored.card["format"] == FORMAT == 4
    assert stored.card["weights_sha256"] == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_type_keeps_its_type(tmp_path: Path, dtype: str) -> None:
    arrays = {"a": np.array([[0, 1], [1, 0]], dtype=dtype)}
    save(tmp_path / "m", arrays, {})
    assert_equal(load(tmp_path / "m").arrays, arrays)


@pytest.mark.parametrize(
    "part",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12.0)[::-2],
        np.broadcast_to(np.float32(2), (3, 2)),
        np.array(7.0),
        np.zeros((0, 5), dtype=np.float32),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    ],
    ids=["transposed", "reversed", "broadcast", "scalar", "empty", "fortran"],
)
def test_any_layout_in_memory_keeps_its_values(tmp_path: Path, part: npt.NDArray[Any]) -> None:
    save(tmp_path / "m", {"a": part}, {})
    assert_equal(load(tmp_path / "m").arrays, {"a": part})


def test_a_foreign_byte_order_is_converted(tmp_path: Path) -> None:
    save(tmp_path / "m", {"a": np.array([1.0, -2.5], dtype=">f4")}, {})
    assert_equal(load(tmp_path / "m").arrays, {"a": np.array([1.0, -2.5], dtype=np.float32)})


def test_no_arrays_at_all(tmp_path: Path) -> None:
    save(tmp_path / "m", {}, {})
    assert load(tmp_path / "m").arrays == {}


def test_loaded_arrays_can_be_written_to(folder: Path) -> None:
    load(folder).arrays["a"][0, 0] = 9.0
    assert load(folder).arrays["a"][0, 0] == 0.0


def test_the_card_takes_numpy_numbers_and_has_no_nan(tmp_path: Path) -> None:
    card = {"scores": {"wape": np.float32(0.5), "bias": float("nan"), 3: np.arange(2)}, "shape": (1, np.int64(2))}
    save(tmp_path / "m", {}, card)
    loaded = load(tmp_path / "m").card
    assert loaded["scores"] == {"wape": 0.5, "bias": None, "3": [0, 1]}
    assert loaded["shape"] == [1, 2]


def test_a_loaded_card_can_be_saved_again(folder: Path) -> None:
    first = load(folder)
    save(folder, first.arrays, first.card)
    assert load(folder).card == first.card


def test_only_the_owner_may_read(folder: Path) -> None:
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o600}


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


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("text", np.array(["x"])),
        ("objects", np.array([None])),
        ("complex", np.zeros(2, dtype=complex)),
        ("__metadata__", np.zeros(2)),
    ],
)
def test_what_is_no_plain_array_is_not_saved(folder: Path, name: str, part: npt.NDArray[Any]) -> None:
    with pytest.raises(ArtifactError, match=rf"weights\.safetensors: array '{name}' .* cannot be stored"):
        save(folder, {name: part}, {})
    assert_equal(load(folder).arrays, ARRAYS)


def test_a_card_that_could_not_be_read_back_is_not_saved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "LARGEST_CARD", 2000)
    with pytest.raises(ArtifactError, match=r"card\.json: has \d+ bytes, at most 2000"):
        save(folder, ARRAYS, {"notes": "x" * 2000})
    assert load(folder).card["model"] == "test"


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_full_disk_keeps_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(ArtifactError, match=r"model: cannot be written .*No space left on device.*free space"):
            save(folder, {}, {"model": "second"})
    assert load(folder).card["model"] == "test"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_the_second_rename_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def only_aside(source: Path, target: Path) -> None:
        if target == folder and ".old" not in source.name:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", only_aside)
    with pytest.raises(ArtifactError, match="cannot be written"):
        save(folder, {}, {"model": "second"})
    assert load(folder).card["model"] == "test"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    save(tmp_path / "m", ARRAYS, CARD_IN)
    assert_equal(load(tmp_path / "m").arrays, ARRAYS)


def test_files_reach_the_disk_before_the_folder_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def renamed(source: Path, target: Path) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    save(tmp_path / "m", ARRAYS, CARD_IN)
    assert events == ["file", "file", "folder", "rename", "folder"]


def test_a_crash_between_the_two_renames_leaves_the_old_model(folder: Path) -> None:
    aside = folder.with_name(".model.old")
    folder.rename(aside)
    assert load(folder).card["model"] == "test"
    save(folder, {}, {"model": "second"})
    assert load(folder).card["model"] == "second"
    assert not aside.exists()


def test_a_folder_replaced_between_the_reading_of_its_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = artifacts.read_file
    replaced: list[Path] = []

    def read_slowly(path: Path, most: int) -> bytes:
        if path.name == WEIGHTS and not replaced:
            replaced.append(path)
            save(folder, {"new": np.zeros(9)}, {"model": "second"})
        return read(path, most)

    monkeypatch.setattr(artifacts, "read_file", read_slowly)
    stored = load(folder)
    assert stored.card["model"] == "second"
    assert set(stored.arrays) == {"new"}


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"card\.json: cannot be read .* train the model again"):
        load(tmp_path / "none")


@pytest.mark.parametrize("damage", [b"", b"junk", b"PK\x03\x04"])
def test_damaged_weights_are_refused(folder: Path, damage: bytes) -> None:
    (folder / WEIGHTS).write_bytes(damage)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors: differs from the digest .* train the model again"):
        load(folder)


def test_one_flipped_bit_is_refused(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(ArtifactError, match="differs from the digest"):
        load(folder)


def test_longer_weights_are_not_even_read(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(ArtifactError, match=r"weights\.safetensors: is no file of at most \d+ bytes"):
        load(folder)


def test_a_changed_score_is_refused(folder: Path) -> None:
    text = (folder / CARD).read_text()
    assert "0.125" in text
    (folder / CARD).write_text(text.replace("0.125", "0.025"))
    with pytest.raises(ArtifactError, match=r"card\.json: differs from its own digest"):
        load(folder)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "7", '"card"', "\x00", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"),
        *(
            '{"format": 0}',
            '{"format": "4"}',
            '{"format": 4}',
            '{"format": 4, "a": ' + '{"a": ' * 900 + "1" + "}" * 901,
        ),
    ],
)
def test_a_damaged_or_foreign_card_is_refused(folder: Path, text: str) -> None:
    (folder / CARD).write_text(text)
    with pytest.raises(ArtifactError, match=r"card\.json.* train the model again"):
        load(folder)


def test_a_card_of_another_encoding_is_refused(folder: Path) -> None:
    (folder / CARD).write_bytes(b"\xff\xfe\xfa{}")
    with pytest.raises(ArtifactError, match=r"card\.json: cannot be read"):
        load(folder)


def test_an_older_format_is_named(folder: Path) -> None:
    (folder / CARD).write_text(json.dumps({"format": 3, "weights_sha256": "0"}))
    with pytest.raises(ArtifactError, match=r"card\.json: format is 3, expected 4; train the model again"):
        load(folder)


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name}: cannot be read \(No such file"):
        load(folder)


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_what_is_no_file_is_not_opened(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)  # reading it would wait for ever
    with pytest.raises(ArtifactError, match=rf"{name}: is no file"):
        load(folder)


@pytest.mark.parametrize("size", [None, "12", -1, 1e3, [], 2**200])
def test_a_card_with_a_foreign_size_is_refused(folder: Path, size: object) -> None:
    forge(folder, b"junk", weights_bytes=size)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors: "):
        load(folder)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


def header(text: str, size: int | None = None) -> bytes:
    return (len(text) if size is None else size).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        pickle.dumps(Bomb()),
        header("{}", 2**63),
        header("{}", 10**8),
        header("{" * 500),
        header('{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}') + b"1234",
        header('{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}') + b"1234",
        header('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}}') + b"1234",
        header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}') + b"1234",
        header('{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}}') + b"1234",
        header('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}') + b"1234",
        header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}') + b"1234 and more",
    ],
)
def test_weights_that_are_no_plain_arrays_are_never_executed(folder: Path, weights: bytes) -> None:
    forge(folder, weights)
    with pytest.raises(ArtifactError, match=r"weights\.safetensors: holds no plain arrays"):
        load(folder)


def _flip(draw: st.DrawFn) -> Damage:
    where, bit = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 7))

    def damage(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[int(where * len(data))] ^= 1 << bit
        return bytes(changed)

    return damage


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Flip a bit, cut the end, put bytes in between or instead."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "replace"]))
    if kind == "flip":
        return _flip(draw)
    share, junk = draw(st.floats(0, 1, exclude_max=True)), draw(st.binary(min_size=1, max_size=40))
    return {
        "cut": lambda data: data[: int(share * len(data))],
        "insert": lambda data: data[: int(share * len(data))] + junk + data[int(share * len(data)) :],
        "replace": lambda data: data[: int(share * len(data))] + junk + data[int(share * len(data)) + len(junk) :],
    }[kind]


def outcome(folder: Path) -> tuple[artifacts.Artifact | None, str]:
    try:
        return load(folder), ""
    except ArtifactError as error:
        return None, str(error)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "model"
    save(folder, ARRAYS, CARD_IN)
    return folder


@given(name=st.sampled_from([CARD, WEIGHTS]), steps=st.lists(damages(), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_any_damage_is_refused_or_harmless(pristine: Path, name: str, steps: list[Damage]) -> None:
    broken = pristine.with_name("broken")
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(pristine, broken)
    original = data = (pristine / name).read_bytes()
    for damage in steps:
        data = damage(data) if data else data
    (broken / name).write_bytes(data)
    stored, complaint = outcome(broken)
    if stored is None:
        assert str(broken / name) in complaint
        assert "train the model again" in complaint
    else:  # the same card in other words, such as another blank
        assert data == original or name == CARD
        assert stored.card == load(pristine).card
        assert_equal(stored.arrays, ARRAYS)


@given(steps=st.lists(damages(), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_damage_that_the_digest_vouches_for_never_crashes(pristine: Path, steps: list[Damage]) -> None:
    broken = pristine.with_name("vouched")
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(pristine, broken)
    data = (pristine / WEIGHTS).read_bytes()
    for damage in steps:
        data = damage(data) if data else data
    forge(broken, data)
    stored, complaint = outcome(broken)
    if stored is None:
        assert "holds no plain arrays" in complaint
    else:
        assert all(isinstance(part, np.ndarray) for part in stored.arrays.values())


def test_a_seal_covers_every_key_and_no_order() -> None:
    sealed = seal({"b": 1, "a": [1.5, None]})
    assert intact(dict(reversed(sealed.items())))
    assert not intact({**sealed, "b": 2})
    assert not intact({**sealed, "c": 0})
    assert not intact({"a": 1})
    assert seal(sealed) == sealed
