"""Trained models on disk: a folder with ``weights.safetensors`` (plain arrays) and ``card.json`` (what they are and how
good).

Nothing in it is ever executed: safetensors holds names, types, shapes and numbers only
(https://huggingface.co/docs/safetensors). The card holds the digest of the weights and its own, so a damaged or
exchanged file is refused. A folder appears by rename, on stable storage, complete or not at all. ``registry`` keeps
many of them and knows which one is in use.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from forecasting.errors import ArtifactError

FORMAT = 4
"""Raise it whenever the models, their features or the files change their meaning."""

WEIGHTS, CARD = "weights.safetensors", "card.json"

DTYPES = frozenset(
    ["bool", "float16", "float32", "float64"] + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
"""What an array may hold."""

LARGEST_CARD = 16 * 2**20
"""Bytes. A larger file is no card, and is not read into memory to find that out."""

SEAL = "sha256"
"""The key under which a JSON object holds the digest of its other keys."""

Card = dict[str, Any]
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """``arrays`` by name, of the types that were saved, and the ``card``.

    The caller's part of the card: model kind, range of the data, settings, scores, versions. ``save`` adds ``format``,
    ``weights_sha256``, ``weights_bytes`` and ``sha256`` (of the card itself).
    """

    arrays: Arrays
    card: Card


def save(folder: Path, arrays: Arrays, card: Mapping[str, Any]) -> None:
    """Write ``folder``, replacing what is there. Readers see the old folder or the new one; one writer at a time.

    Scores that are not finite become null. Raises ArtifactError for arrays that are no plain numbers and where the
    folder cannot be written, TypeError for a card that is no plain JSON; what was there stays.
    """
    weights = _packed(folder, arrays)
    full = {**card, "format": FORMAT, "weights_sha256": _sha256(weights), "weights_bytes": len(weights)}
    text = json.dumps(seal(full), indent=2, sort_keys=True).encode() + b"\n"
    if len(text) > LARGEST_CARD:
        raise ArtifactError(
            f"{folder / CARD}: has {len(text)} bytes, at most {LARGEST_CARD} are read; shorten the card"
        )
    try:
        _write(folder, {WEIGHTS: weights, CARD: text})
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be written ({error}); check free space and permissions") from error


def load(folder: Path) -> Artifact:
    """Read ``folder``. Raises ArtifactError that names the file and what is wrong with it."""
    before = _identity(folder)
    try:
        return _load(_standing(folder))
    except ArtifactError:
        if _identity(folder) == before:
            raise
        return load(folder)  # it was replaced between the reading of its two files


def _load(folder: Path) -> Artifact:
    card = _card(folder / CARD)
    path, size = folder / WEIGHTS, card.get("weights_bytes")
    weights = read_file(path, size if isinstance(size, int) else 0)
    if _sha256(weights) != card.get("weights_sha256"):
        raise ArtifactError(f"{path}: differs from the digest in {CARD}; delete the folder and train the model again")
    return Artifact(_unpacked(path, weights), card)


def _card(path: Path) -> Card:
    try:
        card = parsed(read_file(path, LARGEST_CARD))
    except ValueError as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); train the model again") from error
    if card.get("format") != FORMAT:
        raise ArtifactError(f"{path}: format is {card.get('format')!r}, expected {FORMAT}; train the model again")
    if not intact(card):
        raise ArtifactError(f"{path}: differs from its own digest; delete the folder and train the model again")
    return card


def _packed(folder: Path, arrays: Arrays) -> bytes:
    for name, part in arrays.items():
        if part.dtype.name not in DTYPES or name == "__metadata__":  # the name is taken by the file format
            raise ArtifactError(
                f"{folder / WEIGHTS}: array {name!r} of {part.dtype.name} cannot be stored; rename or convert it"
            )
    # safetensors reads raw memory: it must be contiguous, in the byte order of the file
    return safetensors.numpy.save(
        {name: np.asarray(part, dtype=part.dtype.newbyteorder("<"), order="C") for name, part in arrays.items()}
    )


def _unpacked(path: Path, weights: bytes) -> Arrays:
    try:
        return {name: np.array(part) for name, part in safetensors.numpy.load(weights).items()}
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ArtifactError(f"{path}: holds no plain arrays ({error}); train the model again") from error


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, data in files.items():
            write_file(fresh / name, data)
        sync_folder(fresh)
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, folder: Path) -> None:
    """A folder cannot be renamed over one that has files, so the old one steps aside first; a crash between the two
    renames leaves it there, where ``load`` finds it.
    """
    aside = _aside(folder)
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    try:
        fresh.rename(folder)
    except OSError:
        with contextlib.suppress(OSError):
            aside.rename(folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _standing(folder: Path) -> Path:
    aside = _aside(folder)
    return aside if aside.exists() and not folder.exists() else folder


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def seal(document: Mapping[str, Any]) -> Card:
    """``document`` as plain JSON types, with the digest of the rest under ``sha256``. Raises TypeError for anything
    that JSON cannot hold.
    """
    body = {key: value for key, value in _plain(document).items() if key != SEAL}
    return {**body, SEAL: _digest(body)}


def intact(document: Card) -> bool:
    """Whether ``document`` is what ``seal`` made."""
    body = {key: value for key, value in document.items() if key != SEAL}
    try:
        return bool(document.get(SEAL) == _digest(body))
    except RecursionError:
        return False


def parsed(data: bytes) -> Card:
    """The JSON object in ``data``. Raises ValueError for anything else."""
    try:
        found = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, found {type(found).__name__}")
    return found


def _digest(body: Card) -> str:
    return _sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def _plain(value: Any) -> Any:
    """Numpy's numbers as Python's, tuples as lists, NaN and infinities (which JSON does not have) as None."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def read_file(path: Path, most: int) -> bytes:
    """A regular file of at most ``most`` bytes. Raises ArtifactError for anything else."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise ArtifactError(f"{path}: is no file of at most {most} bytes; delete it and train the model again")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); train the model again") from error


def write_file(path: Path, data: bytes) -> None:
    """A new file, readable by its owner only, on stable storage on return."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(handle, data)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """All of ``data`` to an open file, on stable storage on return."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]
    os.fsync(handle)


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut (fsync(2): the folder needs its own)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
