"""An xDS server for integration tests, and what it heard."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.envoys import HOST
from xds.server import Settings, XdsServer
from xds.status import XdsEvent

NODE = "catalog-0"


class Mesh:
    """A server and what it heard; it can be stopped and started again on the same port.

    It does not wait for quiet: what was published is what should be there.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.events: list[XdsEvent] = []
        self._settings = settings or Settings(debounce_seconds=0)
        self.server = self._made()
        self.port = 0

    def _made(self) -> XdsServer:
        return XdsServer(on_event=self.events.append, settings=self._settings)

    async def start(self) -> None:
        self.server = self._made()
        self.port = await self.server.start(HOST, self.port)

    async def stop(self) -> None:
        await self.server.stop(0.2)

    def states(self) -> dict[str, str]:
        node = self.server.status.node(NODE)
        return {} if node is None or not node.connected else {name: one.state for name, one in node.types.items()}

    def synced(self, *types: str) -> bool:
        states = self.states()
        return set(types) <= states.keys() and all(states[name] == "SYNCED" for name in types)

    def is_synced(self, *types: str) -> Callable[[], bool]:
        """A condition to wait for."""
        return lambda: self.synced(*types)

    def pushed(self) -> list[str]:
        return [event.type for event in self.events if event.kind == "push"]
