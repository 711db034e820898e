"""What can go wrong in the xDS library.

    XdsError
    ├── TranslateError      the mesh model, or a runtime value in it, cannot become a resource
    ├── SnapshotError       resources contradict each other
    ├── CodecError          bytes from the wire are not the message that they should be
    ├── LeaseError          a leased layer holds a value that Envoy would reject or ignore
    ├── RemoteError         a client broke the protocol; its stream ends
    └── PortInUse           the server's address is taken

Every message says what was wrong, where, what was expected and what to do.
"""

from __future__ import annotations


class XdsError(Exception):
    """Anything that this library raises on purpose."""


class TranslateError(XdsError):
    """A mesh, or a runtime value, that has no meaning to Envoy."""


class SnapshotError(XdsError):
    """A snapshot whose resources refer to something that it does not hold."""


class CodecError(XdsError):
    """Bytes that do not decode."""


class LeaseError(XdsError):
    """A runtime layer that must not be leased as it is."""


class RemoteError(XdsError):
    """A client's violation of the protocol; the message is sent to it with status INVALID_ARGUMENT."""


class PortInUse(XdsError):  # noqa: N818  # says what is the case, like FileExistsError of the standard library
    """The address that the server should listen on is taken."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"cannot listen on {host}:{port}: the address is in use or not this machine's; "
            "stop the process that holds it, or choose another port (controller.xds.port; 0 picks a free one)"
        )
        self.host = host
        self.port = port
