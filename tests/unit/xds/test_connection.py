"""One stream's connection: what it tells the server about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from tests.unit.xds.link import make
from xds import _wire_pb2 as wire
from xds import codec
from xds.protocol.events import Notice
from xds.protocol.responses import ResponseCache
from xds.protocol.sotw import SotwStream
from xds.server.admission import Admission
from xds.server.connection import Connection
from xds.server.gate import Visit
from xds.server.identity import Peer
from xds.server.settings import Limits
from xds.server.slots import Slots
from xds.types import CLUSTER


class Host:
    """A server that listens."""

    def __init__(self) -> None:
        self.heard: list[Sequence[Notice]] = []

    def now(self) -> float:
        return 0.0

    def introduced(self, connection: Connection, request: Any) -> None:
        connection.machine.publish(make.snapshot(make.cluster("a")))

    def opened(self, connection: Connection) -> None: ...

    def sent(self, connection: Connection, response: Any) -> None: ...

    def rested(self, connection: Connection) -> None: ...

    def noted(self, connection: Connection, notices: Sequence[Notice]) -> None:
        self.heard.append(notices)


async def test_a_request_that_answers_nothing_is_told_of() -> None:
    """A canary that asks for something more, or no longer, has come further without an ACK."""
    host, peer = Host(), Peer("127.0.0.1")
    visit = Visit(peer, Admission(Limits()).enter(peer.key, 0.0))
    machine = SotwStream("n", ResponseCache())
    connection = Connection(machine, codec.decode_sotw_request, cast(Any, host), visit, Slots(1, 1.0, 60.0))
    for names in (["a"], ["a", "b"], ["a", "b"]):
        request = wire.DiscoveryRequest(type_url=CLUSTER, resource_names=names, node=wire.Node(id="catalog-0"))
        connection._receive(request.SerializeToString())
    assert host.heard == [[], [], []]
