"""The token of a call: whether it is one to believe, and whom it names."""

import hashlib
import json
import logging
import math
import re
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

import jwt

from server.auth.keys import KeySet
from server.domain.callers import Caller, Role
from server.domain.validation import parse_uuid
from server.errors import InvalidToken, NoSigningKeys

MOST_REMEMBERED = 4_096
"""How many tokens are remembered as good; each takes some 450 bytes."""

LONGEST_AUTHORIZATION = 8_192
"""Characters. A token of Nibble's has under a thousand; one that is longer is nobody's."""

LATEST_TIME = 2.0**53
"""Seconds since 1970, before which a claim must lie: from here on a double, as the gateway reads it, skips seconds."""

DEEPEST_JSON = 32
"""How deep the claims may nest; the gateway takes 100 levels."""

_log = logging.getLogger("nibble.auth")

# Three spellings of the scheme, as in envoy.yaml: there each is a rule of its own. Blanks around the value of a header
# are no part of it (RFC 9110, 5.5); HTTP/1.1 loses them on the way, gRPC does not.
_BEARER = re.compile(r"[ \t]*(?:Bearer|bearer|BEARER) +([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)[ \t]*")
_SIGNATURES = jwt.PyJWS()


class _Believed(NamedTuple):
    caller: Caller
    until: float
    """Seconds since 1970: the token's end, leeway included."""


class TokenVerifier:
    """Turns the `authorization` entry of a call into its caller.

    It is at least as strict as the gateway wherever the two read a token differently, so that one token has one
    verdict, whichever way it comes in.
    """

    def __init__(
        self, keys: KeySet, issuer: str, audience: str, leeway: float, now: Callable[[], float] = time.time
    ) -> None:
        """Args:
        leeway: the clock difference, in seconds, that is forgiven; the same as the gateway's.
        now: seconds since 1970.
        """
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._now = now
        self._remembered: OrderedDict[bytes, _Believed] = OrderedDict()
        """Tokens found good, by their SHA-256: what is kept is small, and no one's token."""
        # A key that left the set signs nothing any more, whoever was believed before.
        keys.on_change(self._remembered.clear)

    async def verify(self, authorization: str | bytes | None) -> Caller:
        """The caller that the token names. Waits only where the key is not known, and then for a look at its source.

        Raises:
            InvalidToken: there is no bearer token, or it is not one to believe.
            NoSigningKeys: nobody can tell yet.
        """
        if not isinstance(authorization, str) or len(authorization) > LONGEST_AUTHORIZATION:
            raise _no_bearer()
        digest = hashlib.sha256(authorization.encode(errors="surrogatepass")).digest()
        remembered = self._remembered.get(digest)
        if remembered is not None and self._now() < remembered.until:
            return remembered.caller
        believed = await self._judged(authorization)
        self._remember(digest, believed)
        return believed.caller

    def _remember(self, digest: bytes, believed: _Believed) -> None:
        self._remembered[digest] = believed
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    async def _judged(self, authorization: str) -> _Believed:
        token = _BEARER.fullmatch(authorization)
        if token is None:
            raise _no_bearer()
        try:
            header, claims = _json(token[1]), _json(token[2])
            await self._check_signature(token, header)
            return self._believed(claims)
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, RecursionError) as error:
            # What exactly was wrong is for the log: an attacker learns nothing from the answer.
            _log.debug("a token was refused: %s: %s", type(error).__name__, error)
            raise InvalidToken("the token is not valid here") from None

    async def _check_signature(self, token: re.Match[str], header: dict[str, Any]) -> None:
        match header:
            case {"kid": str(kid), "alg": "ES256" | "RS256" | "EdDSA" as algorithm}:
                key = await self._keys.find(kid, algorithm)
            case _:
                raise ValueError("no kid, or an algorithm beside the three")
        if key is None and self._keys.is_empty:
            raise NoSigningKeys
        if key is None:
            raise ValueError("no key with this kid and algorithm")
        signed = f"{token[1]}.{token[2]}.{token[3]}"
        _SIGNATURES.decode(signed, key, algorithms=["ES256", "RS256", "EdDSA"])

    def _believed(self, claims: dict[str, Any]) -> _Believed:
        """What well-signed claims come to. Raises KeyError, TypeError or ValueError when they are not right."""
        self._check_parties(claims)
        caller = Caller(_subject(claims["sub"]), Role(claims["role"]))
        now, until = self._now(), _time(claims["exp"]) + self._leeway
        if max(_time(claims["iat"]), _time(claims.get("nbf", 0.0))) > now + self._leeway:
            raise ValueError("not valid yet")
        if now >= until:
            raise InvalidToken("the token has expired")
        return _Believed(caller, until)

    def _check_parties(self, claims: dict[str, Any]) -> None:
        audiences = [claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"]
        if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
            raise TypeError("aud is neither a text nor a list of texts")
        if claims["iss"] != self._issuer or self._audience not in audiences:
            raise ValueError("made by or for somebody else")
        if not isinstance(claims.get("jti", ""), str):
            raise TypeError("jti is no text")


def _no_bearer() -> InvalidToken:
    return InvalidToken("a bearer token is needed in the authorization header")


def _subject(sub: str) -> UUID:
    caller = parse_uuid(sub)
    # The nil UUID is how the history names the service itself.
    if caller is None or not caller.int:
        raise ValueError("sub is not a caller's UUID")
    return caller


def _time(claim: object) -> float:
    if not isinstance(claim, float) or not 0 <= claim < LATEST_TIME:
        raise ValueError("a time is no number of seconds since 1970")
    return claim


def _json(part: str) -> dict[str, Any]:
    """The object in a part of a token, with every number as a float.

    Only what every reader of JSON understands alike (RFC 7493): UTF-8, each name once, finite numbers, whole
    characters. Raises ValueError or TypeError for anything else.
    """
    text = urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode("utf-8")
    found = json.loads(
        text, parse_int=_number, parse_float=_number, parse_constant=_number, object_pairs_hook=_with_names_once
    )
    if not isinstance(found, dict) or _depth(found) > DEEPEST_JSON:
        raise TypeError("no object, or one without end")
    json.dumps(found, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no character
    return found


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number without end")
    return number


def _with_names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name comes twice")
    return members


def _depth(value: Any) -> int:  # noqa: ANN401 - whatever JSON holds
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)
