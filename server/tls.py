"""TLS on the service's own port: files that are checked by name at the start, and read anew when they change."""

import os
import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from server import telemetry

_log = structlog.stdlib.get_logger("nibble.tls")

Stamp = tuple[tuple[int, int, int], ...]
"""Modification time in nanoseconds, size and inode of each file: something changes when a file does."""


class TlsFiles(NamedTuple):
    """Where the server's certificate and key are, and who vouches for its clients, all in PEM.

    `certificate` holds the server's own first, then those between it and its CA. Without `client_ca` clients need no
    certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None


class UnusableTls(Exception):
    """A file is missing, or is not what its setting promises; the message begins with the setting."""


def server_credentials(files: TlsFiles, clock: Callable[[], datetime]) -> grpc.ServerCredentials:
    """What a server port needs to speak TLS (1.2 or newer) with what is in these files, now and whenever they change.

    They are looked at before every handshake. While what they hold is not usable, the last that was stays in use.

    Raises:
        UnusableTls: there is nothing usable to begin with.
    """
    source = CertificateSource(files, clock)
    # The stubs know nothing of the None that gRPC takes for "no change".
    newer: Any = source.newer
    return grpc.dynamic_ssl_server_credentials(source.first, newer, files.client_ca is not None)


class CertificateSource:
    """Reads the files again once they have changed."""

    def __init__(self, files: TlsFiles, clock: Callable[[], datetime]) -> None:
        """Raises UnusableTls."""
        self._files = files
        self._clock = clock
        self._complaint = ""
        # Taken before the files are read: a change in between is one more reading, and none is missed.
        self._stamp = _stamp(files)
        self.first = _configuration(files, clock())

    def newer(self) -> grpc.ServerCertificateConfiguration | None:
        """What the files hold, when they have changed to something usable; gRPC calls it, in any thread."""
        try:
            stamp = _stamp(self._files)
            return None if stamp == self._stamp else self._renewed(stamp)
        except UnusableTls as error:
            self._complain(str(error))
            return None

    def _renewed(self, stamp: Stamp) -> grpc.ServerCertificateConfiguration:
        configuration = _configuration(self._files, self._clock())
        self._stamp, self._complaint = stamp, ""
        _log.info("certificates renewed")
        return configuration

    def _complain(self, problem: str) -> None:
        # Once, not at every handshake. A certificate that is replaced before its key comes by here, too.
        if problem != self._complaint:
            _log.error("certificates not renewed; the last good ones stay in use", problem=problem)
        self._complaint = problem


def _stamp(files: TlsFiles) -> Stamp:
    settings = ("TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE")
    found = [_stat(setting, path) for setting, path in zip(settings, files, strict=True) if path is not None]
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in found)


def _stat(setting: str, path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise UnusableTls(f"{setting} can't be read: {error}") from error


def _configuration(files: TlsFiles, now: datetime) -> grpc.ServerCertificateConfiguration:
    chain, key = _read("TLS_CERT_FILE", files.certificate), _read("TLS_KEY_FILE", files.key)
    own = _certificates("TLS_CERT_FILE", chain)[0]
    _check_pair(own, key, now)
    roots = None
    if files.client_ca is not None:
        roots = _read("TLS_CLIENT_CA_FILE", files.client_ca)
        _check_authorities(_certificates("TLS_CLIENT_CA_FILE", roots), now)
    telemetry.CERTIFICATE_EXPIRY.set(own.not_valid_after_utc.timestamp())
    return grpc.ssl_server_certificate_configuration([(key, chain)], roots)


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableTls(f"{setting} can't be read: {error}") from error


def _certificates(setting: str, pem: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem)
        for certificate in found:
            # Read only when somebody asks, and then, during a handshake, it would be too late to say what is wrong.
            list(certificate.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise UnusableTls(f"{setting} holds no certificate in PEM form, or one that is damaged") from error
    return found


def _check_pair(certificate: x509.Certificate, key_pem: bytes, now: datetime) -> None:
    if not _in_force(certificate, now):
        span = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M}"
        raise UnusableTls(f"TLS_CERT_FILE holds a certificate that is not valid now, but from {span} UTC")
    if not _names(certificate):
        raise UnusableTls("TLS_CERT_FILE holds a certificate that names no host (subjectAltName)")
    if _private_key(key_pem).public_key() != _public_key(certificate):
        raise UnusableTls("TLS_KEY_FILE does not match the first certificate in TLS_CERT_FILE")


def _private_key(pem: bytes) -> RSAPrivateKey | EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableTls("TLS_KEY_FILE holds no private key in PEM form without a password") from error
    # gRPC would take another kind without a word, and then fail every handshake.
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
        raise UnusableTls("TLS_KEY_FILE holds a key that is neither RSA nor on an elliptic curve of NIST's")
    return key


def _public_key(certificate: x509.Certificate) -> object:
    """None where it is of a kind that nothing here knows, and so no key's other half."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def _check_authorities(certificates: list[x509.Certificate], now: datetime) -> None:
    # gRPC would trust whoever owns a certificate that stands here, CA or not.
    if not all(_is_authority(certificate) for certificate in certificates):
        raise UnusableTls("TLS_CLIENT_CA_FILE holds a certificate that is no CA's")
    if not any(_in_force(certificate, now) for certificate in certificates):
        raise UnusableTls("TLS_CLIENT_CA_FILE holds no CA certificate that is valid now")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _in_force(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


class Peer(NamedTuple):
    """What a client needs to speak TLS with one server: its credentials, and the name that the server goes by."""

    credentials: grpc.ChannelCredentials
    name: str


def whoever_listens(host: str, port: int, own: tuple[Path, Path] | None, timeout: float) -> Peer:
    """The server at that address, whatever certificate it shows: for a probe on the same machine, and nothing else.

    So the probe asks whether the server serves, in the middle of a change of certificates too, and not who it is.

    Args:
        own: certificate and key to show, where the server wants one.

    Raises:
        OSError: nobody listens there, or not with TLS, or a file of `own` can't be read.
    """
    shown = ssl.get_server_certificate((host, port), timeout=timeout).encode()
    names = _names(x509.load_pem_x509_certificate(shown))
    chain, key = (path.read_bytes() for path in own) if own else (None, None)
    return Peer(grpc.ssl_channel_credentials(shown, key, chain), names[0].replace("*", "probe"))
