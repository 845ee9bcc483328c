"""PostgreSQL that keeps its connections and answers nothing: calls end in time, and the pool gets over it."""

import asyncio
import time
from collections.abc import Callable

import psutil
import pytest

from devstack.stack import Stack
from server.db.database import CANCEL_SECONDS, PoolLimits
from server.db.statement import SHARED
from server.errors import DependencyUnavailable, Overloaded
from tests.frozen import frozen, whole
from tests.integration.vocabulary import Desk, as_agent, events_of, look_at, move, open_ticket, query, until

DEADLINE = 0.4
# What a busy machine may add. Without a bound it would be ten seconds.
SLACK = 2.0
SIZE = 3
# Beside as many connections for changes, each on its own, the two that reads and writes share.
LIMITS = PoolLimits(size=SIZE + len(SHARED), timeout=0.3)

Choice = Callable[[psutil.Process, str], list[psutil.Process]]


def whole_server(postmaster: psutil.Process, _database: str) -> list[psutil.Process]:
    """Nobody is there to take a request to cancel."""
    return whole(postmaster)


def its_sessions(postmaster: psutil.Process, database: str) -> list[psutil.Process]:
    """The request to cancel is taken, and not followed."""
    return [child for child in postmaster.children() if f" {database} " in " ".join(child.cmdline())]


def chosen(stack: Stack, desk: Desk, choose: Choice) -> list[psutil.Process]:
    postmaster = psutil.Process(stack.part("postgres").pid)
    return choose(postmaster, desk.dsn.split("/")[3].split("?")[0])


async def until_all_serve(desk: Desk) -> None:
    """Wait until the pool has all its connections again, each at work."""

    async def all_serve() -> bool:
        calls = (open_ticket(desk) for _ in range(4 * SIZE))
        failures = [a for a in await asyncio.gather(*calls, return_exceptions=True) if isinstance(a, BaseException)]
        assert all(isinstance(failure, (DependencyUnavailable, Overloaded)) for failure in failures), failures
        return not failures

    await until(all_serve)


async def until_idle(desk: Desk) -> None:
    """Wait until every session of the pool is idle and out of a transaction, and there are not too many."""

    async def idle() -> bool:
        sessions = (
            "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        rows = await query(desk, sessions)
        return {row["state"] for row in rows} == {"idle"} and len(rows) <= LIMITS.size

    await until(idle)


@pytest.mark.parametrize("choose", [whole_server, its_sessions])
async def test_calls_end_soon_after_their_deadline_and_the_pool_gets_over_it(
    own_dsn: str, stack: Stack, choose: Choice
) -> None:
    async with Desk.at(own_dsn, LIMITS) as desk:
        tickets = await asyncio.gather(*(open_ticket(desk) for _ in range(SIZE)))
        with frozen(chosen(stack, desk, choose)):
            began = time.monotonic()

            async def change(number: int) -> None:
                async with asyncio.timeout(DEADLINE):
                    await move(desk, tickets[number], "resolved", as_agent())

            calls = (change(number) for number in range(SIZE))
            answers = await asyncio.gather(*calls, return_exceptions=True)
            took = time.monotonic() - began
        assert [type(answer) for answer in answers] == [TimeoutError] * SIZE
        assert DEADLINE <= took < DEADLINE + CANCEL_SECONDS + SLACK

        await until_all_serve(desk)
        await until_idle(desk)
        # What was given up has taken place or has not, but never by half.
        moved = [(await look_at(desk, ticket)).version == 2 for ticket in tickets]
        for ticket, has_moved in zip(tickets, moved, strict=True):
            assert len(await events_of(desk, ticket)) == (3 if has_moved else 1)


async def test_a_cancelled_call_on_a_frozen_server_is_a_cancelled_call(own_dsn: str, stack: Stack) -> None:
    async with Desk.at(own_dsn, PoolLimits(size=1, timeout=0.3)) as desk:
        ticket = await open_ticket(desk)
        with frozen(chosen(stack, desk, whole_server)):
            call = asyncio.create_task(look_at(desk, ticket))
            # It has sent its statement, and so gets the cancellation while it waits for the result.
            done, _ = await asyncio.wait([call], timeout=0.2)
            assert not done
            call.cancel()
            done, _ = await asyncio.wait([call], timeout=CANCEL_SECONDS + SLACK)
            assert done
            assert call.cancelled()
        await until_all_serve(desk)
        assert await look_at(desk, ticket) == ticket


async def test_closing_does_not_wait_for_a_frozen_server(own_dsn: str, stack: Stack) -> None:
    async with Desk.at(own_dsn, LIMITS) as desk:
        await asyncio.gather(*(open_ticket(desk) for _ in range(SIZE)))
        with frozen(chosen(stack, desk, whole_server)):
            began = time.monotonic()
            await desk.db.close()
            assert time.monotonic() - began < SLACK
