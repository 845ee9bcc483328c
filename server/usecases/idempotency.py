"""Retries that create nothing twice (contract, section 4, "Retries")."""

import hashlib
import json
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from server.db import statements
from server.domain.callers import Caller
from server.errors import IdempotencyKeyReused
from server.usecases.collaborators import Collaborators


class Claim(NamedTuple):
    """A caller's key for one call, and the hash of what it was sent with."""

    call: str
    key: str
    payload_hash: bytes


class _Earlier(NamedTuple):
    payload_hash: bytes
    resource_id: UUID


def claim(call: str, key: str | None, *payload: object) -> Claim | None:
    """The claim of `key` on `payload` as it will be stored, or None where the caller sent no key."""
    if key is None:
        return None
    text = json.dumps(payload, default=str, ensure_ascii=False)
    return Claim(call, key, hashlib.sha256(text.encode()).digest())


def claim_values(on: Collaborators, claimed: Claim, now: datetime) -> dict[str, object]:
    """The parameters that take the key in the statement of the change."""
    return {**claimed._asdict(), "expired_before": now - on.idempotency_key_ttl}


async def find_earlier(on: Collaborators, caller: Caller, claimed: Claim | None, now: datetime) -> UUID | None:
    """The id of what this claim created before, or None where its key is new or has expired.

    Raises:
        IdempotencyKeyReused: the key came before with another payload.
    """
    if claimed is None:
        return None
    values = {"actor_id": caller.id, **claim_values(on, claimed, now)}
    found = await on.db.fetch_one(statements.FIND_KEY, values, _Earlier._make)
    if found is None:
        return None
    if found.payload_hash != claimed.payload_hash:
        raise IdempotencyKeyReused
    return found.resource_id
