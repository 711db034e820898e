"""The gRPC server: streams of bytes on one side, the machines of :mod:`xds.protocol` on the other.

:mod:`~xds.server.serving` is the server and what its owner calls, :mod:`~xds.server.connection` one open stream,
:mod:`~xds.server.services` which gRPC method serves what, and :mod:`~xds.server.settings` every number that an
operator may want to change.
"""

from xds.server.serving import XdsServer
from xds.server.settings import Settings

__all__ = ["Settings", "XdsServer"]
