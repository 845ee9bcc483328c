"""Certificates for a stack that speaks TLS, from a certificate authority that nobody can use again."""

import shlex
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import grpc
import trustme
from cryptography import x509

from devstack.errors import StackError
from devstack.identity import write_private
from server.tls import Peer

FOR_PEOPLE = ("localhost", "127.0.0.1", "::1")
SERVER_NAMES = ("api", "notification-api", "analytics-api", *FOR_PEOPLE)
"""Whom the server's certificate is for: those names of our servers that Envoy insists on, and what people call."""

LIFETIME = timedelta(days=90)
RENEWED_BEFORE_END = timedelta(days=14)


@dataclass(frozen=True)
class Tls:
    """How a stack speaks TLS: the API's port always with certificates on both sides; Envoy's only if `mutual`.

    All is in `folder`: `ca.pem`, for whoever calls; `client-ca.pem`, for whoever is called, the same here; the pairs
    `server.pem` and `server-key.pem`, `client.pem` and `client-key.pem`. The CA's own key is never written.
    """

    folder: Path
    mutual: bool

    @classmethod
    def from_env(cls, env: Mapping[str, str], folder: Path) -> Self | None:
        """Reads TLS: 1 or `mutual`, or nothing; StackError for anything else."""
        mode = env.get("TLS") or "0"
        if mode not in {"0", "1", "mutual"}:
            raise StackError(f"TLS is {mode!r}; it must be 1, mutual, or 0 for none")
        return None if mode == "0" else cls(folder, mutual=mode == "mutual")

    @property
    def ca(self) -> Path:
        """Whom callers trust."""
        return self.folder / "ca.pem"

    @property
    def client_ca(self) -> Path:
        """Who vouches for callers."""
        return self.folder / "client-ca.pem"

    @property
    def server(self) -> tuple[Path, Path]:
        """Certificate and key of the API and of Envoy."""
        return self.folder / "server.pem", self.folder / "server-key.pem"

    @property
    def client(self) -> tuple[Path, Path]:
        """Certificate and key of those who call the API or Envoy."""
        return self.folder / "client.pem", self.folder / "client-key.pem"

    @property
    def files(self) -> list[Path]:
        """Every file, the last one that `provide` writes at the end."""
        return [*self.server, *self.client, self.client_ca, self.ca]

    def provide(self, now: datetime | None = None) -> None:
        """Makes the files anew where one is missing or damaged, or where a certificate ends within two weeks."""
        now = now or datetime.now(UTC)
        if not self._is_good(now + RENEWED_BEFORE_END):
            self._make(now)

    def service_env(self) -> dict[str, str]:
        """What the API needs in its environment to speak TLS."""
        certificate, key = map(str, self.server)
        return {"TLS_CERT_FILE": certificate, "TLS_KEY_FILE": key, "TLS_CLIENT_CA_FILE": str(self.client_ca)}

    def context(self) -> ssl.SSLContext:
        """For an HTTP client that trusts the CA and has the client's certificate."""
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(*self.client)
        return context

    def peer(self) -> Peer:
        """For a gRPC client, likewise."""
        certificate, key = (path.read_bytes() for path in self.client)
        return Peer(grpc.ssl_channel_credentials(self.ca.read_bytes(), key, certificate), FOR_PEOPLE[0])

    def curl_options(self) -> str:
        """What curl needs to be told to call Envoy."""
        own = ["--cert", str(self.client[0]), "--key", str(self.client[1])] if self.mutual else []
        return shlex.join(["--cacert", str(self.ca), *own])

    def grpcurl_options(self) -> str:
        """What grpcurl needs to be told to call the API."""
        return shlex.join(["-cacert", str(self.ca), "-cert", str(self.client[0]), "-key", str(self.client[1])])

    def _is_good(self, then: datetime) -> bool:
        try:
            contents = [path.read_bytes() for path in self.files]
            certificates = [x509.load_pem_x509_certificate(pem) for pem in contents if b"PRIVATE KEY" not in pem]
        except (FileNotFoundError, ValueError):
            return False
        if len(certificates) != len(self.files) - 2 or any(c.not_valid_after_utc <= then for c in certificates):
            return False
        # One from before the names were what they are now is no good either.
        return set(SERVER_NAMES) <= set(_names(certificates[0]))

    def _make(self, now: datetime) -> None:
        authority = trustme.CA(organization_name="devstack, throw-away")
        end = now + LIFETIME
        # While it is missing the set counts as unfinished.
        self.ca.unlink(missing_ok=True)
        _write(self.server, authority.issue_cert(*SERVER_NAMES, not_after=end))
        _write(self.client, authority.issue_cert("client.devstack", not_after=end))
        for path in (self.client_ca, self.ca):
            write_private(path, authority.cert_pem.bytes())


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def _write(pair: tuple[Path, Path], leaf: trustme.LeafCert) -> None:
    certificate, key = pair
    write_private(certificate, b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    write_private(key, leaf.private_key_pem.bytes())
