"""Generations of one model on disk, and which of them is the champion.

A trainer adds generations, a controller promotes them, possibly in two processes at once: changes hold a lock
(flock(2)), readers need none. Champion and challenger as in MLOps practice: the champion answers, a challenger waits to
be promoted, and a promotion can be undone.

    gen-000007/     one generation, an ``artifacts`` folder; never changed once it has its name
    CHAMPION.json   the champion, those before it that it can be undone to, and the swap that made it
    swaps.jsonl     every swap, oldest first; only ever appended to
    .lock           held while something changes

A swap happens when CHAMPION.json is replaced: that file alone decides, and it holds the swap itself, so the line that a
crash kept out of the journal is known and written by the next change. If it is damaged, the journal is replayed.
Whatever a crash leaves half done starts with a dot and is swept away by the next change.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from forecasting.artifacts import (
    Arrays,
    Artifact,
    Card,
    intact,
    load,
    parsed,
    read_file,
    save,
    seal,
    sync_folder,
    write_all,
    write_file,
)
from forecasting.errors import ArtifactError, ForecastingError

POINTER, JOURNAL, LOCK = "CHAMPION.json", "swaps.jsonl", ".lock"

LARGEST_POINTER = 2**20
"""Bytes: room for some 100,000 generations."""

_NAME = re.compile(r"gen-([0-9]{6,})")
_FRESH_POINTER = f".{POINTER}.new"


class RegistryError(ForecastingError):
    """The change that was asked for is not possible, or the folder cannot be written. Nothing has changed."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One trained model: ``number`` counts up and is never given twice."""

    number: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Refusal:
    """A generation that could not be used, and why."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """The model to use. ``refused`` is empty when it is the one that was promoted; else it names that one and all
    others that were tried before, newest first.
    """

    generation: Generation
    artifact: Artifact
    refused: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Swap:
    """The champion changed at ``time`` (seconds since the epoch) from number ``before`` (None: there was none) to
    ``after``. ``sequence`` counts swaps from 1. ``scores`` are those that spoke for it, as plain JSON.
    """

    sequence: int
    time: float
    kind: Literal["promote", "undo"]
    before: int | None
    after: int
    reason: str
    scores: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _State:
    """``lineage``: the champion, last, and those that it can be undone to. An undone champion is no longer in it."""

    lineage: tuple[int, ...] = ()
    last: Swap | None = None


class Registry:
    """Generations under ``folder``, which the first change creates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def generations(self) -> list[Generation]:
        """All that are on disk, oldest first; damaged ones too."""
        if not self.folder.is_dir():
            return []
        named = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((Generation(int(name[1]), path) for name, path in named if name), key=lambda one: one.number)

    def load(self, number: int) -> Artifact:
        """One generation. Raises ArtifactError where it is missing or damaged."""
        return load(self._generation(number).folder)

    def active(self) -> int | None:
        """The number of the promoted generation, without reading it: cheap enough to ask at every tick."""
        return next(reversed(self._state().lineage), None)

    def champion(self) -> Champion | None:
        """The promoted generation or, if it is damaged, the newest intact one before it. None before the first
        promotion. Changes nothing; ``settle`` records a fallback.

        Raises ArtifactError if none of them can be used.
        """
        state = self._state()
        found, refused = self._newest_intact(state.lineage)
        if refused and self._state() != state:
            return self.champion()  # it was replaced and pruned while we read it
        if refused and found is None:
            raise ArtifactError("no champion can be used: " + _reasons(refused))
        return found

    def history(self) -> list[Swap]:
        """Every swap, oldest first. Lines that a crash or a damage made unreadable are left out."""
        state = self._pointed()  # before the journal, which may grow meanwhile
        journal = self._journal()
        return journal + _missing(journal, state)

    def add(self, arrays: Arrays, card: Mapping[str, Any]) -> Generation:
        """Keep a newly trained model; its card gets ``generation``. Raises as ``artifacts.save`` does."""
        with self._changing():
            fresh = self._generation(self._next_number())
            save(fresh.folder, arrays, {**card, "generation": fresh.number})
            return fresh

    def promote(self, number: int, reason: str, scores: Mapping[str, Any], now: float) -> Swap:
        """Make ``number`` the champion at ``now``. It is read first: raises ArtifactError where it is damaged or
        missing, RegistryError where it is the champion already.
        """
        with self._changing():
            if number == self.active():
                raise RegistryError(f"{self.folder}: generation {number} is the champion already; promote another one")
            self.load(number)
            return self._commit("promote", number, reason, scores, now)

    def undo(self, now: float, reason: str) -> Generation:
        """Go back to the newest intact champion before this one. Raises RegistryError where there is none."""
        with self._changing():
            found, refused = self._newest_intact(self._state().lineage[:-1])
            if found is None:
                why = _reasons(refused) or "no other was promoted before it"
                raise RegistryError(f"{self.folder}: the champion cannot be undone ({why}); promote another generation")
            skipped = f" (passed over: {_reasons(refused)})" if refused else ""
            self._commit("undo", found.generation.number, reason + skipped, {}, now)
            return found.generation

    def settle(self, now: float) -> Swap | None:
        """If the champion is damaged, record that the newest intact one before it takes its place, and why. None where
        there is nothing to do. Raises ArtifactError if none of them can be used.
        """
        with self._changing():
            champion = self.champion()
            if champion is None or not champion.refused:
                return None
            return self._commit("undo", champion.generation.number, _reasons(champion.refused), {}, now)

    def prune(self, keep: int) -> list[Generation]:
        """Delete all but the newest ``keep`` (at least 1: numbers are never given twice), the champion and the one it
        can be undone to. Returns the deleted.
        """
        if keep < 1:
            raise RegistryError(f"{self.folder}: keep is {keep}, expected at least 1")
        with self._changing():
            spared = self._spared(self._state().lineage)
            victims = [one for one in self.generations()[:-keep] if one.number not in spared]
            for one in victims:
                _delete(one.folder)
            return victims

    def _spared(self, lineage: tuple[int, ...]) -> set[int]:
        found, _ = self._newest_intact(lineage[:-1])
        return {*lineage[-2:], *([found.generation.number] if found else [])}

    def _generation(self, number: int) -> Generation:
        return Generation(number, self.folder / f"gen-{number:06d}")

    def _next_number(self) -> int:
        state = self._pointed()
        known = [one.number for one in self.generations()] + [swap.after for swap in self._journal()]
        return max([0, *known, *(state.lineage if state else ())]) + 1

    def _newest_intact(self, lineage: tuple[int, ...]) -> tuple[Champion | None, tuple[Refusal, ...]]:
        refused: list[Refusal] = []
        for number in reversed(lineage):
            try:
                artifact = self.load(number)
            except ArtifactError as error:
                refused.append(Refusal(number, str(error)))
            else:
                return Champion(self._generation(number), artifact, tuple(refused)), tuple(refused)
        return None, tuple(refused)

    def _state(self) -> _State:
        pointed = self._pointed()
        if pointed is not None:
            return pointed
        swaps, path = self._journal(), self.folder / POINTER
        if path.exists() and not swaps:
            pointed = self._pointed()  # the first promotion may have come between the two looks
            if pointed is None:
                raise ArtifactError(f"{path}: is damaged and {JOURNAL} holds no swap; delete it and promote again")
            return pointed
        return reduce(_advanced, swaps, _State())

    def _pointed(self) -> _State | None:
        """What the pointer says; None where it is missing or damaged."""
        try:
            document = parsed(read_file(self.folder / POINTER, LARGEST_POINTER))
            swap = _swap_of(document["swap"])
            lineage = tuple(int(number) for number in document["lineage"])
        except (ArtifactError, ValueError, KeyError, TypeError, OverflowError):
            return None
        return _State(lineage, swap) if intact(document) and lineage[-1:] == (swap.after,) else None

    def _journal(self) -> list[Swap]:
        try:
            lines = (self.folder / JOURNAL).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ArtifactError(f"{self.folder / JOURNAL}: cannot be read ({error.strerror}); repair it") from error
        return [swap for swap in map(_swap_in, lines) if swap is not None]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock, wait for it if need be. The kernel frees it when its holder dies."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                self._sweep()
                yield
            finally:
                os.close(handle)
        except OSError as error:
            raise RegistryError(f"{self.folder}: cannot be changed ({error}); check space and permissions") from error

    def _sweep(self) -> None:
        """Whoever left these is dead, or would hold the lock."""
        for path in self.folder.glob(".gen-*"):
            shutil.rmtree(path, ignore_errors=True)
        (self.folder / _FRESH_POINTER).unlink(missing_ok=True)

    def _commit(
        self, kind: Literal["promote", "undo"], number: int, reason: str, scores: Mapping[str, Any], now: float
    ) -> Swap:
        if not math.isfinite(now):
            raise RegistryError(f"{self.folder}: now is {now}, expected seconds since the epoch")
        state, journal = self._state(), self._journal()
        late = _missing(journal, state)
        sequence = max((swap.sequence for swap in journal + late), default=0) + 1
        before = next(reversed(state.lineage), None)
        swap = _swap_of(seal(_document(Swap(sequence, float(now), kind, before, number, reason, scores))))
        self._append(late)
        self._point(_advanced(state, swap))
        with contextlib.suppress(OSError):  # it has happened: the pointer holds the line, the next change writes it
            self._append([swap])
        return swap

    def _point(self, state: _State) -> None:
        assert state.last is not None
        lineage = [number for number in state.lineage if self._generation(number).folder.exists()]
        fresh = self.folder / _FRESH_POINTER
        document = seal({"lineage": lineage, "swap": _document(state.last)})
        write_file(fresh, json.dumps(document, indent=2, sort_keys=True).encode() + b"\n")
        fresh.replace(self.folder / POINTER)
        sync_folder(self.folder)

    def _append(self, swaps: list[Swap]) -> None:
        """Add lines; one that was torn is ended first, so that it spoils no other."""
        path = self.folder / JOURNAL
        lines = b"".join(json.dumps(seal(_document(swap)), sort_keys=True).encode() + b"\n" for swap in swaps)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(handle).st_size
            torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            write_all(handle, (b"\n" if torn else b"") + lines)
            if size == 0:
                sync_folder(self.folder)  # the file may be new
        finally:
            os.close(handle)


def _advanced(state: _State, swap: Swap) -> _State:
    """A promotion adds to the lineage; going back cuts it."""
    if swap.kind == "undo" and swap.after in state.lineage:
        return _State(state.lineage[: state.lineage.index(swap.after) + 1], swap)
    return _State((*(number for number in state.lineage if number != swap.after), swap.after), swap)


def _missing(journal: list[Swap], state: _State | None) -> list[Swap]:
    """The swap that is in the pointer but, by a crash, not in the journal."""
    last = state.last if state else None
    return [last] if last and last.sequence > max((swap.sequence for swap in journal), default=0) else []


def _document(swap: Swap) -> Card:
    return {
        "sequence": swap.sequence,
        "time": swap.time,
        "kind": swap.kind,
        "from": swap.before,
        "to": swap.after,
        "reason": swap.reason,
        "scores": swap.scores,
    }


def _swap_of(document: Card) -> Swap:
    """Raises KeyError, TypeError, ValueError or OverflowError where ``document`` is no swap."""
    before, scores = document["from"], document["scores"]
    return Swap(
        sequence=int(document["sequence"]),
        time=float(document["time"]),
        kind="undo" if document["kind"] == "undo" else "promote",
        before=None if before is None else int(before),
        after=int(document["to"]),
        reason=str(document["reason"]),
        scores=dict(scores),
    )


def _swap_in(line: bytes) -> Swap | None:
    try:
        document = parsed(line)
        return _swap_of(document) if intact(document) else None
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _reasons(refused: tuple[Refusal, ...]) -> str:
    return "; ".join(f"generation {one.number}: {one.reason}" for one in refused)


def _delete(folder: Path) -> None:
    """First out of sight by a rename, so that no generation is ever seen half deleted."""
    gone = folder.with_name(f".{folder.name}.gone")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
