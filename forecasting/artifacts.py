"""Trained models on disk: a folder with ``weights.npz`` (plain arrays) and ``card.json`` (what they are and how good).

Nothing in it is ever executed: arrays are read with ``allow_pickle=False``. The card holds the digest of the weights,
so a damaged or exchanged file is refused. A folder appears by rename, complete or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from forecasting.errors import ArtifactError

FORMAT = 2
"""Raise it whenever the network, its features or the files change their meaning."""

WEIGHTS, CARD = "weights.npz", "card.json"

Card = dict[str, Any]
Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Artifact:
    """``arrays`` by name and the ``card``: format, model, digest, data, settings, scores, versions."""

    arrays: Arrays
    card: Card


def save(folder: Path, arrays: Mapping[str, npt.NDArray[np.float32]], card: Mapping[str, Any]) -> None:
    """Write ``folder``, replacing what is there. Readers see the old folder or the new one."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    weights = buffer.getvalue()
    full = {**card, "format": FORMAT, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (fresh / WEIGHTS).write_bytes(weights)
        (fresh / CARD).write_text(json.dumps(full, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, folder: Path) -> None:
    """A folder cannot be renamed over one that has files, so the old one steps aside first."""
    old = fresh.with_name(fresh.name + "-old")
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> Artifact:
    """Read ``folder``. Raises ArtifactError that names the file and what is wrong with it."""
    card = _card(folder / CARD)
    try:
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise ArtifactError(f"{folder / WEIGHTS}: cannot be read ({error.strerror}); train the model again") from error
    if hashlib.sha256(weights).hexdigest() != card.get("weights_sha256"):
        raise ArtifactError(f"{folder / WEIGHTS}: differs from the digest in {CARD}; delete the folder and train again")
    return Artifact(_arrays(folder / WEIGHTS, weights), card)


def _card(path: Path) -> Card:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); train the model again") from error
    found = card.get("format") if isinstance(card, dict) else None
    if found != FORMAT:
        raise ArtifactError(f"{path}: format is {found!r}, expected {FORMAT}; train the model again")
    return dict(card)


def _arrays(path: Path, weights: bytes) -> Arrays:
    try:
        with np.load(io.BytesIO(weights), allow_pickle=False) as stored:
            return {name: np.asarray(stored[name], dtype=np.float32) for name in stored.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path}: holds no plain arrays ({error}); train the model again") from error
