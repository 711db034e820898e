"""The gRPC server: streams of bytes on one side, the machines of :mod:`xds.protocol` on the other.

:mod:`~xds.server.serving` is the server and what its owner calls, :mod:`~xds.server.connection` one open stream,
:mod:`~xds.server.services` which gRPC method serves what, and :mod:`~xds.server.settings` every number that an
operator may want to change. :mod:`~xds.server.sharding` is the same server in several processes. Import this package
before anything else that loads gRPC (:mod:`~xds.server.polling` tells why).
"""

import xds.server.polling  # noqa: F401 - before whatever loads gRPC
from xds.server.listening import listening
from xds.server.serving import XdsServer
from xds.server.settings import Settings
from xds.server.shard_status import ShardedStatus
from xds.server.sharding import ShardedServer
from xds.status import StatusBoard

__all__ = ["Board", "Settings", "ShardedServer", "XdsServer", "listening"]

#: What tells the status of either server.
Board = StatusBoard | ShardedStatus
