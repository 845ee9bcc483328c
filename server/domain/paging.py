"""Page tokens: where a page ended, sealed so that only the same caller can go on with the same list.

A token is the position in JSON with a keyed hash over it and over the scope (call, caller, filters). It hides nothing
and grants nothing; the seal makes a token of other filters, of another caller, or a tampered one, recognisable.
"""

import base64
import binascii
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

SEAL_BYTES = 16
# Made once: `json.dumps` makes one each time where it is told how to separate.
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_START_TIME = datetime.min.replace(tzinfo=UTC)
_END_TIME = datetime.max.replace(tzinfo=UTC)


class Position(NamedTuple):
    """The sort key of a page's last row: its time, its id, and a triage rank or a history number where those count."""

    created_at: datetime
    id: UUID
    number: int = 0


# Where a list begins: before everything going forward, after everything going backward.
FIRST = Position(_START_TIME, UUID(int=0), -1)
LAST = Position(_END_TIME, UUID(int=2**128 - 1))


class PageTokens:
    """Seals and opens page tokens with one secret key, the same in every worker."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal(self, scope: str, position: Position) -> str:
        """The opaque token for the page after `position`."""
        body = _ENCODER.encode([position.created_at.isoformat(), position.id.hex, position.number]).encode()
        return _encode(self._hash(scope, body) + body)

    def open(self, scope: str, token: str) -> Position | None:
        """The position in `token`, or None where this scope did not make it."""
        raw = _decode(token)
        seal, body = raw[:SEAL_BYTES], raw[SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._hash(scope, body)):
            return None
        created_at, hexadecimal, number = json.loads(body)
        return Position(datetime.fromisoformat(created_at), UUID(hex=hexadecimal), number)

    def _hash(self, scope: str, body: bytes) -> bytes:
        message = scope.encode() + b"\0" + body
        return hmac.digest(self._key, message, hashlib.sha256)[:SEAL_BYTES]


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(token: str) -> bytes:
    """The bytes of a token as `_encode` writes it; none for any other spelling, of which base64 forgives many."""
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (ValueError, binascii.Error):
        return b""
    return raw if _encode(raw) == token else b""
