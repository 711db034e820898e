"""Tells the server's owner what happens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from xds.protocol.events import Response
from xds.status import EventKind, XdsEvent
from xds.types import short_name

log = logging.getLogger(__name__)


class Herald:
    """``listener`` hears of events of these ``kinds``; one that fails must not cost a proxy its stream."""

    def __init__(
        self, listener: Callable[[XdsEvent], None] | None, kinds: Collection[EventKind], clock: Callable[[], float]
    ) -> None:
        self._listener = listener
        self._kinds = frozenset(kinds) if listener is not None else frozenset()
        self._clock = clock

    def tell(self, kind: EventKind, node_id: str, type_url: str = "", version: str = "", message: str = "") -> None:
        """Something happened."""
        if self._listener is None or kind not in self._kinds:
            return
        event = XdsEvent(kind, node_id, short_name(type_url) if type_url else "", version, message, self._clock())
        try:
            self._listener(event)
        except Exception:
            log.exception("a listener failed on %s", event)

    def pushed(self, node_id: str, response: Response) -> None:
        """A response goes out. Heartbeats are no news."""
        if "push" in self._kinds and not response.heartbeat:
            self.tell("push", node_id, response.type_url, response.version, _content(response))


def _content(response: Response) -> str:
    """What was pushed, in a few words."""
    parts = [f"{len(response.names)} sent"]
    if response.removed:
        parts.append(f"{len(response.removed)} removed")
    return ", ".join(parts)
