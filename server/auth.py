"""From a token to a caller: the only identity that the service believes (contract, section 1)."""

import asyncio
import json
import logging
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt

from server.domain.callers import Caller, Role
from server.domain.validation import parse_uuid
from server.errors import InvalidToken

# The seconds between two looks at the key source: a new key works well within the two minutes that are promised.
REFRESH_SECONDS = 30.0
FETCH_TIMEOUT_SECONDS = 5.0
LARGEST_KEY_SET = 1_000_000

_log = logging.getLogger("nibble.auth")
_SCHEME = "bearer "

_ALGORITHM_OF: dict[tuple[str, str | None], str] = {
    ("EC", "P-256"): "ES256",
    ("RSA", None): "RS256",
    ("OKP", "Ed25519"): "EdDSA",
}

KeySource = Callable[[], bytes]


def keys_in_file(path: Path) -> KeySource:
    """A JSON Web Key Set in a file, read anew at each refresh."""
    return path.read_bytes


def keys_at_url(url: str) -> KeySource:
    """A JSON Web Key Set behind an http or https URL."""

    def fetch() -> bytes:
        try:
            with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_SECONDS) as answer:  # noqa: S310
                body: bytes = answer.read(LARGEST_KEY_SET)
                return body
        except HTTPException as error:
            raise OSError(f"{url} does not speak HTTP as it should: {error!r}") from error

    return fetch


class KeySet:
    """The public keys that sign tokens, by `kid`; the last good set is kept while its source is down or broken."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._keys: Mapping[str, jwt.PyJWK] = {}

    def refresh(self) -> None:
        """Read the source once.

        Raises:
            OSError: the source can't be read.
            ValueError: what it holds is not a key set with at least one usable key.
        """
        self._keys = _parse(self._source())

    def find(self, kid: object) -> jwt.PyJWK | None:
        """The key with this id, or None."""
        return self._keys.get(kid) if isinstance(kid, str) else None

    async def keep_fresh(self) -> None:
        """Refresh for ever, in the background; failures are logged and change nothing."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await asyncio.to_thread(self.refresh)
            except Exception as error:  # noqa: BLE001 - a refresh that ended here would never see a new key
                _log.warning("the signing keys could not be refreshed; the last good ones stay: %r", error)


def _parse(document: bytes) -> dict[str, jwt.PyJWK]:
    """The usable keys of a set. Raises ValueError where there is none."""
    try:
        found = list(json.loads(document)["keys"])
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"not a JSON Web Key Set: {error!r}") from error
    keys = {kid: key for kid, key in map(_key, found) if key is not None}
    if not keys:
        raise ValueError("the key set holds no key with a kid that signs by ES256, RS256 or EdDSA")
    return keys


def _key(entry: Any) -> tuple[str, jwt.PyJWK | None]:  # noqa: ANN401 - whatever JSON holds
    """One key of a set by its name; None where it has none, or is not for signing in one of the three ways.

    Keys for other uses may stand beside, and one odd entry must not spoil the others.
    """
    match entry:
        case {"kid": str(kid), "kty": str(kind)}:
            algorithm = _ALGORITHM_OF.get((kind, _text(entry.get("crv"))))
            fits = entry.get("alg", algorithm) == algorithm and entry.get("use", "sig") == "sig"
            return kid, _parsed(entry) if algorithm and fits else None
        case _:
            return "", None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _parsed(entry: Mapping[str, Any]) -> jwt.PyJWK | None:
    try:
        return jwt.PyJWK(dict(entry))
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        _log.warning("a key of the key set is passed over: %r", error)
        return None


class TokenVerifier:
    """Turns the `authorization` entry of a call into its caller."""

    def __init__(self, keys: KeySet, issuer: str, audience: str, leeway: float) -> None:
        """Args: leeway: the clock difference, in seconds, that is forgiven; the same as the gateway's."""
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway

    def verify(self, authorization: str | bytes | None) -> Caller:
        """The caller that the token names.

        Raises:
            InvalidToken: there is no bearer token, or it is not one to believe.
        """
        token = _bearer(authorization)
        try:
            claims = self._claims(token)
            return Caller(_subject(claims["sub"]), Role(claims["role"]))
        except jwt.ExpiredSignatureError:
            raise InvalidToken("the token has expired") from None
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, AttributeError) as error:
            # What exactly was wrong is for the log: an attacker learns nothing from the answer.
            _log.debug("a token was refused: %s", error)
            raise InvalidToken("the token is not valid here") from None

    def _claims(self, token: str) -> dict[str, Any]:
        key = self._keys.find(jwt.get_unverified_header(token).get("kid"))
        if key is None:
            raise jwt.InvalidKeyError("no key with this kid")
        return jwt.decode(
            token,
            key,
            algorithms=["ES256", "RS256", "EdDSA"],
            issuer=self._issuer,
            audience=self._audience,
            leeway=self._leeway,
            options={"require": ["iss", "aud", "sub", "exp", "iat"]},
        )


def _subject(sub: str) -> UUID:
    caller = parse_uuid(sub)
    if caller is None:
        raise ValueError("sub is not a UUID")
    return caller


def _bearer(authorization: str | bytes | None) -> str:
    if not isinstance(authorization, str) or not authorization[: len(_SCHEME)].lower() == _SCHEME:
        raise InvalidToken("a bearer token is needed in the authorization header")
    return authorization[len(_SCHEME) :].strip()
