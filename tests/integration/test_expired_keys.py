"""Expired idempotency keys are deleted by whoever sweeps, each once, and never one that somebody is renewing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from server.db import statements
from server.db.database import PoolLimits
from server.domain.callers import Caller
from server.usecases import idempotency
from server.usecases.idempotency import forget_expired_keys, oldest_expired_key
from tests.integration.test_query_plans import PAGE, nodes, plan_of, rows_read
from tests.integration.vocabulary import KEY_TTL, START, Desk, as_customer, counts, open_ticket, query

SWEEPERS = 8
OLD = START - KEY_TTL - timedelta(seconds=1)
EXACTLY = START - KEY_TTL
CLAIMED = b"""
    INSERT INTO admin_service.idempotency_keys
    SELECT gen_random_uuid(), 'CreateTicket', n::text, '\\x00', gen_random_uuid(), %s - n * interval '1 second'
    FROM generate_series(0, %s - 1) n
"""
RENEWED = b"UPDATE admin_service.idempotency_keys SET created_at = %s WHERE key = '0'"


async def put_keys(desk: Desk, count: int, newest: datetime = OLD) -> None:
    """So many keys, each a second older than the one before; the first one's text is `0`."""
    async with await psycopg.AsyncConnection.connect(desk.dsn, autocommit=True) as connection:
        await connection.execute(CLAIMED, [newest, count])


async def keys_left(desk: Desk) -> int:
    return (await counts(desk))["idempotency_keys"]


def plenty() -> float:
    return 60.0


async def sweep(desk: Desk) -> int:
    """A round with plenty of time."""
    return await forget_expired_keys(desk.on, desk.clock(), plenty)


@asynccontextmanager
async def elsewhere(desk: Desk) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A transaction of somebody else's, which ends with the block."""
    async with await psycopg.AsyncConnection.connect(desk.dsn) as connection:
        yield connection


async def test_a_key_is_deleted_when_no_caller_could_use_it_any_more_and_not_a_moment_sooner(desk: Desk) -> None:
    caller = as_customer()
    first = await open_ticket(desk, caller, key="k")
    desk.clock.pass_by(KEY_TTL)
    assert await sweep(desk) == 0
    assert await open_ticket(desk, caller, key="k") == first
    desk.clock.pass_by(timedelta(microseconds=1))
    assert await sweep(desk) == 1
    second = await open_ticket(desk, caller, key="k")
    assert second.id != first.id
    assert await open_ticket(desk, caller, key="k") == second


async def test_the_oldest_go_first_batch_by_batch_until_no_time_is_left(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "KEYS_AT_ONCE", 10)
    await put_keys(desk, 35)
    looks = iter([1.0, 0.0])
    assert await forget_expired_keys(desk.on, START, lambda: next(looks)) == 20
    left = await query(desk, "SELECT key::int FROM admin_service.idempotency_keys ORDER BY 1")
    assert [row["key"] for row in left] == list(range(15))
    assert await sweep(desk) == 15


async def test_the_oldest_due_key_is_told_by_when_it_expired(desk: Desk) -> None:
    assert await oldest_expired_key(desk.on, START) is None
    await put_keys(desk, 1, newest=EXACTLY)
    assert await oldest_expired_key(desk.on, START) is None
    await put_keys(desk, 5)
    assert await oldest_expired_key(desk.on, START) == OLD - timedelta(seconds=4) + KEY_TTL


@pytest.mark.parametrize(("statement", "most"), [("FORGET_EXPIRED_KEYS", 2 * PAGE), ("OLDEST_EXPIRED_KEY", 1)])
async def test_expired_keys_are_found_by_their_age(desk: Desk, statement: str, most: int) -> None:
    await put_keys(desk, 10_000, newest=START)
    values = {"expired_before": START - timedelta(seconds=5_000), "limit": PAGE}
    with psycopg.connect(desk.dsn, autocommit=True) as connection:
        connection.execute(b"VACUUM ANALYZE admin_service.idempotency_keys")
        connection.execute(b"SET plan_cache_mode = force_generic_plan")
        plan = plan_of(connection, getattr(statements, statement), values)
    assert "idempotency_keys_by_age" in {node.get("Index Name") for node in nodes(plan)}
    assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan)}
    assert rows_read(plan) <= most, plan


async def test_eight_sweepers_at_once_delete_each_key_once(desk: Desk) -> None:
    expired, kept = 20_000, 500
    await put_keys(desk, expired)
    await put_keys(desk, kept, newest=START)
    async with AsyncExitStack() as stack:
        desks = [await stack.enter_async_context(Desk.at(desk.dsn, PoolLimits(size=2))) for _ in range(SWEEPERS)]
        # One that finds all that is left in the hands of others has done its part.
        shares = await asyncio.gather(*map(sweep, desks))
    assert sum(shares) == expired - await keys_left(desk) + kept
    assert sum(share > 0 for share in shares) > 1, shares
    assert sum(shares) + await sweep(desk) == expired
    assert await keys_left(desk) == kept


async def test_a_key_that_is_being_renewed_is_passed_over_and_nobody_waits(desk: Desk) -> None:
    await put_keys(desk, 3)
    async with elsewhere(desk) as caller:
        await caller.execute(RENEWED, [START])
        assert await sweep(desk) == 2
    assert await keys_left(desk) == 1
    assert await sweep(desk) == 0


async def test_callers_who_renew_expired_keys_amid_eight_sweepers_get_one_ticket_each(desk: Desk) -> None:
    callers, rounds, longest = [as_customer() for _ in range(20)], 15, 0.01
    gone = 0

    async def twice(caller: Caller, pause: float) -> bool:
        await asyncio.sleep(pause)
        first = await open_ticket(desk, caller, key="k")
        return await open_ticket(desk, caller, key="k") == first

    async def sweep_after(pause: float) -> int:
        await asyncio.sleep(pause)
        return await forget_expired_keys(sweepers.on, desk.clock(), plenty)

    async with Desk.at(desk.dsn, PoolLimits(size=SWEEPERS)) as sweepers:
        for _ in range(rounds):
            # Everybody's keys have expired; some are deleted before they are renewed, some are not.
            desk.clock.pass_by(KEY_TTL + timedelta(seconds=1))
            sweeping = [asyncio.create_task(sweep_after(longest * n / SWEEPERS)) for n in range(SWEEPERS)]
            answers = (twice(caller, longest * n / len(callers)) for n, caller in enumerate(callers))
            assert all(await asyncio.gather(*answers))
            gone += sum(await asyncio.gather(*sweeping))
    assert 0 < gone < rounds * len(callers)
    assert await keys_left(desk) == len(callers)
    assert (await counts(desk))["support_tickets"] == rounds * len(callers)
