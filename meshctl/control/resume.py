"""What the next life of the control plane must know at once, in one small file.

A restart must not change what sidecars have: planned rate limits (they are part of a route's version) and the values of
leases that still run are taken up again. The chaos layer is not here: after a restart it is empty, always.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xds.model import Limits

_FORMAT = 1
_SEPARATOR = ">"


@dataclass(frozen=True, slots=True)
class Resume:
    """The last plan that was applied, at ``time`` (seconds since the epoch)."""

    time: float = 0.0
    replicas: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[tuple[str, str], Limits] = field(default_factory=dict)
    rate_limits: Mapping[tuple[str, str], float] = field(default_factory=dict)
    enforce: frozenset[tuple[str, str]] = frozenset()


def save(path: Path, resume: Resume) -> None:
    """Write atomically: a crash leaves the old file or the new one."""
    body = {
        "format": _FORMAT,
        "time": resume.time,
        "replicas": dict(resume.replicas),
        "limits": {_join(edge): asdict(limits) for edge, limits in resume.limits.items()},
        "rate_limits": {_join(route): rate for route, rate in resume.rate_limits.items()},
        "enforce": sorted(_join(route) for route in resume.enforce),
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(body))
    os.replace(temporary, path)  # noqa: PTH105 - the atomic call, by name


def load(path: Path) -> Resume:
    """Read the file; an absent or unreadable one means a first life."""
    try:
        body: Any = json.loads(path.read_text())
        if body["format"] != _FORMAT:
            return Resume()
        return Resume(
            time=float(body["time"]),
            replicas={service: int(count) for service, count in body["replicas"].items()},
            limits={_split(edge): Limits(**limits) for edge, limits in body["limits"].items()},
            rate_limits={_split(route): float(rate) for route, rate in body["rate_limits"].items()},
            enforce=frozenset(_split(route) for route in body["enforce"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Resume()


def _join(pair: tuple[str, str]) -> str:
    return _SEPARATOR.join(pair)


def _split(text: str) -> tuple[str, str]:
    first, _, second = text.partition(_SEPARATOR)
    return first, second
