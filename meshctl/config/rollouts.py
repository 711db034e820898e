"""How changes reach sidecars, and what becomes of sidecars that do not keep up:
``controller.xds.{canary, debounce, pushes, keepalive}``.

What each does is told in :class:`xds.server.settings.Settings`, whose defaults these are; only the canary is on here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from meshctl.config.scalars import Flag, duration, integer
from meshctl.config.section import Section


class XdsCanary(Section):
    """A change of anything but endpoints and leases goes first to one sidecar of a group, and to the rest when that
    one has accepted it. With several `workers`, each has a canary of its own."""

    enabled: Flag = True
    """Off: every change goes to everybody at once."""
    deadline: Annotated[float, *duration(0.1, 600)] = 5.0
    """What a canary has to accept everything."""
    on_deadline: Literal["roll-back", "publish"] = "roll-back"
    """What becomes of a change about which the canary said nothing in time."""


class XdsDebounce(Section):
    """Changes that follow each other closely are merged; leases never wait."""

    quiet: Annotated[float, *duration(0, 60)] = 0.1
    """A change after so long without one goes out at once, others once it has been quiet for so long; 0 is off."""
    cap: Annotated[float, *duration(0, 600)] = 10.0
    """The longest that a change waits for quiet."""


class XdsPushes(Section):
    """Responses on their way to sidecars."""

    concurrent: Annotated[int, *integer(1, 1_000_000)] = 1024
    """So many at once; others wait for their turn."""
    slow: Annotated[float, *duration(0.01, 600)] = 1.0
    """A sidecar that has not taken a response after so long no longer counts among them."""
    deadline: Annotated[float, *duration(1, 3600)] = 60.0
    """A sidecar that has not taken a response after so long counts as disconnected."""


class XdsKeepalive(Section):
    """How connections to nobody are found."""

    interval: Annotated[float, *duration(1, 3600)] = 30.0
    """A connection that is silent for so long is pinged."""
    timeout: Annotated[float, *duration(1, 600)] = 10.0
    """One that leaves a ping unanswered for so long is closed."""
