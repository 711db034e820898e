"""Messages between a sharded server and its workers: a JSON head and bytes, each with its length in front.

Plain data in both directions, so that neither side runs what the other says. What a worker says is bounded: it
speaks for strangers.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from xds.errors import CodecError
from xds.server.identity import Policy
from xds.server.settings import Settings
from xds.server.tls import TlsFiles
from xds.status import EventKind

_LENGTHS = struct.Struct(">II")
#: Bytes of a frame that a worker may send; load reports and forwarded calls are bounded by gRPC's own limit.
MAX_FROM_WORKER = 128 * 1024 * 1024
_MAX = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Start:
    """How a worker begins; sent once, by the process that started it."""

    host: str
    port: int
    settings: Settings
    tls: TlsFiles | None
    policy: Policy | None
    kinds: Collection[EventKind]
    events: bool
    loads: bool
    converged: bool
    first: bool


class Frame(NamedTuple):
    """One message."""

    head: dict[str, Any]
    body: bytes


def pack(head: Mapping[str, Any], bodies: Sequence[bytes] = ()) -> bytes:
    """The bytes of a message. CodecError if it is larger than a length can say (4 GiB)."""
    text = json.dumps(head, separators=(",", ":")).encode()
    length = sum(map(len, bodies))
    if max(len(text), length) > _MAX:
        raise CodecError(f"{length} bytes are too many for one message to a worker; publish fewer resources")
    return b"".join((_LENGTHS.pack(len(text), length), text, *bodies))


async def read(reader: asyncio.StreamReader, limit: int = 2 * _MAX) -> Frame | None:
    """The next message; None when the other side has gone. CodecError if it is none, or larger than ``limit``."""
    try:
        lengths = await reader.readexactly(_LENGTHS.size)
        head, body = _LENGTHS.unpack(lengths)
        if head + body > limit:
            raise CodecError(f"a message of {head + body} bytes; expected at most {limit}")
        text = await reader.readexactly(head)
        rest = await reader.readexactly(body)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return Frame(_object(text), rest)


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CodecError(f"a message whose head is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise CodecError("a message whose head is no JSON object")
    return found


def start_message(start: Start) -> tuple[dict[str, Any], list[bytes]]:
    """Settings are Python's own values, and whoever starts a process may tell it anything: this alone is pickled."""
    return {"op": "start"}, [pickle.dumps(start)]


def start_of(frame: Frame) -> Start:
    """The inverse of :func:`start_message`, for the process that was started."""
    start: Start = pickle.loads(frame.body)  # noqa: S301 - from the process that started this one
    return start


def policy_frame(policy: Policy) -> tuple[dict[str, Any], list[bytes]]:
    """A policy that takes the place of the one in :class:`Start`, pickled for the same reason."""
    return {"op": "policy"}, [pickle.dumps(policy)]


def policy_of(frame: Frame) -> Policy:
    """The policy of a frame of :func:`policy_frame`."""
    policy: Policy = pickle.loads(frame.body)  # noqa: S301 - from the process that started this one
    return policy
