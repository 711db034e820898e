"""What can go wrong in the xDS library.

    XdsError
    ├── TranslateError      the mesh model, or a runtime value in it, cannot become a resource
    ├── SnapshotError       resources contradict each other
    ├── ResourceError       a resource that a user wrote is wrong; holds every problem
    ├── CodecError          bytes from the wire are not the message that they should be
    ├── LeaseError          something must not be leased: its value, its type, or what would follow
    ├── RemoteError         a client broke the protocol; its stream ends
    │   ├── AccessDenied    its certificate does not make it what it says it is
    │   └── LimitExceeded   it wants more than it may
    ├── InternalError       a fault of ours that cost one stream
    ├── PreflightError      there is no Envoy that could validate anything
    ├── TlsError            certificate files that cannot be served
    └── PortInUse           the server's address is taken

Every message says what was wrong, where, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class XdsError(Exception):
    """Anything that this library raises on purpose."""


class TranslateError(XdsError):
    """A mesh, or a runtime value, that has no meaning to Envoy."""


class SnapshotError(XdsError):
    """A snapshot whose resources refer to something that it does not hold."""


class ResourceError(XdsError):
    """Resources that cannot be used; ``problems`` has one line per problem, each with file, line and field."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class CodecError(XdsError):
    """Bytes that do not decode."""


class LeaseError(XdsError):
    """A runtime layer or resource that must not be leased as it is, or at all."""


class RemoteError(XdsError):
    """A client's violation of the protocol; the message is sent to it with status INVALID_ARGUMENT."""


class AccessDenied(RemoteError):  # noqa: N818  # says what is the case
    """A peer that may not be the node that it says it is.

    ``str()`` says it to the operator; the peer itself learns only that it was denied. ``reason`` is one word.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LimitExceeded(RemoteError):  # noqa: N818  # says what is the case
    """A client that wants more than the server's limits allow. ``reason`` is one word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InternalError(XdsError):
    """A stream failed in a way that nobody foresaw. The log has the traceback, the client learns only that."""


class TlsError(XdsError):
    """Certificate, key or CA file that cannot be read or do not belong together."""


class PreflightError(XdsError):
    """Pre-flight cannot work here; what it would say about a snapshot is never an exception."""


class PortInUse(XdsError):  # noqa: N818  # says what is the case, like FileExistsError of the standard library
    """The address that the server should listen on is taken."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"cannot listen on {host}:{port}: the address is in use or not this machine's; "
            "stop the process that holds it, or choose another port (controller.xds.port; 0 picks a free one)"
        )
        self.host = host
        self.port = port
