"""What is checked of the files for TLS before they are used, and when they are read again."""

import os
import re
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from server.tls import CertificateSource, TlsFiles, UnusableTls, server_credentials

NOW = datetime(2026, 6, 1, tzinfo=UTC)
AUTHORITY = trustme.CA()
A_DAY = timedelta(days=1)


def issue(not_before: datetime | None = None, not_after: datetime | None = None) -> trustme.LeafCert:
    return AUTHORITY.issue_cert("api", not_before=not_before, not_after=not_after)


def write(files: TlsFiles, leaf: trustme.LeafCert) -> None:
    replace(files.certificate, leaf.cert_chain_pems[0].bytes())
    replace(files.key, leaf.private_key_pem.bytes())


def replace(file: Path, content: bytes) -> None:
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.replace(file)


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    """Good ones."""
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "key.pem", tmp_path / "ca.pem")
    write(files, issue())
    replace(tmp_path / "ca.pem", AUTHORITY.cert_pem.bytes())
    return files


def complaint(files: TlsFiles) -> str:
    with pytest.raises(UnusableTls) as refusal:
        server_credentials(files, lambda: NOW)
    return str(refusal.value)


def missing(file: Path) -> None:
    file.unlink()


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def prose(file: Path) -> None:
    file.write_text("-----BEGIN NONSENSE-----")


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


@pytest.mark.parametrize("damage", [missing, a_folder, empty, prose, cut_short])
@pytest.mark.parametrize(("setting", "which"), [("TLS_CERT_FILE", 0), ("TLS_KEY_FILE", 1), ("TLS_CLIENT_CA_FILE", 2)])
def test_a_file_that_is_none_is_named_by_its_setting(
    files: TlsFiles, setting: str, which: int, damage: Callable[[Path], None]
) -> None:
    damaged = files[which]
    assert damaged is not None
    damage(damaged)
    assert complaint(files).startswith(f"{setting} ")


def garble_extensions(file: Path) -> None:
    """Damages alternative names or basic constraints where a certificate is not read until somebody asks for them."""
    content = ssl.PEM_cert_to_DER_cert(file.read_text())
    damaged = re.sub(rb"(\x06\x03\x55\x1d[\x11\x13](?:\x01\x01\xff)?\x04.)\x30", rb"\g<1>1", content, flags=re.DOTALL)
    assert damaged != content
    replace(file, ssl.DER_cert_to_PEM_cert(damaged).encode())


@pytest.mark.parametrize(("setting", "which"), [("TLS_CERT_FILE", 0), ("TLS_CLIENT_CA_FILE", 2)])
def test_a_certificate_that_is_damaged_deep_inside_is_refused_at_the_start_and_passed_over_later(
    files: TlsFiles, setting: str, which: int
) -> None:
    source = CertificateSource(files, lambda: NOW)
    damaged = files[which]
    assert damaged is not None
    garble_extensions(damaged)
    assert complaint(files).startswith(f"{setting} ")
    assert source.newer() is None


def test_good_files_are_taken_with_and_without_client_certificates(files: TlsFiles) -> None:
    assert isinstance(server_credentials(files, lambda: NOW), grpc.ServerCredentials)
    assert isinstance(server_credentials(files._replace(client_ca=None), lambda: NOW), grpc.ServerCredentials)


def test_a_key_of_another_certificate_is_refused(files: TlsFiles) -> None:
    replace(files.key, issue().private_key_pem.bytes())
    assert complaint(files).startswith("TLS_KEY_FILE does not match")


def test_a_key_with_a_password_is_refused(files: TlsFiles) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    replace(files.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    assert complaint(files).startswith("TLS_KEY_FILE holds no private key")


def test_a_kind_of_key_that_no_handshake_would_take_is_refused(files: TlsFiles) -> None:
    key = Ed25519PrivateKey.generate()
    replace(files.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert complaint(files).startswith("TLS_KEY_FILE holds a key that is neither")


@pytest.mark.parametrize(
    "span",
    [
        {"not_before": NOW - 2 * A_DAY, "not_after": NOW - A_DAY},
        {"not_before": NOW + A_DAY, "not_after": NOW + 2 * A_DAY},
    ],
    ids=["expired", "not yet valid"],
)
def test_a_certificate_outside_of_its_time_is_refused_with_its_span(files: TlsFiles, span: dict[str, datetime]) -> None:
    write(files, issue(**span))
    assert complaint(files).startswith("TLS_CERT_FILE holds a certificate that is not valid now, but from 2026-0")


def test_a_certificate_that_names_no_host_is_refused(files: TlsFiles) -> None:
    write(files, AUTHORITY.issue_cert(common_name="api"))
    assert complaint(files).startswith("TLS_CERT_FILE holds a certificate that names no host")


def test_a_certificate_that_is_no_authoritys_vouches_for_nobody(files: TlsFiles) -> None:
    assert files.client_ca is not None
    replace(files.client_ca, AUTHORITY.cert_pem.bytes() + issue().cert_chain_pems[0].bytes())
    assert complaint(files) == "TLS_CLIENT_CA_FILE holds a certificate that is no CA's"


def test_authorities_that_have_all_ended_vouch_for_nobody(files: TlsFiles) -> None:
    after_all = datetime(4000, 1, 1, tzinfo=UTC)
    write(files, issue(not_after=after_all + A_DAY))
    with pytest.raises(UnusableTls, match=r"^TLS_CLIENT_CA_FILE holds no CA certificate that is valid now"):
        server_credentials(files, lambda: after_all)


def test_no_file_is_read_again_until_one_has_changed(files: TlsFiles) -> None:
    source = CertificateSource(files, lambda: NOW)
    assert source.newer() is None
    write(files, issue())
    assert source.newer() is not None
    assert source.newer() is None


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_change_of_any_file_is_seen_when_size_and_time_are_the_same(files: TlsFiles, which: int) -> None:
    file = files[which]
    assert file is not None
    before = file.stat()
    source = CertificateSource(files, lambda: NOW)
    replace(file, file.read_bytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert source.newer() is not None


def test_what_is_not_usable_is_passed_over_and_said_once_until_it_is(
    files: TlsFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    source = CertificateSource(files, lambda: NOW)
    renewed = issue()
    replace(files.certificate, renewed.cert_chain_pems[0].bytes())
    assert [source.newer() for _ in range(3)] == [None] * 3
    assert capsys.readouterr().out.count("TLS_KEY_FILE does not match") == 1
    replace(files.key, renewed.private_key_pem.bytes())
    assert source.newer() is not None
    assert "certificates renewed" in capsys.readouterr().out


def test_a_file_that_is_away_for_a_while_changes_nothing(files: TlsFiles) -> None:
    source = CertificateSource(files, lambda: NOW)
    content = files.key.read_bytes()
    files.key.unlink()
    assert source.newer() is None
    replace(files.key, content)
    assert source.newer() is not None
