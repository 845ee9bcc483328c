"""Retries that create nothing twice (contract, section 4, "Retries")."""

import hashlib
import json
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from server.db import statements
from server.domain.callers import Caller
from server.errors import IdempotencyKeyReused
from server.usecases.collaborators import Collaborators
from server.usecases.sweeping import TimeLeft, in_batches

KEYS_AT_ONCE = 1_000


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


async def forget_expired_keys(on: Collaborators, now: datetime, time_left: TimeLeft) -> int:
    """Sweep: delete keys that have expired, which changes nothing for callers; returns how many."""
    values = {"expired_before": now - on.idempotency_key_ttl, "limit": KEYS_AT_ONCE}

    async def batch() -> int:
        return await on.db.fetch_one(statements.FORGET_EXPIRED_KEYS, values, itemgetter(0)) or 0

    return await in_batches(batch, KEYS_AT_ONCE, time_left)


async def oldest_expired_key(on: Collaborators, now: datetime) -> datetime | None:
    """Since when the first of the keys that are still there has been expired; None where none is."""
    values = {"expired_before": now - on.idempotency_key_ttl}
    oldest: datetime | None = await on.db.fetch_one(statements.OLDEST_EXPIRED_KEY, values, itemgetter(0))
    return oldest + on.idempotency_key_ttl if oldest else None
