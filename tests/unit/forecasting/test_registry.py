"""Generations and their champion: damage, crashes at every moment, and two processes at once.

Run as a program, this file is the process that is killed (``crash``) or one of two that work at once (``work``).
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forecasting
from forecasting.artifacts import CARD, WEIGHTS
from forecasting.errors import ArtifactError
from forecasting.registry import JOURNAL, LOCK, POINTER, Registry, RegistryError, Swap

pytestmark = pytest.mark.slow

Step = Callable[[Registry], object]


def add(registry: Registry) -> int:
    """A generation whose only number is its own."""
    value = len(registry.generations())
    return registry.add({"a": np.full(4, value, dtype=np.int16)}, {"model": "test"}).number


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models" / "bundle")


@pytest.fixture
def three(registry: Registry) -> Registry:
    """Generations 1 to 4, of which 1, 2 and 3 were promoted at times 1, 2 and 3."""
    for _ in range(4):
        add(registry)
    for number in (1, 2, 3):
        registry.promote(number, f"better {number}", {"wape": 0.5 / number}, float(number))
    return registry


def damage(registry: Registry, number: int, name: str = WEIGHTS) -> None:
    (registry.folder / f"gen-{number:06d}" / name).write_bytes(b"damaged")


def numbers(registry: Registry) -> list[int]:
    return [one.number for one in registry.generations()]


def path_of(history: list[Swap]) -> list[tuple[int | None, int]]:
    return [(swap.before, swap.after) for swap in history]


def champion(registry: Registry) -> int:
    found = registry.champion()
    assert found is not None
    return found.generation.number


# ---------------------------------------------------------------------------------------------- generations


def test_an_empty_registry(registry: Registry) -> None:
    assert registry.generations() == []
    assert registry.history() == []
    assert registry.active() is None
    assert registry.champion() is None
    assert registry.settle(0.0) is None
    assert registry.prune(1) == []


def test_reading_creates_nothing(registry: Registry) -> None:
    registry.champion()
    registry.history()
    assert not registry.folder.exists()


def test_numbers_ascend(registry: Registry) -> None:
    assert [add(registry) for _ in range(3)] == [1, 2, 3]
    assert [one.folder.name for one in registry.generations()] == ["gen-000001", "gen-000002", "gen-000003"]
    stored = registry.load(3)
    np.testing.assert_array_equal(stored.arrays["a"], np.full(4, 2, dtype=np.int16), strict=True)
    assert (stored.card["model"], stored.card["generation"]) == ("test", 3)


def test_a_new_generation_is_no_champion(registry: Registry) -> None:
    add(registry)
    assert registry.champion() is None


def test_foreign_names_are_no_generations(registry: Registry) -> None:
    add(registry)
    for name in ("gen-7", "gen-000008.bak", "other", "gen-x00009"):
        (registry.folder / name).mkdir()
    assert numbers(registry) == [1]
    assert add(registry) == 2


def test_numbers_of_deleted_champions_are_not_given_again(three: Registry) -> None:
    for folder in [one.folder for one in three.generations()]:
        shutil.rmtree(folder)
    assert add(three) == 4


def test_more_than_a_million_generations(registry: Registry) -> None:
    (registry.folder / "gen-999999").mkdir(parents=True)
    assert add(registry) == 1_000_000
    assert numbers(registry) == [999_999, 1_000_000]


def test_a_model_that_cannot_be_stored_leaves_nothing(registry: Registry) -> None:
    with pytest.raises(ArtifactError, match="cannot be stored"):
        registry.add({"a": np.array(["text"])}, {})
    assert [path.name for path in registry.folder.iterdir()] == [LOCK]


def test_only_the_owner_may_read(three: Registry) -> None:
    for path in [three.folder, *three.folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


# ---------------------------------------------------------------------------------------------- swaps


def test_promotion(three: Registry) -> None:
    found = three.champion()
    assert found is not None
    assert (found.generation.number, found.refused, three.active()) == (3, (), 3)
    assert found.artifact.card["generation"] == 3


def test_history_tells_time_from_to_reason_and_scores(three: Registry) -> None:
    first, _, last = three.history()
    assert first == Swap(1, 1.0, "promote", None, 1, "better 1", {"wape": 0.5})
    assert last == Swap(3, 3.0, "promote", 2, 3, "better 3", {"wape": 0.5 / 3})


def test_scores_and_reasons_of_any_kind_are_kept(registry: Registry) -> None:
    add(registry)
    scores = {"wape": np.float32(0.5), "none": float("nan"), "by": {"shop": [np.int64(1)]}}
    told = registry.promote(1, "two\nlines, a \u2028 and a \ud800", scores, 1.5)
    assert registry.history() == [told]
    assert told.scores == {"wape": 0.5, "none": None, "by": {"shop": [1]}}
    assert told.reason == "two\nlines, a \u2028 and a \ud800"


def test_a_damaged_or_missing_generation_is_not_promoted(three: Registry) -> None:
    damage(three, 4)
    with pytest.raises(ArtifactError, match=r"gen-000004.*digest"):
        three.promote(4, "", {}, 4.0)
    with pytest.raises(ArtifactError, match=r"gen-000009.*cannot be read"):
        three.promote(9, "", {}, 4.0)
    assert three.active() == 3
    assert len(three.history()) == 3


@pytest.mark.parametrize("now", [float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(three: Registry, now: float) -> None:
    with pytest.raises(RegistryError, match="seconds since the epoch"):
        three.promote(4, "", {}, now)
    assert three.active() == 3


def test_scores_that_are_no_json_are_refused(three: Registry) -> None:
    with pytest.raises(TypeError):
        three.promote(4, "", {"a": object()}, 4.0)
    assert three.active() == 3
    assert len(three.history()) == 3


def test_the_champion_is_not_promoted_again(three: Registry) -> None:
    with pytest.raises(RegistryError, match="generation 3 is the champion already"):
        three.promote(3, "", {}, 4.0)


def test_undo_goes_back_one_by_one_and_is_recorded(three: Registry) -> None:
    assert three.undo(4.0, "worse").number == 2
    assert three.undo(5.0, "still worse").number == 1
    with pytest.raises(RegistryError, match="no other was promoted before it"):
        three.undo(6.0, "again")
    assert path_of(three.history()) == [(None, 1), (1, 2), (2, 3), (3, 2), (2, 1)]
    assert three.history()[3] == Swap(4, 4.0, "undo", 3, 2, "worse", {})


def test_nothing_to_undo(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="no other was promoted"):
        registry.undo(0.0, "")


def test_an_undone_champion_is_not_gone_back_to(three: Registry) -> None:
    three.undo(4.0, "worse")
    three.promote(4, "better", {}, 5.0)
    assert three.undo(6.0, "worse").number == 2
    assert three.undo(7.0, "worse").number == 1


def test_an_earlier_champion_promoted_again_stands_once_in_line(three: Registry) -> None:
    three.promote(1, "after all", {}, 4.0)
    assert [three.undo(5.0, "").number, three.undo(6.0, "").number] == [3, 2]
    with pytest.raises(RegistryError):
        three.undo(7.0, "")


def test_undo_passes_over_the_damaged_and_says_so(three: Registry) -> None:
    damage(three, 2)
    assert three.undo(4.0, "worse").number == 1
    reason = three.history()[-1].reason
    assert reason.startswith("worse (passed over: generation 2: ")
    assert "gen-000002" in reason
    assert "digest" in reason


def test_undo_with_nothing_intact(three: Registry) -> None:
    damage(three, 1)
    damage(three, 2)
    with pytest.raises(RegistryError, match=r"generation 2: .*; generation 1: .*promote another"):
        three.undo(4.0, "worse")
    assert three.active() == 3


# ---------------------------------------------------------------------------------------------- damaged generations


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_a_damaged_champion_gives_way_to_the_one_before(three: Registry, name: str) -> None:
    damage(three, 3, name)
    found = three.champion()
    assert found is not None
    assert found.generation.number == found.artifact.card["generation"] == 2
    ((number, reason),) = [(one.number, one.reason) for one in found.refused]
    assert number == 3
    assert f"gen-000003/{name}" in reason


def test_the_newest_intact_one_is_found(three: Registry) -> None:
    damage(three, 3)
    shutil.rmtree(three.folder / "gen-000002")
    found = three.champion()
    assert found is not None
    assert found.generation.number == 1
    assert [one.number for one in found.refused] == [3, 2]


def test_an_undone_champion_does_not_stand_in(three: Registry) -> None:
    three.undo(4.0, "worse")
    damage(three, 2)
    assert champion(three) == 1


def test_no_champion_is_intact(three: Registry) -> None:
    for number in (1, 2, 3):
        damage(three, number)
    for ask in (three.champion, lambda: three.settle(4.0)):
        with pytest.raises(ArtifactError, match=r"no champion can be used: generation 3: .*; generation 1: "):
            ask()
    three.promote(4, "the only one left", {}, 5.0)
    assert champion(three) == 4


def test_settle_records_the_fallback_and_why(three: Registry) -> None:
    assert three.settle(4.0) is None
    damage(three, 3)
    swap = three.settle(5.0)
    assert swap == three.history()[-1]
    assert swap is not None
    assert (swap.time, swap.before, swap.after) == (5.0, 3, 2)
    assert "gen-000003" in swap.reason
    assert three.settle(6.0) is None
    found = three.champion()
    assert found is not None
    assert found.refused == ()


# ---------------------------------------------------------------------------------------------- prune


def test_prune_keeps_the_newest_the_champion_and_the_one_before(three: Registry) -> None:
    for _ in range(4):
        add(three)
    assert [one.number for one in three.prune(2)] == [1, 4, 5, 6]
    assert numbers(three) == [2, 3, 7, 8]
    assert three.undo(4.0, "worse").number == 2


def test_prune_keeps_the_one_that_undo_would_reach(three: Registry) -> None:
    damage(three, 2)
    assert [one.number for one in three.prune(1)] == []
    assert numbers(three) == [1, 2, 3, 4]
    assert three.undo(4.0, "worse").number == 1


def test_prune_keeps_what_stands_in_for_a_damaged_champion(three: Registry) -> None:
    damage(three, 3)
    three.prune(1)
    assert champion(three) == 2


def test_prune_before_any_promotion(registry: Registry) -> None:
    for _ in range(3):
        add(registry)
    assert [one.number for one in registry.prune(1)] == [1, 2]
    assert add(registry) == 4


@pytest.mark.parametrize("keep", [0, -1])
def test_prune_needs_one_to_keep(three: Registry, keep: int) -> None:
    with pytest.raises(RegistryError, match="at least 1"):
        three.prune(keep)
    assert numbers(three) == [1, 2, 3, 4]


def test_history_outlives_what_was_pruned(three: Registry) -> None:
    three.prune(1)
    assert path_of(three.history()) == [(None, 1), (1, 2), (2, 3)]
    three.promote(4, "better", {}, 4.0)
    assert json.loads((three.folder / POINTER).read_text())["lineage"] == [2, 3, 4]


def test_a_champion_pruned_while_it_is_read_is_looked_up_again(
    three: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = three.load
    moved: list[int] = []

    def load_slowly(number: int) -> Any:
        if not moved:
            moved.append(number)
            for count in range(3):
                three.promote(add(three), "better", {}, 4.0 + count)
            three.prune(1)
        return load(number)

    monkeypatch.setattr(three, "load", load_slowly)
    found = three.champion()
    assert found is not None
    assert (found.generation.number, found.refused) == (7, ())


# ---------------------------------------------------------------------------------------------- damaged files


def test_a_torn_last_line_loses_nothing(three: Registry) -> None:
    journal, told = three.folder / JOURNAL, three.history()
    data = journal.read_bytes()
    last = data.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(data)):
        journal.write_bytes(data[:cut])
        assert three.history() == told
    three.promote(4, "better", {}, 4.0)
    assert three.history()[:3] == told
    assert journal.read_bytes().startswith(data[:-1] + b"\n")


def test_a_torn_line_is_ended_and_written_again(three: Registry) -> None:
    journal, told = three.folder / JOURNAL, three.history()
    torn = journal.read_bytes()[:-20]
    journal.write_bytes(torn)
    three.promote(4, "better", {}, 4.0)
    assert journal.read_bytes().startswith(torn + b"\n")
    assert three.history()[:3] == told
    assert [swap.sequence for swap in three.history()] == [1, 2, 3, 4]


@pytest.mark.parametrize("data", [b"", b"null", b"{}", b"\xff", b'{"swap": 3, "lineage": [9]}', b"[" * 100_000, None])
def test_a_damaged_pointer_is_rebuilt_from_the_journal(three: Registry, data: bytes | None) -> None:
    three.undo(4.0, "worse")
    pointer = three.folder / POINTER
    pointer.unlink() if data is None else pointer.write_bytes(data)
    assert (three.active(), champion(three), len(three.history())) == (2, 2, 4)
    assert three.undo(5.0, "worse").number == 1
    assert path_of(three.history())[-1] == (2, 1)


def test_a_changed_pointer_is_not_believed(three: Registry) -> None:
    pointer = three.folder / POINTER
    pointer.write_text(pointer.read_text().replace("3", "2"))
    assert three.active() == 3


def test_pointer_and_journal_both_lost(three: Registry) -> None:
    (three.folder / POINTER).write_bytes(b"damaged")
    (three.folder / JOURNAL).unlink()
    with pytest.raises(ArtifactError, match=r"CHAMPION\.json: is damaged .*delete it and promote again"):
        three.champion()
    with pytest.raises(ArtifactError, match="promote again"):
        three.prune(1)
    (three.folder / POINTER).unlink()
    three.promote(2, "again", {}, 9.0)
    assert champion(three) == 2


def test_the_journal_alone_is_lost(three: Registry) -> None:
    (three.folder / JOURNAL).unlink()
    assert champion(three) == 3
    assert three.undo(4.0, "worse").number == 2
    assert [swap.sequence for swap in three.history()] == [3, 4]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    registry = Registry(tmp_path_factory.mktemp("registry"))
    for number in (1, 2, 3):
        add(registry)
        registry.promote(number, "better", {"wape": 0.5}, float(number))
    return registry


@given(name=st.sampled_from([POINTER, JOURNAL]), where=st.floats(0, 1, exclude_max=True), junk=st.binary(max_size=9))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_any_damage_to_one_file_leaves_the_champion(shared: Registry, name: str, where: float, junk: bytes) -> None:
    path, told = shared.folder / name, shared.history()
    data = path.read_bytes()
    cut = int(where * len(data))
    try:
        path.write_bytes(data[:cut] + junk + data[cut + max(1, len(junk)) :])
        assert champion(shared) == shared.active() == 3
        history = shared.history()
        assert [swap for swap in told if swap in history] == history
        assert len(history) >= 2 - (b"\n" in data[cut : cut + 9])  # a lost line end spoils two lines
    finally:
        path.write_bytes(data)


def test_a_full_disk_changes_nothing(three: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    told = three.history()

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        with pytest.raises(RegistryError, match=r"cannot be changed .*No space left"):
            three.promote(4, "better", {}, 4.0)
    assert (three.active(), three.history()) == (3, told)
    three.promote(4, "better", {}, 4.0)
    assert three.active() == 4


def test_a_disk_that_fills_up_after_the_swap(three: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def fail(handle: int, data: bytes) -> int:
        if b'"from"' in bytes(data) and b'"lineage"' not in bytes(data):
            raise OSError(28, "No space left on device")
        return write(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        swap = three.promote(4, "better", {}, 4.0)
    assert three.active() == 4
    assert three.history()[-1] == swap
    assert len((three.folder / JOURNAL).read_bytes().splitlines()) == 3
    three.undo(5.0, "worse")
    assert len((three.folder / JOURNAL).read_bytes().splitlines()) == 5


# ---------------------------------------------------------------------------------------------- crashes

STEPS: list[Step] = [
    add,
    lambda registry: registry.promote(1, "first", {"wape": 0.5}, 1.0),
    add,
    lambda registry: registry.promote(2, "better", {"wape": 0.4}, 2.0),
    lambda registry: registry.undo(3.0, "worse"),
    add,
    add,
    lambda registry: registry.promote(4, "best", {"wape": 0.3}, 4.0),
    lambda registry: registry.prune(1),
]
CALLS = ("open", "write", "fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "close")


def snapshot(registry: Registry) -> tuple[int | None, list[Swap], list[int]]:
    return registry.active(), registry.history(), numbers(registry)


def _die_at(moment: int) -> None:
    """Arrange for a kill -9 before call number ``moment`` to the kernel that changes something; a write is left half
    done.
    """
    count = itertools.count()

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            if next(count) == moment:
                if name == "write":
                    call(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return None if name == "fsync" else call(*args, **kwargs)  # a kill does not lose what the kernel has

        return step

    for name in CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))


def crash(root: Path) -> None:
    """Work through STEPS again and again, killed one call later each time, until the work gets done."""
    for moment in itertools.count():
        folder = root / f"{moment:04d}"
        child = os.fork()
        if child == 0:
            _die_at(moment)
            for number, step in enumerate(STEPS):
                (root / f"{moment:04d}.{number}").symlink_to("begun")
                step(Registry(folder))
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return


def work(folder: Path, rounds: int = 12) -> None:
    """Add and promote, as fast as it goes."""
    registry = Registry(folder)
    for _ in range(rounds):
        registry.promote(add(registry), "mine", {}, 1.0)
        registry.prune(3)


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(forecasting.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, __file__, *arguments], env=environment)


def test_killed_at_any_moment_it_stays_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # only to be quick
    assert _start("crash", str(tmp_path)).wait(100) == 0
    reference = Registry(tmp_path / "reference")
    expected = [snapshot(reference)]
    for step in STEPS:
        step(reference)
        expected.append(snapshot(reference))
    begun = [len(list(tmp_path.glob(f"{moment:04d}.*"))) for moment in range(len(list(tmp_path.glob("*.0"))))]
    assert begun == sorted(begun)
    assert set(begun) == set(range(1, len(STEPS) + 1))  # every step was hit
    for moment, steps in enumerate(begun):
        _check(Registry(tmp_path / f"{moment:04d}"), expected[steps - 1], expected[steps])


def _check(registry: Registry, before: Any, after: Any) -> None:
    """The step that was cut short has happened or has not, and life goes on."""
    active, history, kept = snapshot(registry)
    assert (active, history) in (before[:2], after[:2])
    assert set(before[2]) & set(after[2]) <= set(kept) <= set(before[2]) | set(after[2])
    for number in kept:
        assert registry.load(number).card["generation"] == number
    found = registry.champion()
    assert (None if found is None else (found.generation.number, found.refused)) == (active and (active, ()))
    _go_on(registry, active, history)


def _go_on(registry: Registry, active: int | None, history: list[Swap]) -> None:
    fresh = add(registry)
    assert fresh > max([0, *(swap.after for swap in history)])
    swap = registry.promote(fresh, "after the crash", {}, 9.0)
    assert registry.history() == [*history, swap]
    if active is not None:
        assert registry.undo(10.0, "").number == active
    lines = (registry.folder / JOURNAL).read_bytes().splitlines()
    assert len(lines) - len(registry.history()) in (0, 1)  # a torn line stays, ended
    visible = {POINTER, JOURNAL, LOCK, *(one.folder.name for one in registry.generations())}
    assert {path.name for path in registry.folder.iterdir()} == visible


def test_two_processes_at_once(tmp_path: Path) -> None:
    both = [_start("work", str(tmp_path / "bundle")) for _ in range(2)]
    assert [one.wait(100) for one in both] == [0, 0]
    registry = Registry(tmp_path / "bundle")
    history = registry.history()
    assert [swap.sequence for swap in history] == list(range(1, 25))
    assert sorted(swap.after for swap in history) == list(range(1, 25))
    assert [swap.before for swap in history] == [None, *(swap.after for swap in history[:-1])]
    assert len((registry.folder / JOURNAL).read_bytes().splitlines()) == 24
    assert champion(registry) == history[-1].after


if __name__ == "__main__":
    (crash if sys.argv[1] == "crash" else work)(Path(sys.argv[2]))
