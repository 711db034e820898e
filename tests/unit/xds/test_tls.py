"""Certificate files: proven before they are served, taken into force when they change, kept when new ones are bad."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.support.certificates import Authority
from xds.errors import TlsError
from xds.server.tls import Rotation, TlsChange, TlsFiles, not_after, read

NOW = datetime.now(UTC).timestamp()


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> TlsFiles:
    certificate, key = authority.issue("localhost").write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    return TlsFiles(certificate, key, tmp_path / "ca.pem")


class Watched:
    """A rotation whose clock is ours."""

    def __init__(self, files: TlsFiles) -> None:
        self.now = NOW
        self.changes: list[TlsChange] = []
        self.rotation = Rotation(files, lambda: self.now, self.changes.append)

    def look(self) -> list[str]:
        """Outcomes reported by two looks, two seconds apart."""
        self.changes.clear()
        self.rotation.look()
        self.now += 2
        self.rotation.look()
        return [change.outcome for change in self.changes]


def test_a_new_certificate_is_taken_into_force(files: TlsFiles, authority: Authority) -> None:
    watched = Watched(files)
    assert watched.rotation.fetch() is None, "gRPC has the first one already"
    fresh = authority.issue("localhost")
    fresh.write(files.key.parent, "server")
    assert watched.look() == ["rotated"]
    assert watched.rotation.material.certificate == fresh.certificate
    assert watched.rotation.fetch() is not None
    assert watched.rotation.fetch() is None
    assert watched.look() == []


def test_a_handshake_sees_new_files_without_anybody_looking(files: TlsFiles, authority: Authority) -> None:
    watched = Watched(files)
    authority.issue("localhost").write(files.key.parent, "server")
    assert watched.rotation.fetch() is not None


def test_a_new_ca_is_taken_into_force(files: TlsFiles) -> None:
    watched = Watched(files)
    files.client_ca.write_bytes(Authority("next").pem + files.client_ca.read_bytes())
    assert watched.look() == ["rotated"]
    assert watched.rotation.material.client_ca.count(b"BEGIN CERTIFICATE") == 2


def test_a_folder_that_a_link_replaces_is_seen(tmp_path: Path, files: TlsFiles, authority: Authority) -> None:
    """Kubernetes mounts secrets so: all files change at once."""
    first, second = tmp_path / "v1", tmp_path / "v2"
    for folder in (first, second):
        folder.mkdir()
        authority.issue("localhost").write(folder, "server")
        shutil.copy(files.client_ca, folder)
    link = tmp_path / "current"
    link.symlink_to(first)
    watched = Watched(TlsFiles(link / "server.pem", link / "server.key", link / "ca.pem"))
    (tmp_path / "next").symlink_to(second)
    (tmp_path / "next").rename(link)
    assert watched.look() == ["rotated"]
    assert watched.rotation.material.certificate == (second / "server.pem").read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("server.pem", b""),
        ("server.pem", b"junk"),
        ("server.key", b"junk"),
        ("ca.pem", b""),
        ("ca.pem", b"\xff\xfe"),
        ("ca.pem", "cut"),
        ("server.pem", "cut"),
        ("server.pem", "other"),
        ("server.key", None),
        ("server.pem", "expired"),
        ("server.key", "password"),
    ],
)
def test_broken_files_keep_the_old_ones_in_force(
    files: TlsFiles, authority: Authority, name: str, content: bytes | str | None
) -> None:
    watched, path = Watched(files), files.key.parent / name
    before = watched.rotation.material
    if content == "cut":
        content = path.read_bytes() + path.read_bytes()[:-80]
        content = path.read_bytes()[:-80] if name == "server.pem" else content
    elif content == "other":
        content = authority.issue("localhost").certificate
    elif content == "expired":
        issued = authority.issue("localhost", life=timedelta(minutes=-30))
        files.key.write_bytes(issued.key)
        content = issued.certificate
    elif content == "password":
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        secret = serialization.BestAvailableEncryption(b"secret")
        content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    if content is None:
        path.unlink()
    else:
        assert isinstance(content, bytes)
        path.write_bytes(content)
    assert watched.look() == ["refused"]
    message = watched.changes[0].message
    assert str(path) in message
    assert message.endswith("; the old certificate stays in force")
    assert watched.rotation.material == before
    assert watched.look() == [], "one report per problem"
    authority.issue("localhost").write(files.key.parent, "server")
    files.client_ca.write_bytes(authority.pem)
    assert watched.look() == ["rotated"], "and the way out is to repair the files"


def test_files_that_are_replaced_one_after_the_other_are_no_news(files: TlsFiles, authority: Authority) -> None:
    watched, fresh = Watched(files), authority.issue("localhost")
    files.certificate.write_bytes(fresh.certificate)
    watched.rotation.look()
    watched.now += 0.1
    watched.rotation.look()
    files.key.write_bytes(fresh.key)
    watched.rotation.look()
    assert [change.outcome for change in watched.changes] == ["rotated"]


def test_a_server_does_not_start_with_what_it_cannot_serve(files: TlsFiles) -> None:
    files.key.unlink()
    with pytest.raises(TlsError, match=r"tls\.key: .*server\.key cannot be read: no such file.*PEM"):
        Rotation(files, lambda: NOW)


def test_no_key_is_shown(files: TlsFiles) -> None:
    assert "PRIVATE" not in repr(read(files, NOW))
    assert "BEGIN" not in repr(Rotation(files, lambda: NOW).material)


@pytest.mark.parametrize("days", [1, 400, 20_000, 60_000])
def test_the_end_of_a_certificate(authority: Authority, days: int) -> None:
    """Years from 2050 on are written in another way."""
    certificate = authority.issue("a", life=timedelta(days=days)).certificate
    known = x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()
    assert not_after(certificate) == known
    assert not_after(certificate + authority.pem) == known, "the first one counts"


@pytest.mark.parametrize("junk", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_has_no_end(junk: bytes) -> None:
    with pytest.raises(TlsError):
        not_after(junk)
