"""Stands in for Nibble's identity provider on a development machine: a signing key, its JWKS, and tokens."""

import hashlib
import json
import os
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from devstack.errors import StackError

ISSUER = "https://identity.nibble.example"
AUDIENCE = "nibble-api"
ROLES = ("customer", "restaurant", "driver", "support_agent", "support_supervisor", "service")
"""Every role that a token may carry."""

LIFETIME_SECONDS = 8 * 60 * 60


class InsecureDevelopmentIdentity:
    """Signs whatever it is asked to, for anybody who can read its key file: never for production.

    Keeps an ES256 key in `signing-key.pem` and the public half in `jwks.json` of its folder.
    """

    def __init__(self, folder: Path) -> None:
        """Loads the key of an identity that `create` has made; FileNotFoundError when there is none."""
        self.jwks_file = folder / "jwks.json"
        self._key = _load_key(folder / "signing-key.pem")
        self._public_jwk = _public_jwk(self._key)

    @classmethod
    def create(cls, folder: Path) -> Self:
        """The identity in `folder`, made there at the first call."""
        folder.mkdir(parents=True, exist_ok=True)
        key_file = folder / "signing-key.pem"
        if not key_file.exists():
            write_private(key_file, _new_key())
        identity = cls(folder)
        _replace(identity.jwks_file, json.dumps({"keys": [identity._public_jwk]}, indent=2).encode(), 0o644)
        return identity

    def mint_token(self, role: str, sub: str | None = None, /, **claims: Any) -> str:  # noqa: ANN401 - a claim is any JSON
        """A signed JWT for 8 hours, for a random caller unless `sub` names one.

        Further claims are added or take the place of the usual ones, `role` and `sub` too; one that is None is left
        out.
        """
        now = int(time.time())
        usual = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": sub or str(uuid.uuid4()),
            "iat": now,
            "exp": now + LIFETIME_SECONDS,
            "role": role,
        }
        payload = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        # jwt.encode wants well-formed claims; a test of the server's defences does not.
        return jwt.PyJWS().encode(
            json.dumps(payload).encode(), self._key, "ES256", {"typ": "JWT", "kid": self._public_jwk["kid"]}
        )


def secret(file: Path) -> str:
    """The random secret (43 characters) in a file that only its owner can read, made at the first call."""
    if not file.exists():
        write_private(file, urlsafe_b64encode(os.urandom(32)).rstrip(b"="))
    return file.read_text()


def write_private(file: Path, content: bytes, mode: int = 0o600) -> None:
    """Writes a file, whole or not at all, that only its owner can read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    _replace(file, content, mode)


def hide_from_git(folder: Path) -> None:
    """Keep the folder, made where it is missing, out of the sight of a checkout around it: it holds signing keys.

    One that has rules of its own keeps them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rules = folder / ".gitignore"
    if not rules.exists():
        rules.write_text("*\n")


def check_caller(role: str, sub: str | None) -> None:
    """StackError unless a token for this caller would be one that the service knows what to do with."""
    if role not in ROLES:
        raise StackError(f"ROLE is {role!r}; it must be one of {', '.join(ROLES)}")
    try:
        uuid.UUID(sub or str(uuid.uuid4()))
    except ValueError:
        raise StackError(f"SUB is {sub!r}; it must be a UUID") from None


def _replace(file: Path, content: bytes, mode: int) -> None:
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
        out.write(content)
    unfinished.replace(file)


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StackError(f"{file} holds no elliptic-curve key; remove it, and the next start makes a new one")
    return key


def _public_jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    point = key.public_key().public_numbers()
    required = {"crv": "P-256", "kty": "EC", "x": _base64(point.x.to_bytes(32)), "y": _base64(point.y.to_bytes(32))}
    # RFC 7638: the hash of the required members, sorted, without blanks.
    thumbprint = hashlib.sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode()).digest()
    return {**required, "kid": _base64(thumbprint), "alg": "ES256", "use": "sig"}


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
