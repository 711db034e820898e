"""Mutual TLS on the port: certificate, key and client CA from files, which are read again when they change.

gRPC asks for the configuration before every handshake, on a thread of its own, so a rotated certificate needs no
restart: connections that exist stay, new ones see the new one. What was read is proven first (the key belongs to the
certificate, both are complete and not expired, the CA file holds certificates); files that fail keep the old
ones in force and are reported. https://grpc.github.io/grpc/python/grpc.html#grpc.dynamic_ssl_server_credentials
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

import grpc

from xds.errors import TlsError

#: Seconds between two looks at files that no new connection asks for.
LOOK_EVERY = 2.0
#: Files that do not belong together for less than this (seconds) are being replaced one after the other.
_SETTLES = 1.0
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"

Signature = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Peers must present a certificate that chains to ``client_ca``."""

    certificate: Path
    """The server's certificate, followed by intermediates if there are any."""

    key: Path
    """Its private key, without a password."""

    client_ca: Path
    """The CAs that sign what peers present."""


@dataclass(frozen=True, slots=True)
class Material:
    """What the files held when they were proven to belong together. ``expires`` is in seconds since the epoch."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    client_ca: bytes = field(repr=False)
    expires: float


@dataclass(frozen=True, slots=True)
class TlsChange:
    """New files were taken into force, or were refused and the old ones stay."""

    outcome: Literal["rotated", "refused"]
    message: str


class Rotation:
    """The material in force. ``clock`` is in seconds since the epoch; ``on_change`` may be called on any thread.

    TlsError if the files cannot be used: a server does not start with what it cannot serve.
    """

    def __init__(
        self, files: TlsFiles, clock: Callable[[], float], on_change: Callable[[TlsChange], None] = lambda _: None
    ) -> None:
        self._files = files
        self._clock = clock
        self._on_change = on_change
        self._lock = threading.Lock()
        self._seen = signature(files)
        self.material = read(files, clock())
        self._served = self.material
        self._broken_since: float | None = None
        self._reported = ""

    def credentials(self) -> grpc.ServerCredentials:
        """What a port is opened with. Peers without a certificate are refused in the handshake."""
        # None means "unchanged" to gRPC; its type stubs do not know that.
        fetch = cast(Callable[[], grpc.ServerCertificateConfiguration], self.fetch)
        return grpc.dynamic_ssl_server_credentials(_configuration(self.material), fetch, True)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """The configuration for the next handshake; None while the last one is still right."""
        self.look()
        with self._lock:
            if self._served is self.material:
                return None
            self._served = self.material
            return _configuration(self.material)

    def look(self) -> None:
        """Take changed files into force if they are good."""
        with self._lock:
            change = self._look()
        if change is not None:
            self._on_change(change)

    async def watch(self) -> None:
        """Look again and again, so that a broken file is reported before anybody connects."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await asyncio.to_thread(self.look)

    def _look(self) -> TlsChange | None:
        try:
            now_there = signature(self._files)
            if now_there == self._seen:
                return None
            material = read(self._files, self._clock())
        except TlsError as error:
            return self._refuse(str(error))
        self._seen, self._broken_since, self._reported = now_there, None, ""
        changed, self.material = material != self.material, material
        expires = datetime.fromtimestamp(material.expires, UTC).isoformat(timespec="seconds")
        return TlsChange("rotated", f"new certificate in force, valid until {expires}") if changed else None

    def _refuse(self, problem: str) -> TlsChange | None:
        """Once per problem, and only if it lasts."""
        now = self._clock()
        since, self._broken_since = self._broken_since, self._broken_since or now
        if since is None or now - since < _SETTLES or problem == self._reported:
            return None
        self._reported = problem
        return TlsChange("refused", f"{problem}; the old certificate stays in force")


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.client_ca)


def signature(files: TlsFiles) -> Signature:
    """What changes when a file is written, replaced or reached by another symbolic link. TlsError if one is missing."""
    return tuple(_stat(path, name) for path, name in _named(files))


def _stat(path: Path, name: str) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, name, error) from error
    return found.st_ino, found.st_mtime_ns, found.st_size


def _named(files: TlsFiles) -> tuple[tuple[Path, str], ...]:
    return (files.certificate, "certificate"), (files.key, "key"), (files.client_ca, "client_ca")


def read(files: TlsFiles, now: float) -> Material:
    """The material of the files. TlsError, naming the file and what to do, if they cannot be served."""
    before = signature(files)
    certificate, key, client_ca = (_bytes(path, name) for path, name in _named(files))
    _check_pair(files)
    _check_authorities(files.client_ca, client_ca)
    if signature(files) != before:
        raise TlsError(f"tls: {files.certificate.parent}: files change while they are read; replace them by renaming")
    expires = not_after(certificate)
    if expires <= now:
        when = datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds")
        raise TlsError(f"tls.certificate: {files.certificate} expired at {when}; issue a new one")
    return Material(certificate, key, client_ca, expires)


def _bytes(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, name, error) from error


def _unreadable(path: Path, name: str, error: OSError) -> TlsError:
    reason = (error.strerror or "unreadable").lower()
    return TlsError(f"tls.{name}: {path} cannot be read: {reason}; expected a PEM file that this process may read")


def _check_pair(files: TlsFiles) -> None:
    """OpenSSL's own judgement. A key with a password must not make it ask for one on the terminal."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except (ssl.SSLError, ValueError, OSError) as error:
        reason = getattr(error, "reason", None) or "unreadable"
        raise TlsError(
            f"tls.certificate: {files.certificate} and tls.key: {files.key} are no pair ({reason}); expected a PEM "
            "certificate and its PEM private key without a password"
        ) from error


def _check_authorities(path: Path, pem: bytes) -> None:
    """A bundle that was cut short would silently trust fewer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii"))
        complete = context.cert_store_stats()["x509"] == len(set(_certificates(pem))) and pem.count(
            _BEGIN
        ) == pem.count(_END)
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(f"tls.client_ca: {path} holds no PEM certificate; expected those of the CAs of peers") from error
    if not complete:
        raise TlsError(f"tls.client_ca: {path} is incomplete; expected whole PEM certificates")


# When a certificate ends


def not_after(pem: bytes) -> float:
    """The end (seconds since the epoch) of the first certificate in ``pem``. TlsError if there is none.

    https://www.rfc-editor.org/rfc/rfc5280#section-4.1
    """
    try:
        certificate = ssl.PEM_cert_to_DER_cert(_certificates(pem)[0].decode("ascii"))
        fields = _children(_children(_children(certificate)[0][1])[0][1])
        validity = fields[4 if fields[0][0] == _VERSION else 3][1]
        tag, text = _children(validity)[1]
        return _time(tag, text.decode("ascii"))
    except (IndexError, ValueError) as error:
        raise TlsError("the file holds no X.509 certificate; expected PEM") from error


_VERSION, _UTC_TIME = 0xA0, 0x17


def _certificates(pem: bytes) -> list[bytes]:
    """The PEM blocks of certificates."""
    parts = (part.partition(_END)[0] for part in pem.split(_BEGIN)[1:])
    return [_BEGIN + part + _END for part in parts]


def _children(der: bytes) -> list[tuple[int, bytes]]:
    """(tag, content) of the values that stand one after another in ``der``."""
    found, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        found.append((tag, der[at : at + length]))
        at += length
    return found


def _time(tag: int, text: str) -> float:
    """UTCTime has two digits of the year: 50 to 99 are 1950 to 1999."""
    if tag == _UTC_TIME:
        text = ("19" if text >= "5" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
